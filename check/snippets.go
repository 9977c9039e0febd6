package check

import "fmt"

// needed is what a host's configuration lacks, and what is known of the rest.
type needed struct {
	host, domain string

	delegation, push, presence, blocking bool
	announced                            bool // privileges were, if not these
	unrestricted                         bool

	// Some host has announced something, so that Prosody has the module loaded
	// on the Component, too.
	delegationLoaded, privilegeLoaded bool
}

// lines are the missing lines of both servers' configurations.
func (n needed) lines() []string { return append(n.prosody(), n.ejabberd()...) }

func (n needed) prosody() []string {
	const modules = `    modules_enabled = { "delegation", "privilege" }`
	privileges := !n.announced && (n.push || n.presence)
	lines := []string{"prosody.cfg.lua:", fmt.Sprintf("  VirtualHost %q", n.host)}
	if n.delegation || privileges {
		lines = append(lines, modules)
	}
	if n.delegation {
		lines = append(lines, fmt.Sprintf(`    delegations = { ["jabber:iq:roster"] = { jid = %q } }`, n.domain))
	}
	switch {
	case privileges:
		lines = append(lines, fmt.Sprintf(`    privileged_entities = { [%q] = { presence = "managed_entity"; iq = { ["jabber:iq:roster"] = "set" } } }`, n.domain))
	case n.push:
		lines = append(lines, fmt.Sprintf(`    in privileged_entities, in [%q]: iq = { ["jabber:iq:roster"] = "set" };`, n.domain))
	case n.blocking:
		lines = append(lines, fmt.Sprintf(`    in privileged_entities, in [%q], in iq: ["urn:xmpp:blocking"] = "get";`, n.domain))
	case n.presence:
		lines = append(lines, fmt.Sprintf(`    in privileged_entities, in [%q]: presence = "managed_entity";`, n.domain))
	}
	if n.delegation && !n.delegationLoaded || privileges && !n.privilegeLoaded {
		lines = append(lines, fmt.Sprintf("  Component %q", n.domain), modules)
	}
	return lines
}

func (n needed) ejabberd() []string {
	lines := []string{"ejabberd.yml:"}
	push := n.push && !n.unrestricted
	if n.delegation || n.presence && !n.announced {
		lines = append(lines, "  acl: {rosterd: {server: "+n.domain+"}}",
			"  access_rules: {rosterd: {allow: rosterd}}")
	}
	if n.delegation || n.presence || n.blocking || push {
		lines = append(lines, "  modules:")
	}
	if n.delegation {
		lines = append(lines, `    mod_delegation: {namespaces: {"jabber:iq:roster": {access: rosterd}}}`)
	}
	if n.presence {
		lines = append(lines, "    mod_privilege: {presence: {managed_entity: rosterd}}")
	}
	if n.blocking {
		lines = append(lines, `    in mod_privilege: iq: {"urn:xmpp:blocking": {get: rosterd}}`,
			"  (ejabberd has this from 24.10 on, and answers in 26.07; before, nobody can know)")
	}
	if push {
		lines = append(lines, `    in mod_privilege: iq: {"jabber:iq:roster": {set: rosterd}}`,
			"  or, before 24.10, which has no privilege iq:",
			"  listen: on the listener ejabberd_service, check_from: false; and with it, in rosterd's configuration, xmpp.unrestricted: true")
	}
	return lines
}
