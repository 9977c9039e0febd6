package roster

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"rosterd/jid"
)

// pause is how long a user waits for the next try: least at first, twice as long with
// each try that fails, most at last.
type pause struct{ least, most time.Duration }

var (
	// soon is for what may pass at any time. A backend that is well again is asked
	// sooner, see [Manager.Hasten].
	soon = pause{time.Second, 30 * time.Second}
	// seldom is for what will most likely be refused again. A new stream or a refresh
	// tries at once.
	seldom = pause{time.Second, time.Hour}
)

// after is how long to wait after some tries that failed.
func (p pause) after(tries int) time.Duration {
	if p.least == p.most {
		return p.most
	}
	wait := min(p.least<<min(tries, 16), p.most)
	return wait*3/4 + rand.N(wait/4) // not all at the same moment who failed at the same moment
}

// lastLook is how long a user waits at most to be looked at again, see [agenda.later].
const lastLook = 10 * time.Minute

// agenda is who is to be brought in line in the background, and when: users
// that are marked, as a refresh of theirs failed, and users that may have missed
// something. It is fair: domains take turns, and in each domain the marked users
// and the others do. Last in each domain are those who are in line and only looked
// at again. It is safe for concurrent use.
type agenda struct {
	mu      sync.Mutex
	entries map[jid.JID]*entry // of a user once at most, bounded by the users connected
	shares  []*share           // of each domain, the next one in front
	places  int                // that are free: how many more users may be tried at a time
	marked  int
	inLine  int
	version uint64 // counts the calls of mark and add
	wake    chan struct{}
}

// share is a domain's part of an agenda.
type share struct {
	domain string
	due    [3]queue // the entries that are not being tried: marked ones, others, and those in line
	turn   int      // which of the first two is the next
	trying int      // places that are taken
}

type entry struct {
	user   jid.JID
	share  *share
	at     time.Time // not before
	marked bool
	inLine bool   // nothing is known to be done
	looks  int    // how often it was in line
	tries  int    // of the agenda's own that failed
	trying bool   // one of them is under way
	asof   uint64 // the version of the last call for this user
	index  int    // in the queue, -1: being tried
}

func newAgenda(places int) *agenda {
	return &agenda{entries: make(map[jid.JID]*entry), places: places, wake: make(chan struct{}, 1)}
}

// mark notes that a refresh of a user failed, and reports whether that is news.
// It is tried again after a pause.
func (a *agenda) mark(user jid.JID, p pause) (news bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.entry(user)
	if news = !e.marked; news {
		a.unschedule(e)
		e.marked = true
		a.marked++
	}
	now := time.Now()
	wait := p.after(e.tries)
	if e.trying {
		e.tries++
	} else if e.index >= 0 {
		wait = min(wait, e.at.Sub(now)) // somebody else's failure is no reason to wait for longer
	}
	e.trying = false
	a.schedule(e, now.Add(wait))
	return news
}

// entry finds or makes the entry of a user, of whom there is something new. a.mu
// is held.
func (a *agenda) entry(user jid.JID) *entry {
	e := a.entries[user]
	if e == nil {
		e = &entry{user: user, share: a.share(user.Domain()), index: -1}
		a.entries[user] = e
	}
	if e.inLine {
		a.unschedule(e)
		e.inLine = false
		a.inLine--
	}
	a.version++
	e.asof = a.version
	return e
}

// share finds or makes the share of a domain. a.mu is held.
func (a *agenda) share(domain string) *share {
	for _, s := range a.shares {
		if s.domain == domain {
			return s
		}
	}
	s := &share{domain: domain}
	a.shares = append(a.shares, s)
	return s
}

// add notes that users of a domain may have missed something. Those that are marked
// are tried at once, too.
func (a *agenda) add(domain string, users []jid.JID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.share(domain) // which has its part from now on
	now := time.Now()
	for _, user := range users {
		e := a.entry(user)
		e.tries = 0
		a.schedule(e, now)
	}
	a.signal()
}

// hasten lets the marked users of some domains be tried at once.
func (a *agenda) hasten(domains []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	for _, e := range a.entries {
		if e.index >= 0 && e.at.After(now) && e.marked && slices.Contains(domains, e.user.Domain()) {
			a.schedule(e, now)
		}
	}
}

// schedule lets an entry be tried from a time on. a.mu is held.
func (a *agenda) schedule(e *entry, at time.Time) {
	a.unschedule(e)
	e.at = at
	heap.Push(e.queue(), e)
	a.signal()
}

// unschedule takes an entry out of its queue. a.mu is held.
func (a *agenda) unschedule(e *entry) {
	if e.index >= 0 {
		heap.Remove(e.queue(), e.index)
	}
}

func (e *entry) queue() *queue {
	switch {
	case e.marked:
		return &e.share.due[0]
	case e.inLine:
		return &e.share.due[2]
	}
	return &e.share.due[1]
}

func (a *agenda) signal() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// now is what [agenda.done] is given by whoever begins to bring a user in line.
func (a *agenda) now() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.version
}

// done notes that a user is in line, as of a version, and reports whether he was
// marked. What was noted of him later stays.
func (a *agenda) done(user jid.JID, asof uint64) (was bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.entries[user]
	if e == nil || e.asof > asof {
		return false
	}
	a.unschedule(e)
	delete(a.entries, user)
	if e.marked {
		a.marked--
	}
	if e.inLine {
		a.inLine--
	}
	return e.marked
}

// later notes that a user is in line, as of a version, but is to be looked at again,
// first after a while and then the later the more often that was so. It reports
// whether he was marked.
func (a *agenda) later(user jid.JID, asof uint64, first time.Duration) (was bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.entries[user]
	switch {
	case e == nil:
		e = &entry{user: user, share: a.share(user.Domain()), index: -1, asof: asof}
		a.entries[user] = e
	case e.asof > asof || e.inLine && e.index >= 0:
		return false
	}
	a.unschedule(e)
	if was = e.marked; was {
		e.marked = false
		a.marked--
	}
	if !e.inLine {
		e.inLine = true
		a.inLine++
	}
	wait := pause{max(first, soon.least), lastLook}.after(e.looks)
	e.looks, e.tries, e.trying = e.looks+1, 0, false
	a.schedule(e, time.Now().Add(wait))
	return was
}

// counts are the numbers of users marked, and of all others who are not in line.
func (a *agenda) counts() (marked, others int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.marked, len(a.entries) - a.marked - a.inLine
}

// take removes the next entry that is due from its queue, and takes a place for it,
// which [agenda.leave] frees; if there is none, wait is when one will be, or negative
// if that is not known.
func (a *agenda) take() (e entry, wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	wait = -1
	for i, s := range a.shares {
		if !hasRoom(len(a.shares), s.trying, a.places) {
			continue
		}
		s.turn = 1 - s.turn
		for _, q := range [...]*queue{&s.due[1-s.turn], &s.due[s.turn], &s.due[2]} {
			if len(*q) == 0 {
				continue
			}
			until := time.Until((*q)[0].at)
			if until <= 0 {
				e := heap.Pop(q).(*entry)
				e.trying = true
				s.trying++
				a.places--
				a.shares = append(slices.Delete(a.shares, i, i+1), s)
				return *e, 0
			}
			if wait < 0 || until < wait {
				wait = until
			}
		}
	}
	return entry{}, wait
}

// leave frees the place that an entry was tried in.
func (a *agenda) leave(e entry) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e.share.trying--
	a.places++
	a.signal()
}

// run calls try for each user who is due, at most perSecond users a second,
// while ready reports true, until ctx ends; who is tried is given back to
// [agenda.leave]. If ready turns true, or may have, signal is called.
func (a *agenda) run(ctx context.Context, perSecond int, ready func() bool, try func(entry)) {
	// A few together, who can be asked for in one request.
	limiter := rate.NewLimiter(rate.Limit(perSecond), max(1, perSecond/5))
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		wait := time.Duration(-1)
		if ready() {
			var e entry
			if e, wait = a.take(); wait == 0 {
				if limiter.Wait(ctx) != nil {
					return
				}
				try(e)
				continue
			}
		}
		if wait < 0 {
			timer.Stop()
		} else {
			timer.Reset(wait)
		}
		select {
		case <-a.wake:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
}

// queue is a heap of entries, the first to be due in front.
type queue []*entry

func (q queue) Len() int { return len(q) }

func (q queue) Less(i, j int) bool {
	return q[i].at.Before(q[j].at)
}

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *queue) Push(x any) {
	e := x.(*entry)
	e.index = len(*q)
	*q = append(*q, e)
}

func (q *queue) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	e.index = -1
	return e
}
