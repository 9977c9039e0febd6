package component

import (
	"encoding/xml"
	"strings"

	"gosrc.io/xmpp/stanza"

	"rosterd/jid"
	"rosterd/xmlstream"
)

// handle does what a stanza asks for, or hands it over. It does not block. Its
// error, a stream error, is the only thing that ends the stream.
func (c *Component) handle(s *stream, data []byte, whole bool) error {
	if !whole {
		c.opts.Logger.Debug("stanza too long", "limit_bytes", maxStanza)
		c.begun(s, data, errPolicyViolation)
		return nil
	}
	e, err := xmlstream.Decode(data)
	if err != nil {
		c.opts.Logger.Debug("stanza not understood", "err", err)
		c.begun(s, data, errBadRequest)
		return nil
	}
	e.Raw = data
	if e.Name.Space == stanza.NSClient {
		// COMPAT jabberd2, which writes the namespace of its clients' streams. Only
		// the server can.
		e.Name.Space = stanza.NSComponent
	}
	switch {
	case e.Is(stanza.NSStream, "error"):
		return &StreamError{Condition: condition(e, "urn:ietf:params:xml:ns:xmpp-streams")}
	case e.Is(stanza.NSComponent, "iq"):
		c.handleIQ(s, e)
	case e.Is(stanza.NSComponent, "presence"):
		c.handlePresence(s, e, data)
	case e.Is(stanza.NSComponent, "message"):
		c.handleMessage(s, e)
	}
	return nil
}

// begun does what can be done for a stanza of which only the opening tag can be
// read: it answers a get or set with an error, and takes note of a presence
// without what it says.
func (c *Component) begun(s *stream, data []byte, refusal stanzaError) {
	e, err := xmlstream.DecodeStart(data)
	switch {
	case err != nil:
	case e.Is(stanza.NSComponent, "presence"):
		c.handlePresence(s, e, nil)
	case e.Is(stanza.NSComponent, "iq") && isRequest(e) && c.repeatable(e):
		c.refuse(s, e, refusal)
	case e.Is(stanza.NSComponent, "iq"): // whoever waits for it hears that there is nothing to read
		c.handleIQ(s, e)
	}
}

// isRequest reports whether an IQ is one that must be answered (RFC 6120,
// section 8.2.3). Errors and results never are.
func isRequest(iq *xmlstream.Element) bool {
	kind := iq.Get("type")
	return kind == string(stanza.IQTypeGet) || kind == string(stanza.IQTypeSet)
}

func (c *Component) handleIQ(s *stream, iq *xmlstream.Element) {
	from := iq.Get("from")
	switch kind := iq.Get("type"); {
	case kind == string(stanza.IQTypeResult) || kind == string(stanza.IQTypeError):
		if !s.iqs.answered(from, iq) {
			c.opts.Logger.Debug("answer nobody waits for", "from", short(from))
		}
		return
	case !isRequest(iq):
		return // RFC 6120, section 8.2.3: no other type; an error could be answered with one
	}
	if !c.repeatable(iq) {
		c.opts.Logger.Debug("request dropped whose answer would be too long", "from", short(from))
		return
	}
	if host, ok := c.names.host(from); ok && fromEjabberd(iq) && !s.grants.of(host).unconfirmed {
		s.grants.change(host, func(g *grant) { g.unconfirmed = true })
	}
	payload := iq.Only()
	switch {
	case payload == nil:
		c.refuse(s, iq, errServiceUnavailable)
	case isDelegation(payload) && c.isHost(from) && iq.Get("type") == string(stanza.IQTypeSet):
		c.handleDelegated(s, iq, payload)
	case payload.Is(nsRoster, "query") && c.addressed(iq) && c.handlePlain(s, iq):
	case c.handleBlockPush(s, iq, payload):
	case iq.Get("type") == string(stanza.IQTypeGet) && c.addressed(iq):
		c.handleGet(s, iq, payload)
	default:
		c.refuse(s, iq, errServiceUnavailable)
	}
}

// addressed reports whether a stanza is for the component itself, not for a
// node or a resource at its domain.
func (c *Component) addressed(e *xmlstream.Element) bool {
	to, has := e.Attr("to")
	return !has || c.names.isOwn(to)
}

// handleGet answers what is asked of the component itself.
func (c *Component) handleGet(s *stream, iq, payload *xmlstream.Element) {
	switch {
	case payload.Is(stanza.NSDiscoInfo, "query"):
		node, has := payload.Attr("node")
		info := (&stanza.IQ{}).DiscoInfo()
		if (!has || c.mayDelegate(iq.Get("from"))) && c.discoInfo(info, node, has) {
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

// mayDelegate reports whether a server may ask what it shall announce: one that
// is not served would be refused what it delegated then, and its users with it.
func (c *Component) mayDelegate(from string) bool {
	return c.isHost(from) || strings.ContainsAny(from, "@/")
}

// isHost reports whether a served host is the sender.
func (c *Component) isHost(from string) bool {
	_, ok := c.names.host(from)
	return ok
}

// discoInfo fills in the answer to a disco#info query (XEP-0030), also at the
// nodes at which a server asks what it shall announce in our place (XEP-0355,
// section 7.2).
func (c *Component) discoInfo(info *stanza.DiscoInfo, node string, has bool) bool {
	if !has {
		info.AddIdentity("rosterd", "component", "generic")
		info.AddFeatures(stanza.NSDiscoInfo, nsVersion, nsPing)
		return true
	}
	info.SetNode(node)
	switch node {
	case nsDelegation1 + "::" + nsRoster, nsDelegation2 + "::" + nsRoster:
		info.AddFeatures(nsRoster)
	case nsDelegation1 + ":bare:" + nsRoster, nsDelegation2 + ":bare:" + nsRoster:
		// A roster is no feature of an account that others may discover.
	default:
		return false
	}
	return true
}

// maxRepeated is how long, in bytes on the stream, an attribute may be that an
// answer must repeat.
const maxRepeated = 6 << 10

// repeatable reports whether an answer can repeat what it must of a request:
// the sender chooses the id, and one of a few 100,000 bytes would make the
// answer too long for the server, which would end the stream. A JID has at most
// 3,071 bytes.
func repeatable(iq *xmlstream.Element) bool {
	for _, name := range [...]string{"id", "from", "to"} {
		if value := iq.Get(name); len(value) > maxRepeated || len(xmlstream.AppendEscaped(nil, value)) > maxRepeated {
			return false
		}
	}
	return true
}

// repeatable reports the same, also where the server takes shorter stanzas than
// most do: an answer may repeat the attributes of two requests, one in the other.
func (c *Component) repeatable(iq *xmlstream.Element) bool {
	size := 0 // at most: a byte becomes six
	for _, name := range [...]string{"id", "from", "to"} {
		size += len(" from=''") + 6*len(iq.Get(name))
	}
	if size <= min(maxRepeated, c.opts.MaxStanza/4) {
		return true
	}
	return repeatable(iq) && len(replyTo(iq)) <= c.opts.MaxStanza/4
}

// refuse answers a request with an error.
func (c *Component) refuse(s *stream, iq *xmlstream.Element, e stanzaError) {
	c.offer(s, append(appendError(replyTo(iq).append(nil, "", stanza.IQTypeError), e), "</iq>"...))
}

// result answers a request; payload may be nil.
func (c *Component) result(s *stream, iq *xmlstream.Element, payload stanza.IQPayload) {
	b := replyTo(iq).append(nil, "", stanza.IQTypeResult)
	if payload != nil {
		data, err := xml.Marshal(payload)
		if err != nil {
			c.opts.Logger.Error("cannot write an answer", "err", err)
			return
		}
		b = append(b, data...)
	}
	c.offer(s, append(b, "</iq>"...))
}

// offer sends an answer from the goroutine that reads, which must not wait: if
// the server takes nothing, not even what the queue has in reserve, the answer
// is dropped.
func (c *Component) offer(s *stream, data []byte) (ok bool) {
	if ok = s.out.offer(data); !ok {
		c.opts.Metrics.RepliesDropped.Inc()
	}
	return ok
}

// handlePresence notes which resources are connected (XEP-0356, section 7).
// Only the server can stamp a full JID of a served domain; whoever sends
// presence to the component himself tells only of himself.
func (c *Component) handlePresence(s *stream, e *xmlstream.Element, data []byte) {
	kind := e.Get("type")
	if kind != "" && kind != "unavailable" {
		return
	}
	from := e.Get("from")
	u, err := c.sender(s, from)
	if err == errAmbiguous && c.addressed(e) {
		c.ambiguous(from)
	}
	if err != nil || !c.addressed(e) {
		return
	}
	full := u.full
	var says []byte
	if c.hub != nil && data != nil {
		says = payload(data)
	}
	if kind == "" {
		c.another(u)
		first := c.sessions.Connected(full)
		c.sessions.Spell(full, u.bare)
		s.newcomers.reported(full, first && c.wasThere(s, full, e))
		c.presences.Available(full, says)
		if first {
			// It did not ask for its roster before: it was there before rosterd
			// was, and may show contacts who left meanwhile.
			c.presences.Align(full.Bare())
		}
		return
	}
	if c.sessions.Spelled(full) == u.bare { // else another session has its place by now
		c.presences.Unavailable(full, says)
		c.gone(full)
	}
}

// gone notes that a resource is no longer connected.
func (c *Component) gone(full jid.JID) {
	if s, _ := c.current(); s != nil {
		s.newcomers.gone(full)
	}
	c.sessions.Gone(full)
	c.rosters.Gone(full)
	c.presences.Unavailable(full, nil) // nothing new if it told so itself
}

// handleMessage looks for announcements. Only those of a served host count:
// anybody can send a message.
func (c *Component) handleMessage(s *stream, e *xmlstream.Element) {
	from := e.Get("from")
	if e.Get("type") == "error" {
		c.bounced(s, from)
		return
	}
	host, served := c.names.host(from)
	for _, child := range e.Children {
		if !served {
			c.foreign(from, child)
			continue
		}
		switch {
		case isDelegation(child):
			if before, after := s.grants.change(host, delegationAnnounced(child)); before != after {
				c.opts.Logger.Info("delegation announced", "host", host, "namespace", child.Name.Space, "roster", after.delegation != "")
			}
			c.prove(s, host)
		case child.Is(nsPrivilege1, "privilege"), child.Is(nsPrivilege2, "privilege"):
			announced := privilegesAnnounced(child)
			c.blocksOf(host, announced) // first: once they are granted, presences are relayed
			before, after := s.grants.change(host, announced)
			if before != after {
				c.opts.Logger.Info("privileges announced", "host", host, "namespace", child.Name.Space, "push", after.push, "presence", after.presence, "blocking", after.blocks)
			}
			if after.presence && !before.presence {
				c.learn(s, host)
			}
			// From now on it is known how changes reach the host's clients.
			if before.privilege == "" || after.push && !before.push {
				c.rosters.Resume(host)
			}
		}
	}
}

// bounced notes that a message to a resource came back: it is not there. What a
// user sends himself tells only of himself.
func (c *Component) bounced(s *stream, from string) {
	if u, err := c.sender(s, from); err == nil {
		c.gone(u.full)
	}
}

// foreign notes an announcement that does not count: anybody can send one, but
// it may also be a domain that was forgotten in xmpp.hosts.
func (c *Component) foreign(from string, e *xmlstream.Element) {
	if !isDelegation(e) && !e.Is(nsPrivilege1, "privilege") && !e.Is(nsPrivilege2, "privilege") {
		return
	}
	if strings.ContainsAny(from, "@/") {
		return // users, who may say anything
	}
	if _, now := c.strangers.log(strings.Clone(from)); now {
		c.opts.Logger.Warn("announcement ignored: its sender is not one of xmpp.hosts", "from", short(from))
	}
}
