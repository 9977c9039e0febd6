package component

import (
	"context"
	"maps"
	"sync"
	"time"

	"gosrc.io/xmpp/stanza"

	"rosterd/jid"
	"rosterd/xmlstream"
)

const (
	askRate  = 200         // resources asked per second at most
	askBatch = 2 * askRate // resources asked before the table of sessions is looked at again
)

// tendSessions asks the connected resources that were not heard of for a while, or not
// on this stream, whether they are still there: no server reports the end of each
// session. It returns when ctx ends.
func (c *Component) tendSessions(ctx context.Context, s *stream) {
	look, next := time.Tick(c.opts.Timing.Ask), time.Tick(time.Second/askRate)
	asked := make(map[jid.JID]time.Time) // when each may be asked again; bounded by askRate and askPause
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-look:
			c.endUnreported(s, now)
			c.tellUnasked(s, now)
			maps.DeleteFunc(asked, func(_ jid.JID, again time.Time) bool { return now.After(again) })
			since := now.Add(-c.opts.Timing.Silent)
			if since.Before(s.began) {
				since = s.began // those who were there before may have left with the stream
			}
			var batch []jid.JID
			for full := range c.sessions.Unheard(since) {
				if _, already := asked[full]; !already && c.mayAsk(s, full.Domain(), now) {
					batch = append(batch, full)
				}
				if len(batch) == askBatch {
					break // some of the others will have been heard of
				}
			}
			for _, full := range batch {
				asked[full] = now.Add(c.askPause(s, full))
				select {
				case <-next:
				case <-ctx.Done():
					return
				}
				c.ask(s, full)
			}
		}
	}
}

// mayAsk reports whether the time has come to ask a host's resources: it is known how
// the host answers for one that is not there, or will not be known; and if its error is
// ambiguous, it has reported who is there.
func (c *Component) mayAsk(s *stream, host string, now time.Time) bool {
	up := now.Sub(s.began)
	switch s.grants.of(host).absent {
	case absenceUnknown:
		return up > c.opts.Timing.Announce+c.opts.Timing.Answer
	case absenceCertain:
		return true
	}
	return up > c.opts.Timing.Report
}

// askPause is how long after a question to a resource the next one follows.
func (c *Component) askPause(s *stream, full jid.JID) time.Duration {
	if g := s.grants.of(full.Domain()); g.absent == absenceCertain {
		return c.opts.Timing.Silent
	} else if g.presence && c.sessions.Available(full) {
		return 10 * c.opts.Timing.Silent // the server reports the end of its session
	}
	return 3 * c.opts.Timing.Silent
}

// endUnreported takes the available resources for unavailable that a host has not
// reported on a new stream. They may still be connected.
func (c *Component) endUnreported(s *stream, now time.Time) {
	due := make(map[string]bool)
	for _, host := range c.opts.Hosts {
		g := s.grants.of(host)
		if g.reported.IsZero() || g.swept || g.absent == absenceUnknown || now.Sub(g.reported) <= c.opts.Timing.Report {
			continue
		}
		s.grants.change(host, func(g *grant) { g.swept = true })
		due[host] = g.absent == absenceAmbiguous && g.presence
	}
	if len(due) == 0 {
		return
	}
	for _, full := range c.hub.Unheard(s.began) {
		if due[full.Domain()] {
			c.hub.Unavailable(full, nil)
		}
	}
}

// ask asks a resource for a sign of life. If it is silent it may sleep.
func (c *Component) ask(s *stream, full jid.JID) {
	s.ping(c.address(full), s.out.offer, func(a answer) {
		if a.iq == nil {
			return
		}
		certain := s.grants.of(full.Domain()).absent == absenceCertain
		switch {
		case certain && isCertainlyGone(a.iq):
			c.gone(full)
		case !certain && mayBeGone(a.iq):
			c.makeSure(s, full)
		default:
			s.unasked.reported(full, !c.sessions.IsInterested(full) && !c.sessions.HeardSince(full, s.began))
			c.alive(full)
		}
	})
}

// alive notes a sign of life.
func (c *Component) alive(full jid.JID) {
	c.sessions.Heard(full)
	c.hub.Alive(full)
}

// mayBeGone reports whether an answer may be a server's, for a resource that is not
// there. Such an error has no language, as the request had none; a server adds one to
// what its clients send (RFC 6120, section 8.1.5).
func mayBeGone(iq *xmlstream.Element) bool {
	return isError(iq) && !iq.HasLang() && errorCondition(iq) == "service-unavailable"
}

// isCertainlyGone reports whether it surely is: the error for a user who has blocked the
// component has no text.
func isCertainlyGone(iq *xmlstream.Element) bool {
	return mayBeGone(iq) && iq.Child(stanza.NSComponent, "error").Child(nsStanzas, "text") != nil
}

// makeSure finds out whether a resource is gone, or its user has blocked the component
// (XEP-0191), for which the server gives the same error. It does not block.
func (c *Component) makeSure(s *stream, full jid.JID) {
	host, to := full.Domain(), c.address(full)
	g := s.grants.of(host)
	if !c.pushesKnown(s, g) {
		return // it is asked again, when it is known what can be done
	}
	switch c.pushRoute(g) {
	case PushPrivileged:
		// A roster push that changes nothing: a contact is removed that nobody ever had.
		r := request{kind: stanza.IQTypeSet, to: to, privilege: g.privilege,
			payload: "<query xmlns='" + nsRoster + "'><item jid='" + c.nobody + "@" + c.opts.Domain + "' subscription='remove'/></query>"}
		s.request(r, s.out.offer, func(a answer) {
			if a.iq == nil {
				return
			}
			switch result, _ := pushResult(a.iq); {
			case result == pushGone, result == pushBlocked && !c.reportedOn(s, full):
				c.gone(full)
			case result == pushOK:
				c.alive(full)
			}
		})
	case PushDirect:
		// From the user's own address; a client's answer would go there, the server's
		// comes to us.
		r := request{from: bareOf(to), to: to, payload: pingPayload}
		s.request(r, s.out.offer, func(a answer) {
			if a.iq != nil && mayBeGone(a.iq) {
				c.gone(full)
			}
		})
	default:
		if g.absent != absenceUnknown {
			c.gone(full) // nothing of what there is to send would reach it
		}
	}
}

// reportedOn reports whether a host that reports who is there has reported a resource
// on a stream.
func (c *Component) reportedOn(s *stream, full jid.JID) bool {
	return s.grants.of(full.Domain()).presence && c.sessions.Available(full) && c.sessions.HeardSince(full, s.began)
}

// unasked are resources that may have asked before rosterd was connected, and were told
// an error or, COMPAT ejabberd, the server's own roster. They are told everything, unless
// they ask within a while, as clients do at login. It is safe for concurrent use.
type unasked struct {
	// restarted says that the server has been started since the stream before: the
	// sessions that are known have ended, and those that bear their names are others.
	restarted bool

	mu      sync.Mutex
	waiting []unaskedResource // in the order of their time; maxUnasked
	met     map[jid.JID]bool  // if restarted: who was met on this stream, and whether they asked
}

type unaskedResource struct {
	full jid.JID
	seen time.Time
}

const (
	askWithin  = 2 * time.Second // how long a resource that was reported may take to ask
	maxUnasked = 1 << 16         // resources who may still ask; beyond, nobody is noted
	maxMet     = 1 << 20         // resources who are remembered; beyond, the same
)

// reported notes a resource that is there. before says that it was there before the
// stream.
func (n *unasked) reported(full jid.JID, before bool) {
	if !before && !n.restarted {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, met := n.met[full]; met || len(n.waiting) >= maxUnasked || len(n.met) >= maxMet {
		return
	}
	if n.restarted {
		n.met[full] = false
	}
	n.waiting = append(n.waiting, unaskedResource{full, time.Now()})
}

// asked notes a resource that asked for its roster.
func (n *unasked) asked(full jid.JID) {
	if !n.restarted {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.met) < maxMet {
		n.met[full] = true
	}
}

// gone forgets a resource.
func (n *unasked) gone(full jid.JID) {
	if !n.restarted {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.met, full)
}

// due returns those who have not asked within their time, nor gone. Without a restart of
// the server only the table of sessions knows.
func (n *unasked) due(now time.Time) (due []jid.JID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for len(n.waiting) > 0 && now.Sub(n.waiting[0].seen) >= askWithin {
		full := n.waiting[0].full
		if asked, met := n.met[full]; !asked && (met || !n.restarted) {
			due = append(due, full)
		}
		n.waiting = n.waiting[1:]
	}
	return due
}

// tellUnasked has those told everything who have not asked in time.
func (c *Component) tellUnasked(s *stream, now time.Time) {
	for _, full := range s.unasked.due(now) {
		g := s.grants.of(full.Domain())
		if !g.delegated() || !s.unasked.restarted && (c.sessions.IsInterested(full) || !c.sessions.Available(full)) {
			continue // or gone again
		}
		c.rosters.Unasked(full)
	}
}
