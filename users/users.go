// Package users decides what each user's roster is, and tells it to their clients (RFC 6121,
// sections 2.1 and 2.6). Contacts come from a [Source], pushes leave through a [Pusher].
//
// There is one actor for each user who has something to do: a mailbox and a loop, which alone
// touches the user's state (actor.go). The loop waits for nothing but room in the queue to the
// server: a fetch, a push and a write to the store are started, and what became of them is
// posted. Whatever a client is about to be told is in the store before: a kill of the process
// loses nothing that a client was told.
//
// # What a client may show
//
// The last known roster is told to all interested resources. One that is not in doubt shows
// it, but for the contacts that are in flight (their pushes are not acknowledged) or missed.
// One in doubt may show anything that it was told before, or nothing: its answer may be lost,
// or it was answered with an error. Versions carry an epoch, which grows whenever a client may
// show something else than its version names, and whoever names one of before is given the
// whole roster.
//
// # The server's own roster
//
// Where the server's own rosters are kept in step ([ServerRosters]), an answer waits for that,
// too, and users are fetched when they are reported, though no client of theirs is connected.
// A server that pushes by itself what is written to them does so while rosterd tells the user's
// clients nothing (pushlocks.go).
//
// # The loop
//
// What each event does. A fetch is under way or not; "tells" is that queries are answered
// with the last known roster and that each other interested resource is pushed what differs,
// or everything if it is in doubt.
//
//	event         without a fetch            with a fetch under way     kept before it is told
//	asked         begins a fetch; answers    waits for it               the resource asks
//	              if the roster is fresh
//	refresh       waits for a permit         waits for the next fetch   -
//	permitted     begins a fetch, if there   gives the permit back      -
//	              is still a reason
//	fetched       -                          tells                      roster, contacts in flight
//	 and failed   -                          answers with what is       the user is marked, and
//	                                         known, or an error         tried again later
//	edit          is passed on when those before it are answered       -
//	edited        answers it; then as refresh, unless not permitted    -
//	overdue       -                          answers those queries so   -
//	acknowledged  contacts are not in flight any more                   (written behind)
//	 and failed   they are missed, the epoch grows, the user is marked  (written behind)
//	decide        a person approves or rejects what the removal guard holds (guard.go)
//	noted:
//	 undelivered  the resource is in doubt, the user is marked          the resource in doubt
//	 refused,     the epoch grows; pushes what is true to that resource the contacts as missed
//	 or pushed by the server itself
//	 gone         rests if nothing is to be done                        -
//	stopping      answers what is left, tells nothing more              all that is known
//
// A permit is the fetch queue's word that there is room for a fetch that no query waits for
// (fetchqueue.go). A user who is marked is fetched again after a pause, also after a restart.
// A user rests when nothing is to be done: their state is in the store.
package users

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"rosterd/jid"
	"rosterd/roster"
	"rosterd/store"
)

// Source is where rosters come from. Its methods block until all is known, and are
// called from many goroutines, but never twice at a time for one user. The text of an
// error is shown to the backend's developers: short, and without secrets.
type Source interface {
	// Fetch asks for a user's roster as it is now.
	Fetch(ctx context.Context, r roster.Request) (roster.Fetched, error)
	// FetchMany asks for those of several users of one domain, for whom no query
	// waits. done is called once for each, from any goroutine.
	FetchMany(ctx context.Context, requests []roster.Request, done func(i int, f roster.Fetched, err error))
	// BatchSize is how many users of a domain FetchMany is given at most; 1: they are
	// fetched one by one.
	BatchSize(domain string) int
}

// Editor is who changes rosters on behalf of users. Edit blocks until it knows what became of
// a change, of whose item JID, Name and Groups count, and is called from many goroutines, but
// never twice at a time for one user (a bare JID). The error is a [*roster.NotAllowedError] if
// the change is not permitted; after any other, it may have happened.
type Editor interface {
	Edit(ctx context.Context, user jid.JID, c roster.Change) error
}

// Sessions is the table of the users' resources. Its methods are safe for concurrent
// use and do not block.
type Sessions interface {
	Interested(full jid.JID)
	InterestedOf(user jid.JID) []jid.JID
	HasConnected(user jid.JID) bool
	Users(domain string) []jid.JID
}

// Pusher sends roster pushes (RFC 6121, section 2.1.6). Its methods are safe for
// concurrent use.
type Pusher interface {
	// Connected reports whether anything can be sent at present.
	Connected() bool
	// Push sends each change to each resource, all of one user, in order. It may
	// block while the server reads slowly, but not without bound. Unless it returns
	// an error, which means that nothing was sent, settled is called once, from any
	// goroutine, when every push was answered, refused or given up; it does not block.
	Push(to []jid.JID, changes []roster.Change, settled func(roster.Outcome)) error
}

// Watcher is told each last known roster of a user (a bare JID), in order. Told does
// not block.
type Watcher interface {
	Told(user jid.JID, now *roster.Roster)
}

// Store keeps what must be known after a restart. Its methods do not wait for the disk, but
// for User, Marks, Sweeps, UsersWithRoster, and PutUser with done.
type Store interface {
	Marks
	Rejections
	Sweeps
	// User is what is kept of a user: what was put last, on disk or not.
	User(jid string) (store.User, error)
	// PutUser keeps u, and its roster if withRoster. done, unless it is nil, is called
	// once, when a kill of the process cannot lose it, or when it could not be written:
	// from any goroutine, or before PutUser returns, which then writes by itself.
	PutUser(u store.User, withRoster bool, done func())
	// PutUnread keeps what the clients of a user were told while what is kept could not be
	// read, until the next PutUser, or the end, when both are put together.
	PutUnread(u store.User)
	DeleteUser(jid string)
	// Now is the time, and later than any that it returned before, and than any stamp in what
	// the process before has put. All that is put is stamped by it, and what is compared with that.
	Now() time.Time
	// Sync calls done, as PutUser does, when all that was put before is written.
	Sync(done func())
	// Err is nil, or why what was put is not being written at present.
	Err() error
	// Marks calls each for all who were marked.
	Marks(each func(user, why string, since time.Time) error) error
	// MarkOf is why a user was marked, and since when: "", if they are not.
	MarkOf(user string) (why string, since time.Time, err error)
}

// Limits of a [Manager]. The zero value of a field means its default.
type Limits struct {
	Answer     time.Duration // how long a query may wait for its answer; 24 s, to be answered within 25
	Settle     time.Duration // how long a refresh waits for its pushes to be answered; 2 s
	Background int           // fetches at a time that no query waits for; 48
	PerUser    int           // queries of one user waiting at a time; 64
	Queries    int           // queries of all users waiting at a time; 65,536
	Resync     int           // users brought up to date in the background, per second; 100
	Away       int           // users without a connected resource who wait to be fetched; beyond, no more are reported; 100,000
	Cache      int           // bytes of states kept at hand that are in the store, too; 64 MiB, negative: none
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
	def(&l.Resync, 100)
	def(&l.Away, 100_000)
	def(&l.Cache, 64<<20)
	if l.Answer == 0 {
		l.Answer = 24 * time.Second
	}
	if l.Settle == 0 {
		l.Settle = 2 * time.Second
	}
	return l
}

// Rules say what is believed and given when the backend fails, or seems to.
type Rules struct {
	// MaxStale is how old a last known roster may be that a query is answered with when
	// a fetch failed; 0 is any age.
	MaxStale time.Duration
	// MaxRemoved is the part of a roster of 10 items or more that a fetch may remove
	// without being confirmed by one that says the same, ConfirmAfter later; [Never]: by
	// a person alone, see [Manager.Approve].
	MaxRemoved   float64
	ConfirmAfter time.Duration
	// MaxAge is for how long a query is answered with the last known roster without
	// asking the backend; 0: not at all.
	MaxAge time.Duration
}

// Options are what a [Manager] works with. All but Rules, Limits, and Editor unless
// [Manager.Edit] is called, are required.
type Options struct {
	Source   Source
	Editor   Editor
	Sessions Sessions
	Pusher   Pusher
	Store    Store
	Logger   *slog.Logger
	Rules    Rules
	Limits   Limits
}

// Manager runs the users' loops. Its methods are safe for concurrent use, and do not
// block but for [Manager.Refresh], [Manager.Known] and [Manager.Close].
type Manager struct {
	Options
	watcher Watcher // nil: nobody

	serverRosters ServerRosters // nil: nobody keeps them

	queue      *fetchQueue
	sweeper    *sweeper
	guarded    *guarded
	reports    *reports
	pushLocks  *pushLocks
	unreadable rate.Sometimes // logs what cannot be read from the store

	started time.Time       // by now, as all that is stamped: rosters that were fetched before may be outdated
	resumed sync.Map        // domain -> time.Time of the last Resume
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	held    atomic.Uint64 // rosters that were not believed at once, ever
	waiting atomic.Int64  // queries of all users
	edits   atomic.Int64  // the same
	active  atomic.Int64  // loops and fetches that run
	ended   chan struct{} // capacity 1: active became 0
	closed  atomic.Bool   // loops run where they are posted to

	mu      sync.Mutex // guards all below, and of each user what says so
	stopped bool
	users   map[jid.JID]*user // by bare JID: those with something to do, and those in the cache
	cache   cache
}

// Counts are figures of a [Manager].
type Counts struct {
	Marked    int            // users whose last refresh failed: they are tried again
	MarkedFor map[string]int // those, by what failed: [Kinds]
	Resync    int            // users that are to be brought up to date, without those
	Retries   uint64         // of marked users, ever
	Held      uint64         // rosters that were not believed at once, ever
	Waiting   int            // of those, that are not believed yet
	Loaded    int            // users whose state is in memory
}

// NewManager makes a manager of what the store has kept, and starts its work in the
// background. [Manager.Close] ends it.
func NewManager(o Options) (*Manager, error) {
	o.Limits = o.Limits.withDefaults()
	m := &Manager{
		Options: o, reports: newReports(o.Store.Now), pushLocks: &pushLocks{users: make(map[jid.JID]*pushLock)}, unreadable: rate.Sometimes{Interval: time.Minute}, started: o.Store.Now(),
		ended: make(chan struct{}, 1), users: make(map[jid.JID]*user),
		queue: newFetchQueue(o.Limits.Background, o.Limits.Resync, o.Limits.Away, o.Store),
	}
	m.queue.connected = func() bool { return m.Pusher.Connected() }
	m.queue.batchSize = func(domain string) int { return m.Source.BatchSize(domain) }
	m.queue.room = func() { m.sweeper.look() }
	m.queue.permit = func(b *batch) {
		for _, user := range b.users {
			m.post(user, permittedEvent{b})
		}
	}
	var err error
	if m.guarded, err = newGuarded(o.Store); err == nil {
		m.sweeper, err = newSweeper(m)
	}
	if err != nil {
		m.queue.stop()
		return nil, err
	}
	err = o.Store.Marks(func(name, why string, _ time.Time) error {
		switch user, err := jid.Parse(name); {
		case err != nil:
		case why == offline || why == promised || why == everybody:
			m.queue.keep(why, []jid.JID{user}, false)
		case !m.Sessions.HasConnected(user):
			m.queue.mark(user, MarkedBefore, why, soon, forOffline)
		default:
			m.queue.mark(user, MarkedBefore, why, soon, forFailure)
		}
		return nil
	})
	if err != nil {
		m.queue.stop()
		return nil, err
	}
	m.cache.max = o.Limits.Cache
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m, nil
}

// Get asks for the roster on behalf of a resource, which becomes an interested one, and
// does not wait for it: unless Get returns an error, reply is called once, within the
// answer limit, from the user's loop, or before Get returns if the client has the roster;
// what it sends then is in order with the pushes.
// Queries of one user at the same time share one fetch. version is that of the roster
// which the client says it has, or "" if it has none; nil if it does not use versions. If
// Get returns an error, the resource is told everything later.
func (m *Manager) Get(full jid.JID, version *string, reply roster.Reply) error {
	m.Sessions.Interested(full)
	q := query{full: full, deadline: time.Now().Add(m.Limits.Answer), version: version, reply: reply}
	m.mu.Lock()
	u := m.user(full.Bare())
	var err error
	switch {
	case m.stopped:
		err = roster.ErrStopping
	case m.waiting.Load() >= int64(m.Limits.Queries) || u.asking.Load() >= int32(m.Limits.PerUser):
		err = roster.ErrBusy
	}
	if err != nil {
		first := u.note(func(n *notes) { n.addUndelivered(full, undelivered{versioned: version != nil}) })
		m.mu.Unlock()
		if first {
			u.wake()
		}
		return err
	}
	m.waiting.Add(1)
	u.asking.Add(1)
	claimed := u.mail.claim()
	if claimed {
		m.active.Add(1)
	}
	first := claimed || u.enqueue(askedEvent{q})
	m.mu.Unlock()
	switch {
	case claimed && u.answersAtOnce() && u.shows(q) && u.inStep(): // as most who come back: no goroutine is needed
		u.answer([]query{q}, roster.Answer{Roster: u.last}, []bool{true})
		u.rest()
		if u.mail.handled() {
			u.wake()
		} else {
			m.end()
		}
	case claimed:
		u.mail.add(askedEvent{q})
		u.wake()
	case first:
		u.wake()
	}
	return nil
}

// Refresh fetches the rosters of users (bare JIDs, none twice) again and sends the changes
// to their interested resources. It returns the failed users, each with its reason; a user
// without a connected resource is fetched later and paced if the server's own roster is kept,
// else not at all. Those who failed are tried again until it is done, with two exceptions: after
// [roster.ErrManyOffline] they are forgotten, and after [roster.ErrNotKept] a kill forgets them.
// Refresh itself fails with one of these if it is true of all users. When ctx ends first, so
// does the wait, but not the work. While the stream is down it returns [roster.ErrNotConnected] and the users are
// refreshed when [Manager.Resume] is called.
func (m *Manager) Refresh(ctx context.Context, users []jid.JID) (map[jid.JID]error, error) {
	return m.refresh(ctx, users, false)
}

// refresh is Refresh; if now, users without a connected resource are fetched as the others.
func (m *Manager) refresh(ctx context.Context, users []jid.JID, now bool) (map[jid.JID]error, error) {
	connected := m.Pusher.Connected()
	c := &call{left: 1, failed: make(map[jid.JID]error), done: make(chan struct{})}
	var fetched, away []jid.JID
	for _, user := range users {
		switch {
		case !now && !m.Sessions.HasConnected(user) && m.keeps(user.Domain()):
			m.reports.note(user)
			away = append(away, user)
		case !now && !m.Sessions.HasConnected(user) && !m.busy(user):
			m.reports.note(user)
			if m.debugs() {
				m.Logger.Debug("not fetched, no client of the user is connected", "user", user)
			}
		case !connected:
			m.reports.note(user)
			m.queue.mark(user, MarkedStream, roster.ErrNotConnected.Error(), soon, forFailure)
		default:
			fetched = append(fetched, user)
		}
	}
	if !m.queue.offlineIfRoom(away) {
		for _, user := range away {
			c.failed[user] = roster.ErrManyOffline
		}
		away = nil
	}
	switch {
	case len(c.failed) > 0 && (!connected || len(fetched) == 0):
		return nil, roster.ErrManyOffline
	case !connected:
		if err := m.sync(ctx); err != nil {
			return nil, roster.ErrNotKept
		}
		return nil, roster.ErrNotConnected
	}
	c.left += len(fetched)
	for _, user := range fetched {
		if !m.post(user, refreshEvent{c}) {
			return nil, roster.ErrStopping
		}
	}
	m.queue.refresh(fetched...)
	c.finish(jid.JID{}, nil)
	select {
	case <-c.done:
		m.keepMarks(ctx, away, c.failed)
		return c.failed, nil
	case <-ctx.Done():
		c.abandoned.Store(true)
		return nil, ctx.Err()
	case <-m.ctx.Done():
		return nil, roster.ErrStopping
	}
}

// keepMarks waits until what is to be done later is written: for users who are away, and those
// who failed. If it cannot be, all of them have failed, as somebody has to remember them.
func (m *Manager) keepMarks(ctx context.Context, away []jid.JID, failed map[jid.JID]error) {
	if len(away)+len(failed) == 0 || m.sync(ctx) == nil {
		return
	}
	for user, err := range failed {
		failed[user] = fmt.Errorf("%w, and %w", err, roster.ErrNotKept)
	}
	for _, user := range away {
		failed[user] = roster.ErrNotKept
	}
}

// RefreshLater has users (bare JIDs, none twice) refreshed as [Manager.Refresh] does, and
// does not wait for that, but until a kill of the process cannot lose it. It returns an error
// if that is not sure, or [roster.ErrManyOffline].
func (m *Manager) RefreshLater(ctx context.Context, users []jid.JID) error {
	var promised, away []jid.JID
	for _, user := range users {
		m.reports.note(user) // who has no connected resource is fetched when they ask
		switch {
		case m.Sessions.HasConnected(user):
			promised = append(promised, user)
		case m.keeps(user.Domain()):
			away = append(away, user)
		}
	}
	if m.ctx.Err() != nil {
		return roster.ErrStopping
	}
	m.queue.promise(promised...)
	if !m.queue.offlineIfRoom(away) {
		return roster.ErrManyOffline
	}
	return m.sync(ctx)
}

// RefreshAll has the users of a domain refreshed who have a connected resource, as many a
// second as may be, and returns how many these are. A restart loses nothing: it brings all of
// them up to date. If the server's own rosters are kept, those of the others whose roster is
// known are fetched after them, see sweeper; the error says that a kill of the process may lose
// that. Else they are fetched when they ask.
func (m *Manager) RefreshAll(ctx context.Context, domain string) (users int, err error) {
	if m.ctx.Err() != nil {
		return 0, roster.ErrStopping
	}
	m.reports.noteAll()
	online := m.Sessions.Users(domain)
	m.queue.again(domain)
	m.queue.resync(domain, online)
	if m.keeps(domain) {
		err = m.sweeper.begin(ctx, domain)
	}
	return len(online), err
}

// sync waits until all that was put into the store is written.
func (m *Manager) sync(ctx context.Context) error {
	written := make(chan struct{})
	m.Store.Sync(func() { close(written) })
	select {
	case <-written:
		return m.Store.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// call is one call of [Manager.Refresh].
type call struct {
	mu        sync.Mutex
	left      int // users, and one for the call itself
	failed    map[jid.JID]error
	done      chan struct{}
	abandoned atomic.Bool // nobody waits any more
}

// finish says that a user is done with, once for each.
func (c *call) finish(user jid.JID, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.failed[user] = err
	}
	if c.left--; c.left == 0 {
		close(c.done)
	}
}

// Watch tells w the last known rosters from now on. It is called before anything else,
// or not at all.
func (m *Manager) Watch(w Watcher) { m.watcher = w }

// Known is a user's last known roster, if there is one.
func (m *Manager) Known(name jid.JID) (*roster.Roster, bool) {
	last := m.lastOf(name)
	return last.roster, last.roster != nil
}

// known is a last known roster, for others than the loop.
type known struct {
	roster   *roster.Roster // nil: there is none
	missing  bool           // it is empty as the backend does not know the user
	fetched  time.Time      // when the backend was asked for it
	outdated bool           // it is to be fetched again
}

// publish tells others the last known roster.
func (u *user) publish() { u.known.Store(&known{u.last, u.notFound, u.fetched, u.outdated}) }

func (m *Manager) lastOf(name jid.JID) known {
	m.mu.Lock()
	u := m.users[name]
	m.mu.Unlock()
	if u != nil {
		if last := u.known.Load(); last != nil {
			return *last
		}
	}
	s, _ := m.read(name)
	return known{s.last, s.notFound, s.fetched, s.outdated}
}

// Want fetches the roster of a user who has a connected resource, on nobody's behalf.
func (m *Manager) Want(user jid.JID) {
	if m.Sessions.HasConnected(user) {
		m.queue.refresh(user)
	}
}

// Undelivered says that a reply was lost with the stream: the resource may have nothing,
// and is told everything when the stream is back.
func (m *Manager) Undelivered(full jid.JID) {
	m.note(full.Bare(), func(n *notes) { n.addUndelivered(full, undelivered{}) })
}

// Unasked says that a resource is connected that did not ask here, but may have asked
// somebody else: it becomes an interested one, and is told everything.
func (m *Manager) Unasked(full jid.JID) {
	m.Sessions.Interested(full)
	m.note(full.Bare(), func(n *notes) { n.addUndelivered(full, undelivered{unasked: true}) })
}

// Refused says that a resource was refused to change its user's items of these contacts.
// Its client may show the change all the same (RFC 6121, section 2.1.5, has it wait for the
// push that follows a success, but not all do): what is true is pushed to it.
func (m *Manager) Refused(full jid.JID, contacts []jid.JID) {
	if len(contacts) > 0 {
		m.note(full.Bare(), func(n *notes) { n.addRefused(full, contacts) })
	}
}

// Pushed says that the server has pushed these contacts' items to a user's clients by itself,
// or may have, otherwise than they are: what is true is pushed after it.
func (m *Manager) Pushed(user jid.JID, contacts []jid.JID) {
	resources := m.Sessions.InterestedOf(user)
	if len(resources) == 0 {
		return // whoever asks is told what is true
	}
	m.note(user, func(n *notes) {
		for _, full := range resources {
			if len(contacts) > maxRefused {
				n.addUndelivered(full, undelivered{})
			} else {
				n.addRefused(full, contacts)
			}
		}
	})
}

// Gone says that a resource is no longer connected. A user without a connected resource is
// not refreshed any more.
func (m *Manager) Gone(full jid.JID) {
	user, generation := full.Bare(), m.queue.now()
	if m.Sessions.HasConnected(user) {
		return
	}
	if m.keeps(user.Domain()) {
		m.queue.left(user)
	} else {
		m.queue.done(user, generation, 0)
	}
	if m.busy(user) {
		m.note(user, func(n *notes) { n.gone = true })
	}
}

// Resume says that a domain's users can be told something, on a stream that began. They
// are brought up to date in the background, as some may have missed something.
func (m *Manager) Resume(domain string) {
	m.resumed.Store(domain, m.now())
	if m.keeps(domain) {
		m.serverRosters.Resume(domain)
		m.sweeper.look()
	}
	m.queue.resync(domain, m.Sessions.Users(domain))
}

// Hasten says that the backend of some domains is well again: their marked users are tried
// without waiting any longer.
func (m *Manager) Hasten(domains []string) { m.queue.hasten(domains) }

// Counts are the figures as they are now.
func (m *Manager) Counts() Counts {
	c := Counts{Retries: m.queue.tried.Load(), Held: m.held.Load(), Waiting: m.guarded.count()}
	c.MarkedFor, c.Resync = m.queue.counts()
	for _, n := range c.MarkedFor {
		c.Marked += n
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	c.Loaded = len(m.users)
	return c
}

// Close ends the fetches under way, answers the queries that wait with the last known
// roster or [roster.ErrStopping], waits until all is done, and puts what is known into the
// store. Later calls of Get and Refresh fail; what else is said later is still kept.
func (m *Manager) Close() {
	var woken []*user
	m.mu.Lock()
	m.stopped = true
	for _, u := range m.users {
		if u.enqueue(stoppingEvent{}) {
			woken = append(woken, u)
		}
	}
	m.mu.Unlock()
	for _, u := range woken {
		u.wake()
	}
	m.queue.stop()
	m.cancel()
	for m.active.Load() > 0 {
		<-m.ended
	}
	m.closed.Store(true)
}

// post gives an event to a user's loop, and reports whether the manager is not stopping.
func (m *Manager) post(name jid.JID, e event) (open bool) {
	m.mu.Lock()
	u := m.user(name)
	open = !m.stopped
	first := u.enqueue(e)
	m.mu.Unlock()
	if first {
		u.wake()
	}
	return open
}

// busy reports whether a user's loop has something to do.
func (m *Manager) busy(user jid.JID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := m.users[user]
	return u != nil && u.idle == nil
}

// now is the time by which everything is stamped that is kept, or compared with what is. Its
// differences to what an earlier process has stamped are those of two clocks, and may be wrong.
func (m *Manager) now() time.Time { return m.Store.Now() }

// confirmedBefore is the time before which what a resource was told is confirmed, see [confirmed]:
// none yet of what an earlier process has told, for as long.
func (m *Manager) confirmedBefore() time.Time {
	if t := m.now().Add(-confirmed); t.After(m.started) {
		return t
	}
	return time.Time{}
}

// sameSession reports whether a resource to which something was sent at a time is still the
// same session: while the stream was down, another one may have come in its name, which
// asked nobody for its roster.
func (m *Manager) sameSession(user jid.JID, sent time.Time) bool {
	resumed, ok := m.resumed.Load(user.Domain())
	if !ok {
		return !sent.Before(m.started)
	}
	return !sent.Before(resumed.(time.Time))
}

// fetch asks the source for one user.
func (m *Manager) fetch(r roster.Request) event {
	began := time.Now()
	f, err := m.Source.Fetch(m.ctx, r)
	m.logFetched(r, f, err, began)
	return fetchedEvent{f, err}
}

// start runs f in a goroutine that Close waits for.
func (m *Manager) start(f func()) {
	m.active.Add(1)
	go func() { defer m.end(); f() }()
}

func (m *Manager) end() {
	if m.active.Add(-1) == 0 {
		select {
		case m.ended <- struct{}{}:
		default:
		}
	}
}

func (m *Manager) debugs() bool { return m.Logger.Enabled(context.Background(), slog.LevelDebug) }

// logFetched logs what a fetch came to, for those who look into one user's story. The
// time includes that in which the source had others to ask first.
func (m *Manager) logFetched(r roster.Request, f roster.Fetched, err error, began time.Time) {
	if !m.debugs() {
		return
	}
	result := "ok"
	switch {
	case err != nil:
		result = "failed"
	case f.Roster == nil:
		result = "not_modified"
	}
	m.Logger.Debug("contacts fetched", "user", r.User, "query_waits", r.Hurry, "result", result, "items", f.Roster.Len(),
		"took", time.Since(began), "err", err)
}
