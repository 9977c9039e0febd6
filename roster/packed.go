package roster

import (
	"bytes"
	"errors"
	"slices"
	"sync"

	"github.com/klauspost/compress/s2"
)

// body is what a roster is, see AppendItem: as it is sent, packed, or both.
type body struct{ xml, packed []byte }

func newRoster(xml []byte, n int) *Roster {
	r := &Roster{n: n}
	r.body.Store(&body{xml: xml})
	return r
}

// Pack makes the roster small: from then on XML unpacks it each time.
func (r *Roster) Pack() {
	if r == nil {
		return
	}
	if packed := r.packed(); packed != nil {
		r.body.Store(&body{packed: packed})
	}
}

// Expand makes the roster fast again, to be read more than once.
func (r *Roster) Expand() {
	if r == nil {
		return
	}
	if b := r.body.Load(); b != nil && b.xml == nil {
		r.body.Store(&body{xml: r.XML(), packed: b.packed})
	}
}

// Packed is the roster compressed, to be kept; [Unpack] reads it. The caller must not modify
// it.
func (r *Roster) Packed() []byte {
	if r == nil {
		return nil
	}
	if packed := r.packed(); packed != nil {
		return append([]byte{isPacked}, packed...)
	}
	return append([]byte{isPlain}, r.XML()...)
}

// How a kept roster begins.
const (
	isPlain  = 0
	isPacked = 1
)

var errDamaged = errors.New("a damaged roster")

// Unpack is the roster of which data is what [Roster.Packed] was, n its number of items, and
// version its version. A roster that lost items is an error, never a shorter roster.
func Unpack(data []byte, n int, version string) (*Roster, error) {
	if len(data) == 0 {
		return nil, errDamaged
	}
	b := body{xml: data[1:]}
	switch data[0] {
	case isPlain:
	case isPacked:
		b.packed = b.xml
		size, err := s2.DecodedLen(b.packed)
		if err != nil || size > maxUnpacked {
			return nil, errDamaged
		}
		if b.xml, err = s2.Decode(nil, b.packed); err != nil {
			return nil, errDamaged
		}
	default:
		return nil, errDamaged
	}
	if n != bytes.Count(b.xml, []byte(itemOpen)) {
		return nil, errDamaged
	}
	r := &Roster{n: n}
	r.body.Store(&b)
	if version != "" {
		r.version.Store(&version)
	}
	return r, nil
}

// packed is the roster packed, or nil if it is too short for that to be worth it.
func (r *Roster) packed() []byte {
	b := r.body.Load()
	if b == nil || b.packed == nil && len(b.xml) < minPacked {
		return nil
	}
	if b.packed == nil {
		w := scratches.Get().(*scratch)
		if n := s2.MaxEncodedLen(len(b.xml)); cap(w.xml) < n {
			w.xml = make([]byte, n)
		}
		b = &body{xml: b.xml, packed: bytes.Clone(s2.Encode(w.xml[:cap(w.xml)], b.xml))}
		w.leave()
		r.body.Store(b)
	}
	return b.packed
}

// minPacked is the length of XML from which on it is packed, and maxUnpacked up to
// which it is read back, in bytes.
const (
	minPacked   = 512
	maxUnpacked = 256 << 20
)

// MemorySize is how many bytes the roster takes, about.
func (r *Roster) MemorySize() int {
	if r == nil {
		return 0
	}
	b := r.body.Load()
	if b == nil {
		return 0
	}
	return len(b.xml) + len(b.packed)
}

// XML is what the items are in the answer to a roster get (RFC 6121, section
// 2.1.4), in the order of their addresses. The caller must not modify it.
func (r *Roster) XML() []byte {
	if r == nil {
		return nil
	}
	b := r.body.Load()
	switch {
	case b == nil:
		return nil
	case b.xml != nil || b.packed == nil:
		return b.xml
	}
	return appendUnpacked(nil, b.packed)
}

// Size is the length of [Roster.XML] in bytes.
func (r *Roster) Size() int {
	if r == nil {
		return 0
	}
	b := r.body.Load()
	switch {
	case b == nil:
		return 0
	case b.xml != nil || b.packed == nil:
		return len(b.xml)
	}
	n, err := s2.DecodedLen(b.packed)
	if err != nil {
		panicDamaged(err)
	}
	return n
}

// AppendXML appends what [Roster.XML] is.
func (r *Roster) AppendXML(b []byte) []byte {
	if r == nil {
		return b
	}
	if body := r.body.Load(); body != nil && body.xml == nil && body.packed != nil {
		return appendUnpacked(b, body.packed)
	}
	return append(b, r.XML()...)
}

func appendUnpacked(b, packed []byte) []byte {
	n, err := s2.DecodedLen(packed)
	if err != nil {
		panicDamaged(err)
	}
	b = slices.Grow(b, n)
	if _, err := s2.Decode(b[len(b):len(b)+n], packed); err != nil {
		panicDamaged(err)
	}
	return b[:len(b)+n]
}

// panicDamaged is for what cannot be but if memory is damaged: what is kept on disk
// has checksums.
func panicDamaged(err error) { panic("roster: " + err.Error()) }

// part is where in the XML of a scratch an item is. It has no pointers: it is
// moved often.
type part struct{ from, addressEnd, end, index int }

// scratch is memory to make rosters in, which is used again.
type scratch struct {
	xml   []byte
	parts []part
}

func (w *scratch) address(p part) []byte { return w.xml[p.from+len(itemOpen) : p.addressEnd] }

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// maxScratch bounds what is kept of a scratch, in bytes.
const maxScratch = 1 << 20

func (w *scratch) leave() {
	if cap(w.xml) <= maxScratch && cap(w.parts) <= maxScratch/32 {
		scratches.Put(w)
	}
}
