package roster

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"rosterd/jid"
	"rosterd/store"
)

// The reasons why a roster is not given, or a refresh not done, that are not
// the [Source]'s.
var (
	ErrNotConnected = errors.New("not connected to the server")
	ErrOverdue      = errors.New("the backend did not answer in time")
	ErrBusy         = errors.New("too many queries are waiting")
	ErrStopping     = errors.New("rosterd is stopping")
)

// Manager alone decides what a user's last known roster is, and knows what each
// of his resources was last told. All that concerns one user is done one after the
// other by one goroutine, which lives while there is something to do for that
// user, so that replies and pushes leave in the order of the facts. What is known
// of a user for whom there is nothing to do is in the store alone, but for the
// last ones. A Manager's methods are safe for concurrent use.
type Manager struct {
	Options
	watcher  Watcher // nil: nobody
	agenda   *agenda
	reports  *reports
	alarm    rate.Sometimes // logs of the store
	partings []parting      // of the processes before

	started    time.Time       // rosters that were fetched before may be outdated
	resumed    sync.Map        // domain -> time.Time of the last Resume
	ctx        context.Context // ends with Close
	cancel     context.CancelFunc
	work       sync.WaitGroup // of the agenda
	crew       *crew          // of users, and of their fetches
	background *places        // for fetches that no query waits for

	mu      sync.Mutex
	stopped bool
	users   map[jid.JID]*user // by bare JID: those for whom there is something to do, and those in the cache
	cache   cache
	waiting int    // queries of all users
	counts  Counts // Retries and Held alone

	marks sync.Mutex // held while a mark is set or removed in the agenda and in the store
}

// Counts are figures of a [Manager].
type Counts struct {
	Marked  int    // users whose last refresh failed: they are tried again
	Resync  int    // users that are to be brought in line, without those
	Retries uint64 // of marked users, ever
	Held    uint64 // rosters that were not believed at once, ever
}

// NewManager makes a manager of what the store has kept, and starts its work in
// the background. [Manager.Close] ends it.
func NewManager(o Options) (*Manager, error) {
	o.Limits = o.Limits.withDefaults()
	ctx, cancel := context.WithCancel(context.Background())
	m := &Manager{
		Options: o, reports: newReports(), alarm: rate.Sometimes{Interval: time.Minute},
		started: time.Now(), ctx: ctx, cancel: cancel, crew: newCrew(ctx),
		background: newPlaces(o.Limits.Background),
		agenda:     newAgenda(max(1, o.Limits.Background/2)), // refreshes have the others
		users:      make(map[jid.JID]*user),
	}
	if err := m.restore(); err != nil {
		cancel()
		m.crew.wait()
		return nil, err
	}
	m.work.Go(func() { m.agenda.run(ctx, o.Limits.Resync, o.Pusher.Connected, m.try) })
	return m, nil
}

// Answer is what a query is answered with.
type Answer struct {
	Roster *Roster // nil: there is none, the answer is an error
	Err    error   // why there is none, or why it is an old one
	// Named says that the client uses roster versioning (RFC 6121, section 2.6),
	// and Same that it has the roster, or one whose differences are pushed next:
	// then the answer is empty.
	Named, Same bool
}

// Reply answers a query. It returns the items that the answer could not hold:
// they are pushed next.
type Reply func(Answer) (rest []Item)

// Get asks for the roster on behalf of a resource, which becomes an interested
// one, and does not wait for it: unless Get returns an error, reply is called
// once, within the answer limit, from the user's goroutine; what it sends then
// is in order with the pushes. Queries of one user at the same time share one
// fetch. version is that of the roster which the client says it has, or "" if it
// has none; nil if it does not use versions. If Get returns an error, the resource
// is told everything later.
//
// If there is nothing to tell the resource but that it has the roster, nor anything
// to note, same is true, reply is not called, and the caller is to answer so: that
// is when version names the last known roster, which is young enough, and which
// the resource was told before.
func (m *Manager) Get(full jid.JID, version *string, reply Reply) (same bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	news := m.Sessions.Interested(full)
	m.forgettable(full.Bare(), false)
	if m.stopped {
		m.lose(full, version != nil)
		return false, ErrStopping
	}
	u := m.users[full.Bare()]
	if !news && version != nil && m.current(u, full, *version) {
		return true, nil
	}
	if m.waiting >= m.Limits.Queries || u != nil && len(u.queries) >= m.Limits.PerUser {
		m.lose(full, version != nil)
		return false, ErrBusy
	}
	if u == nil {
		u = m.add(full.Bare())
	}
	m.waiting++
	u.queries = append(u.queries, query{full: full, news: news, deadline: time.Now().Add(m.Limits.Answer), version: version, reply: reply})
	select {
	case u.hurry <- struct{}{}:
	default:
	}
	m.attendTo(u)
	m.start(u)
	return false, nil
}

// current reports whether there is nothing to do for a user, who may be nil, and
// all there is to tell his resource is that it has the roster. m.mu is held.
func (m *Manager) current(u *user, full jid.JID, version string) bool {
	if u == nil || u.resting == nil || !m.young(u) || !u.has(full, u.last) || u.named(version, u.last) != u.last {
		return false
	}
	t := u.told[full]
	t.asked = time.Now()
	u.told[full] = t
	m.cache.users.MoveToBack(u.resting)
	return true
}

// Refresh fetches the rosters of users (bare JIDs, none twice) again and sends
// the changes to their interested resources. It returns the failed users, each
// with its reason; a user without a connected resource is not fetched and does
// not fail. Who failed is tried again until it is done. When ctx ends first, so
// does the wait, but not the work. While the stream is down it returns
// [ErrNotConnected] and the users are refreshed when [Manager.Resume] is called.
func (m *Manager) Refresh(ctx context.Context, users []jid.JID) (map[jid.JID]error, error) {
	connected := m.Pusher.Connected()
	waiting := make(map[jid.JID]*pending)
	for _, user := range users {
		if !m.Sessions.HasConnected(user) && !m.busy(user) {
			m.reports.note(user)
			if m.debugs() {
				m.Logger.Debug("not fetched, no client of the user is connected", "user", user)
			}
			continue
		}
		if !connected {
			m.reports.note(user)
			m.mark(user, soon)
			continue
		}
		p, err := m.refresh(user)
		if err != nil {
			return nil, err
		}
		waiting[user] = p
	}
	if !connected {
		return nil, ErrNotConnected
	}
	failed := make(map[jid.JID]error)
	for user, p := range waiting {
		select {
		case <-p.done:
			if p.err != nil {
				failed[user] = p.err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return failed, nil
}

// Watch tells w the last known rosters from now on. It is called before anything
// else, or not at all.
func (m *Manager) Watch(w Watcher) { m.watcher = w }

// Known is a user's last known roster, if there is one.
func (m *Manager) Known(user jid.JID) (*Roster, bool) {
	m.mu.Lock()
	u := m.users[user]
	if u != nil && u.known != nil {
		defer m.mu.Unlock()
		return u.known, true
	}
	m.mu.Unlock()
	s := m.read(user)
	return s.last, s.last != nil
}

// Want fetches the roster of a user who has a connected resource, on nobody's
// behalf. It does not block.
func (m *Manager) Want(user jid.JID) {
	if m.Sessions.HasConnected(user) {
		_, _ = m.refresh(user) // stopped: nobody wants it any more
	}
}

// Undelivered says that a reply was lost with the stream: the resource may have
// nothing, and is told everything when the stream is back.
func (m *Manager) Undelivered(full jid.JID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lose(full, false)
}

// Unasked says that a resource is connected that did not ask here, but may have
// asked somebody else: it becomes an interested one, and is told everything.
func (m *Manager) Unasked(full jid.JID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.Sessions.Interested(full)
	m.forgettable(full.Bare(), false)
	m.add(full.Bare()).unasked = true
	m.lose(full, false)
}

// lose is Undelivered, of a resource of which it may be known that it uses
// versions. m.mu is held.
func (m *Manager) lose(full jid.JID, versioned bool) {
	u := m.add(full.Bare())
	if u.lost == nil {
		u.lost = make(map[jid.JID]bool)
	}
	if known, is := u.lost[full]; !is || versioned && !known {
		u.lost[full] = versioned
		u.due = append(u.due, asked(full, versioned))
	}
	m.attendTo(u)
	m.start(u)
	if m.stopped {
		m.Store.Note(store.Users, u.jid.String(), asked(full, versioned)) // for the next process
	}
}

// Gone says that a resource is no longer connected. A user without a connected
// resource is not refreshed any more.
func (m *Manager) Gone(full jid.JID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	user := full.Bare()
	if !m.absent(user) {
		return
	}
	m.forgettable(user, true)
	if u := m.users[user]; u != nil && u.resting == nil {
		m.start(u) // it may rest
	}
}

// forgettable says whether what is kept of a user may be forgotten, if there is
// too little room.
func (m *Manager) forgettable(user jid.JID, yes bool) {
	key := user.String()
	m.Store.Forgettable(store.Users, key, yes)
	m.Store.Forgettable(store.Rosters, key, yes)
}

// Counts are the figures as they are now.
func (m *Manager) Counts() Counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.counts
	c.Marked, c.Resync = m.agenda.counts()
	return c
}

// Close ends the fetches under way, answers the queries that wait with the last
// known roster or [ErrStopping], waits until all is done and put into the store.
// Later calls of Get and Refresh fail.
func (m *Manager) Close() {
	m.mu.Lock()
	m.stopped = true
	m.mu.Unlock()
	m.cancel()
	m.work.Wait()
	m.crew.wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, u := range m.users { // their pushes are not confirmed
		u.doubtAll(u.lost)
		for _, contacts := range u.refused {
			u.owe(slices.Collect(maps.Keys(contacts)))
			u.dirty = true // if it is loaded, else that is noted
		}
		m.save(u)
	}
}

// refresh asks for a fetch that begins from now on.
func (m *Manager) refresh(user jid.JID) (*pending, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped {
		return nil, ErrStopping
	}
	u := m.add(user)
	if u.next == nil {
		u.next = &pending{done: make(chan struct{})}
	}
	m.start(u)
	return u.next, nil
}

// finish ends the refreshes that wait for p; only the first call counts. p may
// be nil.
func (m *Manager) finish(p *pending, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p != nil && !p.finished {
		p.err, p.finished = err, true
		close(p.done)
	}
}

// add finds or makes the state of a user. m.mu is held.
func (m *Manager) add(bare jid.JID) *user {
	u := m.users[bare]
	if u == nil {
		u = &user{jid: bare, hurry: make(chan struct{}, 1), turn: make(turn, 1)}
		u.serve = func() { m.serve(u) }
		m.users[bare] = u
	}
	return u
}

// start sees to it that the user's goroutine runs. m.mu is held.
func (m *Manager) start(u *user) {
	if !u.running && !m.stopped {
		m.wake(u)
		u.running = true
		m.crew.run(u.serve)
	}
}
