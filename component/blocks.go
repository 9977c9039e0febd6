package component

import (
	"strings"
	"time"

	"gosrc.io/xmpp/stanza"

	"rosterd/jid"
	"rosterd/xmlstream"
)

// blocksOf tells whether the block lists of a host can be asked for, by what it
// announces.
func (c *Component) blocksOf(host string, announced func(*grant)) {
	var g grant
	announced(&g)
	c.presences.Blocking(host, g.blocks)
}

// Blocked implements presence.Sender: it asks the user's server in the user's name
// (XEP-0356, section 6; XEP-0191, section 3.2).
func (r relay) Blocked(user jid.JID, reply func(list []jid.JID, ok bool)) {
	g := r.s.grants.of(user.Domain())
	if !g.blocks {
		reply(nil, false)
		return
	}
	var id string
	timer := time.AfterFunc(time.Hour, func() {
		if r.s.iqs.forget(id) {
			r.c.mute(r.s, user.Domain())
			reply(nil, false)
		}
	})
	to := r.c.written(user)
	id, ok := r.s.iqs.register(to, func(a answer) {
		timer.Stop()
		if a.iq != nil && !r.s.grants.of(user.Domain()).lists {
			r.s.grants.change(user.Domain(), func(g *grant) { g.lists = true })
		}
		reply(r.c.blockList(user, a))
	})
	if !ok {
		timer.Stop()
		reply(nil, false)
		return
	}
	if !g.lists {
		timer.Reset(r.c.opts.Timing.Blocks)
	}
	b := appendPrivilegedIQ(stanza.IQTypeGet, id, r.c.names.domain(), g.privilege, to)
	err := r.s.out.putLow(append(b, "<blocklist xmlns='"+nsBlocking+"'/></iq></privileged_iq></iq>"...))
	if err != nil && r.s.iqs.forget(id) {
		reply(nil, false)
	}
}

// mute notes that a host does not answer who is blocked, though it permits the
// question: COMPAT ejabberd 24.12. Nobody's presence waits for that any more, until
// the next stream.
func (c *Component) mute(s *stream, host string) {
	s.grants.change(host, func(g *grant) { g.blocks = false })
	c.presences.Blocking(host, false)
	c.unsaid(host, "no answer")
}

// unsaid logs that a server does not say whom its users have blocked.
func (c *Component) unsaid(host, why string) {
	if silent, now := c.unlisted.log(host + " " + why); now {
		c.opts.Logger.Warn("the server does not say whom a user has blocked: presence is relayed by what was known before",
			"host", host, "err", why, "not_logged_before", silent)
	}
}

// noBlocking are the conditions of a server that has no block lists.
var noBlocking = map[string]bool{"service-unavailable": true, "feature-not-implemented": true}

// blockList reads the answer: bare JIDs, domains, and JIDs with a resource.
func (c *Component) blockList(user jid.JID, a answer) (list []jid.JID, ok bool) {
	why := "no answer"
	switch {
	case a.lost:
		return nil, false
	case a.iq != nil:
		inner := privileged(a.iq)
		if inner == nil {
			inner = a.iq
		}
		if blocked := inner.Child(nsBlocking, "blocklist"); blocked != nil && inner.Get("type") == string(stanza.IQTypeResult) {
			for _, item := range blocked.Children {
				if j, err := jid.Parse(strings.Clone(item.Get("jid"))); err == nil && item.Is(nsBlocking, "item") {
					list = append(list, j)
				}
			}
			if len(blocked.Children) >= xmlstream.MaxElements/2 { // what lies behind the limit was not read
				c.unsaid(user.Domain(), "more entries than are read")
			}
			return list, true
		}
		if why = innerCondition(inner); noBlocking[why] {
			return nil, true
		}
	}
	c.unsaid(user.Domain(), why)
	return nil, false
}

// privileged is the answer that a privileged IQ got, as the server forwards it.
func privileged(iq *xmlstream.Element) *xmlstream.Element {
	for _, ns := range [...]string{nsPrivilege1, nsPrivilege2} {
		if w := iq.Child(ns, "privilege"); w != nil {
			if f := w.Child(nsForward, "forwarded"); f != nil {
				return f.Child(stanza.NSClient, "iq")
			}
		}
	}
	return nil
}

// innerCondition is the condition of an error, whichever namespace it came in.
func innerCondition(iq *xmlstream.Element) string {
	for _, ns := range [...]string{stanza.NSClient, stanza.NSComponent} {
		if e := iq.Child(ns, "error"); e != nil {
			return condition(e, nsStanzas)
		}
	}
	return "the answer cannot be read"
}

// handleBlockPush takes note that a user's block list has changed (XEP-0191, section
// 3.3): a server says so from the user's bare JID, which no client can.
func (c *Component) handleBlockPush(s *stream, iq, payload *xmlstream.Element) bool {
	if iq.Get("type") != string(stanza.IQTypeSet) || !payload.Is(nsBlocking, "block") && !payload.Is(nsBlocking, "unblock") {
		return false
	}
	user, err := jid.ParseStamped(strings.Clone(iq.Get("from")))
	if err != nil || !user.IsBare() || user.Local() == "" || !c.hosts[user.Domain()] {
		return false
	}
	c.presences.BlocksChanged(user)
	c.result(s, iq, nil)
	return true
}
