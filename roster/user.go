package roster

import (
	"container/list"
	"time"

	"rosterd/jid"
	"rosterd/store"
)

// user is one user for whom there is something to do.
type user struct {
	jid jid.JID

	// Guarded by Manager.mu.
	running bool             // the user's goroutine lives
	serve   func()           // is what it does
	queries []query          // to be answered by the fetch under way, or by the next
	next    *pending         // refreshes to be done by a fetch that has not begun; nil: none
	hurry   chan struct{}    // a query came: do not wait for a background place
	settled []settled        // what became of pushes
	lost    map[jid.JID]bool // resources whose reply was lost, and whether they are known to use versions
	unasked bool             // some of those did not ask here: it does not take a fetch to tell them
	due     [][]byte         // notes of those that are to be written
	refused refusals         // of changes
	resting *list.Element    // in the cache; nil: there is something to do
	known   *Roster          // the last known roster, for others; nil: none, or not loaded

	fetching  bool // the turn is free
	attending bool // somebody is about to take it meanwhile

	// turn is held by the user's goroutine while it runs, but for the time of a
	// fetch. It guards all below; while the goroutine does not run, Manager.mu does.
	turn    turn
	overdue *time.Timer // of the first query; nil: none was waited for yet
	state
	loaded  bool      // state is
	kept    *Roster   // that is in the store
	dated   time.Time // when that was fetched, in the store
	dirty   bool      // state is not in the store
	notes   int       // written since it was
	behind  bool      // the last try failed: the user is marked
	asof    uint64    // what is noted in the agenda up to here is done with the last try
	suspect *suspect

	correcting int // contacts that some of the resources are being told of again, see correct
}

// turn is a mutex that may be held for long, as by who waits for the server: made of
// a channel of one, as testing/synctest knows who waits for that to be idle.
type turn chan struct{}

func (t turn) Lock()   { t <- struct{}{} }
func (t turn) Unlock() { <-t }

// settled is what became of it.
type settled struct {
	flight  *flight
	outcome Outcome
}

// doubtAll is doubt for resources whose reply was lost.
func (u *user) doubtAll(lost map[jid.JID]bool) {
	for full, versioned := range lost {
		if u.loaded { // else that is noted
			u.doubt(full, versioned)
			u.dirty = true
		}
	}
}

// query is one resource waiting for its roster.
type query struct {
	full     jid.JID
	news     bool // it was not known that the resource is interested
	deadline time.Time
	version  *string // of the roster that the client says it has; nil: it uses no versions
	reply    Reply
	noted    bool    // in the store
	has      *Roster // what version names; nil: nothing that is known
	same     bool    // which is what the resource was told and is told now
}

// pending is what refreshes wait for that share a fetch.
type pending struct {
	done     chan struct{} // closed when they are done
	err      error         // valid then
	finished bool          // guarded by Manager.mu
}

// serve is the user's goroutine.
func (m *Manager) serve(u *user) {
	u.turn.Lock()
	defer u.turn.Unlock()
	if !u.loaded {
		m.load(u)
	}
	for m.next(u) {
		m.round(u)
	}
}

// next does what is to be done for a user but for a fetch, and reports whether
// there is one. If there is not, the user's goroutine ends.
func (m *Manager) next(u *user) bool {
	for {
		m.mu.Lock()
		done, lost, unasked := u.settled, u.lost, u.unasked
		u.settled, u.lost, u.unasked = nil, nil, false
		fetch := len(u.queries) > 0 || u.next != nil || len(u.refused) > 0 && u.last == nil && !u.behind
		refused := len(u.due) > 0 || len(u.refused) > 0 && (u.last == nil || u.correcting < maxCorrecting)
		saved := !u.dirty || len(u.flying) > 0 && u.notes < maxUnsaved
		if !fetch && saved && len(done) == 0 && len(lost) == 0 && !refused {
			u.running = false
			m.inLine(u)
			if !u.dirty && len(u.flying) == 0 && (u.suspect == nil || !m.Sessions.HasConnected(u.jid)) {
				m.rest(u)
			}
			m.mu.Unlock()
			return false
		}
		m.mu.Unlock()
		if len(lost) > 0 {
			m.noteAsked(u)
			u.doubtAll(lost)
			if unasked && u.last != nil && !u.stale && time.Since(u.fetched) < recent {
				m.tell(u, u.last, nil, nil)
			} else {
				m.fell(u, soon)
			}
		}
		for _, s := range done {
			m.settle(u, s)
		}
		m.noteAsked(u)
		m.correct(u)
		if fetch {
			return true
		}
		if u.last == nil {
			m.oweRefused(u)
		}
		if len(u.flying) == 0 || u.notes >= maxUnsaved {
			m.save(u)
			m.mu.Lock()
			m.noteRefused(u)
			m.mu.Unlock()
		}
	}
}

// recent is how old a roster may be that resources are told without another fetch:
// it was fetched because of their presence.
const recent = 10 * time.Second

// settle notes what became of pushes.
func (m *Manager) settle(u *user, s settled) {
	u.land(s.flight)
	u.dirty = true
	if s.outcome.Err != nil {
		u.owe(s.outcome.Owed)
		for _, version := range u.versions {
			u.mistrust(version)
		}
		if s.outcome.Refused {
			m.fell(u, seldom)
		} else {
			m.fell(u, soon)
		}
	}
}

// land ends a flight.
func (u *user) land(f *flight) {
	delete(u.flying, f)
	u.correcting -= f.corrects()
}

// corrects is how many contacts somebody is told of again.
func (f *flight) corrects() int {
	if f.partial {
		return len(f.contacts)
	}
	return 0
}

// fell notes that a user is not in line, and is to be tried again, see
// [agenda.mark].
func (m *Manager) fell(u *user, p pause) {
	u.behind, u.stale, u.dirty = true, true, true
	m.mark(u.jid, p)
}

// maxUnsaved is how many notes are written before a user's state is saved though
// some pushes are not settled.
const maxUnsaved = 64

// save puts a user's state into the store, the roster first: see decodeState.
func (m *Manager) save(u *user) {
	if !u.loaded || !u.dirty {
		return
	}
	u.dirty, u.notes, u.dated = false, 0, u.fetched
	key := u.jid.String()
	if u.last == nil && len(u.told) == 0 && len(u.owed) == 0 && len(u.flying) == 0 {
		m.Store.Put(store.Users, key, nil)
		return
	}
	if u.last != nil && u.last != u.kept {
		u.kept = u.last
		m.Store.Put(store.Rosters, key, encodeRoster(u.last))
	}
	m.Store.Put(store.Users, key, u.encode())
}

// load takes a user's state from the store.
func (m *Manager) load(u *user) {
	u.state = m.read(u.jid)
	u.loaded, u.dirty, u.kept, u.dated = true, u.noted, u.last, u.fetched
	m.mu.Lock()
	u.known = u.last
	m.mu.Unlock()
}

// read is what the store has of a user. If that is damaged, nothing is known of
// him: the clients are told everything.
func (m *Manager) read(user jid.JID) state {
	key := user.String()
	var last *Roster
	var s state
	e, err := m.Store.Get(store.Users, key)
	if err == nil && len(e.Record) > 0 {
		var kept store.Entry
		if kept, err = m.Store.Get(store.Rosters, key); err == nil {
			last, err = decodeRoster(kept.Record)
		}
	}
	if err == nil {
		s, err = decodeState(user, e.Record, last)
	}
	if err != nil {
		m.alarm.Do(func() { m.Logger.Error("what was kept of a user cannot be read", "user", user, "err", err) })
		s = state{told: make(map[jid.JID]told)}
	}
	for _, note := range e.Notes {
		s.apply(user, note)
	}
	if s.noted = len(e.Notes) > 0; s.noted {
		s.validator = "" // the roster may be a later one than the record
	}
	return s
}

// note writes to the store what is about to happen.
func (m *Manager) note(u *user, note []byte) {
	m.Store.Note(store.Users, u.jid.String(), note)
	u.notes++
	u.dirty = true
}

// noteAsked notes the queries that wait, and the replies that were lost.
func (m *Manager) noteAsked(u *user) {
	m.mu.Lock()
	due := u.due
	u.due = nil
	var fresh []query
	for i := range u.queries {
		if q := &u.queries[i]; !q.noted {
			q.noted = true
			if !q.news && q.version != nil && u.has(q.full, u.last) && u.named(*q.version, u.last) == u.last {
				continue // it is known, and says that it has what it was told: whatever happens, nothing new is to be known
			}
			fresh = append(fresh, *q)
		}
	}
	m.mu.Unlock()
	for _, note := range due {
		m.note(u, note)
	}
	for _, q := range fresh {
		m.note(u, asked(q.full, q.version != nil))
	}
}
