package component

import (
	"encoding/xml"

	"gosrc.io/xmpp/stanza"

	"rosterd/presence"
	"rosterd/xmlstream"
)

const (
	maxPayload = 32 << 10 // bytes of a presence's children that are relayed
	maxTag     = 4 << 10  // bytes of a tag in it; a client may wait at a longer one, see [xmlstream.Padding]
)

// payload returns what a presence says, as XML to be relayed. Of what exceeds the bounds
// only show, status and priority are (RFC 6121, section 4.7.2).
func payload(data []byte) []byte {
	everything := func(xml.Name) bool { return true }
	basics := func(name xml.Name) bool {
		return name.Space == stanza.NSComponent && (name.Local == "show" || name.Local == "status" || name.Local == "priority")
	}
	for _, want := range []func(xml.Name) bool{everything, basics} {
		if b, err := xmlstream.AppendChildren(nil, data, maxPayload, maxTag, want); err == nil {
			return b
		}
	}
	return nil
}

// presenceSender is the [presence.Sender] of a stream.
type presenceSender struct {
	c *Component
	s *stream
}

// Passed implements presence.Sender: a ping behind what is relayed is answered.
func (p presenceSender) Passed(reply func()) {
	p.s.ping(p.c.nobodyAt(p.c.names.known(p.c.opts.Hosts)[0]), p.s.out.putLow, func(a answer) {
		if a.iq != nil {
			reply()
		}
	})
}

// Relay implements presence.Sender.
func (p presenceSender) Relay(st presence.Stanza) error {
	host := st.From.Domain()
	switch {
	case !p.c.names.serves(host):
		p.c.opts.Logger.Error("presence from an address that is not of a served host, not sent")
		return nil
	case st.To.Domain() == p.c.opts.Domain:
		return nil // it would come back as news
	case !p.c.relays(p.s.grants.of(host)):
		return nil
	}
	a := stanza.Attrs{From: p.c.names.jid(st.From).String(), To: p.c.address(st.To)}
	if st.Unavailable {
		a.Type = stanza.PresenceTypeUnavailable
	}
	b := appendStart(nil, "presence", "", a)
	if len(b)+len(st.Payload)+len("</presence>") <= p.c.opts.MaxStanza {
		b = append(b, st.Payload...)
	}
	err := p.s.out.putLow(append(b, "</presence>"...))
	if err == nil {
		p.c.opts.Metrics.Presences.Inc()
	}
	return err
}
