package component

import (
	"context"

	"gosrc.io/xmpp/stanza"
)

// elsewhere are the conditions with which servers answer for a domain that is
// none of theirs, "not-allowed" without federation.
var elsewhere = map[string]bool{"remote-server-not-found": true, "remote-server-timeout": true, "not-allowed": true}

// Lacks reports whether the server says that it has no virtual host of that
// name. It waits for the answer until ctx ends; without one it is false.
func (c *Component) Lacks(ctx context.Context, host string) bool {
	s, _ := c.current()
	if s == nil {
		return false
	}
	lacks := make(chan bool, 1)
	c.sendPing(s, c.nobodyAt(host), func(a answer) {
		lacks <- a.iq != nil && a.iq.get("type") == string(stanza.IQTypeError) && elsewhere[errorCondition(a.iq)]
	})
	select {
	case is := <-lacks:
		return is
	case <-ctx.Done():
		return false
	}
}

// TakesAny reports whether the server takes a stanza from an address of a host,
// as [Options].Unrestricted says. A server that does not ends the stream. The
// stanza, to the component itself, is one that nobody acts on.
func (c *Component) TakesAny(ctx context.Context, host string) bool {
	s, _ := c.current()
	if s == nil {
		return false
	}
	a := stanza.Attrs{Type: stanza.IQTypeResult, Id: s.iqs.id(), From: host, To: c.opts.Domain}
	if s.out.put(append(appendOpen([]byte("<iq"), "", a), "</iq>"...), nil) != nil {
		return false
	}
	takes := make(chan bool, 1)
	c.sendPing(s, c.nobodyAt(host), func(a answer) { takes <- !a.lost }) // the server reads it after the other
	select {
	case does := <-takes:
		return does
	case <-ctx.Done(): // no answer is none, unless the stream had ended before it was asked
		now, _ := c.current()
		return now == s
	}
}

// errorCondition is the condition of an IQ's stanza error, or "".
func errorCondition(iq *element) string {
	if e := iq.child(stanza.NSComponent, "error"); e != nil {
		return condition(e, nsStanzas)
	}
	return ""
}
