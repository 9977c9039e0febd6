package component

import (
	"sync"
	"time"

	"rosterd/jid"
)

// unacknowledged are the resources whose answers, sent on one stream, the server may not
// have read. When it answers a request that was sent later, it has read them. It is safe
// for concurrent use.
type unacknowledged struct {
	mu        sync.Mutex
	answers   []jid.JID // in the order they were queued
	requested bool      // a request behind some of them is under way
	closed    bool      // the stream has ended
}

// manyAnswers is how many answers are acknowledged at once, and not only when it is
// time.
const manyAnswers = 1024

// add notes an answer that was queued, and reports whether there are many by now. It
// fails when the stream has ended.
func (u *unacknowledged) add(full jid.JID) (many bool, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return false, errStreamClosed
	}
	u.answers = append(u.answers, full)
	return len(u.answers) >= manyAnswers && !u.requested, nil
}

// request returns how many answers a request that is sent now goes behind; 0 if there
// are none, or another request is under way.
func (u *unacknowledged) request() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.requested {
		return 0
	}
	u.requested = len(u.answers) > 0
	return len(u.answers)
}

// acknowledge forgets the first n answers: the request has been answered.
func (u *unacknowledged) acknowledge(n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.closed {
		u.requested = false
		u.answers = append([]jid.JID(nil), u.answers[n:]...)
	}
}

// close returns the resources whose answers are in doubt for good, each once.
func (u *unacknowledged) close() map[jid.JID]struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	doubtful := make(map[jid.JID]struct{}, len(u.answers))
	for _, full := range u.answers {
		doubtful[full] = struct{}{}
	}
	u.answers, u.closed = nil, true
	return doubtful
}

// answerQueued notes an answer that was queued on a stream. It fails when that has
// ended.
func (c *Component) answerQueued(s *stream, full jid.JID) error {
	many, err := s.unacknowledged.add(full)
	if many {
		c.requestAcknowledgement(s)
	}
	return err
}

// requestAcknowledgement pings the server behind the answers sent so far. It does not
// block. A server that answers nothing, but lives, is believed after a while.
func (c *Component) requestAcknowledgement(s *stream) {
	n := s.unacknowledged.request()
	if n == 0 {
		return
	}
	s.ping(c.nobodyAt(c.names.known(c.opts.Hosts)[0]), s.out.offer, func(a answer) {
		if a.lost() { // or there was no room to ask
			n = 0
		}
		s.unacknowledged.acknowledge(n)
	})
}

// barrier keeps what follows a delegated answer behind it. COMPAT ejabberd, where anything
// sent later overtakes the answer. A probe takes the same way: when it has arrived, the
// answer has gone to the client.
type barrier struct {
	mu sync.Mutex
	// recent are when resources were answered last: since a time, and before that.
	recent [2]map[jid.JID]time.Time
	since  time.Time
}

const (
	barrierFor  = 30 * time.Second // how long an answer can be under way; later the server answers itself
	barrierWait = 3 * time.Second  // how long something waits behind an answer, and the user's queries with it
)

// answered notes an answer to a resource.
func (b *barrier) answered(full jid.JID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if now.Sub(b.since) > barrierFor { // those before are through
		b.recent[0], b.recent[1], b.since = make(map[jid.JID]time.Time), b.recent[0], now
	}
	b.recent[0][full] = now
}

// last returns when a resource was answered last, if that is known still. b.mu is held.
func (b *barrier) last(full jid.JID) (at time.Time, known bool) {
	if at, known = b.recent[0][full]; !known {
		at, known = b.recent[1][full]
	}
	return at, known
}

// pass forgets the answers to resources that were noted until a time.
func (b *barrier) pass(to []jid.JID, until time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, full := range to {
		if at, known := b.last(full); known && !at.After(until) {
			delete(b.recent[0], full)
			delete(b.recent[1], full)
		}
	}
}

// blocks reports whether one of the resources was answered a short time ago.
func (b *barrier) blocks(to []jid.JID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	for _, full := range to {
		if at, known := b.last(full); known && now.Sub(at) < barrierFor {
			return true
		}
	}
	return false
}

// awaitBarrier waits until the answers to resources of a host, if there were any a
// short time ago, have gone to the clients.
func (c *Component) awaitBarrier(s *stream, host string, to []jid.JID) {
	g := s.grants.of(host)
	if !s.barrier.blocks(to) || g.queries == queriesUnproven || !g.probed && c.announcementsOver(s) {
		return
	}
	began := time.Now()
	done := make(chan answer, 1)
	s.request(c.probe(c.names.write(host)), s.out.put, func(a answer) { done <- a })
	select {
	case a := <-done:
		if a.lost() {
			return
		}
	case <-time.After(barrierWait): // once is enough
	}
	s.barrier.pass(to, began)
}
