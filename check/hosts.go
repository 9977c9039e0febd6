package check

import (
	"rosterd/component"
)

// host says what a host lets rosterd do, what is missing, and what follows.
func (c *checker) host(w component.Routes, status component.Status, lacks func(string) bool) {
	need := needed{host: w.Host, domain: c.cfg.XMPP.Domain, announced: w.Privileges != "",
		unrestricted: status.Any == component.AnyTaken || status.Any == component.AnyUnproven}
	for _, other := range status.Hosts {
		need.delegationLoaded = need.delegationLoaded || other.Delegation
		need.privilegeLoaded = need.privilegeLoaded || other.Privileges != ""
	}
	const follows = "its users' clients get no roster from rosterd unless they ask the component itself"
	switch {
	case w.Query == component.QueryNone:
		c.fail("%s", w.Missing[0])("README.md, Set-up on other servers, has those that can be served")
		return
	case !w.Delegation && !need.announced && lacks(w.Host):
		c.fail("%s: the server does not have this domain", w.Host)("xmpp.hosts has to be the server's domains of users: VirtualHost in Prosody, hosts in ejabberd.yml")
		return
	case !w.Delegation && !need.announced:
		need.delegation, need.push, need.presence = true, true, true
		c.warn("%s: announces nothing to %s, neither delegation nor privileges: %s", w.Host, need.domain, follows)(need.lines()...)
		c.ways(w)
		return
	case !w.Delegation:
		need.delegation = true
		c.warn("%s: does not delegate jabber:iq:roster to %s: %s", w.Host, need.domain, follows)(need.lines()...)
		need.delegation = false
	case w.Unproven:
		c.warn("%s: says that it delegates jabber:iq:roster to %s, but does not answer what would prove it", w.Host, need.domain)(
			"ejabberd from 25.03 on: in mod_privilege, any privilege for " + need.domain)
	default:
		c.ok("%s: delegates jabber:iq:roster to %s", w.Host, need.domain)
	}
	c.push(w, need)
	c.presence(w, need)
	c.blocking(w, need)
	c.ways(w)
}

// push says whether pushes are permitted.
func (c *checker) push(w component.Routes, need needed) {
	follows := "and xmpp.unrestricted is off: changes reach few clients before the next login"
	if c.cfg.XMPP.Unrestricted {
		follows = "and takes no stanzas from the users' addresses: changes reach few clients before the next login"
	}
	switch need.push = true; {
	case w.PushPermitted:
		c.ok("%s: permits roster pushes (privilege iq, set, jabber:iq:roster)", w.Host)
	case need.unrestricted:
		c.ok("%s: roster pushes are sent from the users' addresses, as xmpp.unrestricted is on", w.Host)
	case !need.announced:
		need.presence = true
		c.warn("%s: announces no privileges, %s", w.Host, follows)(need.lines()...)
	default:
		c.warn("%s: does not permit roster pushes (privilege iq, set, jabber:iq:roster), %s", w.Host, follows)(need.lines()...)
	}
}

// blocking says, where presence is relayed, whether blocked contacts are spared it.
func (c *checker) blocking(w component.Routes, need needed) {
	switch {
	case w.Presence != component.PresenceRelayed:
	case w.BlockingPermitted:
		c.ok("%s: permits to ask whom users have blocked (privilege iq, get, urn:xmpp:blocking): these are not sent their presence", w.Host)
	default:
		need.blocking = true
		c.warn("%s: does not say whom users have blocked (privilege iq, get, urn:xmpp:blocking): blocked contacts are sent their presence", w.Host)(need.lines()...)
	}
}

// presence says whether presences are reported. Where no privileges are
// announced, that may have been said with the pushes.
func (c *checker) presence(w component.Routes, need needed) {
	need.presence = true
	switch {
	case w.PresencePermitted:
		c.ok("%s: reports who comes and goes (privilege presence)", w.Host)
	case need.announced || need.unrestricted:
		c.warn("%s: does not report who comes and goes (privilege presence): presence cannot be relayed, "+
			"and the end of a session is noticed late", w.Host)(need.lines()...)
	}
}

var queryWays = map[string]string{
	component.QueryDelegated: "roster queries are delegated",
	component.QueryPlain:     "clients have to ask the component for their roster",
	component.QueryUnknown:   "how roster queries arrive is not known yet",
}

var pushWays = map[string]string{
	component.PushPrivileged: "changes are pushed by privileged IQ",
	component.PushDirect:     "changes are pushed from the user's address",
	component.PushExchange:   "changes are suggested by roster item exchange (XEP-0144), which few clients act on",
}

var presenceWays = map[string]string{
	component.PresenceRelayed: "presence between contacts is relayed",
	component.PresenceServer:  "presence is the server's affair, by its own rosters",
}

// ways says which ways will be used, and whom the users will see.
func (c *checker) ways(w component.Routes) {
	tell := c.ok
	if w.Query == component.QueryUnknown {
		tell = c.fail
	}
	tell("%s: %s; %s; %s", w.Host, queryWays[w.Query], pushWays[w.Push], presenceWays[w.Presence])
	if w.Presence != component.PresenceServer || w.Query != component.QueryDelegated || c.cfg.XMPP.Presence == "off" {
		return
	}
	mend := c.warn("%s: users see every contact offline that is not in the server's own rosters, as nobody relays presence", w.Host)
	if !c.cfg.XMPP.Unrestricted {
		mend("for rosterd to relay it: xmpp.unrestricted: true, with validate_from_addresses = false in Component \""+c.cfg.XMPP.Domain+"\" (Prosody),",
			"or check_from: false on the listener ejabberd_service (ejabberd)")
	}
	mend("if the server's own rosters have all contacts: xmpp.presence: off")
}
