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
	"sync/atomic"
	"time"

	"rosterd/jid"
	"rosterd/store"
)

// MaxResources is how many resources of one user are kept. A server may fail to
// report the end of a session; with one resource more, the one that was seen
// first is forgotten.
const MaxResources = 128

// Table is the table of sessions. It is safe for concurrent use; its zero
// value is not ready, use [NewTable] or [Load].
type Table struct {
	store Store // nil: nothing is kept

	mu         sync.Mutex
	users      map[jid.JID][]resource // by bare JID, never empty, in the order they were seen
	connected  int
	interested int
	left       map[jid.JID][]departure // by bare JID, never empty
	purged     time.Time               // when those of long ago were forgotten

	spelled atomic.Int64 // resources whose user's address is stamped in another spelling; changed with mu held
}

// departure is a resource that was available, and left a short time ago: that it did
// may be lost with the process.
type departure struct {
	full jid.JID
	at   time.Time
}

// Linger is for how long a departure is kept.
const Linger = time.Minute

type resource struct {
	full       jid.JID
	bare       string // the user's address as the server stamps it; "": as full says
	interested bool
	available  bool      // its presence was reported
	heard      time.Time // last sign of it
}

// NewTable makes an empty table.
func NewTable() *Table {
	return &Table{users: make(map[jid.JID][]resource), left: make(map[jid.JID][]departure)}
}

// Connected notes that a resource is connected, as its presence was reported,
// and reports whether that is news.
func (t *Table) Connected(full jid.JID) (news bool) {
	return t.note(full, func(r *resource) { r.available = true })
}

// Interested notes that a resource is connected and has asked for the roster, and
// reports whether that is news.
func (t *Table) Interested(full jid.JID) (news bool) {
	t.note(full, func(r *resource) {
		if news = !r.interested; news {
			r.interested = true
			t.interested++
		}
	})
	return news
}

// Spell notes that a resource is connected, and how the server stamps its user's
// address: bare, or, if that is "", as the JID says. COMPAT ejabberd, which stamps
// an address as it was typed at login.
func (t *Table) Spell(full jid.JID, bare string) {
	if bare == "" && t.spelled.Load() == 0 {
		return // as nearly always: then the table need not know it yet
	}
	t.note(full, func(r *resource) {
		t.spelled.Add(spellings(bare) - spellings(r.bare))
		r.bare = bare
	})
}

// spellings is 1 for an address that is stamped in another spelling.
func spellings(bare string) int64 {
	if bare == "" {
		return 0
	}
	return 1
}

// Spelled is the user's address as the server stamps it for a resource; "": as the
// JID says, or the resource is not connected.
func (t *Table) Spelled(full jid.JID) string {
	if t.spelled.Load() == 0 {
		return ""
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.users[full.Bare()] {
		if r.full == full {
			return r.bare
		}
	}
	return ""
}

// note notes a sign of a resource, and what change says of it.
func (t *Table) note(full jid.JID, change func(*resource)) (news bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.purge(time.Now())
	user := full.Bare()
	list := t.users[user]
	i := slices.IndexFunc(list, func(r resource) bool { return r.full == full })
	if news = i < 0; news {
		if len(list) == MaxResources {
			if list[0].available {
				t.leave(list[0].full, time.Now())
			}
			list = t.remove(list, 0)
		}
		i = len(list)
		list = append(list, resource{full: full})
		t.connected++
	}
	list[i].heard = time.Now()
	flags, bare := list[i].flags(), list[i].bare
	change(&list[i])
	t.users[user] = list
	if news || list[i].flags() != flags || list[i].bare != bare {
		t.put(list[i], news || list[i].flags() != flags)
	}
	return news
}

// Available reports whether a resource is connected and its presence was
// reported. The end of such a session a server reports, too, where it reports
// any.
func (t *Table) Available(full jid.JID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.ContainsFunc(t.users[full.Bare()], func(r resource) bool { return r.full == full && r.available })
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
	now := time.Now()
	t.purge(now)
	if list[i].available {
		t.leave(full, now)
	}
	if t.store != nil {
		if list[i].available {
			t.store.PutResource(store.Resource{JID: full.String(), Left: now}, false)
		} else {
			t.store.DeleteResource(full.String())
		}
	}
	if list = t.remove(list, i); len(list) == 0 {
		delete(t.users, user)
	} else {
		t.users[user] = list
	}
}

// remove takes the resource at i out of list and of the counts. t.mu is held.
func (t *Table) remove(list []resource, i int) []resource {
	t.connected--
	if list[i].interested {
		t.interested--
	}
	t.spelled.Add(-spellings(list[i].bare))
	return slices.Delete(list, i, i+1)
}

// leave notes a departure. t.mu is held.
func (t *Table) leave(full jid.JID, now time.Time) {
	user := full.Bare()
	list := slices.DeleteFunc(t.left[user], func(d departure) bool { return d.full == full })
	list = append(list, departure{full, now})
	t.left[user] = list[max(0, len(list)-MaxResources):]
}

// purge forgets the departures of long ago, now and then. t.mu is held.
func (t *Table) purge(now time.Time) {
	if now.Sub(t.purged) < Linger {
		return
	}
	t.purged = now
	for user, list := range t.left {
		kept := slices.DeleteFunc(list, func(d departure) bool { return now.Sub(d.at) >= Linger })
		if len(kept) == len(list) {
			continue
		}
		if t.left[user] = kept; len(kept) == 0 {
			delete(t.left, user)
		}
	}
}

// Shown are the resources whose presence others may have been told: those that are
// available, and those that left a short time ago.
func (t *Table) Shown() []jid.JID {
	t.mu.Lock()
	defer t.mu.Unlock()
	var shown []jid.JID
	for _, list := range t.users {
		for _, r := range list {
			if r.available {
				shown = append(shown, r.full)
			}
		}
	}
	for user, list := range t.left {
		for _, d := range list {
			if !slices.ContainsFunc(t.users[user], func(r resource) bool { return r.full == d.full && r.available }) {
				shown = append(shown, d.full)
			}
		}
	}
	return shown
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

// IsInterested reports whether a resource is connected and has asked for the
// roster.
func (t *Table) IsInterested(full jid.JID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.ContainsFunc(t.users[full.Bare()], func(r resource) bool { return r.full == full && r.interested })
}

// Counts are the numbers of connected and of interested resources.
func (t *Table) Counts() (connected, interested int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.connected, t.interested
}

// Users are the users of a domain who have a connected resource, as bare JIDs.
func (t *Table) Users(domain string) []jid.JID {
	t.mu.Lock()
	defer t.mu.Unlock()
	var users []jid.JID
	for user := range t.users {
		if user.Domain() == domain {
			users = append(users, user)
		}
	}
	return users
}
