package chaos

import (
	"encoding/xml"
	"slices"
	"strings"
)

// Namespaces.
const (
	nsAccept  = "jabber:component:accept"
	nsClient  = "jabber:client"
	nsStream  = "http://etherx.jabber.org/streams"
	nsStanzas = "urn:ietf:params:xml:ns:xmpp-stanzas"
	nsRoster  = "jabber:iq:roster"
	nsPing    = "urn:xmpp:ping"
	nsDisco   = "http://jabber.org/protocol/disco#info"
	nsForward = "urn:xmpp:forward:0"
)

// element is a decoded XML element.
type element struct {
	name     xml.Name
	attrs    []xml.Attr
	children []*element
	text     string
}

// readElement reads the rest of an element that has begun.
func readElement(dec *xml.Decoder, start xml.StartElement) (*element, error) {
	e := &element{name: start.Name, attrs: start.Attr}
	for {
		token, err := dec.Token()
		if err != nil {
			return nil, err
		}
		switch token := token.(type) {
		case xml.StartElement:
			child, err := readElement(dec, token)
			if err != nil {
				return nil, err
			}
			e.children = append(e.children, child)
		case xml.CharData:
			e.text += string(token)
		case xml.EndElement:
			return e, nil
		}
	}
}

// get is an attribute, or "".
func (e *element) get(name string) string {
	for _, a := range e.attrs {
		if a.Name.Space == "" && a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// down follows the first children of these names, and is nil if one is missing.
func (e *element) down(locals ...string) *element {
	for _, local := range locals {
		if e == nil {
			return nil
		}
		i := slices.IndexFunc(e.children, func(c *element) bool { return c.name.Local == local })
		if i < 0 {
			return nil
		}
		e = e.children[i]
	}
	return e
}

// payload is the first child in a namespace, or nil.
func (e *element) payload(space string) *element {
	i := slices.IndexFunc(e.children, func(c *element) bool { return c.name.Space == space })
	if i < 0 {
		return nil
	}
	return e.children[i]
}

// condition is that of a stanza error.
func (e *element) condition() string {
	if err := e.down("error"); err != nil {
		for _, c := range err.children {
			if c.name.Space == nsStanzas && c.name.Local != "text" {
				return err.get("type") + " " + c.name.Local
			}
		}
	}
	return "no condition"
}

// rosterItems are those of a roster query or push. A removed contact has the
// subscription "remove".
func (e *element) rosterItems() []Item {
	query := e.payload(nsRoster)
	if query == nil {
		return nil
	}
	list := make([]Item, 0, len(query.children))
	for _, c := range query.children {
		item := Item{JID: c.get("jid"), Name: c.get("name"), Subscription: c.get("subscription"),
			Ask: c.get("ask") == "subscribe", Approved: c.get("approved") == "true"}
		var groups []string
		for _, g := range c.children {
			if g.name.Local == "group" {
				groups = append(groups, g.text)
			}
		}
		slices.Sort(groups)
		for _, g := range groups {
			item.Groups += g + "\n"
		}
		list = append(list, item)
	}
	return list
}

// escape makes s fit for an attribute in either quotes.
func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}
