package roster

import (
	"slices"
	"time"

	"rosterd/jid"
)

// user is the state of one user, guarded by Manager.mu. Only the user's
// goroutine, while it runs, tells resources anything.
type user struct {
	jid     jid.JID
	running bool          // the user's goroutine lives
	queries []query       // to be answered by the fetch under way, or by the next
	next    *pending      // refreshes to be done by a fetch that has not begun; nil: none
	hurry   chan struct{} // a query came: do not wait for a background place
	marked  bool          // to be refreshed when the stream is back

	last *Roster              // the last known roster; nil: none is
	told map[jid.JID]told     // what each interested resource was last told; none: nothing
	owed map[jid.JID]struct{} // contacts whose items some resource may lack all the same: pushes failed
}

// told is what a resource was last told.
type told struct {
	roster *Roster // nil: nothing
	before *Roster // what it had until it asked; nil if that is all in roster
	// doubt: the resource may have roster, before, or nothing. It asked and got an
	// error, or its answer was lost. Then it is told every item, and what it may
	// have and is no more.
	doubt bool
}

// asks is what is known of a resource when it has asked and now is its answer.
func (t told) asks(now *Roster) told {
	if t.roster == now {
		return t // it asked twice
	}
	had := t.roster
	if t.doubt && t.before != nil {
		had = New(slices.Concat(t.roster.Items(), t.before.Items()))
	}
	if slices.ContainsFunc(Diff(had, now), func(c Change) bool { return c.Action == Removed }) {
		return told{roster: now, before: had}
	}
	return told{roster: now}
}

// doubt notes that a resource may have nothing. Manager.mu is held.
func (u *user) doubt(full jid.JID) {
	if t, ok := u.told[full]; ok {
		t.doubt = true
		u.told[full] = t
	}
}

// query is one resource waiting for its roster.
type query struct {
	full     jid.JID
	deadline time.Time
	reply    Reply
}

// pending is what refreshes wait for that share a fetch.
type pending struct {
	done     chan struct{} // closed when they are done
	err      error         // valid then
	finished bool          // guarded by Manager.mu
}

// maxOwed bounds what is owed to one user; with more, everything is.
const maxOwed = 10_000

// owe notes contacts whose items were not delivered. m.mu is held.
func (u *user) owe(contacts []jid.JID) {
	if u.owed == nil {
		u.owed = make(map[jid.JID]struct{}, len(contacts))
	}
	for _, c := range contacts {
		u.owed[c] = struct{}{}
	}
	if len(u.owed) > maxOwed {
		u.owed = nil
		for full := range u.told {
			u.doubt(full)
		}
	}
}

// changes are what turns what was told into now, and beyond that what is owed.
func changes(t told, now *Roster, owed map[jid.JID]struct{}) []Change {
	changes := Diff(t.roster, now)
	if len(owed) == 0 && !t.doubt {
		return changes
	}
	known := make(map[jid.JID]struct{}, len(changes))
	for _, c := range changes {
		known[c.Item.JID] = struct{}{}
	}
	again := func(contact jid.JID) {
		if _, ok := known[contact]; ok {
			return
		}
		known[contact] = struct{}{}
		if item, ok := now.Item(contact); ok {
			changes = append(changes, Change{Changed, item})
		} else {
			changes = append(changes, Change{Removed, Item{JID: contact}})
		}
	}
	if t.doubt {
		for _, items := range [...][]Item{t.before.Items(), now.Items()} {
			for _, item := range items {
				again(item.JID)
			}
		}
	}
	for contact := range owed {
		again(contact)
	}
	return changes
}

// serve is the user's goroutine.
func (m *Manager) serve(u *user) {
	for {
		m.mu.Lock()
		idle := len(u.queries) == 0 && u.next == nil
		if idle {
			u.running = false
			m.drop(u)
		}
		m.mu.Unlock()
		if idle {
			return
		}
		m.round(u)
	}
}

// round is one fetch and what follows from it.
func (m *Manager) round(u *user) {
	release := m.place(u)
	// Only now: refreshes that came while this one waited share its fetch.
	m.mu.Lock()
	p := u.next
	u.next = nil
	m.mu.Unlock()
	now, err := m.fetch(u)
	release()
	queries := m.take(u, func(query) bool { return true })
	if err != nil {
		m.refuse(u, queries, err)
		m.finish(p, err)
		return
	}
	m.tell(u, now, queries, p)
}

// refuse answers queries with an error.
func (m *Manager) refuse(u *user, queries []query, err error) {
	m.mu.Lock()
	for _, q := range queries {
		u.doubt(q.full)
	}
	m.mu.Unlock()
	for _, q := range queries {
		q.reply(nil, err)
	}
}

// place waits for a background place, unless a query is in a hurry.
func (m *Manager) place(u *user) (release func()) {
	m.mu.Lock()
	urgent := len(u.queries) > 0
	select {
	case <-u.hurry: // of a query that is seen here, or answered already
	default:
	}
	m.mu.Unlock()
	if urgent {
		return func() {}
	}
	select {
	case m.background <- struct{}{}:
		return func() { <-m.background }
	case <-u.hurry:
	case <-m.ctx.Done():
	}
	return func() {}
}

// fetch asks the source, and meanwhile answers the queries that get overdue.
func (m *Manager) fetch(u *user) (*Roster, error) {
	type result struct {
		roster *Roster
		err    error
	}
	done := make(chan result, 1)
	m.work.Go(func() {
		r, err := m.source.Fetch(m.ctx, u.jid)
		done <- result{r, err}
	})
	timer := time.NewTimer(m.limits.Answer)
	defer timer.Stop()
	for {
		timer.Reset(m.untilOverdue(u))
		select {
		case r := <-done:
			if r.err != nil && m.ctx.Err() != nil {
				return nil, ErrStopping
			}
			return r.roster, r.err
		case <-timer.C:
			now := time.Now()
			m.refuse(u, m.take(u, func(q query) bool { return !q.deadline.After(now) }), ErrOverdue)
		}
	}
}

// untilOverdue is how long the first query has still to wait at most.
func (m *Manager) untilOverdue(u *user) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(u.queries) == 0 {
		return m.limits.Answer // a query that comes now has that long
	}
	return time.Until(u.queries[0].deadline)
}

// take removes the queries from the front that which accepts.
func (m *Manager) take(u *user, which func(query) bool) []query {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for n < len(u.queries) && which(u.queries[n]) {
		n++
	}
	taken := u.queries[:n:n]
	if u.queries = u.queries[n:]; len(u.queries) == 0 {
		u.queries = nil
	}
	m.waiting -= n
	return taken
}
