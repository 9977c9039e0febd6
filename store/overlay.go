package store

import (
	"cmp"
	"slices"
	"strings"
	"sync"
)

// overlay is what the file of records does not have yet: records that wait to
// be written, and notes, which only the journal has. It is safe for concurrent
// use.
type overlay struct {
	mu      sync.Mutex // guards all below
	closed  bool
	changes map[id]*change
	pending int    // changes with a record that waits
	raw     int    // bytes of those that have not been packed
	notes   int    // bytes of all notes
	noted   uint64 // the last note's number
	commits uint64 // how often records have been written
	// journalled are the keys of which the journal may have notes, outdated ones
	// included.
	journalled map[id]struct{}
}

// change is what the overlay has of a key.
type change struct {
	pending *pending // nil: the record in the file holds
	// notes are those that the journal must keep: that are later than the record
	// in the file. Those up to the sequence of pending are outdated as soon as
	// that is written.
	notes []note
}

// pending is a record that waits to be written. All but record and value is
// never modified, and these only by [Disk.flush], under overlay.mu.
type pending struct {
	record   []byte // until it is packed
	value    []byte // sealed; nil: not packed yet, or deleted
	deleted  bool
	sequence uint64 // of the last note that it replaces
}

// note is a note with its number: they count up over all keys.
type note struct {
	sequence uint64
	data     []byte
}

func noteSize(i id, data []byte) int { return overhead + len(i.key) + len(data) }

func newOverlay() *overlay {
	return &overlay{changes: make(map[id]*change), journalled: make(map[id]struct{})}
}

func (o *overlay) change(i id) *change {
	c := o.changes[i]
	if c == nil {
		c = new(change)
		o.changes[i] = c
	}
	return c
}

// put lets p wait in place of what waited, and sets its sequence. It reports
// false if the overlay is closed.
func (o *overlay) put(i id, p *pending) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return false
	}
	p.sequence = o.noted
	if p.value != nil {
		seal(i, p.value, p.sequence)
	}
	c := o.change(i)
	if c.pending == nil {
		o.pending++
	} else {
		o.raw -= len(c.pending.record)
	}
	c.pending = p
	o.raw += len(p.record)
	return true
}

// note adds a note, whose number is higher than those before.
func (o *overlay) note(i id, n note) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := o.change(i)
	c.notes = append(c.notes, n)
	o.notes += noteSize(i, n.data)
	o.noted = n.sequence
	o.journalled[i] = struct{}{}
}

// seen is what a reader needs of a key.
type seen struct {
	closed        bool
	waits         bool // record, value and deleted are what waits
	record, value []byte
	notes         [][]byte
	commits       uint64
}

func (o *overlay) look(i id) seen {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := seen{closed: o.closed, commits: o.commits}
	c := o.changes[i]
	if c == nil {
		return s
	}
	s.notes = c.visible()
	if p := c.pending; p != nil {
		s.waits, s.record, s.value = true, p.record, p.value
	}
	return s
}

// visible returns the notes that were written since the record that readers
// see.
func (c *change) visible() [][]byte {
	var notes [][]byte
	for _, n := range c.notes {
		if c.pending == nil || n.sequence > c.pending.sequence {
			notes = append(notes, n.data)
		}
	}
	return notes
}

// keys are the keys of a kind of which something waits or is noted.
func (o *overlay) keys(kind Kind) (keys map[string]bool, closed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	keys = make(map[string]bool)
	for i := range o.changes {
		if i.kind == kind {
			keys[i.key] = true
		}
	}
	return keys, o.closed
}

// job is a record to be written.
type job struct {
	id
	*pending
	// gravestone says that a deletion has to leave its sequence behind, for the
	// journal may have notes of before.
	gravestone bool
}

// jobs are the records that wait, in the order of the file.
func (o *overlay) jobs() []job {
	o.mu.Lock()
	jobs := make([]job, 0, o.pending)
	for i, c := range o.changes {
		if c.pending != nil {
			_, journalled := o.journalled[i]
			jobs = append(jobs, job{i, c.pending, journalled})
		}
	}
	o.mu.Unlock()
	slices.SortFunc(jobs, func(a, b job) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), strings.Compare(a.key, b.key))
	})
	return jobs
}

// packed puts the value of a record in its place.
func (o *overlay) packed(j job, value []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := o.changes[j.id]; c != nil && c.pending == j.pending {
		o.raw -= len(j.record)
	}
	j.pending.record, j.pending.value = nil, value
}

// committed forgets what has been written.
func (o *overlay) committed(jobs []job) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.commits++
	for _, j := range jobs {
		c := o.changes[j.id]
		o.outdate(j.id, c, j.sequence)
		if c.pending == j.pending {
			c.pending = nil
			o.pending--
		}
		if c.pending == nil && len(c.notes) == 0 {
			delete(o.changes, j.id)
		}
	}
}

// outdate drops the notes of a key up to a number.
func (o *overlay) outdate(i id, c *change, sequence uint64) {
	n := 0
	for n < len(c.notes) && c.notes[n].sequence <= sequence {
		o.notes -= noteSize(i, c.notes[n].data)
		n++
	}
	c.notes = slices.Clone(c.notes[n:]) // so that the memory of the others is freed
}

// live returns the notes that the journal must keep, in the order of their
// numbers.
func (o *overlay) live() []journalNote {
	o.mu.Lock()
	defer o.mu.Unlock()
	var notes []journalNote
	for i, c := range o.changes {
		for _, n := range c.notes {
			notes = append(notes, journalNote{i, n})
		}
	}
	slices.SortFunc(notes, func(a, b journalNote) int { return cmp.Compare(a.sequence, b.sequence) })
	return notes
}

// rewritten says that notes, which live returned, are all that the journal has.
func (o *overlay) rewritten(notes []journalNote) {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.journalled)
	for _, n := range notes {
		o.journalled[n.id] = struct{}{}
	}
}

// sizes returns the bytes of records that have not been packed and of notes.
func (o *overlay) sizes() (raw, notes int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.raw, o.notes
}

// lastNoted is the number of the last note.
func (o *overlay) lastNoted() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.noted
}

// close makes put and the readers refuse.
func (o *overlay) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
}
