package session

import (
	"slices"
	"time"

	"rosterd/jid"
	"rosterd/store"
)

type Store interface {
	PutResource(r store.Resource, soon bool)
	DeleteResource(full string)
	Resources(each func(store.Resource) error) error
}

const (
	flagInterested = 1
	flagAvailable  = 2
	flagSpelled    = 4
)

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

func (t *Table) put(r resource, soon bool) {
	if t.store != nil {
		t.store.PutResource(store.Resource{JID: r.full.String(), Interested: r.interested, Available: r.available, Stamped: r.bare}, soon)
	}
}

func Load(s Store) (*Table, error) {
	t := NewTable()
	t.store = s
	return t, s.Resources(func(r store.Resource) error {
		full, err := jid.ParseStamped(r.JID)
		if err != nil {
			return nil
		}
		if !r.Left.IsZero() {
			t.leave(full, time.Now())
			return nil
		}
		user := full.Bare()
		list := t.users[user]
		if i := slices.IndexFunc(list, func(k resource) bool { return k.full == full }); i < 0 && len(list) < MaxResources {
			t.users[user] = append(list, resource{full: full, interested: r.Interested, available: r.Available, bare: r.Stamped})
			t.connected++
			if r.Interested {
				t.interested++
			}
			t.spelled.Add(spellings(r.Stamped))
		}
		return nil
	})
}
