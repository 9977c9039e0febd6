package component

import (
	"strings"
	"sync"

	"rosterd/xmlstream"
)

// grant is what a virtual host lets rosterd do, as it announced on this stream.
type grant struct {
	delegation string // namespace in which jabber:iq:roster is delegated; "": nothing was announced
	filtered   bool   // only some of the queries are
	queries    arrival
	probed     bool   // a probe came: as long as queries come, probes do
	keeps      string // the software that lets no roster query come here; "": none that is known
	privilege  string // namespace in which privileges were announced; "": none, or not yet
	push       bool   // roster sets by privileged IQ are permitted (XEP-0356, section 6)
	stamps     string // how users' names are stamped; "": not known
	presence   bool   // presences of the host's users are reported (XEP-0356, section 7)
	blocks     bool   // whom its users have blocked can be asked by privileged IQ
	lists      bool   // and that was answered

	// unconfirmed: COMPAT ejabberd, where no client's answer to a push comes back.
	unconfirmed bool
}

// arrival is what is known of a host's roster queries, on this stream.
type arrival int

const (
	arrivalUnknown    arrival = iota
	arrivalProven             // one came, and no probe has missed us since
	arrivalMissed             // somebody else answered a probe, or it was lost
	arrivalUntestable         // nobody answered a probe
)

// delegated reports whether the host's queries come here, as far as that can be
// known.
func (g grant) delegated() bool {
	return g.queries == arrivalProven || g.queries == arrivalUntestable && g.delegation != ""
}

// grants are those of all served hosts. It is safe for concurrent use.
type grants struct {
	mu    sync.Mutex
	hosts map[string]grant // one for each served host, from the start
}

func newGrants(hosts []string) *grants {
	g := &grants{hosts: make(map[string]grant, len(hosts))}
	for _, host := range hosts {
		g.hosts[host] = grant{}
	}
	return g
}

func (g *grants) of(host string) grant {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.hosts[host]
}

// change applies f to the grant of a served host and returns it before and
// after.
func (g *grants) change(host string, f func(*grant)) (before, after grant) {
	g.mu.Lock()
	defer g.mu.Unlock()
	before = g.hosts[host]
	after = before
	f(&after)
	g.hosts[strings.Clone(host)] = after // a map keeps the key it was given last, and that a whole stanza
	return before, after
}

// delegationAnnounced reads the announcement of delegations (XEP-0355, section
// 4.2), which replaces an earlier one.
func delegationAnnounced(e *xmlstream.Element) func(*grant) {
	return func(g *grant) {
		g.delegation, g.filtered, g.queries, g.probed = "", false, arrivalUnknown, false
		for _, c := range e.Children {
			if c.Is(e.Name.Space, "delegated") && c.Get("namespace") == nsRoster {
				g.delegation, g.filtered = strings.Clone(e.Name.Space), c.Child(e.Name.Space, "attribute") != nil
			}
		}
	}
}

// privilegesAnnounced reads the announcement of privileges (XEP-0356, section
// 4.2), which replaces an earlier one.
func privilegesAnnounced(e *xmlstream.Element) func(*grant) {
	return func(g *grant) {
		g.privilege, g.push, g.presence, g.blocks = strings.Clone(e.Name.Space), false, false, false
		for _, perm := range e.Children {
			switch kind := perm.Get("type"); {
			case !perm.Is(e.Name.Space, "perm"):
			case perm.Get("access") == "presence":
				g.presence = kind == "managed_entity" || kind == "roster"
			case perm.Get("access") == "iq":
				g.push = permits(perm, nsRoster, "set")
				g.blocks = permits(perm, nsBlocking, "get")
			}
		}
	}
}

// permits reports whether the permission of IQs has some of a namespace among them.
// COMPAT Prosody, whose mod_privilege puts each namespace into the one before.
func permits(within *xmlstream.Element, namespace, kind string) bool {
	for _, ns := range within.Children {
		if !ns.Is(within.Name.Space, "namespace") {
			continue
		}
		if ns.Get("ns") == namespace && (ns.Get("type") == kind || ns.Get("type") == "both") || permits(ns, namespace, kind) {
			return true
		}
	}
	return false
}
