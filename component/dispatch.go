package component

import (
	"encoding/xml"
	"strings"
	"time"

	"gosrc.io/xmpp/stanza"

	"rosterd/jid"
	"rosterd/xmlstream"
)

// handle answers a stanza, or hands it over to who does; unread says why it could not be
// decoded, see [xmlstream.Reader.Element]. It does not block. It returns a stream error;
// nothing else ends the stream.
func (c *Component) handle(s *stream, e *xmlstream.Element, unread error) error {
	if unread != nil {
		c.opts.Logger.Debug("stanza not understood", "err", unread)
	}
	if e == nil {
		return nil
	}
	if e.Name.Space == stanza.NSClient {
		// COMPAT jabberd2, which writes the namespace of its clients' streams. Only
		// the server can.
		e.Name.Space = stanza.NSComponent
	}
	switch {
	case e.Is(stanza.NSComponent, "iq"):
		if unread != nil && isRequest(e) && c.repeatable(e) {
			refusal := errBadRequest
			if unread == xmlstream.ErrTooLong {
				refusal = errPolicyViolation
			}
			c.refuse(s, e, refusal)
		} else {
			c.handleIQ(s, e)
		}
	case e.Is(stanza.NSComponent, "presence"):
		c.handlePresence(s, e, unread == nil)
	case unread != nil:
	case e.Is(stanza.NSComponent, "message"):
		c.handleMessage(s, e)
	case e.Is(stanza.NSStream, "error"):
		return &StreamError{Condition: condition(e, nsStreams)}
	}
	return nil
}

func (c *Component) handleIQ(s *stream, iq *xmlstream.Element) {
	from := iq.Get("from")
	if !isRequest(iq) {
		// RFC 6120, section 8.2.3: there is no other type than result and error, and
		// an answer to one could be answered.
		if (iq.Get("type") == string(stanza.IQTypeResult) || isError(iq)) && !s.iqs.answered(iq) {
			c.opts.Logger.Debug("answer nobody waits for", "from", short(from))
		}
		return
	}
	if !c.repeatable(iq) {
		c.opts.Logger.Debug("request dropped whose answer would be too long", "from", short(from))
		return
	}
	host, served := c.names.host(from)
	if served && fromEjabberd(iq) && !s.grants.of(host).unconfirmed {
		s.grants.change(host, func(g *grant) { g.unconfirmed = true })
	}
	set, payload := iq.Get("type") == string(stanza.IQTypeSet), iq.Only()
	switch {
	case payload == nil:
		c.refuse(s, iq, errServiceUnavailable)
	case isDelegation(payload) && served && set:
		c.handleDelegated(s, host, iq, payload)
	case payload.Is(nsRoster, "query") && c.isForComponent(iq) && c.handlePlain(s, iq):
	case set && c.handleBlockPush(s, iq, payload):
	case !set && c.isForComponent(iq):
		c.handleInfo(s, iq, payload)
	default:
		c.refuse(s, iq, errServiceUnavailable)
	}
}

// isForComponent reports whether a stanza is for the component itself, and for no
// node or resource at its domain.
func (c *Component) isForComponent(e *xmlstream.Element) bool {
	to, has := e.Attr("to")
	return !has || c.names.isOwn(to)
}

// handleInfo answers what is asked of the component itself.
func (c *Component) handleInfo(s *stream, iq, payload *xmlstream.Element) {
	switch {
	case payload.Is(stanza.NSDiscoInfo, "query"):
		if info := c.discoInfo(iq.Get("from"), payload); info != nil {
			c.result(s, iq, info)
			return
		}
	case payload.Is(nsVersion, "query"):
		c.result(s, iq, (&stanza.IQ{}).Version().SetInfo("rosterd", c.opts.Version, ""))
		return
	case payload.Is(nsPing, "ping"):
		c.result(s, iq, nil)
		return
	}
	c.refuse(s, iq, errServiceUnavailable)
}

// discoInfo is the answer to a disco#info query (XEP-0030), also at the nodes of XEP-0355,
// section 7.2; nil if there is none. A server that is not served is told of no such node:
// it would delegate, and its users would be refused.
func (c *Component) discoInfo(from string, query *xmlstream.Element) *stanza.DiscoInfo {
	info := (&stanza.IQ{}).DiscoInfo()
	node, has := query.Attr("node")
	if !has {
		info.AddIdentity("rosterd", "component", "generic")
		info.AddFeatures(stanza.NSDiscoInfo, nsVersion, nsPing)
		return info
	}
	if _, served := c.names.host(from); !served && !strings.ContainsAny(from, "@/") {
		return nil
	}
	info.SetNode(node)
	switch node {
	case nsDelegation1 + "::" + nsRoster, nsDelegation2 + "::" + nsRoster:
		info.AddFeatures(nsRoster)
	case nsDelegation1 + ":bare:" + nsRoster, nsDelegation2 + ":bare:" + nsRoster:
		// A roster is no feature of an account that others may discover.
	default:
		return nil
	}
	return info
}

// refuse answers a request with an error.
func (c *Component) refuse(s *stream, iq *xmlstream.Element, e stanzaError) {
	c.offer(s, envelope{inner: replyTo(iq)}.refusal(e))
}

// result answers a request; payload may be nil.
func (c *Component) result(s *stream, iq *xmlstream.Element, payload stanza.IQPayload) {
	var data []byte
	if payload != nil {
		var err error
		if data, err = xml.Marshal(payload); err != nil {
			c.opts.Logger.Error("cannot write an answer", "err", err)
			return
		}
	}
	c.offer(s, envelope{inner: replyTo(iq)}.wrap(stanza.IQTypeResult, data))
}

// offer sends an answer without waiting: if not even the reserve of the queue has room,
// the answer is dropped.
func (c *Component) offer(s *stream, data []byte) {
	if s.out.offer(data) != nil {
		c.opts.Metrics.RepliesDropped.Inc()
	}
}

// handlePresence notes which resources are connected (XEP-0356, section 7). Who sends
// presence to the component directly tells of their own resource: only the server can
// stamp another. whole says that the presence can be read.
func (c *Component) handlePresence(s *stream, e *xmlstream.Element, whole bool) {
	kind := e.Get("type")
	if c.subscriptionTried(s, e) || kind != "" && kind != "unavailable" || !c.isForComponent(e) {
		return
	}
	from := e.Get("from")
	u, err := c.sender(s, from)
	if err != nil {
		if err == errAmbiguous {
			c.logAmbiguous(from)
		}
		return
	}
	full := u.full
	var says []byte
	if whole && c.opts.Unrestricted && c.opts.Presence != "off" {
		says = payload(e.Raw)
	}
	if kind == "" {
		c.endOtherSpelling(u)
		heard := c.sessions.HeardSince(full, s.began)
		first := c.sessions.Connected(full)
		c.sessions.Spell(full, u.bare)
		// A server marks those whom it reports when we connect (XEP-0203). COMPAT
		// ejabberd does not report them then, and marks nobody. Who is known, but not to
		// have asked, may have done so since.
		before := !heard && (e.Child(nsDelay, "delay") != nil || s.grants.of(full.Domain()).unconfirmed) && !c.sessions.IsInterested(full)
		s.unasked.reported(full, before)
		c.hub.Available(full, says)
		if first { // it was there before rosterd was, and may show contacts who left meanwhile
			c.hub.Align(full.Bare())
			if c.routes(s, full.Domain(), s.grants.of(full.Domain())).Query == QueryServer {
				c.rosters.Want(full.Bare())
			}
		}
		return
	}
	if c.sessions.Spelled(full) == u.bare { // else another session has its place by now
		successor := s.grants.of(full.Domain()).isEjabberd() && c.sessions.AskedAgainSince(full, time.Now().Add(-succession))
		c.hub.Unavailable(full, says)
		c.gone(full)
		if successor {
			c.askSuccessor(s, full)
		}
	}
}

// succession is how long after a second query the end of a session may be that of the first
// one's.
const succession = 2 * time.Second

// askSuccessor finds out whether there is a session in the place of one that has ended, and
// has it told everything. COMPAT ejabberd, where each session is a process: what an earlier
// one says when it ends may come after what its successor asked.
func (c *Component) askSuccessor(s *stream, full jid.JID) {
	s.ping(c.address(full), s.out.offer, func(a answer) {
		if a.iq != nil && !mayBeGone(a.iq) && s.grants.of(full.Domain()).delegated() {
			c.rosters.Unasked(full)
		}
	})
}

// gone notes that a resource is no longer connected.
func (c *Component) gone(full jid.JID) {
	if s, _ := c.current(); s != nil {
		s.unasked.gone(full)
	}
	c.sessions.Gone(full)
	c.rosters.Gone(full)
	c.hub.Unavailable(full, nil) // nothing new if the resource said so itself
}

// handleMessage reads announcements, and notes that a message to a resource came
// back: it is not there.
func (c *Component) handleMessage(s *stream, e *xmlstream.Element) {
	from := e.Get("from")
	if isError(e) {
		if u, err := c.sender(s, from); err == nil {
			c.gone(u.full)
		}
		return
	}
	for _, child := range e.Children {
		switch {
		case isDelegation(child):
			c.announced(s, from, child, c.delegationAnnounced)
		case child.Is(nsPrivilege1, "privilege"), child.Is(nsPrivilege2, "privilege"):
			c.announced(s, from, child, c.privilegesAnnounced)
		}
	}
}

// announced hands an announcement to who reads it, if it is a served host's. Another
// domain may have been forgotten in xmpp.hosts.
func (c *Component) announced(s *stream, from string, e *xmlstream.Element, read func(*stream, string, *xmlstream.Element)) {
	if host, served := c.names.host(from); served {
		read(s, host, e)
	} else if strings.ContainsAny(from, "@/") {
		return // users, who may say anything
	} else {
		c.warn(c.strangers, strings.Clone(from), "announcement ignored: its sender is not one of xmpp.hosts", "from", short(from))
	}
}
