package store

import (
	"container/list"
	"slices"
	"sync"
	"time"
)

// Memory is a store that ends with the process. Records are compressed. Those
// of keys that are [Memory.Forgettable] take 64 MiB at most.
type Memory struct {
	codec *codec
	max   int // bytes of what is forgettable

	mu          sync.Mutex // guards all below
	closed      bool
	entries     map[id]*remembered
	forgettable list.List // of id; the longest forgettable is in front
	size        int       // of the entries in forgettable, bytes
	notes       int       // of all entries, bytes
}

// remembered is an entry of [Memory]. It belongs to Memory.mu; its bytes are
// never modified.
type remembered struct {
	value       []byte // nil: no record
	notes       [][]byte
	forgettable *list.Element // nil: it is not
}

func (r *remembered) size(i id) int { return overhead + len(i.key) + len(r.value) + notesSize(r.notes) }

func notesSize(notes [][]byte) int {
	size := 0
	for _, note := range notes {
		size += overhead + len(note)
	}
	return size
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{codec: newCodec(), max: maxForgettable, entries: make(map[id]*remembered)}
}

// Get returns what is known of a key: an empty entry, if nothing is.
func (m *Memory) Get(kind Kind, key string) (Entry, error) {
	m.mu.Lock()
	closed := m.closed
	var r remembered
	if known := m.entries[id{kind, key}]; known != nil {
		r = *known
	}
	m.mu.Unlock()
	if closed {
		return Entry{}, ErrClosed
	}
	return m.entry(id{kind, key}, r)
}

// entry is what the caller sees of i, whose entry r is a copy of.
func (m *Memory) entry(i id, r remembered) (Entry, error) {
	e := Entry{Notes: slices.Clip(r.notes)}
	if r.value == nil {
		return e, nil
	}
	var err error
	e.Record, err = m.codec.decode(i, r.value)
	return e, err
}

// Put replaces the record of a key, or deletes it if record is nil, and drops
// the key's notes. The record then belongs to the store.
func (m *Memory) Put(kind Kind, key string, record []byte) {
	var value []byte
	if record != nil {
		value = m.codec.encode(id{kind, key}, record, 0)
	}
	m.change(id{kind, key}, func(r *remembered) {
		m.notes -= notesSize(r.notes)
		r.value, r.notes = value, nil
	})
}

// Note adds a note to what is known of a key. It then belongs to the store.
func (m *Memory) Note(kind Kind, key string, note []byte) {
	m.change(id{kind, key}, func(r *remembered) {
		if size := overhead + len(note); m.notes+size <= maxNotes {
			m.notes += size
			r.notes = append(r.notes, note)
		}
	})
}

// Forgettable says whether what is known of a key may be forgotten, notes and
// all, when there is too much: it is of a user who is not connected. It may not
// until this is said, and where nothing is known, it cannot be said. What has
// not been put or noted for longest goes first.
func (m *Memory) Forgettable(kind Kind, key string, yes bool) {
	m.change(id{kind, key}, func(r *remembered) {
		switch {
		case yes && r.forgettable == nil:
			r.forgettable = m.forgettable.PushBack(id{kind, key})
		case !yes && r.forgettable != nil:
			m.forgettable.Remove(r.forgettable)
			r.forgettable = nil
		}
	})
}

// change lets f change an entry, and keeps the books.
func (m *Memory) change(i id, f func(*remembered)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || !i.valid() {
		return
	}
	r := m.entries[i]
	if r == nil {
		r = new(remembered)
		m.entries[i] = r
	}
	if r.forgettable != nil {
		m.size -= r.size(i)
	}
	f(r)
	if r.value == nil && len(r.notes) == 0 {
		m.drop(i, r)
		return
	}
	if r.forgettable != nil {
		m.size += r.size(i)
		m.forgettable.MoveToBack(r.forgettable)
	}
	for m.size > m.max {
		oldest := m.forgettable.Front().Value.(id)
		r := m.entries[oldest]
		m.size -= r.size(oldest)
		m.notes -= notesSize(r.notes)
		m.drop(oldest, r)
	}
}

func (m *Memory) drop(i id, r *remembered) {
	if r.forgettable != nil {
		m.forgettable.Remove(r.forgettable)
	}
	delete(m.entries, i)
}

// Each calls f with each entry of a kind, once, in no order, until f fails. f
// may call the store.
func (m *Memory) Each(kind Kind, f func(key string, e Entry) error) error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return ErrClosed
	}
	entries := make(map[string]remembered)
	for i, r := range m.entries {
		if i.kind == kind {
			entries[i.key] = *r
		}
	}
	m.mu.Unlock()
	for key, r := range entries {
		e, err := m.entry(id{kind, key}, r)
		if err != nil {
			return err
		}
		if err := f(key, e); err != nil {
			return err
		}
	}
	return nil
}

// Noted calls f with the notes of each key of a kind that has some, in no
// order, until f fails. f may call the store.
func (m *Memory) Noted(kind Kind, f func(key string, notes [][]byte) error) error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return ErrClosed
	}
	noted := make(map[string][][]byte)
	for i, r := range m.entries {
		if i.kind == kind && len(r.notes) > 0 {
			noted[i.key] = slices.Clip(r.notes)
		}
	}
	m.mu.Unlock()
	for key, notes := range noted {
		if err := f(key, notes); err != nil {
			return err
		}
	}
	return nil
}

// Ended is the zero time: nobody wrote this store before.
func (m *Memory) Ended() time.Time { return time.Time{} }

// Err is nil: there is nothing that could fail.
func (m *Memory) Err() error { return nil }

// Close forgets everything. It returns nil.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.entries = nil
	m.forgettable.Init()
	return nil
}
