package component

import (
	"encoding/xml"
	"errors"
	"fmt"

	"gosrc.io/xmpp/stanza"

	"rosterd/internal/xmltext"
	"rosterd/jid"
	"rosterd/presence"
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

	nsXML = "http://www.w3.org/XML/1998/namespace"
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

// payload is what a presence says, as XML to be relayed: its children as they
// were, but written anew. What a server passes on, another parser may refuse:
// COMPAT Prosody, which declares a prefix for the XML namespace that it would
// end the stream for.
func payload(data []byte) []byte {
	b, err := appendChildren(nil, data, func(xml.Name) bool { return true })
	if err == nil {
		return b
	}
	b, err = appendChildren(nil, data, func(name xml.Name) bool {
		return name.Space == stanza.NSComponent && (name.Local == "show" || name.Local == "status" || name.Local == "priority")
	})
	if err != nil {
		return nil
	}
	return b
}

var errTooLong = errors.New("too long to be relayed")

// appendChildren appends the children of an element that want accepts. It fails
// if they are too many.
func appendChildren(b []byte, data []byte, want func(xml.Name) bool) ([]byte, error) {
	d := newDecoder(data)
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	var open []string // the names of open elements, as they were written
	space := []string{stanza.NSComponent}
	for {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		switch t := t.(type) {
		case xml.StartElement:
			if len(open) == 0 && !want(t.Name) {
				if err := d.Skip(); err != nil {
					return nil, err
				}
				continue
			}
			if len(open) > maxDepth {
				return nil, errTooLong
			}
			var name, inner string
			before := len(b)
			b, name, inner = appendStart(b, t, space[len(space)-1])
			if len(b)-before > maxTag {
				return nil, errTooLong
			}
			open, space = append(open, name), append(space, inner)
		case xml.EndElement:
			if len(open) == 0 {
				return b, nil
			}
			b = append(append(append(b, "</"...), open[len(open)-1]...), '>')
			open, space = open[:len(open)-1], space[:len(space)-1]
		case xml.CharData:
			if len(open) > 0 {
				b = xmltext.AppendEscaped(b, string(t))
			}
		}
		if len(b) > maxPayload {
			return nil, errTooLong
		}
	}
}

// appendStart appends a start tag, where outer is the default namespace, and
// returns the name as it was written and the default namespace inside.
func appendStart(b []byte, t xml.StartElement, outer string) (_ []byte, name, inner string) {
	name, inner = t.Name.Local, outer
	if t.Name.Space == nsXML {
		name = "xml:" + name
	}
	b = append(append(b, '<'), name...)
	if t.Name.Space != nsXML && t.Name.Space != outer {
		inner = t.Name.Space
		b = xmltext.AppendAttr(b, "xmlns", inner)
	}
	for i, a := range t.Attr {
		switch {
		case a.Name.Space == "xmlns" || a.Name.Space == "" && a.Name.Local == "xmlns":
		case a.Name.Space == "":
			b = xmltext.AppendAttr(b, a.Name.Local, a.Value)
		case a.Name.Space == nsXML:
			b = xmltext.AppendAttr(b, "xml:"+a.Name.Local, a.Value)
		default:
			prefix := fmt.Sprintf("ns%d", i)
			b = xmltext.AppendAttr(xmltext.AppendAttr(b, "xmlns:"+prefix, a.Name.Space), prefix+":"+a.Name.Local, a.Value)
		}
	}
	return append(b, '>'), name, inner
}
