package component

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"rosterd/xmlstream"
)

// grant is what a virtual host lets rosterd do, as it announced on this stream, and
// what was found out.
type grant struct {
	delegation string // namespace in which jabber:iq:roster is delegated; "": nothing was announced
	filtered   bool   // only some of the queries are
	queries    queryState
	probed     bool   // a probe came: as long as queries come, probes do
	keeps      string // the software that lets no roster query come here; "": none that is known

	privilege string // namespace in which privileges were announced; "": none, or not yet
	push      bool   // roster sets by privileged IQ are permitted (XEP-0356, section 6)
	presence  bool   // presences of the host's users are reported (XEP-0356, section 7)
	blocks    bool   // whom its users have blocked can be asked by privileged IQ
	lists     bool   // and that was answered

	stamps      string    // how users' names are stamped; "": not known
	absent      absence   // how it answers for a resource that is not there; outlives the stream
	reported    time.Time // when it had reported who is there, if it does so
	swept       bool      // and those it did not report were taken for unavailable
	unconfirmed bool      // COMPAT ejabberd, where no client's answer to a push comes back
}

// queryState is what is known of a host's roster queries, on this stream.
type queryState int

const (
	queriesUnknown   queryState = iota
	queriesArrive               // one came, and no probe has failed since
	queriesElsewhere            // somebody else answered a probe, or it was lost
	queriesUnproven             // nobody answered a probe
)

// delegated reports whether the host's queries come here, as far as that can be known.
func (g grant) delegated() bool {
	return g.queries == queriesArrive || g.queries == queriesUnproven && g.delegation != ""
}

// grants are those of all served hosts. It is safe for concurrent use.
type grants struct {
	mu    sync.Mutex
	hosts map[string]grant
}

// newGrants are those of a stream that begins; before are those of the last one, or nil.
func newGrants(hosts []string, before *grants) *grants {
	g := &grants{hosts: make(map[string]grant, len(hosts))}
	for _, host := range hosts {
		g.hosts[host] = grant{}
		if before != nil {
			g.hosts[host] = grant{absent: before.of(host).absent}
		}
	}
	return g
}

func (g *grants) of(host string) grant {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.hosts[host]
}

// change applies f to the grant of a served host, and returns it before and after.
func (g *grants) change(host string, f func(*grant)) (before, after grant) {
	g.mu.Lock()
	defer g.mu.Unlock()
	before = g.hosts[host]
	after = before
	f(&after)
	g.hosts[strings.Clone(host)] = after // it may be part of a stanza, which the map would keep
	return before, after
}

// announcementsOver reports whether no more announcements are expected on a stream.
func (c *Component) announcementsOver(s *stream) bool {
	return time.Since(s.began) >= c.opts.Timing.Announce
}

// delegationAnnounced reads an announcement of delegations (XEP-0355, section 4.2).
func (c *Component) delegationAnnounced(s *stream, host string, e *xmlstream.Element) {
	before, after := s.grants.change(host, func(g *grant) {
		g.delegation, g.filtered, g.queries, g.probed = "", false, queriesUnknown, false
		for _, child := range e.Children {
			if child.Is(e.Name.Space, "delegated") && child.Get("namespace") == nsRoster {
				g.delegation, g.filtered = strings.Clone(e.Name.Space), child.Child(e.Name.Space, "attribute") != nil
			}
		}
	})
	if before != after {
		c.opts.Logger.Info("delegation announced", "host", host, "namespace", e.Name.Space, "roster", after.delegation != "")
	}
	c.proveDelegation(s, host)
}

// privilegesAnnounced reads an announcement of privileges (XEP-0356, section 4.2).
func (c *Component) privilegesAnnounced(s *stream, host string, e *xmlstream.Element) {
	var announced grant
	for _, perm := range e.Children {
		switch kind := perm.Get("type"); {
		case !perm.Is(e.Name.Space, "perm"):
		case perm.Get("access") == "presence":
			announced.presence = kind == "managed_entity" || kind == "roster"
		case perm.Get("access") == "iq":
			announced.push, announced.blocks = permits(perm, nsRoster, "set"), permits(perm, nsBlocking, "get")
		}
	}
	c.hub.Blocking(host, announced.blocks) // first: once they are granted, presences are relayed
	before, after := s.grants.change(host, func(g *grant) {
		g.privilege = strings.Clone(e.Name.Space)
		g.push, g.presence, g.blocks = announced.push, announced.presence, announced.blocks
	})
	if before != after {
		c.opts.Logger.Info("privileges announced", "host", host, "namespace", e.Name.Space, "push", after.push, "presence", after.presence, "blocking", after.blocks)
	}
	if after.presence && !before.presence {
		c.testAbsence(s, host)
	}
	if before.privilege == "" || after.push && !before.push {
		c.rosters.Resume(host) // from now on it is known how changes reach the host's clients
	}
}

// permits reports whether some IQs are permitted in a namespace. COMPAT Prosody, whose
// mod_privilege puts each namespace into the one before.
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

// The values of [Routes]: how queries arrive, changes reach clients, and presence gets
// from contact to contact.
const (
	QueryUnknown   = "unknown"   // the host has announced nothing, and it is too early to say more
	QueryDelegated = "delegated" // the server forwards them (XEP-0355)
	QueryPlain     = "plain"     // clients ask the component's own JID
	QueryNone      = "none"      // none does: the server answers all of them, whoever is asked

	PushPrivileged = "privileged" // roster push, sent by the server in the user's name (XEP-0356, section 6)
	PushDirect     = "direct"     // roster push, sent from the user's bare JID
	PushExchange   = "exchange"   // message with a roster item exchange (XEP-0144), which the client may act on

	PresenceRelayed = "relayed" // by rosterd
	PresenceServer  = "server"  // by the server, as far as its own roster lets it
)

// Routes are the best that a host's grants permit.
type Routes struct {
	Host     string   `json:"host"`
	Query    string   `json:"query"`
	Push     string   `json:"push"`
	Presence string   `json:"presence"`
	Missing  []string `json:"missing,omitempty"` // what a better route needs, one sentence each

	Delegation        bool   `json:"delegation"`           // of jabber:iq:roster: its queries arrive, or
	Unproven          bool   `json:"unproven,omitempty"`   // are said to: nobody answers probes
	Privileges        string `json:"privileges,omitempty"` // the namespace in which it announced privileges; "": none, or not yet
	PushPermitted     bool   `json:"push_permitted"`       // roster pushes by privileged IQ
	PresencePermitted bool   `json:"presence_permitted"`   // presences are reported
	BlockingPermitted bool   `json:"blocking_permitted"`   // block lists can be asked for
}

// routes are those of a host at present, on a stream.
func (c *Component) routes(s *stream, host string, g grant) Routes {
	r := Routes{Host: host, Query: QueryDelegated, Push: PushExchange, Presence: PresenceServer,
		Delegation: g.delegated(), Privileges: g.privilege, PushPermitted: g.push, PresencePermitted: g.presence, BlockingPermitted: g.blocks}
	missing := func(format string, args ...any) { r.Missing = append(r.Missing, fmt.Sprintf(format, args...)) }
	switch {
	case r.Delegation:
		if r.Unproven = g.queries == queriesUnproven; r.Unproven {
			missing("it cannot be proven that %s delegates %s to %s: it does not answer %s; "+
				"ejabberd from 25.03 on: any privilege in mod_privilege", host, nsRoster, c.opts.Domain, c.opts.Domain)
		}
	case g.keeps != "":
		r.Query = QueryNone
		missing("%s runs %s, which answers every roster query from its own rosters, whoever is asked: rosterd cannot serve it", host, g.keeps)
	case c.announcementsOver(s) && (g.delegation == "" || g.queries == queriesElsewhere):
		r.Query = QueryPlain
		missing("%s does not delegate %s to %s, so clients must ask %s for their roster; "+
			"Prosody: delegations, and mod_delegation on the host and on the component; ejabberd: mod_delegation", host, nsRoster, c.opts.Domain, c.opts.Domain)
	default:
		r.Query = QueryUnknown
	}
	unserved := r.Query == QueryPlain || r.Query == QueryNone
	switch {
	case g.push:
		r.Push = PushPrivileged
	case c.unrestricted.Load() && !unserved:
		r.Push = PushDirect
	case r.Query == QueryDelegated:
		missing("%s does not permit roster pushes, so changes are sent as roster item exchange (XEP-0144), on which few clients act; "+
			"Prosody: iq = { [\"%s\"] = \"set\" } in privileged_entities; ejabberd from 24.10 on: iq: {\"%s\": {set: …}} in mod_privilege; before: check_from: false on the listener, and xmpp.unrestricted: true", host, nsRoster, nsRoster)
	}
	switch {
	case c.relays(g):
		r.Presence = PresenceRelayed
	case r.Query == QueryDelegated && c.opts.Presence != "off":
		missing("presence between contacts of %s follows the server's own rosters, so contacts that only the backend knows are shown as offline; to have it relayed: the privilege presence, managed_entity, "+
			"and xmpp.unrestricted: true, which needs Prosody: validate_from_addresses = false on the Component; ejabberd: check_from: false on the listener", host)
	}
	return r
}

// relays reports whether the presence of a host's users is relayed.
func (c *Component) relays(g grant) bool {
	return g.presence && c.opts.Presence != "off" && c.unrestricted.Load()
}
