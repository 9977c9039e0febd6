package component

import (
	"context"
	"encoding/xml"
	"strings"

	"gosrc.io/xmpp/stanza"

	"rosterd/xmlstream"
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
	candidates := c.names.candidates(host)
	lacks := make(chan bool, len(candidates))
	for _, spelling := range candidates {
		c.sendPing(s, c.nobodyAt(spelling), func(a answer) {
			lacks <- a.iq != nil && a.iq.Get("type") == string(stanza.IQTypeError) && elsewhere[errorCondition(a.iq)]
		})
	}
	for range candidates {
		select {
		case is := <-lacks:
			if !is {
				return false
			}
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// Whether the server takes stanzas from every address of the served hosts, as
// [Options].Unrestricted says.
const (
	AnyUnproven = "unproven" // it is being tried, or there is no stream
	AnyTaken    = "taken"
	AnyRefused  = "refused" // it has ended a stream because of one: the ways are those without
)

// takesAny is one of these, or "" if nobody says so. s may be nil.
func (c *Component) takesAny(s *stream) string {
	switch {
	case !c.opts.Unrestricted:
		return ""
	case !c.unrestricted.Load():
		return AnyRefused
	case s != nil && s.takesAny.Load():
		return AnyTaken
	}
	return AnyUnproven
}

// tryAddress tries it with the first thing that is sent on a stream: one that nobody
// acts on, to the component itself. A server that does not take it ends the stream,
// which is better than to lose somebody's push in this way, much later. Any answer to
// what follows, see [Component.prove], says that it does. It has a resource: COMPAT
// ejabberd 24.12, where mod_privilege fails at an answer without payload to a domain.
func (c *Component) tryAddress(s *stream) {
	if c.unrestricted.Load() {
		a := stanza.Attrs{Type: stanza.IQTypeResult, Id: s.iqs.id(), From: c.names.write(c.opts.Hosts[0]), To: c.prober()}
		s.out.offer(append(appendOpen([]byte("<iq"), "", a), "</iq>"...))
	}
}

// keepers are the servers, by the beginning of the name that they give themselves
// (XEP-0092), that answer all roster queries of their users. Nothing else tells:
// a component is none of their users.
var keepers = []string{"jabberd"} // jabberd2, tried: 2.7.0

// identify finds out whether roster queries of a host that does not delegate can
// come here at all. COMPAT jabberd2: they cannot, even if they are addressed to us.
func (c *Component) identify(s *stream, host string) {
	for _, spelling := range c.names.candidates(host) {
		c.identifyAs(s, host, spelling)
	}
}

// identifyAs is identify of a host that may have this spelling.
func (c *Component) identifyAs(s *stream, host, spelling string) {
	id, ok := s.iqs.register(spelling, func(a answer) {
		var version struct {
			Name    string `xml:"query>name"`
			Version string `xml:"query>version"`
		}
		if a.iq == nil || xml.Unmarshal(a.iq.Raw, &version) != nil {
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
	b := appendRequest(nil, "", stanza.Attrs{Type: stanza.IQTypeGet, Id: id, From: c.names.domain(), To: spelling})
	if !s.out.offer(append(b, "<query xmlns='"+nsVersion+"'/></iq>"...)) {
		s.iqs.forget(id)
	}
}

// errorCondition is the condition of an IQ's stanza error, or "".
func errorCondition(iq *xmlstream.Element) string {
	if e := iq.Child(stanza.NSComponent, "error"); e != nil {
		return condition(e, nsStanzas)
	}
	return ""
}
