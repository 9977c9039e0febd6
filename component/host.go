package component

import (
	"context"
	"encoding/xml"
	"strings"

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

// keepers are the servers, by the beginning of the name that they give themselves
// (XEP-0092), that answer all roster queries of their users. Nothing else tells:
// a component is none of their users.
var keepers = []string{"jabberd"} // jabberd2, tried: 2.7.0

// identify finds out whether roster queries of a host that does not delegate can
// come here at all. COMPAT jabberd2: they cannot, even if they are addressed to us.
func (c *Component) identify(s *stream, host string) {
	id, ok := s.iqs.register(host, func(a answer) {
		var version struct {
			Name    string `xml:"query>name"`
			Version string `xml:"query>version"`
		}
		if a.iq == nil || xml.Unmarshal(a.iq.raw, &version) != nil {
			return
		}
		for _, keeper := range keepers {
			if !strings.HasPrefix(strings.ToLower(version.Name), keeper) {
				continue
			}
			software := short(version.Name + " " + version.Version)
			s.grants.change(host, func(g *grant) { g.keeps = software })
			c.opts.Logger.Error("rosterd cannot serve this host", "host", host, "software", software,
				"check", "the server answers every roster query from its own rosters, whoever is asked")
		}
	})
	if !ok {
		return
	}
	b := appendRequest(nil, "", stanza.Attrs{Type: stanza.IQTypeGet, Id: id, From: c.opts.Domain, To: host})
	if !s.out.offer(append(b, "<query xmlns='"+nsVersion+"'/></iq>"...)) {
		s.iqs.forget(id)
	}
}

// errorCondition is the condition of an IQ's stanza error, or "".
func errorCondition(iq *element) string {
	if e := iq.child(stanza.NSComponent, "error"); e != nil {
		return condition(e, nsStanzas)
	}
	return ""
}
