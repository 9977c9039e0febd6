package component

import (
	"context"
	"crypto/rand"
	"strings"
	"time"

	"gosrc.io/xmpp/stanza"

	"rosterd/jid"
)

const (
	askEvery = 2 * time.Second  // how often is looked for resources to ask
	askAfter = 90 * time.Second // silence after which a resource is asked
	askRate  = 200              // resources asked per second at most
	reported = 5 * time.Second  // how long a server may take to report who is there

	// How many times Timing.Silent lie between two questions to a resource at
	// least.
	askOften  = 1  // where the server reports the end of no session for sure
	askSeldom = 3  // where it reports that of those whose presence it reports, which this one's is not
	askRarely = 10 // where it does, and this one's is
)

// askAll asks the connected resources that were not heard of for a while whether
// they are still there, at a bounded rate: no server reports the end of each
// session. Those of an earlier stream, or of an earlier rosterd, are asked when a
// stream begins. It returns when ctx ends.
func (c *Component) askAll(ctx context.Context, s *stream) {
	look := time.NewTicker(c.opts.Timing.Ask)
	defer look.Stop()
	next := time.NewTicker(time.Second / askRate)
	defer next.Stop()
	asked := make(map[jid.JID]time.Time) // when each may be asked again; bounded by askRate and askRarely
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-look.C:
			c.vanished(s, now)
			c.tellNewcomers(s, now)
			for full, again := range asked {
				if now.After(again) {
					delete(asked, full)
				}
			}
			since := now.Add(-c.opts.Timing.Silent)
			if since.Before(s.began) {
				since = s.began // those who were there before may have left with the stream
			}
			var batch []jid.JID
			for full := range c.sessions.Unheard(since) {
				if _, already := asked[full]; !already && c.asks(s, full.Domain(), now) {
					batch = append(batch, full)
				}
				if len(batch) == askBatch {
					break // some of the others will have been heard of
				}
			}
			for _, full := range batch {
				asked[full] = now.Add(c.pause(s, full))
				select {
				case <-next.C:
				case <-ctx.Done():
					return
				}
				c.ask(s, full)
			}
		}
	}
}

// askBatch is how many resources are asked before the table of sessions is
// looked at again.
const askBatch = 2 * askRate

// asks reports whether the time has come to ask a host's resources: it is known
// how the host answers for one that is not there, or will not be known, and where
// its error says little, those that it reports have been reported.
func (c *Component) asks(s *stream, host string, now time.Time) bool {
	tells, known := c.tells.Load(host)
	up := now.Sub(s.began)
	if !known {
		return up > c.opts.Timing.Announce+c.opts.Timing.Answer
	}
	return tells == true || up > c.opts.Timing.Report
}

// pause is how long after a question to a resource the next one follows.
func (c *Component) pause(s *stream, full jid.JID) time.Duration {
	often := time.Duration(askSeldom)
	if tells, _ := c.tells.Load(full.Domain()); tells == true {
		often = askOften
	} else if s.grants.of(full.Domain()).presence && c.sessions.Available(full) {
		often = askRarely
	}
	return often * c.opts.Timing.Silent
}

// vanished are the available resources that a host has not reported on a new
// stream: one that reports the ends of sessions also reports who is there. They
// may be connected without being available.
func (c *Component) vanished(s *stream, now time.Time) {
	if c.hub == nil {
		return
	}
	due := make(map[string]bool)
	s.report.Range(func(host, at any) bool {
		tells, known := c.tells.Load(host)
		if done, is := at.(time.Time); is && known && now.Sub(done) > c.opts.Timing.Report {
			s.report.Store(host, nil) // once
			due[host.(string)] = tells == false && s.grants.of(host.(string)).presence
		}
		return true
	})
	if len(due) == 0 {
		return
	}
	for _, full := range c.hub.Unheard(s.began) {
		if due[full.Domain()] {
			c.presences.Unavailable(full, nil)
		}
	}
}

// ask asks a resource for a sign of life (XEP-0199). None is no sign that it is
// gone: the client may sleep.
func (c *Component) ask(s *stream, full jid.JID) {
	c.sendPing(s, c.address(full), func(a answer) {
		tells, _ := c.tells.Load(full.Domain())
		switch {
		case a.iq == nil:
		case tells == true && serverSaysGone(a.iq):
			c.gone(full)
		case tells != true && mayBeGone(a.iq):
			c.makeSure(s, full)
		default:
			s.newcomers.reported(full, false)
			c.alive(full)
		}
	})
}

// alive notes a sign of life.
func (c *Component) alive(full jid.JID) {
	c.sessions.Heard(full)
	c.presences.Alive(full)
}

// makeSure finds out whether a resource is gone of which the server says so: the
// same it says for a user who has blocked the component (XEP-0191). It does not
// block.
func (c *Component) makeSure(s *stream, full jid.JID) {
	host := full.Domain()
	g := s.grants.of(host)
	if !announcedPush(g, c.late(s)) {
		return // it is asked again, when it is known what can be done
	}
	switch c.ways(host, g, c.late(s)).Push {
	case PushPrivileged:
		c.pushNothing(s, g.privilege, full)
	case PushDirect:
		// From the user himself; his answer would go to him, the server's to us.
		to := c.address(full)
		c.sendPingFrom(s, bareOf(to), to, func(a answer) {
			if a.iq != nil && mayBeGone(a.iq) {
				c.gone(full)
			}
		})
	default:
		// Nothing of what there is to send would reach him. A client's own error
		// has a language: its server has to add it (RFC 6120, section 8.1.5).
		if _, known := c.tells.Load(host); known {
			c.gone(full)
		}
	}
}

// pushNothing sends a resource a roster push that changes nothing: a contact is
// removed that nobody ever had. Whatever else is pushed meanwhile, before or
// after it, the roster is the same.
func (c *Component) pushNothing(s *stream, ns string, full jid.JID) {
	to := c.address(full)
	id, ok := s.iqs.register(bareOf(to), func(a answer) {
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
	if !ok {
		return
	}
	b := appendPrivileged(id, c.names.domain(), ns, to)
	b = append(b, "<query xmlns='"+nsRoster+"'><item jid='"+c.nobody+"@"+c.opts.Domain+"' subscription='remove'/></query></iq></privileged_iq></iq>"...)
	if !s.out.offer(b) {
		s.iqs.forget(id)
	}
}

// reportedOn reports whether a host that reports who is there has reported a
// resource on a stream.
func (c *Component) reportedOn(s *stream, full jid.JID) bool {
	return s.grants.of(full.Domain()).presence && c.sessions.Available(full) && c.sessions.HeardSince(full, s.began)
}

// learn finds out how a server answers for a resource that is not there, and
// whether an address comes back as it was sent: then it stamps those of users as
// they were typed. Where its error has a text, as ejabberd's has, it can be told
// from what clients answer who do not know XEP-0199. Until it has answered, what an
// earlier stream taught holds of the error. By then a host has also reported who is
// there, if it does so: it does at once, and answers this afterwards.
func (c *Component) learn(s *stream, host string) {
	for _, spelling := range c.names.candidates(host) {
		to := "Rosterd-Asks-For-Nobody-" + rand.Text() + "@" + spelling + "/nowhere"
		c.sendPingAs(s, to, strings.ToLower(to), func(a answer) {
			if a.iq == nil {
				return
			}
			s.report.LoadOrStore(host, time.Now())
			condition := errorCondition(a.iq)
			if condition == "service-unavailable" {
				c.tells.Store(host, serverSaysGone(a.iq))
			}
			if condition == "" || elsewhere[condition] {
				return // it is not the server that the users have
			}
			c.names.host(spelling)
			stamps := stampsPrepared
			if a.iq.get("from") == to {
				stamps = stampsTyped
			}
			s.grants.change(host, func(g *grant) { g.stamps = stamps })
		})
	}
}

// sendPing asks for a sign of life and does not block: where the server takes
// nothing now, nobody is asked.
func (c *Component) sendPing(s *stream, to string, callback func(answer)) {
	c.sendPingFrom(s, c.names.domain(), to, callback)
}

// sendPingFrom is sendPing from an address that the server takes.
func (c *Component) sendPingFrom(s *stream, from, to string, callback func(answer)) {
	if id, ok := s.iqs.register(to, callback); ok {
		c.offerPing(s, id, from, to, callback)
	}
}

// sendPingAs is sendPing to an address that the server may prepare.
func (c *Component) sendPingAs(s *stream, to, prepared string, callback func(answer)) {
	if id, ok := s.iqs.registerAs(to, prepared, callback); ok {
		c.offerPing(s, id, c.names.domain(), to, callback)
	}
}

func (c *Component) offerPing(s *stream, id, from, to string, callback func(answer)) {
	if !s.out.offer(appendPing(id, from, to)) && s.iqs.forget(id) {
		callback(answer{lost: true})
	}
}

// appendPing makes a question for a sign of life.
func appendPing(id, from, to string) []byte {
	b := appendRequest(nil, "", stanza.Attrs{Type: stanza.IQTypeGet, Id: id, From: from, To: to})
	return append(b, "<ping xmlns='"+nsPing+"'/></iq>"...)
}

// nobodyAt is an address at which a server answers for a host, as it spells it, at once: as
// nobody is there, with an error (RFC 6121, section 8.5.1). COMPAT ejabberd from
// 24.10 on, which passes on no ping to the host itself.
func (c *Component) nobodyAt(host string) string { return c.nobody + "@" + host + "/nowhere" }

// mayBeGone reports whether an answer may be a server's, for a resource that is
// not there. The request had no language, nor has then the server's own error,
// while what a client sends is stamped with one.
func mayBeGone(iq *element) bool {
	return iq.get("type") == string(stanza.IQTypeError) && !iq.lang() && errorCondition(iq) == "service-unavailable"
}

// serverSaysGone reports whether it is one for sure: it has a text, which the
// error for a user who has blocked the component has not.
func serverSaysGone(iq *element) bool {
	return mayBeGone(iq) && iq.child(stanza.NSComponent, "error").child(nsStanzas, "text") != nil
}
