package session

import (
	"encoding/binary"
	"slices"
	"time"

	"rosterd/jid"
	"rosterd/store"
)

// Store keeps a table: a [store.Memory] or a [store.Disk]. Its methods do not
// block.
type Store interface {
	Put(kind store.Kind, key string, record []byte)
	Note(kind store.Kind, key string, note []byte)
	Each(kind store.Kind, f func(key string, e store.Entry) error) error
}

// A record of a user is recordFormat, and for each resource its flags, its
// length and its name, and with flagSpelled the same of its user's address. A note
// is the name of one that has become available: others are told of it at once, and
// the record is written later.
const (
	recordFormat = 1

	flagInterested = 1
	flagAvailable  = 2
	flagSpelled    = 4
	flagLeft       = 8 // it is not connected any more: a departure
)

// Load makes a table of what a store has kept, in which it is kept from then on.
// There has been no sign of its resources: some may be gone. What cannot be
// understood is left out.
func Load(s Store) (*Table, error) {
	t := NewTable()
	t.store = s
	err := s.Each(store.Sessions, func(key string, e store.Entry) error {
		user, err := jid.Parse(key)
		if err != nil || !user.IsBare() {
			return nil
		}
		if len(e.Record) > 0 && e.Record[0] == recordFormat {
			t.restore(user, e.Record[1:])
		}
		for _, note := range e.Notes {
			if full, err := jid.ParseStamped(user.String() + "/" + string(note)); err == nil && full.Resource() != "" {
				t.restored(resource{full: full, available: true})
			}
		}
		return nil
	})
	return t, err
}

// restore adds what a record has of a user.
func (t *Table) restore(user jid.JID, record []byte) {
	now := time.Now()
	for len(record) > 0 && len(t.users[user]) < MaxResources {
		flags := record[0]
		name, rest, ok := cut(record[1:])
		if !ok {
			break
		}
		r := resource{interested: flags&flagInterested != 0, available: flags&flagAvailable != 0}
		if flags&flagSpelled != 0 {
			var bare []byte
			if bare, rest, ok = cut(rest); !ok {
				break
			}
			r.bare = string(bare)
		}
		record = rest
		var err error
		if r.full, err = jid.ParseStamped(user.String() + "/" + string(name)); err != nil {
			continue
		}
		if flags&flagLeft != 0 {
			t.leave(r.full, now)
		} else {
			t.restored(r)
		}
	}
}

// restored adds a resource, or what is new of it.
func (t *Table) restored(r resource) {
	user := r.full.Bare()
	list := t.users[user]
	i := slices.IndexFunc(list, func(known resource) bool { return known.full == r.full })
	switch {
	case i >= 0:
		list[i].available = list[i].available || r.available
	case len(list) < MaxResources:
		t.users[user] = append(list, r)
		t.connected++
		if r.interested {
			t.interested++
		}
		t.spelled.Add(spellings(r.bare))
	}
}

// cut cuts a text off a record, of which its length stands before it.
func cut(record []byte) (text, rest []byte, ok bool) {
	size, n := binary.Uvarint(record)
	if n <= 0 || size > uint64(len(record)-n) {
		return nil, nil, false
	}
	return record[n:][:size], record[n+int(size):], true
}

func (r resource) flags() (flags byte) {
	if r.interested {
		flags |= flagInterested
	}
	if r.available {
		flags |= flagAvailable
	}
	if r.bare != "" {
		flags |= flagSpelled
	}
	return flags
}

// save puts what is known of a user into the store, if there is one. t.mu is
// held, so that the order is kept.
func (t *Table) save(user jid.JID) {
	if t.store == nil {
		return
	}
	list, left := t.users[user], t.left[user]
	if len(list)+len(left) == 0 {
		t.store.Put(store.Sessions, user.String(), nil)
		return
	}
	b := []byte{recordFormat}
	add := func(flags byte, full jid.JID) {
		b = appendText(append(b, flags), full.Resource())
	}
	for _, d := range left {
		add(flagLeft, d.full)
	}
	for _, r := range list {
		add(r.flags(), r.full)
		if r.bare != "" {
			b = appendText(b, r.bare)
		}
	}
	t.store.Put(store.Sessions, user.String(), b)
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// noteAvailable notes in the store, if there is one, that a resource is available:
// what is noted is not lost with the process. t.mu is held.
func (t *Table) noteAvailable(full jid.JID) {
	if t.store != nil {
		t.store.Note(store.Sessions, full.Bare().String(), []byte(full.Resource()))
	}
}
