package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// contacts are n items that compress as people's do.
func contacts(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 2))
	first := []string{"Juliet", "Romeo", "Mercutio", "Benvolio", "Tybalt", "Rosaline", "Paris", "Nurse"}
	last := []string{"Capulet", "Montague", "Escalus", "Laurence"}
	groups := []string{"Friends", "Family", "Work", "Verona"}
	var b bytes.Buffer
	for range n {
		fmt.Fprintf(&b, "<item jid='user%d@example.org' name='%s %s' subscription='both'><group>%s</group></item>",
			r.IntN(100000), first[r.IntN(8)], last[r.IntN(4)], groups[r.IntN(4)])
	}
	return b.Bytes()
}

func TestValue(t *testing.T) {
	c := newCodec()
	k := id{Users, "juliet@example.org"}
	for _, record := range [][]byte{{}, {0}, []byte("short"), contacts(1, 200), noise(1, 10000), bytes.Repeat([]byte{'a'}, 5<<20)} {
		value := c.encode(k, record, 7)
		got, err := c.decode(k, value)
		if err != nil || got == nil || !bytes.Equal(got, record) {
			t.Errorf("record of %d bytes: %d bytes, %v", len(record), len(got), err)
		}
		if n := valueSequence(k, value); n != 7 {
			t.Errorf("sequence %d", n)
		}
		if len(value) > len(record)+headerSize {
			t.Errorf("%d bytes have become %d", len(record), len(value))
		}
		for _, other := range []id{{Sessions, k.key}, {Users, "romeo@example.org"}, {Users, ""}} {
			if _, err := c.decode(other, value); !errors.Is(err, errValue) {
				t.Errorf("the value of another key: %v", err)
			}
		}
	}
	if size := len(c.encode(k, contacts(1, 200), 1)); size > 2500 {
		t.Errorf("200 contacts take %d bytes", size)
	}
}

func TestDamagedValue(t *testing.T) {
	c := newCodec()
	k := id{Users, "k"}
	for _, record := range [][]byte{[]byte("short"), contacts(1, 20)} {
		value := c.encode(k, record, 7)
		for bit := range len(value) * 8 {
			data := slices.Clone(value)
			data[bit/8] ^= 1 << (bit % 8)
			if _, err := c.decode(k, data); !errors.Is(err, errValue) {
				t.Fatalf("bit %d: %v", bit, err)
			}
		}
		for n := range value {
			if _, err := c.decode(k, value[:n]); !errors.Is(err, errValue) {
				t.Fatalf("%d bytes: %v", n, err)
			}
		}
	}
	value := c.encode(k, []byte("short"), 7)
	value[0] = 99
	seal(k, value, 7)
	if _, err := c.decode(k, value); !errors.Is(err, errValue) || !strings.Contains(err.Error(), "99") {
		t.Errorf("an unknown form: %v", err)
	}
}

func FuzzValue(f *testing.F) {
	c := newCodec()
	k := id{Users, "k"}
	f.Add(c.encode(k, nil, 1), false)
	f.Add(c.encode(k, contacts(1, 20), 1), true)
	f.Add(c.encode(k, noise(1, 300), 1<<63), true)
	f.Fuzz(func(t *testing.T, data []byte, sealed bool) {
		if sealed && len(data) >= headerSize && len(data) < 1<<10 {
			data = slices.Clone(data)
			seal(k, data, 1) // else hardly anything gets through to be decompressed
		}
		record, err := c.decode(k, data)
		if err != nil {
			if record != nil {
				t.Error("a record beside an error")
			}
			return
		}
		again, err := c.decode(k, c.encode(k, record, 1))
		if err != nil || !bytes.Equal(again, record) {
			t.Errorf("%d bytes became %d, %v", len(record), len(again), err)
		}
	})
}
