package roster

import (
	"encoding/binary"
	"runtime"
	"testing"

	"github.com/klauspost/compress/s2"
)

// A roster is the same whether it is packed or not, and what is appended to stays
// in front of it.
func TestPackedRosterIsTheSame(t *testing.T) {
	r, packed := contacts(t, many(100)...), contacts(t, many(100)...)
	packed.pack()
	if b := packed.body.Load(); b.xml != nil || packed.size() != len(b.packed) || packed.size() == 0 {
		t.Fatalf("%d bytes unpacked, %d packed, size %d", len(b.xml), len(b.packed), packed.size())
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
	packed.unpack()
	if b := packed.body.Load(); string(b.xml) != string(r.XML()) || packed.size() != len(b.xml)+len(b.packed) {
		t.Error("it is unpacked otherwise")
	}
	short := contacts(t, "romeo@example.org Romeo")
	if short.pack(); short.body.Load().packed != nil || short.Size() != short.size() {
		t.Error("a short one is packed")
	}
}

// What is kept at hand of who has nothing to do is packed.
func TestWhoRestsIsPacked(t *testing.T) {
	inWorld(t, Limits{Cache: 1 << 20}, func(t *testing.T, w *world) {
		w.backend.set("juliet", many(100)...)
		for range 2 {
			w.ask("a")
			w.took()
			w.refreshJuliet()
			w.took()
			u := w.Manager.users[mustJID(t, "juliet@example.org")]
			if b := u.last.body.Load(); b.xml != nil || w.cache.size != overhead+len(b.packed) {
				t.Errorf("%d bytes unpacked, %d counted", len(b.xml), w.cache.size)
			}
		}
	})
}

// A roster that is damaged is none: neither an empty one nor half of it, and it
// takes no memory that it only claims to need.
func TestDamagedRoster(t *testing.T) {
	record := func(n int, isPacked byte, body []byte) []byte {
		b := append(binary.AppendUvarint([]byte{recordFormat}, uint64(n)), isPacked)
		return appendText(append(binary.AppendUvarint(b, uint64(len(body))), body...), "")
	}
	r := contacts(t, many(100)...)
	xml := r.XML()
	packed := s2.Encode(nil, xml)
	for _, b := range [][]byte{record(100, 0, xml), record(100, 1, packed)} {
		if got, err := decodeRoster(b); err != nil || !got.Equal(r) || got.Len() != 100 {
			t.Fatalf("a whole one: %v, %v", got, err)
		}
	}
	for name, b := range map[string][]byte{
		"too many items":       record(101, 0, xml),
		"very many items":      record(1<<62, 0, xml),
		"too few items":        record(99, 1, packed),
		"no items":             record(0, 1, packed),
		"packed, and cut":      record(100, 1, packed[:len(packed)/2]),
		"packed, and none":     record(0, 1, nil),
		"packed, and broken":   record(0, 1, append(binary.AppendUvarint(nil, 1000), 0xFF, 0xFF)),
		"packed nothing":       record(100, 1, s2.Encode(nil, nil)),
		"not packed, they say": record(100, 0, packed),
		"packed, they say":     record(100, 1, xml),
		"of gigabytes":         record(100, 1, append(binary.AppendUvarint(nil, maxUnpacked+1), packed...)),
		"another flag":         record(100, 2, packed),
		"more behind it":       append(record(100, 1, packed), 0),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, err := decodeRoster(b)
		runtime.ReadMemStats(&after)
		if got != nil || err == nil {
			t.Errorf("%s: %d items, %v", name, got.Len(), err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 10<<20 {
			t.Errorf("%s: took %d bytes", name, took)
		}
	}
	if b := encodeRoster(r); len(b) > len(xml)/2 {
		t.Error("it is not packed in the record")
	}
}
