package users

import (
	"container/heap"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"rosterd/jid"
	"rosterd/roster"
)

// backoff is how long a user waits for the next try: least at first, twice as long with
// each try that fails, most at last.
type backoff struct{ least, most time.Duration }

var (
	// soon is for what may pass at any time. A backend that is well again is asked
	// sooner, see [Manager.Hasten].
	soon = backoff{time.Second, 30 * time.Second}
	// seldom is for what will most likely be refused again. A new stream or a refresh
	// tries at once.
	seldom = backoff{time.Second, time.Hour}
)

// after is how long to wait after some tries that failed.
func (b backoff) after(tries int) time.Duration {
	if b.least == b.most {
		return b.most
	}
	wait := min(b.least<<min(tries, 16), b.most)
	return wait*3/4 + rand.N(wait/4) // those who failed at the same moment do not try again at the same moment
}

const (
	// maxRecheck is how long a user whom the backend does not know waits at most to be
	// looked at again.
	maxRecheck = 10 * time.Minute
	// bulkFetches is how many fetches for several users are under way for a domain:
	// while some are with the backend, others are decoded.
	bulkFetches = 4
)

// The reasons for a fetch that no query waits for. In each domain the first three take
// turns; nobody waits for the others. The last two come behind those of all domains, one after
// the other.
const (
	forRefresh     = iota // the backend says that the roster changed
	forFailure            // the last try failed: the user is marked
	forResync             // somebody may have missed something
	forUnknownUser        // the backend does not know the user
	forOffline            // any of these, of a user without a connected resource
	forEverybody          // all users of the domain were reported: see sweeper
	reasons
)

// fetchQueue is who is to be fetched though no query waits, and when. It bounds how
// many are fetched at a time, and is fair: domains take turns, and where several have
// something to do, none takes all places, so that a backend that is slow or down holds
// up its own users alone. It is safe for concurrent use.
type fetchQueue struct {
	permit    func(*batch)            // called without the lock; does not block
	connected func() bool             // without a stream, nothing but refreshes goes on
	batchSize func(domain string) int // see Source
	room      func()                  // called with the lock; more of everybody may be entered
	marks     Marks
	limiter   *rate.Limiter // of what is no refresh
	maxAway   int           // see [Limits]

	mu         sync.Mutex
	entries    map[jid.JID]*entry // bounded by the users connected, those with a roster, and maxAway
	domains    []*domainQueue     // the next one in front
	free       int                // places: how many more fetches may be under way
	nonRefresh int                // of those, how many may go to what is no refresh
	marked     map[string]int     // entries, by kind
	resyncs    int                // entries that are not marked, and are forResync or forOffline
	away       int                // entries that are forOffline or forEverybody
	swept      int                // entries that are not marked, and are forEverybody
	timer      *time.Timer
	stopped    bool

	generation atomic.Uint64 // counts what was noted; changed with mu held
	tried      atomic.Uint64 // tries of marked users, ever
}

type domainQueue struct {
	name       string
	due        [reasons]entryHeap
	turn       int // of the first three reasons
	fetches    int // under way
	nonRefresh int // of those, what is no refresh
}

// idle reports whether nothing is to be fetched, or under way.
func (d *domainQueue) idle() bool {
	for i := range d.due {
		if len(d.due[i]) > 0 {
			return false
		}
	}
	return d.fetches == 0
}

// hasRoom reports whether one of several domains may take one more of the places that are
// free: as long as it leaves the others as many as it has.
func hasRoom(domains, taken, free int) bool {
	return free > 0 && (domains == 1 || taken < free)
}

type entry struct {
	user       jid.JID
	domain     *domainQueue
	at         time.Time // not before
	reason     int
	marked     bool   // its mark is in the store: the last try failed
	kind       string // of the last failure, if it is marked: one of Kinds
	kept       bool   // its mark is in the store, and nobody waits for it
	tries      int    // that failed
	rechecks   int    // that found the user unknown
	ownAttempt bool   // one of the queue's own tries is under way
	generation uint64 // of what was noted last
	index      int    // in the heap; -1: its fetch is permitted
}

// Marks keeps who is to be tried again over a restart. Its methods do not block.
type Marks interface {
	Mark(user, why string)
	Unmark(user string)
}

func newFetchQueue(places, perSecond, maxAway int, marks Marks) *fetchQueue {
	q := &fetchQueue{
		marks: marks, maxAway: maxAway, entries: make(map[jid.JID]*entry), marked: make(map[string]int), free: places, nonRefresh: max(1, places/2),
		// A few together, who can be asked for in one request.
		limiter: rate.NewLimiter(rate.Limit(perSecond), max(1, perSecond/5)),
	}
	q.timer = time.AfterFunc(time.Hour, q.dispatch)
	q.timer.Stop()
	return q
}

// refresh lets users be fetched as soon as there is room. It is called by whoever has
// told their loops why.
func (q *fetchQueue) refresh(users ...jid.JID) {
	q.mu.Lock()
	for _, user := range users {
		q.schedule(q.entry(user), forRefresh, time.Now())
	}
	q.mu.Unlock()
	q.dispatch()
}

// What the last try of a marked user failed at.
const (
	MarkedBackend = "backend" // their contacts could not be fetched
	MarkedGuard   = "guard"   // the removal guard holds what was fetched
	MarkedClient  = "client"  // a client may have missed something: its push or answer is not confirmed
	MarkedStream  = "stream"  // there was no stream to the server
	MarkedState   = "state"   // what is kept of them could not be read
	MarkedBefore  = "before"  // it was before rosterd started
)

// Kinds are what a user can be marked for. Nobody may modify it.
var Kinds = []string{MarkedBackend, MarkedGuard, MarkedClient, MarkedStream, MarkedState, MarkedBefore}

// mark notes that a try failed: the next comes after a pause, for a reason.
func (q *fetchQueue) mark(user jid.JID, kind, why string, b backoff, reason int) {
	q.mu.Lock()
	e := q.entry(user)
	q.count(e, -1)
	first := !e.marked
	e.marked, e.kind = true, kind
	q.count(e, 1)
	if first {
		q.marks.Mark(user.String(), why)
	}
	now := time.Now()
	wait := b.after(e.tries)
	if e.ownAttempt {
		e.tries++
	} else if e.index >= 0 && e.reason != forUnknownUser {
		wait = min(wait, e.at.Sub(now)) // somebody else's failure is no reason to wait for longer
	}
	q.schedule(e, reason, now.Add(wait))
	q.mu.Unlock()
	q.dispatch()
}

// resync notes that users of a domain may have missed something.
func (q *fetchQueue) resync(domain string, users []jid.JID) {
	q.mu.Lock()
	q.domain(domain) // which has its share from now on
	for _, user := range users {
		e := q.entry(user)
		e.tries = 0
		reason := forResync
		if e.marked {
			reason = forFailure
		}
		q.schedule(e, reason, time.Now())
	}
	q.mu.Unlock()
	q.dispatch()
}

// The marks of users who are to be fetched, and whom nobody waits for.
const (
	offline   = "reported while offline" // or left before they were fetched: for the server's own roster
	promised  = "reported"               // it was promised that they will be refreshed
	everybody = "everybody was reported" // of their domain, while they had no connected resource
)

// offline notes that users without a connected resource are to be fetched, for the server's
// own rosters: it is kept over a restart.
func (q *fetchQueue) offline(users ...jid.JID) { q.keep(offline, users, false) }

// offlineIfRoom is offline unless so many wait that more are to be reported later. One call
// may have any number: else it could never have its turn.
func (q *fetchQueue) offlineIfRoom(users []jid.JID) (ok bool) { return q.keep(offline, users, true) }

// promise lets users be fetched as soon as there is room, and a stream: it is kept over a
// restart.
func (q *fetchQueue) promise(users ...jid.JID) { q.keep(promised, users, false) }

func (q *fetchQueue) keep(why string, users []jid.JID, ifRoom bool) (ok bool) {
	connected := q.connected()
	q.mu.Lock()
	if ifRoom && q.away >= q.maxAway && slices.ContainsFunc(users, func(user jid.JID) bool { return q.entries[user] == nil }) {
		q.mu.Unlock()
		return false
	}
	for _, user := range users {
		e := q.entry(user)
		if !e.marked && !e.kept {
			e.kept = true
			q.marks.Mark(user.String(), why)
		}
		if why == everybody && e.index >= 0 && !e.marked {
			continue // it waits already, for something that comes before
		}
		e.tries = 0
		reason := forResync
		switch {
		case why == everybody:
			reason = forEverybody
		case why == offline:
			reason = forOffline
		case connected:
			reason = forRefresh
		case e.marked:
			reason = forFailure
		}
		q.schedule(e, reason, time.Now())
	}
	q.mu.Unlock()
	if len(users) > 0 {
		q.dispatch()
	}
	return true
}

// left notes that a user has no connected resource any more. What they have missed is kept
// over a restart from now on: it had been looked for with everybody who is connected.
func (q *fetchQueue) left(user jid.JID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := q.entries[user]
	if e == nil || e.reason != forFailure && e.reason != forResync {
		return
	}
	if !e.marked && !e.kept {
		e.kept = true
		q.marks.Mark(user.String(), offline)
	}
	if e.index >= 0 {
		q.schedule(e, forOffline, e.at)
	}
}

// again has the users of a domain fetched once more who are being fetched.
func (q *fetchQueue) again(domain string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, e := range q.entries {
		if e.index < 0 && e.domain.name == domain {
			e.generation = q.generation.Add(1)
		}
	}
}

// sweepChunk is how many users of those wait at most whose whole domain was reported, and about
// how many are looked up in the store at a time.
const sweepChunk = 500

// takesMore reports whether more users of those may be entered. Those whose fetch fails wait
// here, too: while they are many, there is room for who is reported by name. q.mu is held.
func (q *fetchQueue) takesMore() bool { return q.swept < sweepChunk && q.away < max(1, q.maxAway/2) }

// mayTakeMore is takesMore, for who does not hold q.mu.
func (q *fetchQueue) mayTakeMore() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.takesMore()
}

// hasten lets the marked users of some domains be tried at once.
func (q *fetchQueue) hasten(domains []string) {
	q.mu.Lock()
	now := time.Now()
	for _, e := range q.entries {
		if e.index >= 0 && e.at.After(now) && e.marked && slices.Contains(domains, e.user.Domain()) {
			q.schedule(e, e.reason, now)
		}
	}
	q.mu.Unlock()
	q.dispatch()
}

// now is the generation that [fetchQueue.done] is given by whoever begins a fetch.
func (q *fetchQueue) now() uint64 { return q.generation.Load() }

// done notes that nothing is left to do for a user but what was noted after a
// generation. If look is not 0, the user is looked at again: after that time first, and
// then the later the more often that was so.
func (q *fetchQueue) done(user jid.JID, generation uint64, look time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := q.entries[user]
	switch {
	case e == nil && look == 0:
		return
	case e == nil:
		e = q.add(user)
	case e.generation > generation:
		if e.index < 0 { // noted while it was being tried
			q.schedule(e, e.reason, time.Now())
			q.timer.Reset(0)
		}
		return
	case look > 0 && e.reason == forUnknownUser && e.index >= 0:
		return
	}
	if e.marked || e.kept {
		q.count(e, -1)
		e.marked, e.kept = false, false
		q.count(e, 1)
		q.marks.Unmark(user.String())
	}
	if look == 0 {
		q.unschedule(e)
		q.count(e, -1)
		delete(q.entries, user)
		return
	}
	wait := backoff{max(look, soon.least), maxRecheck}.after(e.rechecks)
	e.rechecks, e.tries = e.rechecks+1, 0
	q.schedule(e, forUnknownUser, time.Now().Add(wait))
	q.timer.Reset(0)
}

// has reports whether anything is left to do for a user.
func (q *fetchQueue) has(user jid.JID) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.entries[user] != nil
}

// entry finds or makes the entry of a user, of whom there is something new. q.mu is
// held.
func (q *fetchQueue) entry(user jid.JID) *entry {
	e := q.entries[user]
	if e == nil {
		e = q.add(user)
	}
	e.generation = q.generation.Add(1)
	return e
}

// add makes an entry. q.mu is held.
func (q *fetchQueue) add(user jid.JID) *entry {
	e := &entry{user: user, domain: q.domain(user.Domain()), reason: forUnknownUser, index: -1}
	q.entries[user] = e
	return e
}

// domain finds or makes the queue of a domain. q.mu is held.
func (q *fetchQueue) domain(name string) *domainQueue {
	for _, d := range q.domains {
		if d.name == name {
			return d
		}
	}
	d := &domainQueue{name: name}
	q.domains = append(q.domains, d)
	return d
}

// schedule lets an entry be tried from a time on. A refresh that waits keeps its place. q.mu
// is held.
func (q *fetchQueue) schedule(e *entry, reason int, at time.Time) {
	if e.index >= 0 && e.reason == forRefresh && reason != forUnknownUser {
		return
	}
	q.unschedule(e)
	q.count(e, -1)
	e.reason, e.at, e.ownAttempt = reason, at, false
	q.count(e, 1)
	heap.Push(&e.domain.due[reason], e)
}

// count counts an entry, or counts it no more. q.mu is held.
func (q *fetchQueue) count(e *entry, n int) {
	if e.reason == forOffline || e.reason == forEverybody {
		q.away += n
	}
	if e.reason == forEverybody && !e.marked {
		q.swept += n
	}
	if n < 0 && q.takesMore() {
		q.room()
	}
	switch {
	case e.marked:
		if q.marked[e.kind] += n; q.marked[e.kind] == 0 {
			delete(q.marked, e.kind)
		}
	case e.reason == forResync || e.reason == forOffline:
		q.resyncs += n
	}
}

// unschedule takes an entry off its heap. q.mu is held.
func (q *fetchQueue) unschedule(e *entry) {
	if e.index >= 0 {
		heap.Remove(&e.domain.due[e.reason], e.index)
	}
}

// counts are the numbers of users that are marked, by kind, and of those that may have
// missed something and are not.
func (q *fetchQueue) counts() (marked map[string]int, resyncs int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return maps.Clone(q.marked), q.resyncs
}

// nextTry is when a user is tried again, as far as it is known, and how many tries failed.
func (q *fetchQueue) nextTry(user jid.JID) (next *time.Time, tries int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := q.entries[user]
	switch {
	case e == nil:
		return nil, 0
	case e.index < 0:
		return nil, e.tries
	}
	return at(e.at), e.tries
}

// stop lets nobody be tried any more.
func (q *fetchQueue) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopped = true
	q.timer.Stop()
}

// dispatch permits the fetches that are due and have room. It is called whenever that
// may have changed, and by the timer.
func (q *fetchQueue) dispatch() {
	connected := q.connected()
	var ready []*batch
	q.mu.Lock()
	for !q.stopped {
		b, wait := q.next(connected)
		if b == nil {
			if wait >= 0 {
				q.timer.Reset(wait)
			}
			break
		}
		ready = append(ready, b)
	}
	q.mu.Unlock()
	for _, b := range ready {
		q.permit(b)
	}
}

// next takes the next entries that are due, of one domain and for one fetch, and a
// place for them. If there are none, wait is how long until there may be, or negative
// if that is not known. q.mu is held.
func (q *fetchQueue) next(connected bool) (b *batch, wait time.Duration) {
	if b, wait = q.take(connected, forRefresh, forUnknownUser); b != nil {
		return b, 0
	}
	for reason := forOffline; b == nil && reason < reasons; reason++ {
		var later time.Duration
		b, later = q.take(connected, reason, reason)
		if wait < 0 || later >= 0 && later < wait {
			wait = later
		}
	}
	return b, wait
}

// take is next for some of the reasons.
func (q *fetchQueue) take(connected bool, first, last int) (b *batch, wait time.Duration) {
	wait = -1
	sooner := func(d time.Duration) {
		if wait < 0 || d < wait {
			wait = d
		}
	}
	busy := 0
	for _, d := range q.domains {
		if !d.idle() {
			busy++
		}
	}
	for i, d := range q.domains {
		if !hasRoom(busy, d.fetches, q.free) {
			continue
		}
		size := max(1, q.batchSize(d.name))
		if size > 1 && d.fetches >= bulkFetches {
			continue
		}
		for n := first; n <= last; n++ {
			reason := n
			if n < forUnknownUser {
				reason = (d.turn + n) % forUnknownUser
			}
			due := &d.due[reason]
			if len(*due) == 0 || reason != forRefresh && (!connected || !hasRoom(len(q.domains), d.nonRefresh, q.nonRefresh)) {
				continue
			}
			now := time.Now()
			if until := (*due)[0].at.Sub(now); until > 0 {
				sooner(until)
				continue
			}
			b := &batch{queue: q, domain: d, nonRefresh: reason != forRefresh, generation: q.generation.Load()}
			for len(*due) > 0 && len(b.users) < size && !(*due)[0].at.After(now) {
				if b.nonRefresh && !q.limiter.AllowN(now, 1) {
					sooner(time.Duration(float64(time.Second) / float64(q.limiter.Limit())))
					break
				}
				e := heap.Pop(due).(*entry)
				e.ownAttempt = b.nonRefresh
				if e.marked && b.nonRefresh {
					q.tried.Add(1)
				}
				b.users = append(b.users, e.user)
			}
			if len(b.users) == 0 {
				continue // too many a second
			}
			d.turn = (reason + 1) % forUnknownUser
			d.fetches++
			q.free--
			if b.nonRefresh {
				d.nonRefresh++
				q.nonRefresh--
			}
			q.domains = append(slices.Delete(q.domains, i, i+1), d)
			b.open = len(b.users)
			return b, 0
		}
	}
	return nil, wait
}

// leave gives a batch's place back.
func (q *fetchQueue) leave(b *batch) {
	q.mu.Lock()
	b.domain.fetches--
	q.free++
	if b.nonRefresh {
		b.domain.nonRefresh--
		q.nonRefresh++
	}
	q.mu.Unlock()
	q.dispatch()
}

// batch is users who may be fetched now, together. Each of their loops answers once: with
// [batch.fetch] or with [batch.skip].
type batch struct {
	queue      *fetchQueue
	domain     *domainQueue
	nonRefresh bool
	users      []jid.JID

	generation uint64 // when it was permitted

	mu       sync.Mutex
	open     int // loops that have not answered
	requests []roster.Request
	loops    []*user
}

// skip says that a loop has nothing to fetch now.
func (b *batch) skip() { b.fetch(nil, roster.Request{}) }

// fetch says that a loop wants its user fetched. If all have answered, it is done.
func (b *batch) fetch(u *user, r roster.Request) {
	b.mu.Lock()
	if u != nil {
		b.loops, b.requests = append(b.loops, u), append(b.requests, r)
	}
	b.open--
	last := b.open == 0
	b.mu.Unlock()
	switch {
	case !last:
	case len(b.loops) == 0:
		b.queue.leave(b)
	case len(b.loops) == 1 && u != nil:
		u.start = func() event {
			defer b.queue.leave(b)
			return u.m.fetch(r)
		}
	default:
		m := b.loops[0].m
		m.start(func() {
			defer b.queue.leave(b)
			began := time.Now()
			m.Source.FetchMany(m.ctx, b.requests, func(i int, f roster.Fetched, err error) {
				m.logFetched(b.requests[i], f, err, began)
				b.loops[i].post(fetchedEvent{f, err})
			})
		})
	}
}

// entryHeap has the entry that is due first in front.
type entryHeap []*entry

func (h entryHeap) Len() int           { return len(h) }
func (h entryHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }

func (h entryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *entryHeap) Push(x any) {
	e := x.(*entry)
	e.index = len(*h)
	*h = append(*h, e)
}

func (h *entryHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	e.index = -1
	return e
}
