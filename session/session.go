// Package session keeps which resources of which users are connected, and
// which of those are interested in the roster (RFC 6121, section 2.1.6).
//
// A resource is connected from the first sign of it (a roster query, or a
// presence that the server reports by XEP-0356, section 7) until its
// unavailable presence, or until somebody finds that it is gone. It is
// interested from its first roster query on, or since it was found that it may
// have asked while nobody could note it.
package session

import (
	"container/list"
	"iter"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"rosterd/jid"
	"rosterd/store"
)

const (
	// MaxResources is how many resources of one user are kept. A server may fail to
	// report the end of a session; with one resource more, the one that was seen
	// first is forgotten.
	MaxResources = 128
	// Linger is for how long a departure is kept.
	Linger = time.Minute

	// never is when there was a sign of a resource of which there was none yet.
	never time.Duration = math.MinInt64
)

// Store keeps a table: a [store.Store]. Its methods do not block, but for
// Resources.
type Store interface {
	PutResource(r store.Resource, soon bool)
	DeleteResource(full string)
	Resources(each func(store.Resource) error) error
}

// Table is the table of sessions. It is safe for concurrent use; its zero
// value is not ready, use [NewTable] or [Load].
type Table struct {
	store Store // nil: nothing is kept
	began time.Time

	mu         sync.Mutex
	users      map[jid.JID][]*resource // by bare JID, never empty: in the order they were seen
	signs      list.List               // of all, each a *resource, by its last sign: the oldest first
	connected  int
	interested int
	left       map[jid.JID][]departure // by bare JID, never empty
	purged     time.Time               // when those of long ago were forgotten

	spelled atomic.Int64 // resources whose user's address is stamped in another spelling; changed with mu held
}

// resource is a connected resource.
type resource struct {
	full       jid.JID
	stamped    string // the user's address as the server stamps it; "": as full says
	interested bool
	available  bool          // its presence was reported
	again      time.Duration // when it asked for the roster though it had before, from Table.began; 0: never
	heard      time.Duration // when there was the last sign of it, from Table.began
	sign       *list.Element // in Table.signs
}

// departure is a resource that was available, and left a short time ago: that it did
// may be lost with the process.
type departure struct {
	full jid.JID
	at   time.Time
}

// NewTable makes an empty table.
func NewTable() *Table {
	return &Table{began: time.Now(), users: make(map[jid.JID][]*resource), left: make(map[jid.JID][]departure)}
}

// Load makes a table of what a store has kept, in which it is kept from then on.
// There has been no sign of its resources: some may be gone. What cannot be
// understood is left out.
func Load(s Store) (*Table, error) {
	t := NewTable()
	t.store = s
	err := s.Resources(func(kept store.Resource) error {
		full, err := jid.ParseStamped(kept.JID)
		if err != nil || full.IsBare() {
			return nil
		}
		if !kept.Left.IsZero() {
			t.leave(full, t.began)
		}
		if kept.Connected && t.find(full) == nil && len(t.users[full.Bare()]) < MaxResources {
			r := t.add(full)
			r.interested, r.available, r.stamped, r.heard = kept.Interested, kept.Available, kept.Stamped, never
			t.count(r, 1)
		}
		return nil
	})
	return t, err
}

// Connected notes that a resource is connected, as its presence was reported,
// and reports whether that is news.
func (t *Table) Connected(full jid.JID) (news bool) {
	return t.note(full, func(r *resource) { r.available = true })
}

// Interested notes that a resource is connected and has asked for the roster.
func (t *Table) Interested(full jid.JID) {
	t.note(full, func(r *resource) {
		if r.interested {
			r.again = time.Since(t.began)
		}
		r.interested = true
	})
}

// Spell notes that a resource is connected, and how the server stamps its user's
// address: bare, or, if that is "", as the JID says. COMPAT ejabberd, which stamps
// an address as it was typed at login.
func (t *Table) Spell(full jid.JID, bare string) {
	if bare == "" && t.spelled.Load() == 0 {
		return // as nearly always: then the table need not know it yet
	}
	t.note(full, func(r *resource) { r.stamped = bare })
}

// note notes a sign of a resource, and what change says of it.
func (t *Table) note(full jid.JID, change func(*resource)) (news bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.purge()
	r := t.find(full)
	if news = r == nil; news {
		if all := t.users[full.Bare()]; len(all) == MaxResources {
			t.remove(all[0])
		}
		r = t.add(full)
	} else {
		t.count(r, -1)
	}
	before := *r
	change(r)
	t.count(r, 1)
	t.hear(r)
	available := r.available && !before.available
	if news || available || r.interested != before.interested || r.stamped != before.stamped {
		t.save(full, news || available) // before others are told
	}
	return news
}

// find finds a connected resource; nil: there is none. t.mu is held, as for all below
// that are not exported.
func (t *Table) find(full jid.JID) *resource {
	for _, r := range t.users[full.Bare()] {
		if r.full == full {
			return r
		}
	}
	return nil
}

// add adds a resource, behind the others of its user.
func (t *Table) add(full jid.JID) *resource {
	r := &resource{full: full}
	t.users[full.Bare()] = append(t.users[full.Bare()], r)
	r.sign = t.signs.PushBack(r)
	return r
}

// count adds n to the counts of what a resource is.
func (t *Table) count(r *resource, n int) {
	t.connected += n
	if r.interested {
		t.interested += n
	}
	if r.stamped != "" {
		t.spelled.Add(int64(n))
	}
}

// Gone notes that a resource is no longer connected. Nothing changes if it was
// not.
func (t *Table) Gone(full jid.JID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.find(full); r != nil {
		t.purge()
		t.remove(r)
	}
}

// remove removes a resource.
func (t *Table) remove(r *resource) {
	user := r.full.Bare()
	if len(t.users[user]) == 1 {
		delete(t.users, user)
	} else {
		t.users[user] = slices.DeleteFunc(t.users[user], func(other *resource) bool { return other == r })
	}
	t.signs.Remove(r.sign)
	t.count(r, -1)
	if r.available {
		t.leave(r.full, time.Now())
	}
	t.save(r.full, false)
}

// save puts what is known of a resource into the store, if there is one: t.mu is
// held, so that the order is kept.
func (t *Table) save(full jid.JID, soon bool) {
	if t.store == nil {
		return
	}
	kept := store.Resource{JID: full.String()}
	r := t.find(full)
	if r != nil {
		kept.Connected, kept.Interested, kept.Available, kept.Stamped = true, r.interested, r.available, r.stamped
	}
	for _, d := range t.left[full.Bare()] {
		if d.full == full {
			kept.Left = d.at
		}
	}
	if r == nil && kept.Left.IsZero() {
		t.store.DeleteResource(kept.JID)
	} else {
		t.store.PutResource(kept, soon)
	}
}

// Spelled is the user's address as the server stamps it for a resource; "": as the
// JID says, or the resource is not connected.
func (t *Table) Spelled(full jid.JID) (bare string) {
	if t.spelled.Load() == 0 {
		return ""
	}
	t.is(full, func(r *resource) bool { bare = r.stamped; return true })
	return bare
}

// Available reports whether a resource is connected and its presence was
// reported. The end of such a session a server reports, too, where it reports
// any.
func (t *Table) Available(full jid.JID) bool {
	return t.is(full, func(r *resource) bool { return r.available })
}

// IsInterested reports whether a resource is connected and has asked for the
// roster.
func (t *Table) IsInterested(full jid.JID) bool {
	return t.is(full, func(r *resource) bool { return r.interested })
}

// is reports whether a resource is connected and so.
func (t *Table) is(full jid.JID, so func(r *resource) bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.find(full)
	return r != nil && so(r)
}

// HasConnected reports whether a user (a bare JID) has a connected resource.
func (t *Table) HasConnected(user jid.JID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.users[user] != nil
}

// HasAvailable reports whether a user (a bare JID) has an available resource, as far as the
// server reports presence.
func (t *Table) HasAvailable(user jid.JID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.ContainsFunc(t.users[user], func(r *resource) bool { return r.available })
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

// Of are the connected resources of a user (a bare JID).
func (t *Table) Of(user jid.JID) []store.Resource {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []store.Resource
	for _, r := range t.users[user] {
		all = append(all, store.Resource{JID: r.full.String(), Connected: true, Interested: r.interested, Available: r.available, Stamped: r.stamped})
	}
	return all
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

// hear notes a sign of a resource. t.mu is held.
func (t *Table) hear(r *resource) {
	r.heard = time.Since(t.began)
	t.signs.MoveToBack(r.sign)
}

// Heard notes a sign of a resource. Nothing changes if it is not connected.
func (t *Table) Heard(full jid.JID) {
	t.is(full, func(r *resource) bool { t.hear(r); return true })
}

// Unheard are the connected resources of which there was no sign since a time,
// the one that is silent for longest first: some may be gone, though no server said
// so. The table is locked as long as they are looked at, which must not take long and
// not call it. It costs what is looked at.
func (t *Table) Unheard(since time.Time) iter.Seq[jid.JID] {
	return func(yield func(jid.JID) bool) {
		t.mu.Lock()
		defer t.mu.Unlock()
		for e := t.signs.Front(); e != nil; e = e.Next() {
			if r := e.Value.(*resource); r.heard >= since.Sub(t.began) || !yield(r.full) {
				return
			}
		}
	}
}

// AskedAgainSince reports whether a resource is connected, and has asked for the roster since
// a time though it had before: it may be another session.
func (t *Table) AskedAgainSince(full jid.JID, since time.Time) bool {
	return t.is(full, func(r *resource) bool { return r.again > 0 && r.again >= since.Sub(t.began) })
}

// HeardSince reports whether a resource is connected, and there was a sign of it
// since a time.
func (t *Table) HeardSince(full jid.JID, since time.Time) bool {
	return t.is(full, func(r *resource) bool { return r.heard >= since.Sub(t.began) })
}
