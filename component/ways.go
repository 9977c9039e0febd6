package component

import (
	"errors"
	"fmt"
	"time"
)

// How a query of a host's users arrives.
const (
	QueryUnknown   = "unknown"   // the host has announced nothing, and it is too early to say more
	QueryDelegated = "delegated" // the server forwards it (XEP-0355)
	QueryPlain     = "plain"     // the client asks the component's own JID
	QueryNone      = "none"      // none does: the server answers all of them, whoever is asked
)

// How a change reaches a host's clients.
const (
	PushPrivileged = "privileged" // roster push, sent by the server in the user's name (XEP-0356, section 6)
	PushDirect     = "direct"     // roster push, sent from the user's bare JID
	PushExchange   = "exchange"   // message with a roster item exchange (XEP-0144), which the client may act on
)

// How presence gets from contact to contact.
const (
	PresenceRelayed = "relayed" // by rosterd
	PresenceServer  = "server"  // by the server, as far as its own roster lets it
)

// Ways are the best ways that a host's grants leave.
type Ways struct {
	Host     string   `json:"host"`
	Query    string   `json:"query"`
	Push     string   `json:"push"`
	Presence string   `json:"presence"`
	Missing  []string `json:"missing,omitempty"` // what a better way needs, one sentence each

	// What the host has announced, or shown.
	Delegation        bool   `json:"delegation"`           // of jabber:iq:roster: its queries arrive, or
	Unproven          bool   `json:"unproven,omitempty"`   // are said to: nobody answers probes
	Privileges        string `json:"privileges,omitempty"` // the namespace in which it announced privileges; "": none, or not yet
	PushPermitted     bool   `json:"push_permitted"`       // roster pushes by privileged IQ
	PresencePermitted bool   `json:"presence_permitted"`   // presences are reported
	BlockingPermitted bool   `json:"blocking_permitted"`   // block lists can be asked for
}

// ways are those of a host at present. late says that announcements which have
// not come will not come any more.
func (c *Component) ways(host string, g grant, late bool) Ways {
	w := Ways{Host: host, Query: QueryDelegated, Push: PushExchange, Presence: PresenceServer,
		Delegation: g.delegated(), Privileges: g.privilege, PushPermitted: g.push, PresencePermitted: g.presence, BlockingPermitted: g.blocks}
	switch {
	case w.Delegation:
		if w.Unproven = g.queries == arrivalUntestable; w.Unproven {
			w.Missing = append(w.Missing, fmt.Sprintf("it cannot be proven that %s delegates %s to %s: it does not answer %s; "+
				"ejabberd from 25.03 on: any privilege in mod_privilege", host, nsRoster, c.opts.Domain, c.opts.Domain))
		}
	case g.keeps != "":
		w.Query = QueryNone
		w.Missing = append(w.Missing, fmt.Sprintf("%s runs %s, which answers every roster query from its own rosters, whoever is asked: rosterd cannot serve it", host, g.keeps))
	case late && (g.delegation == "" || g.queries == arrivalMissed):
		w.Query = QueryPlain
		w.Missing = append(w.Missing, fmt.Sprintf("%s does not delegate %s to %s, so clients must ask %s for their roster; "+
			"Prosody: delegations, and mod_delegation on the host and on the component; ejabberd: mod_delegation", host, nsRoster, c.opts.Domain, c.opts.Domain))
	default:
		w.Query = QueryUnknown
	}
	switch {
	case g.push:
		w.Push = PushPrivileged
	case c.unrestricted.Load() && w.Query != QueryPlain && w.Query != QueryNone:
		w.Push = PushDirect
	case w.Query == QueryDelegated:
		w.Missing = append(w.Missing, fmt.Sprintf("%s does not permit roster pushes, so changes are sent as roster item exchange (XEP-0144), on which few clients act; "+
			"Prosody: iq = { [\"%s\"] = \"set\" } in privileged_entities; ejabberd from 24.10 on: iq: {\"%s\": {set: …}} in mod_privilege; before: check_from: false on the listener, and xmpp.unrestricted: true", host, nsRoster, nsRoster))
	}
	switch {
	case c.relays(g):
		w.Presence = PresenceRelayed
	case w.Query == QueryPlain || w.Query == QueryNone || c.opts.Presence == "off":
	case w.Query == QueryDelegated:
		w.Missing = append(w.Missing, fmt.Sprintf("presence between contacts of %s follows the server's own rosters, so contacts that only the backend knows are shown as offline; to have it relayed: the privilege presence, managed_entity, "+
			"and xmpp.unrestricted: true, which needs Prosody: validate_from_addresses = false on the Component; ejabberd: check_from: false on the listener", host))
	}
	return w
}

// relays reports whether the presence of a host's users is relayed.
func (c *Component) relays(g grant) bool {
	return g.presence && c.opts.Presence != "off" && c.unrestricted.Load()
}

// late reports whether announcements that have not come on a stream will not
// come any more.
func (c *Component) late(s *stream) bool { return time.Since(s.began) >= c.opts.Timing.Announce }

// ReasonConnecting is [Status].Reason until the first attempt has failed.
const ReasonConnecting = "connecting"

// Status is what a component has learnt of its server, for people and for
// `rosterd check`.
type Status struct {
	Connected bool   `json:"connected"`
	Reason    string `json:"reason,omitempty"`    // why not
	Condition string `json:"condition,omitempty"` // of the stream error that is the reason, or would be: see Rival
	Domain    string `json:"domain"`
	Address   string `json:"address"`
	// Any is whether the server takes stanzas from every address of its hosts: one
	// of AnyTaken, …; "": nobody says so.
	Any   string `json:"any_address,omitempty"`
	Hosts []Ways `json:"hosts,omitempty"`
}

// Status is the present one.
func (c *Component) Status() Status {
	s, why := c.current()
	status := Status{Connected: s != nil, Domain: c.opts.Domain, Address: c.opts.Address, Any: c.takesAny(s)}
	if s == nil {
		status.Reason = why.Error()
		if ended := (*StreamError)(nil); errors.As(why, &ended) {
			status.Condition = ended.Condition
		} else if errors.As(why, new(*Rival)) {
			status.Condition = "conflict"
		}
		return status
	}
	for _, host := range c.opts.Hosts {
		status.Hosts = append(status.Hosts, c.ways(host, s.grants.of(host), c.late(s)))
	}
	return status
}
