package session

import (
	"encoding/binary"

	"rosterd/jid"
	"rosterd/store"
)

// Store keeps a table: a [store.Memory] or a [store.Disk]. Its methods do not
// block.
type Store interface {
	Put(kind store.Kind, key string, record []byte)
	Each(kind store.Kind, f func(key string, e store.Entry) error) error
}

// A record of a user is recordFormat, and for each resource its flags, its
// length and its name, and with flagSpelled the same of its user's address.
const (
	recordFormat = 1

	flagInterested = 1
	flagAvailable  = 2
	flagSpelled    = 4
)

// Load makes a table of what a store has kept, in which it is kept from then on.
// There has been no sign of its resources: some may be gone. What cannot be
// understood is left out.
func Load(s Store) (*Table, error) {
	t := NewTable()
	t.store = s
	err := s.Each(store.Sessions, func(key string, e store.Entry) error {
		if user, err := jid.Parse(key); err == nil && user.IsBare() && len(e.Record) > 0 && e.Record[0] == recordFormat {
			t.restore(user, e.Record[1:])
		}
		return nil
	})
	return t, err
}

// restore adds what a record has of a user.
func (t *Table) restore(user jid.JID, record []byte) {
	var list []resource
	for len(record) > 0 && len(list) < MaxResources {
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
		list = append(list, r)
		t.connected++
		if r.interested {
			t.interested++
		}
		t.spelled.Add(spellings(r.bare))
	}
	if len(list) > 0 {
		t.users[user] = list
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
	list := t.users[user]
	if len(list) == 0 {
		t.store.Put(store.Sessions, user.String(), nil)
		return
	}
	b := []byte{recordFormat}
	for _, r := range list {
		b = appendText(append(b, r.flags()), r.full.Resource())
		if r.bare != "" {
			b = appendText(b, r.bare)
		}
	}
	t.store.Put(store.Sessions, user.String(), b)
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}
