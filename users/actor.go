package users

import (
	"container/list"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// user is one user's actor: a mailbox and a loop, which runs while there is something to do
// and alone touches the state and all that follows it.
type user struct {
	m     *Manager
	jid   jid.JID
	known atomic.Pointer[known]  // the last known roster, for others
	sure  atomic.Pointer[string] // the version of the one that the guard has confirmed for the server's own
	step  atomic.Pointer[step]   // the last one that the server's own was in step with
	mail  mailbox

	asking    atomic.Int32 // queries that are not answered
	editsLeft atomic.Int32 // edits, the same

	// Manager.mu guards these:
	notes *notes        // that the loop has not taken; nil: none
	idle  *list.Element // in the cache; nil: there is something to do
	size  int           // bytes there

	state
	loaded            bool
	unread            bool           // the store could not be read: see reread
	dirty             bool           // the store has an older state
	kept              *roster.Roster // that the store has
	saved             time.Time      // when the state was put there
	dated             time.Time      // when it was fetched, as the store has it
	queries           []query        // that wait for a fetch
	refreshes         []*call        // that wait for a fetch that has not begun
	fetching          *fetching      // nil: none is under way
	failed            bool           // the last try did, and the user is marked
	fetchedGeneration *uint64        // of the last fetch that did not, and that the fetch queue has not been told of; nil: none
	failure           *ErrorView     // the last one; nil: none
	suspect           *suspect       // see guard
	own               *roster.Roster // the server's, which may not be replaced yet: see guard
	refused           refusals       // contacts that wait to be corrected
	correcting        int            // contacts that are being corrected
	edits             []edit         // that wait to be passed on
	editing           bool           // one is under way
	edited            map[jid.JID]edited
	deadline          *time.Timer // of the first query
	stopping          bool
	start             func() event // a fetch that is to be made
	then              func()       // what is done when the state is on disk; nothing else is until then
	waits             bool         // and when the server's own roster is in step
	locks             bool         // and when the server pushes nothing by itself
	telling           *telling     // see unlockPushes; nil: nothing
}

// The events of a user's loop.
type (
	event interface{}

	askedEvent     struct{ query }        // a resource asks for the roster
	refreshEvent   struct{ call *call }   // the backend says that the roster changed
	permittedEvent struct{ batch *batch } // a fetch that no query waits for may begin
	fetchedEvent   struct {
		roster.Fetched
		err error
	}
	overdueEvent      struct{} // a query has waited for long
	acknowledgedEvent struct { // pushes were answered, or given up
		push    *push
		outcome roster.Outcome
	}
	editEvent   struct{ edit } // a resource asks for a change
	editedEvent struct {       // what became of it
		edit
		err error
	}
	decideEvent struct { // a person's word for what the removal guard holds
		approve bool
		decided chan<- error // capacity 1
	}
	viewEvent      struct{ seen chan<- View }   // somebody looks; capacity 1
	ownEvent       struct{ has *roster.Roster } // the server's own roster may not be replaced
	elsewhereEvent struct{ told state }         // somebody else has told the user's clients something
	notedEvent     struct{}                     // others said something, see notes
	stoppingEvent  struct{}
)

// query is a resource that waits for its roster.
type query struct {
	full     jid.JID
	deadline time.Time
	version  *string // of the roster that the client says it has; nil: it uses no versions
	reply    roster.Reply
	never    bool // the resource was never told anything
}

// fetching is a fetch that is under way.
type fetching struct {
	at         time.Time // when it began, by Manager.now
	generation uint64    // of the fetch queue then
	calls      []*call   // that it is for
}

// enqueue posts an event, and reports whether the loop is to be woken for it.
func (u *user) enqueue(e event) (first bool) {
	if first = u.mail.post(e); first {
		u.m.active.Add(1)
	}
	return first
}

// post gives an event to the loop. It does not block.
func (u *user) post(e event) {
	if u.enqueue(e) {
		u.wake()
	}
}

// wake runs the loop.
func (u *user) wake() {
	if u.m.closed.Load() {
		u.run()
		return
	}
	go u.run()
}

// run is the loop. It ends when no event is left, or when the state is being written
// before something is told: then it is run again when that is done. A fetch that was begun
// last is made here, as this goroutine has nothing else to do.
func (u *user) run() {
	for {
		if !u.handleAll() {
			return
		}
		fetch := u.start
		u.start = nil
		if fetch == nil {
			if u.mail.handled() {
				continue
			}
			u.m.end()
			return
		}
		if u.mail.handled() {
			u.m.start(func() { u.post(fetch()) })
			continue
		}
		if !u.mail.post(fetch()) {
			u.m.end()
			return
		}
	}
}

// handleAll handles the events but for counting the last one. It reports false if something
// is waited for before something is told, and the loop is run again by that.
func (u *user) handleAll() bool {
	for {
		if then := u.then; then != nil {
			if !u.lockPushes() {
				return false
			}
			u.then = nil
			then()
		} else {
			u.handle(u.mail.take())
		}
		u.unlockPushes()
		if u.then == nil {
			if u.mail.last() {
				u.rest()
				return true
			}
			u.mail.handled()
			continue
		}
		if u.start != nil { // it need not wait for that
			fetch := u.start
			u.start = nil
			u.m.start(func() { u.post(fetch()) })
		}
		waits := u.waits
		u.waits = false
		if u.stopping || u.m.closed.Load() {
			u.save(nil) // nothing is told any more
			continue
		}
		var left atomic.Int32 // the state is written, the server's roster is in step, and this is through
		left.Store(2)
		done := func() {
			if left.Add(-1) == 0 {
				go u.run()
			}
		}
		saved := done
		if waits { // the server is given what is kept alone
			left.Add(1)
			u.letServer() // a query waits for it
			saved = func() {
				go u.bringInStep(done)
				done()
			}
		}
		u.save(saved) // from here on, the loop may run again
		if left.Add(-1) > 0 {
			return false
		}
	}
}

// commit has the state written, and then called when a kill of the process cannot lose it.
func (u *user) commit(then func()) {
	if before := u.then; before != nil {
		u.then = func() { before(); then() }
		return
	}
	u.then = then
}

func (u *user) handle(e event) {
	switch e := e.(type) { // these take no state
	case refreshEvent:
		u.refresh(e.call)
		return
	case stoppingEvent:
		u.stopping = true
		return
	}
	if !u.loaded {
		u.load()
	}
	switch e := e.(type) {
	case askedEvent:
		u.ask(e.query)
	case permittedEvent:
		u.permit(e.batch)
	case fetchedEvent:
		u.received(e)
	case overdueEvent:
		u.overdue()
	case acknowledgedEvent:
		u.acknowledge(e.push, e.outcome)
	case editEvent:
		u.edits = append(u.edits, e.edit)
		u.edit()
	case editedEvent:
		u.passed(e)
	case decideEvent:
		u.decide(e)
	case viewEvent:
		e.seen <- u.view()
	case ownEvent:
		u.protect(e.has)
	case elsewhereEvent:
		u.toldElsewhere(e.told)
	case notedEvent:
		u.noted()
	}
}

// answersAtOnce reports whether queries need not wait for a fetch.
func (u *user) answersAtOnce() bool {
	return u.fetching == nil && len(u.refreshes) == 0 && !u.stopping && u.fresh()
}

// shows reports whether a client surely shows the last known roster, and says so.
func (u *user) shows(q query) bool {
	t, told := u.told[q.full]
	return told && t.versioned && !t.doubt && q.version != nil && u.trusts(*q.version, u.last)
}

// ask answers a query, or lets it wait for a fetch.
func (u *user) ask(q query) {
	t, told := u.told[q.full]
	if !told {
		u.interested() // or, while nothing is fetched, those who are gone would be known for ever
	}
	q.never = !told || t.never()
	noted := u.shows(q) || told && !u.dirty && t.noted(q.version != nil, u.m.now())
	if u.answersAtOnce() {
		then := func() { u.answer([]query{q}, roster.Answer{Roster: u.last}, nil) }
		u.waits = !u.inStep()
		if noted && !u.waits {
			then()
			return
		}
		u.tells(q.full, q.version != nil, u.m.now())
		u.commit(then)
		return
	}
	u.queries = append(u.queries, q)
	u.watch()
	if u.fetching == nil {
		u.fetch(nil)
	}
	// Should rosterd be killed before the answer, the next one has to know that it was
	// asked. The session is kept, which will do if nothing is known yet; and a client that
	// says it has what it was told learns nothing new, whatever happens.
	if u.last != nil && !noted {
		u.tells(q.full, q.version != nil, u.m.now())
		u.commit(func() {})
	}
}

// answered counts a query as answered.
func (u *user) answered() {
	u.m.waiting.Add(-1)
	u.asking.Add(-1)
}

// watch lets the first query that waits be seen to when it is overdue.
func (u *user) watch() {
	if len(u.queries) == 0 {
		if u.deadline != nil {
			u.deadline.Stop()
		}
		return
	}
	wait := time.Until(u.queries[0].deadline)
	if u.deadline == nil {
		u.deadline = time.AfterFunc(wait, func() { u.post(overdueEvent{}) })
		return
	}
	u.deadline.Reset(wait)
}

// overdue answers the queries that waited for too long.
func (u *user) overdue() {
	now := time.Now()
	n := 0
	for n < len(u.queries) && !u.queries[n].deadline.After(now) {
		n++
	}
	late := u.queries[:n]
	u.queries = slices.Clone(u.queries[n:])
	u.watch()
	u.fail(late, roster.ErrOverdue)
}

// maxRefreshes is how many calls of [Manager.Refresh] wait for one user before those are
// dropped for which nobody waits any more.
const maxRefreshes = 64

func (u *user) refresh(c *call) {
	if u.stopping {
		c.finish(u.jid, roster.ErrStopping)
		return
	}
	if len(u.refreshes) >= maxRefreshes {
		u.refreshes = slices.DeleteFunc(u.refreshes, func(c *call) bool { return c.abandoned.Load() })
	}
	u.refreshes = append(u.refreshes, c)
}

// permit begins the fetch that a batch is for, if there is still something to fetch.
func (u *user) permit(b *batch) {
	switch {
	case u.stopping || u.fetching != nil: // what is left then is asked for again
		b.skip()
	case len(u.refreshes) == 0 && len(u.refused) == 0 && !u.m.Sessions.HasConnected(u.jid) && !u.m.keeps(u.jid.Domain()):
		u.m.queue.done(u.jid, b.generation, 0)
		u.own = nil
		b.skip()
	case len(u.refreshes) == 0 && len(u.refused) == 0 && u.covers(b):
		b.skip()
	default:
		u.fetch(b)
	}
}

// covers reports whether all that a batch was permitted for has been fetched meanwhile: its
// event comes late when a fetch of before was under way.
func (u *user) covers(b *batch) bool {
	return u.fetchedGeneration != nil && b.generation <= *u.fetchedGeneration || !u.m.queue.has(u.jid) && !u.m.reports.since(u.jid, u.fetched)
}

// fetch begins a fetch: with a batch, or alone and at once if that is nil. Refreshes that
// wait share it.
func (u *user) fetch(b *batch) {
	m := u.m
	r := roster.Request{User: u.jid, Hurry: len(u.queries) > 0, Reported: len(u.refreshes) > 0 || u.reported()}
	if u.last != nil {
		r.Validator = u.validator
	}
	u.fetching = &fetching{at: m.now(), generation: m.queue.now(), calls: u.refreshes}
	u.refreshes = nil
	if b != nil {
		b.fetch(u, r)
		return
	}
	u.start = func() event { return m.fetch(r) }
}

// errNothing is for a [Source] that says of nothing that it is still the same.
var errNothing = errors.New("the backend gave no roster")

// received tells the clients what the backend said, or what is known if it failed.
func (u *user) received(e fetchedEvent) {
	m, f, queries := u.m, u.fetching, u.queries
	u.fetching, u.queries = nil, nil
	u.watch()
	if len(u.refreshes) > 0 { // they came meanwhile
		defer m.queue.refresh(u.jid)
	}
	err := e.err
	switch {
	case err != nil && m.ctx.Err() != nil:
		err = roster.ErrStopping
	case err == nil && e.Roster == nil && u.last == nil:
		err = errNothing
	case err == nil && e.Roster == nil:
		e.Roster = u.last // not modified
	}
	if err == nil && e.Roster != u.last {
		u.last.Expand() // until the user rests
		if u.last != nil && u.last.Equal(e.Roster) {
			e.Roster = u.last
		}
	}
	if err == nil {
		err = u.guard(e.Fetched)
	}
	if err == nil {
		u.apply(e.Fetched, f, queries)
		return
	}
	u.failure = &ErrorView{time.Now().UTC(), err.Error()}
	u.fail(queries, err)
	b, kind := soon, MarkedBackend
	if held := (*heldError)(nil); errors.As(err, &held) {
		b, kind = u.suspect.again(m.Rules), MarkedGuard
	}
	unknown := errors.Is(err, roster.ErrUnknownUser) && !m.Sessions.HasConnected(u.jid) // fetched for the server's own roster
	if unknown {
		u.own, u.suspect = nil, nil
		m.guarded.forget(u.jid)
	}
	if unknown && u.last.Len() == 0 { // of which rosterd has written nothing
		m.queue.done(u.jid, f.generation, 0)
		u.outdated, u.dirty = true, true
	} else {
		u.fetchLater(kind, err, b)
	}
	for _, c := range f.calls {
		c.finish(u.jid, err)
	}
	u.correct()
}

// fetchLater marks the user: they are fetched again after a pause.
func (u *user) fetchLater(kind string, why error, b backoff) {
	u.failed, u.outdated, u.dirty = true, true, true
	u.failure = &ErrorView{time.Now().UTC(), why.Error()}
	reason := forFailure
	if u.m.keeps(u.jid.Domain()) && !u.m.Sessions.HasConnected(u.jid) {
		if reason = forOffline; b == soon {
			b = seldom // nobody looks
		}
	}
	u.m.queue.mark(u.jid, kind, why.Error(), b, reason)
}

// fail answers queries though the fetch failed, or is late: with the last known roster, if
// there is one that is not too old.
func (u *user) fail(queries []query, err error) {
	if len(queries) == 0 {
		return
	}
	a := roster.Answer{Err: err}
	if age := u.m.Rules.MaxStale; u.last != nil && u.coversMissed() && (age == 0 || u.m.now().Sub(u.fetched) <= age) {
		a.Roster = u.last
	}
	u.answer(queries, a, nil)
}

// undelivered notes that resources may have missed anything, and has them told everything.
func (u *user) undelivered(resources map[jid.JID]undelivered) {
	unasked := true
	for full, r := range resources {
		u.doubt(full, r.versioned, u.m.now())
		unasked = unasked && r.unasked
	}
	if unasked && u.last != nil && !u.reported() && u.m.now().Sub(u.fetched) < recent && u.fetching == nil && !u.stopping {
		u.tell(u.state, u.last, nil, nil)
		return
	}
	u.fetchLater(MarkedClient, errUndelivered, soon)
	u.commit(func() {})
}

// recent is how old a roster may be that resources are told without another fetch: it was
// fetched because of their presence.
const recent = 10 * time.Second

var errUndelivered = errors.New("a client may have missed its roster")

// rest is called when no event is left: the state is written behind, and the user rests if
// nothing is to be done.
func (u *user) rest() {
	m := u.m
	if u.fetchedGeneration != nil && len(u.inFlight) == 0 {
		if !u.failed && !u.unread { // else it is to be fetched again, less and less often
			m.queue.done(u.jid, *u.fetchedGeneration, u.recheckAfter())
		}
		u.fetchedGeneration = nil
	}
	if u.unread && u.fetching == nil && len(u.inFlight) == 0 {
		u.reread()
	}
	if u.dirty && (len(u.inFlight) == 0 || u.stopping) {
		u.save(nil)
	}
	if u.unread || u.fetching != nil || len(u.inFlight) > 0 || len(u.queries) > 0 || len(u.refreshes) > 0 || len(u.refused) > 0 || u.editing ||
		u.suspect != nil && m.keeps(u.jid.Domain()) || (u.suspect != nil || len(u.edited) > 0) && m.Sessions.HasConnected(u.jid) {
		return
	}
	if u.suspect != nil { // nobody is there to be fetched for
		m.guarded.forget(u.jid)
	}
	u.last.Pack()
	m.mu.Lock()
	defer m.mu.Unlock()
	if u.mail.last() { // what comes by the user's name comes with the lock held
		m.cache.add(m.users, u)
	}
}
