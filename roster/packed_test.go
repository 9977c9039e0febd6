package roster

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"testing"

	"github.com/klauspost/compress/s2"
)

// A roster is the same whether it is packed or not, and what is appended to stays
// in front of it.
func TestPackedRosterIsTheSame(t *testing.T) {
	r, packed := contacts(t, many(100)...), contacts(t, many(100)...)
	packed.Pack()
	if b := packed.body.Load(); b.xml != nil || packed.MemorySize() != len(b.packed) || packed.MemorySize() == 0 {
		t.Fatalf("%d bytes unpacked, %d packed, size %d", len(b.xml), len(b.packed), packed.MemorySize())
	}
	if packed.Size() != r.Size() || packed.Len() != r.Len() || packed.Version() != r.Version() || !packed.Equal(r) || !r.Equal(packed) {
		t.Error("it is another one")
	}
	for _, b := range []string{"", "before"} {
		if got := string(packed.AppendXML([]byte(b))); got != b+string(r.XML()) {
			t.Errorf("got %s", got)
		}
	}
	if x, rest := packed.Split(500); string(x)+string(New(rest).XML()) != string(r.XML()) {
		t.Error("it splits otherwise")
	}
	short := contacts(t, "romeo@example.org Romeo")
	if short.Pack(); short.body.Load().packed != nil || short.Size() != short.MemorySize() {
		t.Error("a short one is packed")
	}
}

// many are n contacts.
func many(n int) (lines []string) {
	for i := range n {
		lines = append(lines, fmt.Sprintf("c%02d@example.org c", i))
	}
	return lines
}

// A roster that is damaged is none: neither an empty one nor half of it, and it
// takes no memory that it only claims to need.
func TestDamagedRoster(t *testing.T) {
	kept := func(kind byte, body []byte) []byte { return append([]byte{kind}, body...) }
	r := contacts(t, many(100)...)
	xml := r.XML()
	packed := s2.Encode(nil, xml)
	for _, b := range [][]byte{kept(isPlain, xml), kept(isPacked, packed), r.Packed()} {
		if got, err := Unpack(b, 100, r.Version()); err != nil || !got.Equal(r) || got.Len() != 100 || got.Version() != r.Version() {
			t.Fatalf("a whole one: %v, %v", got, err)
		}
	}
	for name, of := range map[string]struct {
		n    int
		data []byte
	}{
		"too many items":       {101, kept(isPlain, xml)},
		"very many items":      {1 << 62, kept(isPlain, xml)},
		"too few items":        {99, kept(isPacked, packed)},
		"no items":             {0, kept(isPacked, packed)},
		"packed, and cut":      {100, kept(isPacked, packed[:len(packed)/2])},
		"packed, and none":     {0, kept(isPacked, nil)},
		"packed, and broken":   {0, kept(isPacked, append(binary.AppendUvarint(nil, 1000), 0xFF, 0xFF))},
		"packed nothing":       {100, kept(isPacked, s2.Encode(nil, nil))},
		"not packed, they say": {100, kept(isPlain, packed)},
		"packed, they say":     {100, kept(isPacked, xml)},
		"of gigabytes":         {100, kept(isPacked, append(binary.AppendUvarint(nil, maxUnpacked+1), packed...))},
		"another kind":         {100, kept(2, packed)},
		"nothing at all":       {0, nil},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, err := Unpack(of.data, of.n, r.Version())
		runtime.ReadMemStats(&after)
		if got != nil || err == nil {
			t.Errorf("%s: %d items, %v", name, got.Len(), err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 10<<20 {
			t.Errorf("%s: took %d bytes", name, took)
		}
	}
	if b := r.Packed(); len(b) > len(xml)/2 {
		t.Error("it is not packed as it is kept")
	}
}
