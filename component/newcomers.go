package component

import (
	"sync"
	"time"

	"rosterd/jid"
	"rosterd/xmlstream"
)

// newcomers are resources that may have been there before rosterd was connected:
// they asked then, if they did, and were told an error or, COMPAT ejabberd, the
// server's own roster. They count as interested resources, and are told everything.
//
// Where it cannot be told whether they were there before, they have a while to ask,
// as clients do at login. It is safe for concurrent use.
type newcomers struct {
	// afresh says that the server has been started since the stream before: the
	// sessions that are known have ended, and those that bear their names are
	// others.
	afresh bool

	mu      sync.Mutex
	waiting []newcomer       // in the order of their time; maxNewcomers
	met     map[jid.JID]bool // if afresh: who was met on this stream, and whether they asked
}

type newcomer struct {
	full jid.JID
	seen time.Time
}

const (
	// askWithin is how long a resource that was reported may take to ask.
	askWithin = 2 * time.Second
	// maxNewcomers bounds those who may still ask.
	maxNewcomers = 1 << 16
	// maxMet bounds those who are remembered.
	maxMet = 1 << 20
)

// reported notes a resource that is there. first says that nothing was known of
// it.
func (n *newcomers) reported(full jid.JID, first bool) {
	if !first && !n.afresh {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, met := n.met[full]; met || len(n.waiting) >= maxNewcomers || len(n.met) >= maxMet {
		return
	}
	if n.afresh {
		n.met[full] = false
	}
	n.waiting = append(n.waiting, newcomer{full, time.Now()})
}

// asked notes a resource that asked.
func (n *newcomers) asked(full jid.JID) {
	if !n.afresh {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.met) < maxMet {
		n.met[full] = true
	}
}

// gone forgets a resource.
func (n *newcomers) gone(full jid.JID) {
	if !n.afresh {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.met, full)
}

// due returns those who have not asked within their time, nor gone, as far as it is
// known here: if not afresh, the table of sessions knows better.
func (n *newcomers) due(now time.Time) (due []jid.JID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for len(n.waiting) > 0 && now.Sub(n.waiting[0].seen) >= askWithin {
		full := n.waiting[0].full
		if asked, met := n.met[full]; !asked && (met || !n.afresh) {
			due = append(due, full)
		}
		n.waiting = n.waiting[1:]
	}
	return due
}

// wasThere reports whether a resource of which nothing was known may have been
// there before this stream. A server marks those that it reports when we connect
// (XEP-0203). COMPAT ejabberd does not report them then, and marks nobody.
func (c *Component) wasThere(s *stream, full jid.JID, presence *xmlstream.Element) bool {
	return presence.Child(nsDelay, "delay") != nil || s.grants.of(full.Domain()).unconfirmed
}

// tellNewcomers has those told everything who have not asked in time.
func (c *Component) tellNewcomers(s *stream, now time.Time) {
	for _, full := range s.newcomers.due(now) {
		g := s.grants.of(full.Domain())
		if !g.delegated() || !s.newcomers.afresh && (c.sessions.IsInterested(full) || !c.sessions.Available(full)) {
			continue // or gone again
		}
		c.rosters.Unasked(full)
	}
}
