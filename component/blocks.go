package component

import (
	"strings"

	"gosrc.io/xmpp/stanza"

	"rosterd/jid"
	"rosterd/xmlstream"
)

// Blocked implements presence.Sender: it asks the user's server in the user's name
// (XEP-0356, section 6; XEP-0191, section 3.2).
func (p presenceSender) Blocked(user jid.JID, reply func(list []jid.JID, ok bool)) {
	host := user.Domain()
	g := p.s.grants.of(host)
	if !g.blocks {
		reply(nil, false)
		return
	}
	r := request{to: p.c.names.jid(user).String(), privilege: g.privilege,
		payload: "<blocklist xmlns='" + nsBlocking + "'/>"}
	if !g.lists {
		r.timeout = p.c.opts.Timing.Blocks
	}
	p.s.request(r, p.s.out.putLow, func(a answer) {
		if a.iq != nil {
			if !p.s.grants.of(host).lists {
				p.s.grants.change(host, func(g *grant) { g.lists = true })
			}
			reply(p.c.blockList(host, a.iq))
			return
		}
		if !a.lost() {
			if !g.lists {
				// COMPAT ejabberd 24.12, which permits the question and does not answer.
				// Nobody's presence waits for that any more, until the next stream.
				p.s.grants.change(host, func(g *grant) { g.blocks = false })
				p.c.hub.Blocking(host, false)
			}
			p.c.logUnlisted(host, "no answer")
		}
		reply(nil, false)
	})
}

// logUnlisted logs that a server does not say whom its users have blocked.
func (c *Component) logUnlisted(host, why string) {
	c.warn(c.unlisted, host+" "+why, "the server does not say whom a user has blocked: presence is relayed by what was known before",
		"host", host, "err", why)
}

// blockList reads a server's answer: bare JIDs, domains, and JIDs with a resource.
func (c *Component) blockList(host string, iq *xmlstream.Element) (list []jid.JID, ok bool) {
	if inner := privileged(iq); inner != nil {
		iq = inner
	}
	blocked := iq.Child(nsBlocking, "blocklist")
	if blocked == nil || iq.Get("type") != string(stanza.IQTypeResult) {
		switch why := errorCondition(iq); why {
		case "service-unavailable", "feature-not-implemented":
			return nil, true // it has no block lists
		case "":
			c.logUnlisted(host, "the answer cannot be read")
		default:
			c.logUnlisted(host, why)
		}
		return nil, false
	}
	for _, item := range blocked.Children {
		if j, err := jid.Parse(strings.Clone(item.Get("jid"))); err == nil && item.Is(nsBlocking, "item") {
			list = append(list, j)
		}
	}
	if len(blocked.Children) >= xmlstream.MaxElements/2 { // what lies behind the limit was not read
		c.logUnlisted(host, "more entries than are read")
	}
	return list, true
}

// handleBlockPush takes note that a user's block list has changed (XEP-0191, section
// 3.3), and reports whether a stanza says so. A server says so from the user's bare
// JID, which no client can.
func (c *Component) handleBlockPush(s *stream, iq, payload *xmlstream.Element) bool {
	if !payload.Is(nsBlocking, "block") && !payload.Is(nsBlocking, "unblock") {
		return false
	}
	user, err := jid.ParseStamped(strings.Clone(iq.Get("from")))
	if err != nil || !user.IsBare() || user.Local() == "" || !c.names.serves(user.Domain()) {
		return false
	}
	c.hub.BlocksChanged(user)
	c.result(s, iq, nil)
	return true
}
