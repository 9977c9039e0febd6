package component

import (
	"sync"
	"time"

	"rosterd/jid"
)

// fence keeps what follows a delegated answer behind it. COMPAT ejabberd, where
// the answer passes through one more process, which anything sent after it
// overtakes. A probe, see [Component.prove], goes the same way as the answer: when its result
// is here, the answer has gone to the client.
type fence struct {
	mu sync.Mutex
	// answered are resources, and when they were answered last: since a time, and
	// for as long before that.
	answered [2]map[jid.JID]time.Time
	since    time.Time
}

const (
	// fenceFor is how long an answer can be under way: longer, and the server
	// has answered itself.
	fenceFor = 30 * time.Second
	// fenceWait is how long something waits behind an answer at most. Queries of
	// the same user wait with it.
	fenceWait = 3 * time.Second
)

// note notes an answer to a resource.
func (f *fence) note(full jid.JID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if now.Sub(f.since) > fenceFor { // those before are through
		f.answered[0], f.answered[1], f.since = make(map[jid.JID]time.Time), f.answered[0], now
	}
	f.answered[0][full] = now
}

// last is when a resource was answered last, if that is known still. f.mu is held.
func (f *fence) last(full jid.JID) (at time.Time, known bool) {
	if at, known = f.answered[0][full]; !known {
		at, known = f.answered[1][full]
	}
	return at, known
}

// passed forgets the answers to resources that were noted until a time.
func (f *fence) passed(to []jid.JID, until time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, full := range to {
		if at, known := f.last(full); known && !at.After(until) {
			delete(f.answered[0], full)
			delete(f.answered[1], full)
		}
	}
}

// waits reports whether one of the resources was answered a short time ago.
func (f *fence) waits(to []jid.JID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	for _, full := range to {
		if at, known := f.last(full); known && now.Sub(at) < fenceFor {
			return true
		}
	}
	return false
}

// behindAnswers waits until the answers to resources of a host, if there were
// any a short time ago, have gone to the clients.
func (c *Component) behindAnswers(s *stream, host string, to []jid.JID) {
	g := s.grants.of(host)
	if !s.fence.waits(to) || g.queries == arrivalUntestable || !g.probed && c.late(s) {
		return
	}
	began := time.Now()
	done := make(chan struct{}, 1)
	address := c.probeAddress(c.names.write(host))
	id, ok := s.iqs.register(address, func(answer) { done <- struct{}{} })
	if !ok || s.out.put(c.probe(id, address), nil) != nil {
		return
	}
	timer := time.NewTimer(fenceWait)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C: // once is enough
	}
	s.fence.passed(to, began)
}
