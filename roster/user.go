package roster

import (
	"context"
	"slices"
	"sync"
	"time"

	"rosterd/jid"
)

// user is the state of one user. known belongs to the user's goroutine, the
// rest is guarded by Manager.mu.
type user struct {
	jid   jid.JID
	known *Roster // what the interested resources were last told; nil: nothing

	running   bool          // the user's goroutine lives
	queries   []query       // to be answered by the fetch under way, or by the next
	refreshes []func(error) // to be done by a fetch that has not begun
	hurry     chan struct{} // a query came: do not wait for a background place
	owed      owed
	marked    bool // to be refreshed when the stream is back
}

// query is one resource waiting for its roster.
type query struct {
	full     jid.JID
	deadline time.Time
	reply    Reply
}

// owed is what interested resources may lack though the last known roster says
// otherwise: a push was not delivered, or a query was answered with an error.
type owed struct {
	all   bool // every item
	items map[jid.JID]struct{}
}

func (o *owed) add(contacts []jid.JID) {
	if o.items == nil {
		o.items = make(map[jid.JID]struct{}, len(contacts))
	}
	for _, c := range contacts {
		o.items[c] = struct{}{}
	}
}

// changes are those of Diff(known, now), and beyond them what is owed.
func (o owed) changes(known, now *Roster) []Change {
	changes := Diff(known, now)
	if !o.all && len(o.items) == 0 {
		return changes
	}
	told := make(map[jid.JID]struct{}, len(changes))
	for _, c := range changes {
		told[c.Item.JID] = struct{}{}
	}
	again := func(c Change) {
		if _, ok := told[c.Item.JID]; !ok {
			told[c.Item.JID] = struct{}{}
			changes = append(changes, c)
		}
	}
	if o.all {
		for _, item := range now.Items() {
			again(Change{Changed, item})
		}
	}
	for contact := range o.items {
		if item, ok := now.Item(contact); ok {
			again(Change{Changed, item})
		} else {
			again(Change{Removed, Item{JID: contact}})
		}
	}
	return changes
}

// serve is the user's goroutine.
func (m *Manager) serve(u *user) {
	for {
		m.mu.Lock()
		idle := len(u.queries) == 0 && len(u.refreshes) == 0
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
	refreshes := u.refreshes
	u.refreshes = nil
	m.mu.Unlock()
	now, err := m.fetch(u)
	release()
	queries := m.take(u, func(query) bool { return true })
	if err != nil {
		if len(queries) > 0 {
			m.owe(u, func(o *owed) { o.all = true })
		}
		for _, q := range queries {
			q.reply(nil, err)
		}
		for _, done := range refreshes {
			done(err)
		}
		return
	}
	m.tell(u, now, queries, refreshes)
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
			overdue := m.take(u, func(q query) bool { return !q.deadline.After(now) })
			if len(overdue) > 0 {
				m.owe(u, func(o *owed) { o.all = true })
			}
			for _, q := range overdue {
				q.reply(nil, ErrOverdue)
			}
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

func (m *Manager) owe(u *user, change func(*owed)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(&u.owed)
}

// tell makes now the last known roster: it answers the queries with it and
// pushes the changes to the interested resources that did not ask just now.
func (m *Manager) tell(u *user, now *Roster, queries []query, refreshes []func(error)) {
	m.mu.Lock()
	owed := u.owed
	u.owed.all, u.owed.items = false, nil
	m.mu.Unlock()
	changes := owed.changes(u.known, now)
	u.known = now

	asked := make(map[jid.JID]struct{}, len(queries))
	var deliveries []delivery
	for _, q := range queries {
		asked[q.full] = struct{}{}
		if rest := q.reply(now, nil); len(rest) > 0 {
			deliveries = append(deliveries, delivery{[]jid.JID{q.full}, added(rest)})
		}
	}
	if len(changes) > 0 {
		others := slices.DeleteFunc(m.sessions.InterestedOf(u.jid), func(full jid.JID) bool {
			_, ok := asked[full]
			return ok
		})
		if len(others) > 0 {
			deliveries = append(deliveries, delivery{others, changes})
		}
	}
	m.deliver(u, deliveries, m.finishOnce(refreshes))
}

// delivery is one call of Pusher.Push.
type delivery struct {
	to      []jid.JID
	changes []Change
}

func added(items []Item) []Change {
	changes := make([]Change, len(items))
	for i, item := range items {
		changes[i] = Change{Added, item}
	}
	return changes
}

// deliver pushes; finish is called once all is settled, with what went wrong.
func (m *Manager) deliver(u *user, deliveries []delivery, finish func(error)) {
	if len(deliveries) == 0 {
		finish(nil)
		return
	}
	left := len(deliveries) // guarded by m.mu, as is failure
	var failure error
	for _, d := range deliveries {
		m.pusher.Push(d.to, d.changes, func(o Outcome) {
			m.mu.Lock()
			if o.Err != nil {
				failure = o.Err
				u.owed.add(o.Owed)
				u.marked = u.marked || o.Lost
			}
			left--
			last, err := left == 0, failure
			m.mu.Unlock()
			if last {
				finish(err)
			}
		})
	}
}

// finishOnce returns a function that ends the refreshes; after the settle
// limit they end without an error of their own: the pushes are on their way,
// and a client on a poor line is no reason to let the backend wait.
func (m *Manager) finishOnce(refreshes []func(error)) func(error) {
	if len(refreshes) == 0 {
		return func(error) {}
	}
	var once sync.Once
	finish := func(err error) {
		once.Do(func() {
			for _, done := range refreshes {
				done(err)
			}
		})
	}
	stop := context.AfterFunc(m.ctx, func() { finish(nil) })
	timer := time.AfterFunc(m.limits.Settle, func() { finish(nil) })
	return func(err error) {
		timer.Stop()
		stop()
		finish(err)
	}
}
