package component

import (
	"sync"
	"time"

	"gosrc.io/xmpp/stanza"

	"rosterd/jid"
)

// fence keeps what follows a delegated answer behind it. COMPAT ejabberd, where
// the answer passes through one more process, which anything sent after it
// overtakes. A query of our own goes the same way as the answer: when its result
// is here, the answer has gone to the client.
type fence struct {
	mu       sync.Mutex
	answered map[jid.JID]time.Time // resources, and when they were answered last
	order    []passage             // every answer of the last fenceFor, in order
}

type passage struct {
	full jid.JID
	at   time.Time
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
	if f.answered == nil {
		f.answered = make(map[jid.JID]time.Time)
	}
	now := time.Now()
	for len(f.order) > 0 && now.Sub(f.order[0].at) > fenceFor {
		if old := f.order[0]; f.answered[old.full].Equal(old.at) {
			delete(f.answered, old.full)
		}
		f.order = f.order[1:]
	}
	f.order = append(f.order, passage{full, now})
	f.answered[full] = now
}

// passed forgets the answers to resources that were noted until a time.
func (f *fence) passed(to []jid.JID, until time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, full := range to {
		if at, ok := f.answered[full]; ok && !at.After(until) {
			delete(f.answered, full)
		}
	}
}

// waits reports whether one of the resources was answered a short time ago.
func (f *fence) waits(to []jid.JID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	for _, full := range to {
		if at, ok := f.answered[full]; ok && now.Sub(at) < fenceFor {
			return true
		}
	}
	return false
}

// behindAnswers waits until the answers to resources of a host, if there were
// any a short time ago, have gone to the clients.
func (c *Component) behindAnswers(s *stream, host string, to []jid.JID) {
	if !s.fence.waits(to) {
		return
	}
	began := time.Now()
	done := make(chan struct{}, 1)
	id, ok := s.iqs.register(host, func(answer) { done <- struct{}{} })
	if !ok {
		return
	}
	b := appendRequest(nil, "", stanza.Attrs{Type: stanza.IQTypeGet, Id: id, From: c.opts.Domain, To: host})
	if s.out.put(append(b, "<query xmlns='"+nsRoster+"'/></iq>"...), nil) != nil {
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
