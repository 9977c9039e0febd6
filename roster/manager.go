package roster

import (
	"context"
	"errors"
	"sync"
	"time"

	"rosterd/jid"
)

// The reasons why a roster is not given, or a refresh not done, that are not
// the [Source]'s.
var (
	ErrNotConnected = errors.New("not connected to the server")
	ErrOverdue      = errors.New("the backend did not answer in time")
	ErrBusy         = errors.New("too many queries are waiting")
	ErrStopping     = errors.New("rosterd is stopping")
)

// Source is where rosters come from. Fetch asks for the roster of a user (a
// bare JID) as it is now; it is called from many goroutines, but never twice
// at a time for one user. The text of an error is shown to the backend's
// developers: short, and without secrets.
type Source interface {
	Fetch(ctx context.Context, user jid.JID) (*Roster, error)
}

// Sessions is the table of the users' resources. Its methods are safe for
// concurrent use and do not block.
type Sessions interface {
	Interested(full jid.JID)
	InterestedOf(user jid.JID) []jid.JID
	HasConnected(user jid.JID) bool
}

// Pusher sends roster pushes (RFC 6121, section 2.1.6). Its methods are safe
// for concurrent use.
type Pusher interface {
	// Connected reports whether anything can be sent at present.
	Connected() bool
	// Push sends each change to each resource, all of one user, in order. It
	// may block while the server reads slowly, but not without bound. Unless it
	// returns an error, which means that nothing was sent, settled is called
	// once, from any goroutine, when every push was answered, refused or given
	// up; it does not block. An error that is ErrNotConnected will pass.
	Push(to []jid.JID, changes []Change, settled func(Outcome)) error
}

// Watcher is told each last known roster of a user (a bare JID), in order. Told
// does not block.
type Watcher interface {
	Told(user jid.JID, now *Roster)
}

// Outcome is what became of pushes that were sent.
type Outcome struct {
	// Owed are the contacts whose items some resource did not get, though it
	// is still there.
	Owed []jid.JID
	// Lost says that the stream broke: a new one may deliver.
	Lost bool
	// Err is why, nil if nothing is owed.
	Err error
}

// Limits of a [Manager]. The zero value of a field means its default.
type Limits struct {
	Answer     time.Duration // how long a query may wait for its answer; 24 s, to be answered within 25
	Settle     time.Duration // how long a refresh waits for its pushes to be answered; 2 s
	Background int           // fetches at a time that no query waits for; 48
	PerUser    int           // queries of one user waiting at a time; 64
	Queries    int           // queries of all users waiting at a time; 65,536
}

func (l Limits) withDefaults() Limits {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&l.Background, 48)
	def(&l.PerUser, 64)
	def(&l.Queries, 65536)
	if l.Answer == 0 {
		l.Answer = 24 * time.Second
	}
	if l.Settle == 0 {
		l.Settle = 2 * time.Second
	}
	return l
}

// Manager alone decides what a user's last known roster is, and knows what each
// of his resources was last told. All that concerns one user is done one after the
// other by one goroutine, which lives while there is something to do for that
// user, so that replies and pushes leave in the order of the facts. Its
// methods are safe for concurrent use.
type Manager struct {
	source   Source
	sessions Sessions
	pusher   Pusher
	watcher  Watcher // nil: nobody
	limits   Limits

	ctx        context.Context // ends with Close
	cancel     context.CancelFunc
	work       sync.WaitGroup
	background chan struct{} // a place for each fetch that no query waits for

	mu      sync.Mutex
	stopped bool
	users   map[jid.JID]*user // by bare JID
	waiting int               // queries of all users
	resumes uint64            // calls of Resume: what failed before the last one is tried again at once
}

// NewManager makes a manager. [Manager.Close] ends it.
func NewManager(source Source, sessions Sessions, pusher Pusher, limits Limits) *Manager {
	limits = limits.withDefaults()
	ctx, cancel := context.WithCancel(context.Background())
	return &Manager{
		source: source, sessions: sessions, pusher: pusher, limits: limits,
		ctx: ctx, cancel: cancel,
		background: make(chan struct{}, limits.Background),
		users:      make(map[jid.JID]*user),
	}
}

// Reply answers a query with a roster, or with the reason why there is none. It
// returns the items that the answer could not hold: they are pushed next.
type Reply func(*Roster, error) (rest []Item)

// Get asks for the roster on behalf of a resource, which becomes an interested
// one, and does not wait for it: unless Get returns an error, reply is called
// once, within the answer limit, from the user's goroutine; what it sends then
// is in order with the pushes. Queries of one user at the same time share one
// fetch.
func (m *Manager) Get(full jid.JID, reply Reply) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped {
		return ErrStopping
	}
	m.sessions.Interested(full)
	u := m.users[full.Bare()]
	if m.waiting >= m.limits.Queries || u != nil && len(u.queries) >= m.limits.PerUser {
		return ErrBusy
	}
	if u == nil {
		u = m.add(full.Bare())
	}
	m.waiting++
	u.queries = append(u.queries, query{full, time.Now().Add(m.limits.Answer), reply})
	select {
	case u.hurry <- struct{}{}:
	default:
	}
	m.start(u)
	return nil
}

// Refresh fetches the rosters of users (bare JIDs, none twice) again and sends
// the changes to their interested resources. It returns the failed users, each
// with its reason; a user without a connected resource is not fetched and does
// not fail. When ctx ends first, so does the wait, but not the work. While the
// stream is down it returns [ErrNotConnected] and the users are refreshed when
// [Manager.Resume] is called.
func (m *Manager) Refresh(ctx context.Context, users []jid.JID) (map[jid.JID]error, error) {
	epoch := m.epoch()
	connected := m.pusher.Connected()
	waiting := make(map[jid.JID]*pending)
	for _, user := range users {
		if !m.sessions.HasConnected(user) {
			continue
		}
		m.mu.Lock()
		switch {
		case m.stopped:
			m.mu.Unlock()
			return nil, ErrStopping
		case connected:
			waiting[user] = m.refresh(m.add(user))
		default:
			m.mark(m.add(user), epoch)
		}
		m.mu.Unlock()
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

// Resume refreshes the users of a domain whom something could not be sent
// because the stream was down. It does not block.
func (m *Manager) Resume(domain string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.resumes++
	for user, u := range m.users {
		if u.marked && user.Domain() == domain && !m.stopped {
			u.marked = false
			m.refresh(u)
		}
	}
}

// Watch tells w the last known rosters from now on. It is called before anything
// else, or not at all.
func (m *Manager) Watch(w Watcher) { m.watcher = w }

// Known is a user's last known roster, if there is one.
func (m *Manager) Known(user jid.JID) (*Roster, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := m.users[user]
	if u == nil || u.last == nil {
		return nil, false
	}
	return u.last, true
}

// Want fetches the roster of a user who has a connected resource, on nobody's
// behalf. It does not block.
func (m *Manager) Want(user jid.JID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.stopped && m.sessions.HasConnected(user) {
		m.refresh(m.add(user))
	}
}

// Undelivered says that a reply was lost with the stream: the resource may have
// nothing, and is told everything when the stream is back.
func (m *Manager) Undelivered(full jid.JID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if u := m.users[full.Bare()]; u != nil && !m.stopped {
		u.doubt(full)
		u.marked = true
	}
}

// Gone says that a resource is no longer connected. What is known of a user
// without a connected resource is dropped.
func (m *Manager) Gone(full jid.JID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if u := m.users[full.Bare()]; u != nil {
		delete(u.told, full)
		m.drop(u)
	}
}

// Close ends the fetches under way, answers the queries that wait with
// [ErrStopping] and waits until all is done. Later calls of Get and Refresh
// fail.
func (m *Manager) Close() {
	m.mu.Lock()
	m.stopped = true
	m.mu.Unlock()
	m.cancel()
	m.work.Wait()
}

func (m *Manager) epoch() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.resumes
}

// refresh asks for a fetch that begins from now on. m.mu is held, and the
// manager is not stopped.
func (m *Manager) refresh(u *user) *pending {
	if u.next == nil {
		u.next = &pending{done: make(chan struct{})}
	}
	m.start(u)
	return u.next
}

// mark notes that a user is to be refreshed when the stream is back, or sees to
// it at once if it came back since epoch. m.mu is held.
func (m *Manager) mark(u *user, epoch uint64) {
	u.marked = m.resumes == epoch
	if !u.marked && !m.stopped {
		m.refresh(u)
	}
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
		u = &user{jid: bare, hurry: make(chan struct{}, 1), told: make(map[jid.JID]told)}
		m.users[bare] = u
	}
	return u
}

// start sees to it that the user's goroutine runs. m.mu is held.
func (m *Manager) start(u *user) {
	if !u.running {
		u.running = true
		m.work.Go(func() { m.serve(u) })
	}
}

// drop forgets a user for whom there is nothing to do or to remember. m.mu is
// held.
func (m *Manager) drop(u *user) {
	if !u.running && !m.sessions.HasConnected(u.jid) && m.users[u.jid] == u {
		delete(m.users, u.jid)
	}
}
