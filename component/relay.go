package component

import (
	"encoding/xml"

	"gosrc.io/xmpp/stanza"

	"rosterd/jid"
	"rosterd/presence"
	"rosterd/xmlstream"
)

// Presences is who decides whose presence goes to whom, see [presence.Hub]. Its
// methods do not block.
type Presences interface {
	Available(full jid.JID, payload []byte)
	Unavailable(full jid.JID, payload []byte)
	Login(full jid.JID)
	Alive(full jid.JID)
	Align(user jid.JID)
	Blocking(host string, can bool)
	BlocksChanged(user jid.JID)
}

// nobody is the Presences of a component that relays none.
type nobody struct{}

func (nobody) Available(jid.JID, []byte)   {}
func (nobody) Unavailable(jid.JID, []byte) {}
func (nobody) Login(jid.JID)               {}
func (nobody) Alive(jid.JID)               {}
func (nobody) Align(jid.JID)               {}
func (nobody) Blocking(string, bool)       {}
func (nobody) BlocksChanged(jid.JID)       {}

const (
	// maxPayload is how many bytes of a presence's children are relayed. Of a
	// longer presence, and one with a longer tag, only what RFC 6121 defines is: show, status, priority.
	maxPayload = 32 << 10
	// maxTag is how many bytes a tag in it may have. What receives it may wait at a
	// longer one, see padding: clients, too, are written on libexpat.
	maxTag = 4 << 10
)

// relay sends presences on a stream; it is the [presence.Sender] of the hub.
type relay struct {
	c *Component
	s *stream
}

// Relay implements presence.Sender.
func (r relay) Relay(p presence.Stanza) error {
	host := p.From.Domain()
	switch {
	case !r.c.hosts[host]:
		r.c.opts.Logger.Error("presence from an address that is not of a served host, not sent")
		return nil
	case p.To.Domain() == r.c.opts.Domain:
		return nil // it would come back as news
	case !r.c.relays(r.s.grants.of(host)):
		return nil
	}
	a := stanza.Attrs{From: r.c.written(p.From), To: r.c.address(p.To)}
	if p.Unavailable {
		a.Type = stanza.PresenceTypeUnavailable
	}
	b := appendOpen([]byte("<presence"), "", a)
	if len(b)+len(p.Payload)+len("</presence>") <= r.c.opts.MaxStanza {
		b = append(b, p.Payload...)
	}
	err := r.s.out.putLow(append(b, "</presence>"...))
	if err == nil {
		r.c.opts.Metrics.Presences.Inc()
	}
	return err
}

// payload is what a presence says, as XML to be relayed.
func payload(data []byte) []byte {
	b, err := xmlstream.AppendChildren(nil, data, maxPayload, maxTag, func(xml.Name) bool { return true })
	if err == nil {
		return b
	}
	b, err = xmlstream.AppendChildren(nil, data, maxPayload, maxTag, func(name xml.Name) bool {
		return name.Space == stanza.NSComponent && (name.Local == "show" || name.Local == "status" || name.Local == "priority")
	})
	if err != nil {
		return nil
	}
	return b
}
