package component

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"rosterd/xmlstream"
)

// grant is what is known on this stream of what a virtual host lets rosterd do.
type grant struct {
	announced
	observed
}

// announced is what a host says, which is no proof.
type announced struct {
	delegation string // namespace in which jabber:iq:roster is delegated; "": nothing was announced
	filtered   bool   // only some of the queries are

	privilege string // namespace in which privileges were announced; "": none, or not yet
	roster    bool   // its own rosters may be read and written (XEP-0356, section 5)
	push      bool   // roster sets by privileged IQ are permitted (XEP-0356, section 6)
	presence  bool   // presences of the host's users are reported (XEP-0356, section 7)
	blocks    bool   // whom its users have blocked can be asked by privileged IQ
}

// observed is what was found out of a host.
type observed struct {
	queries  queryState
	probed   bool       // a probe came: as long as queries come, probes do
	software string     // its name and version (XEP-0092); "": it has not said so
	rosters  ownRosters // whether its own rosters can be read and written
	lists    bool       // whom a user has blocked was answered
	asks     string     // SubscriptionsRefused, …; "": it cannot be found out
	// exchanges says that the server sends the presences that follow from what is written
	// to its own rosters, as by our module for Prosody.
	exchanges bool

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

// isEjabberd reports whether the host is known to be one of ejabberd. COMPAT of the servers
// known to us, ejabberd alone announces privileges in the older namespace, before 24.10.
func (g grant) isEjabberd() bool { return g.unconfirmed || g.privilege == nsPrivilege1 }

// keepsQueries reports whether no roster query can come here. COMPAT jabberd2, tried: 2.7.0,
// which answers all of them itself, even those that are addressed to us.
func (g grant) keepsQueries() bool { return strings.HasPrefix(strings.ToLower(g.software), "jabberd") }

// writesRosters reports whether the server's own rosters can be kept by privilege. COMPAT
// ejabberd answers the query that is to prove it as long as it does not delegate, and fails
// at sets (23.01), or writes them without their subscriptions.
func (g grant) writesRosters() bool { return g.roster && g.rosters.proven && !g.isEjabberd() }

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
			g.hosts[host] = grant{observed: observed{absent: before.of(host).absent}}
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
	now := announced{privilege: strings.Clone(e.Name.Space)}
	for _, perm := range e.Children {
		switch kind := perm.Get("type"); {
		case !perm.Is(e.Name.Space, "perm"):
		case perm.Get("access") == "presence":
			now.presence = kind == "managed_entity" || kind == "roster"
		case perm.Get("access") == "roster":
			now.roster = kind == "both"
		case perm.Get("access") == "iq":
			now.push, now.blocks = permits(perm, nsRoster, "set"), permits(perm, nsBlocking, "get")
		}
	}
	c.hub.Blocking(host, now.blocks) // first: once they are granted, presences are relayed
	before, after := s.grants.change(host, func(g *grant) {
		now.delegation, now.filtered = g.delegation, g.filtered
		if g.announced = now; !g.roster {
			g.rosters.proven = false
		}
	})
	if before != after {
		c.opts.Logger.Info("privileges announced", "host", host, "namespace", e.Name.Space, "push", after.push, "presence", after.presence, "blocking", after.blocks, "roster", after.roster)
		if after.software == "" {
			c.identify(s, host) // COMPAT ejabberd from 25.03 on, which may have dropped it before
		}
	}
	c.proveOwnRosters(s, host)
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

// The values of [Routes]: how queries arrive, changes reach clients, presence gets from
// contact to contact, and the server's own rosters are kept in step.
const (
	QueryUnknown   = "unknown"   // the host has announced nothing, and it is too early to say more
	QueryDelegated = "delegated" // the server forwards them (XEP-0355)
	QueryPlain     = "plain"     // clients ask the component's own JID
	QueryServer    = "server"    // none does: the server answers from its own rosters, which are kept in step
	QueryNone      = "none"      // the same, and rosterd cannot keep them: it serves nobody

	PushPrivileged = "privileged" // roster push, sent by the server in the user's name (XEP-0356, section 6)
	PushDirect     = "direct"     // roster push, sent from the user's bare JID
	PushServer     = "server"     // by the server, when its own roster is written, without what it has not (ask, approved)
	PushExchange   = "exchange"   // message with a roster item exchange (XEP-0144), which the client may act on

	PresenceRelayed = "relayed" // by rosterd
	PresenceServer  = "server"  // by the server, as far as its own roster lets it

	ServerRosterPrivilege = "privilege" // by privileged roster IQs (XEP-0356, section 5)
	ServerRosterAPI       = "api"       // by ejabberd's HTTP API
	ServerRosterNone      = "none"      // there is no way, or none was proven
	ServerRosterOff       = "off"       // they are not to be
)

// serverRoster returns how a host's own rosters are kept in step, and why they are not.
// It is "" if that is on purpose, or if it is too early to say.
func (c *Component) serverRoster(s *stream, host string, g grant) (way, lacks string) {
	var api bool
	var why string
	if c.opts.API != nil {
		api, why = c.opts.API.State(host)
	}
	switch {
	case c.opts.ServerRoster == "off":
		return ServerRosterOff, ""
	case api:
		return ServerRosterAPI, ""
	case c.opts.API != nil: // COMPAT ejabberd, which writes no subscriptions by privilege
		return ServerRosterNone, "ejabberd's API: " + why
	case g.writesRosters():
		return ServerRosterPrivilege, ""
	case g.roster && g.isEjabberd():
		return ServerRosterNone, "ejabberd writes no subscriptions by the privilege roster"
	case g.roster && g.rosters.why != "":
		return ServerRosterNone, g.rosters.why
	case c.announcementsOver(s) && g.roster:
		return ServerRosterNone, "the privilege roster, both, is announced, but " + c.opts.Domain + " has no answer by it"
	case c.announcementsOver(s) || g.privilege != "" && !g.roster:
		return ServerRosterNone, "the privilege roster, both, is not announced"
	}
	return ServerRosterNone, ""
}

// What becomes of subscription requests (RFC 6121, section 3), which change the server's own
// rosters.
const (
	SubscriptionsRefused = "refused"
	SubscriptionsTaken   = "taken"
)

// Routes are the best that a host's grants permit.
type Routes struct {
	Host         string   `json:"host"`
	Software     string   `json:"software,omitempty"` // the server's name and version (XEP-0092)
	Query        string   `json:"query"`
	Push         string   `json:"push"`
	Presence     string   `json:"presence"`
	ServerRoster string   `json:"server_roster"`
	Missing      []string `json:"missing,omitempty"` // what a better route needs, one sentence each

	Delegation        bool   `json:"delegation"`           // of jabber:iq:roster: its queries arrive, or
	Unproven          bool   `json:"unproven,omitempty"`   // are said to: nobody answers probes
	Privileges        string `json:"privileges,omitempty"` // the namespace in which it announced privileges; "": none, or not yet
	PushPermitted     bool   `json:"push_permitted"`       // roster pushes by privileged IQ
	PresencePermitted bool   `json:"presence_permitted"`   // presences are reported
	BlockingPermitted bool   `json:"blocking_permitted"`   // block lists can be asked for
	RosterPermitted   bool   `json:"roster_permitted"`     // its own rosters can be read and written
	Subscriptions     string `json:"subscriptions,omitempty"`
}

// routes are those of a host at present, on a stream.
func (c *Component) routes(s *stream, host string, g grant) Routes {
	r := Routes{Host: host, Software: g.software, Query: QueryDelegated, Push: c.pushRoute(g), Presence: PresenceServer,
		Delegation: g.delegated(), Privileges: g.privilege, PushPermitted: g.push, PresencePermitted: g.presence, BlockingPermitted: g.blocks, RosterPermitted: g.roster, Subscriptions: g.asks}
	missing := func(format string, args ...any) { r.Missing = append(r.Missing, fmt.Sprintf(format, args...)) }
	var lacks string // why there is no way into the server's own rosters
	r.ServerRoster, lacks = c.serverRoster(s, host, g)
	kept := r.ServerRoster == ServerRosterPrivilege || r.ServerRoster == ServerRosterAPI
	switch {
	case r.Delegation:
		if r.Unproven = g.queries == queriesUnproven; r.Unproven {
			missing("it cannot be proven that %s delegates %s to %s: it does not answer %s; "+
				"ejabberd from 25.03 on: any privilege in mod_privilege", host, nsRoster, c.opts.Domain, c.opts.Domain)
		}
	case g.keepsQueries():
		r.Query = QueryNone
		missing("%s runs %s, which answers every roster query from its own rosters, whoever is asked: rosterd cannot serve it", host, short(g.software))
	case !c.announcementsOver(s) || g.delegation != "" && g.queries != queriesElsewhere:
		r.Query = QueryUnknown
	case kept:
		r.Query, r.Push = QueryServer, PushServer
		if !g.presence {
			missing("%s does not report who comes and goes, so users are looked up at the backend only when it reports them; "+
				"Prosody: presence = \"managed_entity\" in privileged_entities; ejabberd: presence: {managed_entity: …} in mod_privilege", host)
		}
		if c.opts.Edits != nil && c.opts.Edits(host) {
			missing("contacts.edit_url is not used for %s, which answers roster queries and edits by itself; "+
				"Prosody: delegations in the VirtualHost; ejabberd: mod_delegation", host)
		}
	default:
		r.Query = QueryPlain
		otherwise := ""
		if lacks != "" {
			otherwise = "; or, for the server to answer from its own rosters, which rosterd does not keep (" + lacks + "): " + ownRosterLines
		}
		missing("%s does not delegate %s to %s, so clients must ask %s for their roster; "+
			"Prosody: delegations, and mod_delegation on the host and on the component; ejabberd: mod_delegation%s", host, nsRoster, c.opts.Domain, c.opts.Domain, otherwise)
	}
	switch {
	case r.Push == PushDirect && (r.Query == QueryPlain || r.Query == QueryNone):
		r.Push = PushExchange
	case r.Push == PushExchange && r.ServerRoster == ServerRosterAPI:
		r.Push = PushServer // ejabberd pushes what is written, also while it delegates
	case c.awaitsAPI(g, host):
		if r.Push = PushServer; r.Query == QueryDelegated {
			missing("changes reach no client of %s before its next login, or until ejabberd's API works, which is to push them; "+
				"ejabberd from 24.10 on pushes without it, by iq: {\"%s\": {set: …}} in mod_privilege", host, nsRoster)
		}
	case r.Push == PushExchange && r.Query == QueryDelegated:
		missing("%s does not permit roster pushes, so changes are sent as roster item exchange (XEP-0144), on which few clients act; "+
			"Prosody: iq = { [\"%s\"] = \"set\" } in privileged_entities; ejabberd: ejabberd.api.url; or, from 24.10 on, iq: {\"%s\": {set: …}} in mod_privilege; or check_from: false on the listener, and xmpp.unrestricted: true", host, nsRoster, nsRoster)
	}
	if r.Query != QueryServer && c.relays(g) {
		r.Presence = PresenceRelayed
	}
	offline := r.Query == QueryDelegated && r.Presence == PresenceServer && c.opts.Presence != "off"
	const relaying = "to have presence relayed: the privilege presence, managed_entity, " +
		"and xmpp.unrestricted: true, which needs Prosody: validate_from_addresses = false on the Component; ejabberd: check_from: false on the listener"
	switch {
	case offline && r.ServerRoster == ServerRosterOff:
		missing("presence between contacts of %s follows the server's own rosters, so contacts that only the backend knows are shown as offline; "+relaying, host)
	case offline && lacks != "":
		missing("presence between contacts of %s, PEP events (avatars, encryption keys) and archives follow the server's own rosters, which rosterd does not keep: %s; "+ownRosterLines+"; or "+relaying, host, lacks)
	case r.Query == QueryDelegated && lacks != "":
		missing("PEP events (avatars, encryption keys) and archives of %s follow the server's own rosters, which rosterd does not keep: %s; "+ownRosterLines, host, lacks)
	}
	return r
}

// ownRosterLines are what lets rosterd keep the server's own rosters.
const ownRosterLines = "Prosody: roster = \"both\" in privileged_entities; ejabberd: mod_http_api and mod_admin_extra, and ejabberd.api.url"

// pushRoute is how a change reaches a client that rosterd has told its roster.
func (c *Component) pushRoute(g grant) string {
	switch {
	case g.push:
		return PushPrivileged
	case c.unrestricted.Load():
		return PushDirect
	}
	return PushExchange
}

// relays reports whether the presence of a host's users is relayed.
func (c *Component) relays(g grant) bool {
	return g.presence && c.opts.Presence != "off" && c.unrestricted.Load()
}
