package roster

import (
	"errors"
	"time"
)

// round is one fetch and what follows from it.
func (m *Manager) round(u *user) {
	defer func() {
		if u.last != nil {
			u.last.pack()
		}
	}()
	m.noteAsked(u)
	if m.fresh(u) {
		m.tell(u, u.last, m.take(u, all), nil)
		return
	}
	release := m.place(u)
	// Only now: refreshes that came while this one waited share its fetch.
	m.mu.Lock()
	p := u.next
	u.next = nil
	m.mu.Unlock()
	asof, since := m.agenda.now(), m.reports.now()
	now, err := m.fetch(u, p != nil)
	release()
	if err == nil && now.Roster != u.last && u.last != nil {
		u.last.unpack() // it is compared, more than once
	}
	if err == nil {
		err = m.judge(u, now)
	}
	queries := m.take(u, all)
	if err == nil {
		m.fetched(u, now, since)
		u.asof, u.behind = asof, false
		m.tell(u, now.Roster, queries, p)
		return
	}
	m.fall(u, queries, err)
	if u.last == nil {
		m.oweRefused(u)
	}
	wait := soon
	if held := (*heldError)(nil); errors.As(err, &held) {
		confirm := time.Until(u.suspect.since.Add(m.Rules.ConfirmAfter))
		wait = pause{confirm, confirm}
	}
	m.fell(u, wait)
	m.finish(p, err)
}

// dating is how much younger the last known roster may be than the store says.
const dating = time.Minute

// fetched notes what came with a roster; since is what was reported before it was
// asked for.
func (m *Manager) fetched(u *user, f Fetched, since uint64) {
	now := time.Now()
	u.dirty = u.dirty || u.stale || m.reports.since(u.jid, u.since) || u.validator != f.Validator || u.missing != f.Missing || now.Sub(u.dated) > dating
	u.stale, u.fetched, u.validator, u.missing, u.since = false, now, f.Validator, f.Missing, since
}

// fresh reports whether nobody but queries waits and the last known roster is
// young enough for them, and nobody said that it has changed. It is not if
// something is owed: if rosterd was killed, somebody may have been told more than
// it knows.
func (m *Manager) fresh(u *user) bool {
	if !m.young(u) {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return u.next == nil
}

// young is fresh but for what waits.
func (m *Manager) young(u *user) bool {
	return u.last != nil && !u.behind && u.suspect == nil && len(u.owed) == 0 &&
		!m.reported(u) && !u.missing && time.Since(u.fetched) < m.Rules.MaxAge
}

// reported reports whether the backend may have said that the last known roster has
// changed: to an earlier process, say.
func (m *Manager) reported(u *user) bool {
	return u.stale || !u.fetched.After(m.started) || m.reports.since(u.jid, u.since)
}

// fall answers queries though the fetch failed, or is late: with the last known
// roster, if there is one that is not too old.
func (m *Manager) fall(u *user, queries []query, err error) {
	a := Answer{Err: err}
	if u.last != nil && u.covered() && (m.Rules.MaxStale == 0 || time.Since(u.fetched) <= m.Rules.MaxStale) {
		a.Roster = u.last
		for i := range queries {
			if q := &queries[i]; q.version != nil && u.named(*q.version, u.last) == u.last {
				q.has, q.same = u.last, u.has(q.full, u.last)
				u.told[q.full] = told{roster: u.last, asked: time.Now(), versioned: true}
			}
		}
	}
	m.deliver(u, m.answer(u, queries, a), nil, nil)
}

// covered reports whether the last known roster has all contacts that some
// resource may have been told since: if rosterd was killed, others may know more
// than its record.
func (s *state) covered() bool {
	for contact := range s.owed {
		if _, ok := s.last.Item(contact); !ok {
			return false
		}
	}
	return true
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
	t := m.background.enter(u.jid.Domain())
	select {
	case <-t.ready:
		return func() { m.background.leave(t) }
	case <-u.hurry:
		m.noteAsked(u)
	case <-m.ctx.Done():
	}
	m.background.leave(t)
	return func() {}
}

// fetch asks the source. Meanwhile the user's turn is free, and [Manager.attend] sees
// to the queries that come, or get overdue. refresh says that not only queries wait.
func (m *Manager) fetch(u *user, refresh bool) (Fetched, error) {
	r := Request{User: u.jid, Reported: refresh || m.reported(u)}
	if u.last != nil {
		r.Validator = u.validator
	}
	m.mu.Lock()
	u.fetching = true
	r.Hurry = len(u.queries) > 0
	m.mu.Unlock()
	m.noteAsked(u)
	m.watch(u)
	u.turn.Unlock()
	began := time.Now()
	f, err := m.Source.Fetch(m.ctx, r)
	m.tellFetched(r, f, err, began)
	u.turn.Lock()
	m.mu.Lock()
	u.fetching = false
	m.mu.Unlock()
	if u.overdue != nil {
		u.overdue.Stop()
	}
	switch {
	case err != nil && m.ctx.Err() != nil:
		return Fetched{}, ErrStopping
	case err == nil && f.Roster == nil && u.last == nil:
		return Fetched{}, errNothing
	case err == nil && f.Roster == nil:
		f.Roster = u.last // not modified
	}
	return f, err
}

// attendTo sees to it that the queries of a user who is being fetched are attended
// to. m.mu is held.
func (m *Manager) attendTo(u *user) {
	if u.fetching && !u.attending && !m.stopped {
		u.attending = true
		m.crew.run(func() { m.attend(u) })
	}
}

// attend notes the queries that came while a user is being fetched, and the replies
// that were lost, and answers queries that are overdue.
func (m *Manager) attend(u *user) {
	u.turn.Lock()
	defer u.turn.Unlock()
	m.mu.Lock()
	u.attending = false
	fetching := u.fetching
	m.mu.Unlock()
	if !fetching {
		return
	}
	m.noteAsked(u)
	m.correct(u)
	now := time.Now()
	if late := m.take(u, func(q query) bool { return !q.deadline.After(now) }); len(late) > 0 {
		m.fall(u, late, ErrOverdue)
	}
	m.watch(u)
}

// watch lets the first query of a user who is being fetched be attended to when it
// gets overdue.
func (m *Manager) watch(u *user) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(u.queries) == 0 {
		return // one that comes now is attended to
	}
	wait := time.Until(u.queries[0].deadline)
	if u.overdue == nil {
		u.overdue = time.AfterFunc(wait, func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.attendTo(u)
		})
		return
	}
	u.overdue.Reset(wait)
}

// errNothing is for a [Source] that says of nothing that it is still the same.
var errNothing = errors.New("the backend gave no roster")

func all(query) bool { return true }

// take removes the queries from the front that which accepts. All of them are
// noted.
func (m *Manager) take(u *user, which func(query) bool) []query {
	m.noteAsked(u)
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for n < len(u.queries) && u.queries[n].noted && which(u.queries[n]) {
		n++
	}
	taken := u.queries[:n:n]
	if u.queries = u.queries[n:]; len(u.queries) == 0 {
		u.queries = nil
	}
	m.waiting -= n
	return taken
}
