package check

import (
	"fmt"
	"slices"
	"strings"

	"rosterd/component"
	"rosterd/config"
	"rosterd/metrics"
)

// host says what a host lets rosterd do, what is missing, and what follows. lacks
// says that the server does not have the host.
func (c *checker) host(w component.Routes, status component.Status, lacks bool) []finding {
	m := missing{host: w.Host, software: w.Software, domain: c.cfg.XMPP.Domain, announced: w.Privileges != "",
		unrestricted: status.Any == component.AnyTaken || status.Any == component.AnyUnproven}
	for _, other := range status.Hosts {
		m.delegationLoaded = m.delegationLoaded || other.Delegation
		m.privilegeLoaded = m.privilegeLoaded || other.Privileges != ""
	}
	const follows = "its users' clients get no roster from rosterd unless they ask the component itself"
	switch {
	case w.Query == component.QueryNone:
		return []finding{fail("%s", w.Missing[0]).mend("docs/other-servers.md has those that can be served")}
	case w.Query == component.QueryServer:
		return append([]finding{presence(w, m), c.serverRoster(w, m), subscriptions(w, m), c.noEdits(w)}, c.ways(w)...)
	case w.Delegation || m.announced:
		return append([]finding{delegation(w, m, follows), c.push(w, m), presence(w, m), blocking(w, m), c.serverRoster(w, m), subscriptions(w, m)}, c.ways(w)...)
	case lacks:
		return []finding{fail("%s: the server does not have this domain", w.Host).mend(
			"xmpp.hosts has to be the server's domains of users: VirtualHost in Prosody, hosts in ejabberd.yml")}
	}
	m.delegation, m.push, m.presence = true, true, true
	return append([]finding{warn("%s: announces nothing to %s, neither delegation nor privileges: %s", w.Host, m.domain, follows).mend(m.lines()...)}, c.ways(w)...)
}

// delegation says whether roster queries arrive (XEP-0355).
func delegation(w component.Routes, m missing, follows string) finding {
	m.delegation = true
	switch {
	case w.Query == component.QueryServer:
		return pass("%s: does not delegate jabber:iq:roster to %s, and answers from its own rosters", w.Host, m.domain)
	case !w.Delegation:
		return warn("%s: does not delegate jabber:iq:roster to %s: %s", w.Host, m.domain, follows).mend(m.lines()...)
	case w.Unproven:
		return warn("%s: says that it delegates jabber:iq:roster to %s, but does not answer what would prove it", w.Host, m.domain).mend(
			"ejabberd from 25.03 on: in mod_privilege, any privilege for " + m.domain)
	}
	return pass("%s: delegates jabber:iq:roster to %s", w.Host, m.domain)
}

// push says whether pushes are permitted.
func (c *checker) push(w component.Routes, m missing) finding {
	follows := "and xmpp.unrestricted is off: changes reach few clients before the next login"
	if c.cfg.XMPP.Unrestricted {
		follows = "and takes no stanzas from the users' addresses: changes reach few clients before the next login"
	}
	m.push, m.presence = true, !m.announced
	switch {
	case w.PushPermitted:
		return pass("%s: permits roster pushes (privilege iq, set, jabber:iq:roster)", w.Host)
	case w.Push == component.PushServer && w.ServerRoster == component.ServerRosterNone:
		return warn("%s: does not push what is written to its own rosters, as ejabberd's API does not work: changes reach no client before its next login, or until it does", w.Host)
	case w.Push == component.PushServer:
		return pass("%s: pushes what is written to its own rosters (ejabberd.api)", w.Host)
	case m.unrestricted:
		return pass("%s: roster pushes are sent from the users' addresses, as xmpp.unrestricted is on", w.Host)
	case !m.announced:
		return warn("%s: announces no privileges, %s", w.Host, follows).mend(m.lines()...)
	}
	return warn("%s: does not permit roster pushes (privilege iq, set, jabber:iq:roster), %s", w.Host, follows).mend(m.lines()...)
}

// presence says whether presence is reported. If no privileges are announced, push
// has said so, unless pushes need none.
func presence(w component.Routes, m missing) finding {
	m.presence = true
	switch {
	case w.PresencePermitted:
		return pass("%s: reports who comes and goes (privilege presence)", w.Host)
	case w.Query == component.QueryServer:
		return warn("%s: does not report who comes and goes (privilege presence): "+
			"users are looked up at the backend only when it reports them", w.Host).mend(m.lines()...)
	case m.announced || m.unrestricted || w.Push == component.PushServer:
		return warn("%s: does not report who comes and goes (privilege presence): presence cannot be relayed, "+
			"and the end of a session is noticed late", w.Host).mend(m.lines()...)
	}
	return finding{}
}

// blocking says whether presence that is relayed spares blocked contacts.
func blocking(w component.Routes, m missing) finding {
	m.blocking = true
	switch {
	case w.Presence != component.PresenceRelayed:
		return finding{}
	case w.BlockingPermitted:
		return pass("%s: permits to ask whom users have blocked (privilege iq, get, urn:xmpp:blocking): these are not sent their presence", w.Host)
	}
	return warn("%s: does not say whom users have blocked (privilege iq, get, urn:xmpp:blocking): blocked contacts are sent their presence", w.Host).mend(m.lines()...)
}

// usesAPI reports whether the server's own rosters are to be kept by ejabberd's API.
func (c *checker) usesAPI() bool {
	return c.cfg.Ejabberd.API.URL != "" && c.cfg.XMPP.ServerRoster != "off"
}

// serverRoster says whether the server's own rosters are kept in step.
func (c *checker) serverRoster(w component.Routes, m missing) finding {
	m.roster = true
	switch w.ServerRoster {
	case component.ServerRosterOff:
		return finding{}
	case component.ServerRosterPrivilege:
		return pass("%s: its own rosters can be kept in step (privilege roster, both)", w.Host)
	case component.ServerRosterAPI:
		return pass("%s: its own rosters can be kept in step (ejabberd.api)", w.Host)
	}
	if c.usesAPI() {
		f := warn("%s: its own rosters are not kept in step, as ejabberd's API does not work: avatars, encryption keys and other PEP events do not pass between contacts", w.Host)
		if c.api == nil { // else what it lacks has been said
			f = f.mend(apiLines(c.cfg)...)
		}
		return f
	}
	what := "does not let its own rosters be kept in step (privilege roster, both)"
	if w.RosterPermitted {
		what = "says that its own rosters may be kept in step (privilege roster, both), but does not do it"
	}
	m.api = []string{"ejabberd.yml: the lines of the API, above"}
	if !c.saidAPI {
		m.api, c.saidAPI = apiLines(c.cfg), true
	}
	return warn("%s: %s: avatars, encryption keys and other PEP events do not pass between contacts", w.Host, what).mend(m.lines()...)
}

// subscriptions says whether users can change the server's own rosters.
func subscriptions(w component.Routes, m missing) finding {
	m.readOnly = true
	switch {
	case w.ServerRoster != component.ServerRosterPrivilege:
		return finding{}
	case w.Subscriptions == component.SubscriptionsRefused:
		return pass("%s: refuses subscription requests, so its own rosters stay as rosterd writes them", w.Host)
	case w.Subscriptions == component.SubscriptionsTaken:
		return warn("%s: takes subscription requests, which change its own rosters until rosterd looks at them again", w.Host).mend(m.prosody()...)
	}
	return warn("%s: whether it refuses subscription requests, which change its own rosters, cannot be found out", w.Host).mend(m.prosody()...)
}

// noEdits says that a host that answers by itself keeps the edits of its users, too.
func (c *checker) noEdits(w component.Routes) finding {
	c.byItself = append(c.byItself, w.Host)
	if !c.cfg.Contacts.TakesEdits(w.Host) {
		return finding{}
	}
	return warn("%s: answers roster queries and edits by itself: contacts.edit_url is not used", w.Host).mend(
		"delegate the roster to rosterd (Prosody: delegations in the VirtualHost; ejabberd: mod_delegation), or take contacts.edit_url away")
}

// Overview is how a host is served, in words, and what is missing for a better way.
func Overview(cfg config.Config, w component.Routes, status component.Status) metrics.HostOverview {
	o := metrics.HostOverview{Host: w.Host, Software: w.Software, Level: "good"}
	for _, words := range []string{inWords["query "+w.Query], pushInWords(w), inWords["presence "+w.Presence], inWords["roster "+w.ServerRoster]} {
		if words != "" {
			o.Ways = append(o.Ways, words)
		}
	}
	c := &checker{cfg: cfg}
	for _, f := range c.host(w, status, false) {
		switch f.level {
		case "", passed:
			continue
		case failed:
			o.Level = "bad"
		case warned:
			if o.Level == "good" {
				o.Level = "warn"
			}
		}
		o.Lacks = append(o.Lacks, metrics.Lack{Text: f.text, Lines: f.mends})
	}
	return o
}

// inWords are the values of [component.Routes], behind what they are of.
var inWords = map[string]string{
	"query " + component.QueryDelegated: "roster queries are delegated",
	"query " + component.QueryServer:    "the server answers roster queries from its own rosters",
	"query " + component.QueryPlain:     "clients have to ask the component for their roster",
	"query " + component.QueryUnknown:   "how roster queries arrive is not known yet",

	"push " + component.PushPrivileged: "changes are pushed by privileged IQ",
	"push " + component.PushDirect:     "changes are pushed from the user's address",
	"push " + component.PushServer:     "the server pushes changes",
	"push " + component.PushExchange:   "changes are suggested by roster item exchange (XEP-0144), which few clients act on",

	"presence " + component.PresenceRelayed: "presence between contacts is relayed",
	"presence " + component.PresenceServer:  "presence is the server's affair, by its own rosters",

	"roster " + component.ServerRosterPrivilege: "its own rosters are kept in step, by privilege",
	"roster " + component.ServerRosterAPI:       "its own rosters are kept in step, by ejabberd's API",
	"roster " + component.ServerRosterNone:      "its own rosters are not kept in step",
	"roster " + component.ServerRosterOff:       "its own rosters are not to be kept in step",
}

// pushInWords is how changes reach clients.
func pushInWords(w component.Routes) string {
	if w.Push == component.PushServer && w.ServerRoster == component.ServerRosterNone {
		return "changes wait for ejabberd's API, by which the server is to push them"
	}
	return inWords["push "+w.Push]
}

// ways says which ways will be used, and whom the users will see.
func (c *checker) ways(w component.Routes) []finding {
	if w.Query == component.QueryServer {
		return []finding{pass("%s: the server answers roster queries, pushes changes and exchanges presence by its own rosters, which rosterd keeps", w.Host)}
	}
	found := []finding{pass("%s: %s; %s; %s; %s", w.Host, inWords["query "+w.Query], pushInWords(w),
		inWords["presence "+w.Presence], inWords["roster "+w.ServerRoster])}
	if w.Query == component.QueryUnknown {
		found[0].level = failed
	}
	kept := w.ServerRoster == component.ServerRosterPrivilege || w.ServerRoster == component.ServerRosterAPI
	if kept || w.Presence != component.PresenceServer || w.Query != component.QueryDelegated || c.cfg.XMPP.Presence == "off" {
		return found
	}
	offline := warn("%s: users see every contact offline that is not in the server's own rosters, as nobody relays presence", w.Host)
	if w.ServerRoster == component.ServerRosterNone && !c.usesAPI() {
		offline = offline.mend("for rosterd to keep these in step: the lines of its own rosters, above")
	}
	if !c.cfg.XMPP.Unrestricted {
		offline = offline.mend("for rosterd to relay it: xmpp.unrestricted: true, with validate_from_addresses = false in Component \""+c.cfg.XMPP.Domain+"\" (Prosody),",
			"or check_from: false on the listener ejabberd_service (ejabberd)")
	}
	return append(found, offline.mend("if the server's own rosters have all contacts: xmpp.presence: off"))
}

// missing is what a host's configuration lacks, and what is known of the rest.
type missing struct {
	host, software, domain string

	delegation, push, presence, blocking, roster, readOnly bool
	announced                                              bool // privileges were, if not these
	unrestricted                                           bool
	api                                                    []string // of ejabberd.yml, for roster

	// Some host has announced something, so that Prosody has the module loaded on
	// the Component, too.
	delegationLoaded, privilegeLoaded bool
}

// lines are the missing lines of the server's configuration, or of both servers' if it does
// not say which it is.
func (m missing) lines() []string { return linesFor(m.software, m.prosody(), m.ejabberd()) }

// linesFor returns those lines that are of a server's software.
func linesFor(software string, prosody, ejabberd []string) []string {
	switch name, _, _ := strings.Cut(strings.ToLower(software), " "); name {
	case "prosody":
		return prosody
	case "ejabberd":
		return ejabberd
	}
	return slices.Concat(prosody, ejabberd)
}

func (m missing) prosody() []string {
	const modules = `    modules_enabled = { "delegation", "privilege" }`
	privileges := !m.announced && (m.push || m.presence || m.roster)
	lines := []string{"prosody.cfg.lua:", fmt.Sprintf("  VirtualHost %q", m.host)}
	if m.delegation || privileges {
		lines = append(lines, modules)
	}
	if m.delegation {
		lines = append(lines, fmt.Sprintf(`    delegations = { ["jabber:iq:roster"] = { jid = %q } }`, m.domain))
	}
	switch {
	case privileges:
		lines = append(lines, fmt.Sprintf(`    privileged_entities = { [%q] = { roster = "both"; presence = "managed_entity"; iq = { ["jabber:iq:roster"] = "set" } } }`, m.domain))
	case m.readOnly:
		lines = append(lines, `    in modules_enabled: "rosterd_readonly", with deploy/prosody/mod_rosterd_readonly.lua in a folder of plugin_paths`)
	case m.roster:
		lines = append(lines, fmt.Sprintf(`    in privileged_entities, in [%q]: roster = "both";`, m.domain))
	case m.push:
		lines = append(lines, fmt.Sprintf(`    in privileged_entities, in [%q]: iq = { ["jabber:iq:roster"] = "set" };`, m.domain))
	case m.blocking:
		lines = append(lines, fmt.Sprintf(`    in privileged_entities, in [%q], in iq: ["urn:xmpp:blocking"] = "get";`, m.domain))
	case m.presence:
		lines = append(lines, fmt.Sprintf(`    in privileged_entities, in [%q]: presence = "managed_entity";`, m.domain))
	}
	if m.delegation && !m.delegationLoaded || privileges && !m.privilegeLoaded {
		lines = append(lines, fmt.Sprintf("  Component %q", m.domain), modules)
	}
	return lines
}

func (m missing) ejabberd() []string {
	if m.roster {
		return m.api
	}
	lines := []string{"ejabberd.yml:"}
	push := m.push && !m.unrestricted
	if m.delegation || m.presence && !m.announced {
		lines = append(lines, "  acl: {rosterd: {server: "+m.domain+"}}",
			"  access_rules: {rosterd: {allow: rosterd}}")
	}
	if m.delegation || m.presence || m.blocking || push {
		lines = append(lines, "  modules:")
	}
	if m.delegation {
		lines = append(lines, `    mod_delegation: {namespaces: {"jabber:iq:roster": {access: rosterd}}}`)
	}
	if m.presence {
		lines = append(lines, "    mod_privilege: {presence: {managed_entity: rosterd}}")
	}
	if m.blocking {
		lines = append(lines, `    in mod_privilege: iq: {"urn:xmpp:blocking": {get: rosterd}}`,
			"  (ejabberd has this from 24.10 on, and answers in 26.07; before, nobody can know)")
	}
	if push {
		lines = append(lines, `    in mod_privilege: iq: {"jabber:iq:roster": {set: rosterd}}`,
			"  or, before 24.10, which has no privilege iq: ejabberd.api.url in rosterd's configuration (docs/ejabberd.md); or, with more power,",
			"  listen: on the listener ejabberd_service, check_from: false; and with it, in rosterd's configuration, xmpp.unrestricted: true")
	}
	return lines
}
