// Package session keeps which resources of which users are connected, and
// which of those are interested in the roster (RFC 6121, section 2.1.6).
//
// A resource is connected from the first sign of it (a roster query, or a
// presence that the server reports by XEP-0356, section 7) until its
// unavailable presence, or until somebody finds that it is gone. It is
// interested from its first roster query on.
package session

import (
	"slices"
	"sync"
	"time"

	"rosterd/jid"
)

// MaxResources is how many resources of one user are kept. A server may fail to
// report the end of a session; with one resource more, the one that was seen
// first is forgotten.
const MaxResources = 128

// Table is the table of sessions. It is safe for concurrent use; its zero
// value is not ready, use [NewTable].
type Table struct {
	mu         sync.Mutex
	users      map[jid.JID][]resource // by bare JID, never empty, in the order they were seen
	connected  int
	interested int
}

type resource struct {
	full       jid.JID
	interested bool
	heard      time.Time // last sign of it
}

// NewTable makes an empty table.
func NewTable() *Table {
	return &Table{users: make(map[jid.JID][]resource)}
}

// Connected notes that a resource is connected, and reports whether that is
// news.
func (t *Table) Connected(full jid.JID) (news bool) { return t.note(full, false) }

// Interested notes that a resource is connected and has asked for the roster.
func (t *Table) Interested(full jid.JID) { t.note(full, true) }

func (t *Table) note(full jid.JID, interested bool) (news bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	user := full.Bare()
	list := t.users[user]
	i := slices.IndexFunc(list, func(r resource) bool { return r.full == full })
	if news = i < 0; news {
		if len(list) == MaxResources {
			list = t.remove(list, 0)
		}
		i = len(list)
		list = append(list, resource{full: full})
		t.connected++
	}
	list[i].heard = time.Now()
	if interested && !list[i].interested {
		list[i].interested = true
		t.interested++
	}
	t.users[user] = list
	return news
}

// Heard notes a sign of a resource. Nothing changes if it is not connected.
func (t *Table) Heard(full jid.JID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := t.users[full.Bare()]
	if i := slices.IndexFunc(list, func(r resource) bool { return r.full == full }); i >= 0 {
		list[i].heard = time.Now()
	}
}

// Unheard are the connected resources of which there was no sign since a time:
// some may be gone, though no server said so.
func (t *Table) Unheard(since time.Time) []jid.JID {
	t.mu.Lock()
	defer t.mu.Unlock()
	var unheard []jid.JID
	for _, list := range t.users {
		for _, r := range list {
			if r.heard.Before(since) {
				unheard = append(unheard, r.full)
			}
		}
	}
	return unheard
}

// Gone notes that a resource is no longer connected. Nothing changes if it was
// not.
func (t *Table) Gone(full jid.JID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	user := full.Bare()
	list := t.users[user]
	i := slices.IndexFunc(list, func(r resource) bool { return r.full == full })
	if i < 0 {
		return
	}
	if list = t.remove(list, i); len(list) == 0 {
		delete(t.users, user)
		return
	}
	t.users[user] = list
}

// remove takes the resource at i out of list and of the counts. t.mu is held.
func (t *Table) remove(list []resource, i int) []resource {
	t.connected--
	if list[i].interested {
		t.interested--
	}
	return slices.Delete(list, i, i+1)
}

// HasConnected reports whether a user (a bare JID) has a connected resource.
func (t *Table) HasConnected(user jid.JID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.users[user]) > 0
}

// InterestedOf are the interested resources of a user (a bare JID).
func (t *Table) InterestedOf(user jid.JID) []jid.JID {
	t.mu.Lock()
	defer t.mu.Unlock()
	var full []jid.JID
	for _, r := range t.users[user] {
		if r.interested {
			full = append(full, r.full)
		}
	}
	return full
}

// Counts are the numbers of connected and of interested resources.
func (t *Table) Counts() (connected, interested int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.connected, t.interested
}
