package roster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"iter"
	"slices"
	"strconv"
	"time"

	"github.com/klauspost/compress/s2"

	"rosterd/jid"
	"rosterd/xmlstream"
)

// A record is what is kept of a user in the store, with the last known roster in
// a record of its own, which is on disk before it; a note is what was written
// there before something was told: see [Store]. A record's first byte is its
// format, a note's what it is.
const (
	recordFormat = 1
	noteAsked    = 1 // a resource asks: its name follows
	noteTouched  = 2 // items are told: the version of their roster follows, if one is told, and the contacts' addresses as they are written in items
	noteNamed    = 3 // as noteAsked, and it uses versions
)

var (
	errRecordNewer = errors.New("a record that a newer rosterd wrote")
	errRecord      = errors.New("a damaged record")
)

// The numbers of rosters in a record: those from firstOther on are in it.
const (
	noRoster = iota
	lastRoster
	firstOther
)

// encode makes the record of a user, without the last known roster.
func (s *state) encode() []byte {
	var others []*Roster
	number := func(r *Roster) uint64 {
		switch r {
		case nil:
			return noRoster
		case s.last:
			return lastRoster
		}
		i := slices.Index(others, r)
		if i < 0 {
			i = len(others)
			others = append(others, r)
		}
		return uint64(i) + firstOther
	}
	var told []byte
	told = binary.AppendUvarint(told, uint64(len(s.told)))
	for full, t := range s.told {
		told = appendText(told, full.Resource())
		told = binary.AppendUvarint(told, number(t.roster))
		told = binary.AppendUvarint(told, number(t.before))
		told = append(told, flag(t.doubt)|flag(t.versioned)<<1)
		told = appendTime(told, t.asked)
	}
	size := 64 + len(told)
	for _, r := range others {
		size += len(r.packed()) + minPacked + 64
	}
	b := append(make([]byte, 0, size), recordFormat, flag(s.last != nil)|flag(s.stale)<<1|flag(s.missing)<<2)
	b = appendTime(b, s.fetched)
	b = binary.AppendUvarint(b, uint64(len(others)))
	for _, r := range others {
		b = r.encode(b)
	}
	b = append(b, told...)
	b = appendText(appendText(b, s.validator), strconv.FormatUint(s.since, 10)) // COMPAT formerly ETag and Last-Modified
	mistrusted := s.mistrusted
	if len(s.flying) > 0 {
		mistrusted = slices.Concat(mistrusted, s.versions)
	}
	b = binary.AppendUvarint(b, uint64(len(mistrusted)))
	for _, version := range mistrusted {
		b = appendText(b, version)
	}
	b = binary.AppendUvarint(b, uint64(len(s.former)))
	for _, contact := range s.former {
		b = appendText(b, contact.String())
	}
	owed := s.unconfirmed()
	b = binary.AppendUvarint(b, uint64(len(owed)))
	for contact := range owed {
		b = appendText(b, contact.String())
	}
	return b
}

// encode appends a roster, packed if it is worth it.
func (r *Roster) encode(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(r.n))
	packed := r.packed()
	if b = append(b, flag(packed != nil)); packed != nil {
		b = append(binary.AppendUvarint(b, uint64(len(packed))), packed...)
	} else {
		b = r.AppendXML(binary.AppendUvarint(b, uint64(r.Size())))
	}
	if known := r.version.Load(); known != nil {
		return appendText(b, *known)
	}
	return appendText(b, "")
}

// roster reads what encode of a roster made. It is not packed then: it is read as
// something is to be done with it.
func (d *decoder) roster() *Roster {
	n := d.uint()
	isPacked := d.byte() == 1
	b := body{xml: d.bytes()}
	if isPacked {
		b.packed = b.xml
		if size, err := s2.DecodedLen(b.packed); err != nil || size > maxUnpacked {
			d.bad = true
		} else if b.xml, err = s2.Decode(nil, b.packed); err != nil {
			d.bad = true
		}
	}
	if d.bad || n != uint64(bytes.Count(b.xml, []byte(itemOpen))) { // a roster of no items would be told as an empty one
		d.bad = true
		return newRoster(nil, 0)
	}
	r := &Roster{n: int(n)}
	r.body.Store(&b)
	if version := d.bytes(); len(version) > 0 {
		v := string(version)
		r.version.Store(&v)
	}
	return r
}

// encodeRoster makes the record of a last known roster.
func encodeRoster(r *Roster) []byte {
	return r.encode(append(make([]byte, 0, 64+len(r.packed())), recordFormat))
}

// decodeRoster reads what encodeRoster made; nil is none.
func decodeRoster(record []byte) (*Roster, error) {
	if len(record) == 0 {
		return nil, nil
	}
	if record[0] != recordFormat {
		return nil, errRecordNewer
	}
	d := decoder{b: record[1:]}
	r := d.roster()
	if d.bad || len(d.b) > 0 {
		return nil, errRecord
	}
	return r, nil
}

// decodeState reads what encode made of a user (a bare JID), whose last known
// roster is last. That may be a newer one than the record knew: what differs is
// in notes then. If there is none though the record knew one, nobody knows what
// the resources were told.
func decodeState(user jid.JID, record []byte, last *Roster) (s state, err error) {
	s.told = make(map[jid.JID]told)
	if len(record) == 0 {
		return s, nil
	}
	if record[0] != recordFormat {
		return s, errRecordNewer
	}
	d := decoder{b: record[1:]}
	flags := d.byte()
	if flags&1 != 0 {
		s.last = last
	}
	s.stale, s.missing = flags&2 != 0, flags&4 != 0
	s.fetched = d.time()
	rosters := []*Roster{noRoster: nil, lastRoster: s.last}
	for range d.count() {
		rosters = append(rosters, d.roster())
	}
	var lost bool
	numbered := func() *Roster {
		i := d.uint()
		if i >= uint64(len(rosters)) {
			d.bad = true
			return nil
		}
		lost = lost || i != noRoster && rosters[i] == nil
		return rosters[i]
	}
	for range d.count() {
		full, err := jid.ParseStamped(user.String() + "/" + string(d.bytes()))
		if err != nil {
			d.bad = true
		}
		lost = false
		t := told{roster: numbered(), before: numbered()}
		flags := d.byte()
		t.doubt, t.versioned, t.asked = flags&1 != 0 || lost, flags&2 != 0, d.time()
		s.told[full] = t
	}
	s.validator = string(d.bytes())
	s.since, _ = strconv.ParseUint(string(d.bytes()), 10, 64) // formerly a date
	for range d.count() {
		s.mistrust(string(d.bytes()))
	}
	for range min(d.count(), maxFormer) {
		s.former = append(s.former, d.contact())
	}
	for range d.count() {
		s.owe([]jid.JID{d.contact()})
	}
	if d.bad || len(d.b) > 0 {
		return state{told: make(map[jid.JID]told)}, errRecord
	}
	return s, nil
}

// asked is the note that a resource asks.
func asked(full jid.JID, versioned bool) []byte {
	kind := byte(noteAsked)
	if versioned {
		kind = noteNamed
	}
	return append([]byte{kind}, full.Resource()...)
}

// askedIn is the resource that a note says has asked.
func askedIn(user jid.JID, note []byte) (full jid.JID, ok bool) {
	if len(note) < 2 || note[0] != noteAsked && note[0] != noteNamed {
		return jid.JID{}, false
	}
	full, err := jid.ParseStamped(user.String() + "/" + string(note[1:]))
	return full, err == nil
}

// touches is the note that items are told, made of their contacts' addresses.
type touches []byte

// touching begins the note; version is that of the roster, or "" if none is told,
// and room how many bytes of addresses are expected.
func touching(version string, room int) touches {
	return appendText(append(make(touches, 0, 32+len(version)+room), noteTouched), version)
}

func (t *touches) add(address []byte) {
	*t = append(binary.AppendUvarint(*t, uint64(len(address))), address...)
}

func (t *touches) addContact(contact jid.JID) {
	t.add(xmlstream.AppendEscaped(nil, contact.String()))
}

func touchingAll(version string, contacts iter.Seq[jid.JID]) touches {
	t := touching(version, 0)
	for contact := range contacts {
		t.addContact(contact)
	}
	return t
}

// apply adds to a state what a note says that may have happened since. It may do
// so any number of times: what a client may have or not is told again.
func (s *state) apply(user jid.JID, note []byte) {
	if full, ok := askedIn(user, note); ok {
		t, known := s.told[full]
		if !known {
			t.roster = s.last
		} else if removes(s.last, t.roster) > 0 { // it may have been given that
			t.before = both(t.before, s.last)
		}
		t.doubt, t.versioned = true, t.versioned || note[0] == noteNamed
		s.told[full] = t
		return
	}
	if len(note) == 0 || note[0] != noteTouched {
		return
	}
	d := decoder{b: note[1:]}
	if version := d.bytes(); len(version) > 0 {
		s.mistrust(string(version))
	}
	for len(d.b) > 0 && !d.bad {
		if contact, err := jid.Parse(xmlstream.Unescape(d.bytes())); err == nil {
			s.owe([]jid.JID{contact})
		}
	}
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return binary.AppendUvarint(b, 0)
	}
	return binary.AppendUvarint(b, uint64(max(t.UnixMilli(), 1)))
}

func flag(is bool) byte {
	if is {
		return 1
	}
	return 0
}

// decoder reads what the append functions wrote. What it reads after something
// bad is zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count is a number of things of one byte at least.
func (d *decoder) count() uint64 {
	n := d.uint()
	if n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return 0
	}
	return n
}

func (d *decoder) bytes() []byte {
	n := d.count()
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.bad = true
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) time() time.Time {
	ms := d.uint()
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(ms))
}

func (d *decoder) contact() jid.JID {
	j, err := jid.Parse(string(d.bytes())) // a client may name one with a resource
	if err != nil {
		d.bad = true
	}
	return j
}
