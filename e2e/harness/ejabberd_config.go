package harness

import (
	"encoding/json"
	"fmt"
	"strings"
)

// EjabberdOptions say how an ejabberd is set up. Before 24.10 it knows no
// privileged IQs.
type EjabberdOptions struct {
	ServerOptions

	// Lines of YAML at the end of the configuration, and of the modules, which
	// are indented by two blanks.
	ExtraYAML, ModulesYAML string

	// IncludedYAML is a file of its own, for include_config_file.
	IncludedYAML string
}

// config is the configuration file. Values are written as JSON, which is YAML.
func (o EjabberdOptions) config(s *Server) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# A throw-away ejabberd for end-to-end tests: no TLS, no federation.
loglevel: info
log_rotate_count: 0
hosts: %s
auth_method: internal
auth_password_format: plain
acme: {auto: false}
s2s_dns_timeout: 1
s2s_dns_retries: 1
listen:
  - {port: %d, ip: "127.0.0.1", module: ejabberd_c2s, starttls: false, max_stanza_size: 262144, access: all, backlog: 1024}
  - {port: %d, ip: "127.0.0.1", module: ejabberd_service, access: all, check_from: %t,
     hosts: {%s: {password: %s}}}
%sacl: {contacts_component: {server: %s}}
access_rules: {contacts_component: {allow: contacts_component}}
modules:
  mod_disco: {}
  mod_ping: {}
  mod_privacy: {}
  mod_blocking: {}
%s
`, yaml(o.Hosts()), s.c2s, s.service, !o.AnyFromAddress, yaml(o.Component), yaml(o.Secret), o.api(s), yaml(o.Component), o.modules())
	fmt.Fprintln(&b, "append_host_config:")
	for _, host := range o.Hosts() {
		fmt.Fprintf(&b, "  %s:\n    modules: {%s}\n", yaml(host), strings.Join(o.grants(host).modules(s.root.ejabberdVersion(), o.OwnRosters), ", "))
	}
	if o.IncludedYAML != "" {
		fmt.Fprintf(&b, "include_config_file: %s\n", yaml(s.path("included.yml")))
	}
	fmt.Fprintln(&b, o.ExtraYAML)
	return b.String()
}

// api is the listener of the HTTP API and who may use it: everybody on this machine.
func (o EjabberdOptions) api(s *Server) string {
	if !o.OwnRosters {
		return ""
	}
	return fmt.Sprintf(`  - {port: %d, ip: "127.0.0.1", module: ejabberd_http, request_handlers: {"/api": mod_http_api}}
api_permissions: {rosters: {who: {ip: 127.0.0.0/8}, what: [add_rosteritem, delete_rosteritem, get_roster, check_account, status]}}
`, s.http)
}

// modules are those of all hosts.
func (o EjabberdOptions) modules() string {
	modules := o.ModulesYAML
	if o.OwnRosters {
		modules += "\n  mod_http_api: {}\n  mod_admin_extra: {}"
	}
	if o.PEP {
		modules += "\n  mod_caps: {}\n  mod_pubsub: {plugins: [flat, pep], last_item_cache: false}"
	}
	if o.BlockStrangers {
		modules += "\n  mod_block_strangers: {allow_local_users: false}"
	}
	return modules
}

// modules are those that give a host's grants. Privileged IQs came with 24.10. Where
// the server's own rosters are kept, users do not change them.
func (g Grants) modules(version string, kept bool) []string {
	access := "all"
	if kept && !g.Edits {
		access = "none"
	}
	modules := []string{"mod_roster: {versioning: true, access: " + access + "}"}
	if !g.NoDelegation && !g.Plain {
		modules = append(modules, `mod_delegation: {namespaces: {"jabber:iq:roster": {access: contacts_component}}}`)
	}
	if !g.Plain {
		presence := "presence: {managed_entity: contacts_component}, "
		if g.NoPresence {
			presence = ""
		}
		blocking := `, "urn:xmpp:blocking": {get: contacts_component}`
		if g.NoBlocking {
			blocking = ""
		}
		iq := `iq: {"jabber:iq:roster": {set: contacts_component}` + blocking + `}, `
		if g.NoPrivilegeIQ || version < "24.10" {
			iq = ""
		}
		roster := "roster: {both: contacts_component}, "
		if g.NoRoster {
			roster = ""
		}
		modules = append(modules, "mod_privilege: {"+roster+presence+iq+"message: {outgoing: contacts_component}}")
	}
	return modules
}

func yaml(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings: cannot be
	}
	return string(data)
}

// ejabberdReady is the line that [EjabberdOptions.prologue] ends with.
const ejabberdReady = "harness: ejabberd is ready"

// prologue is the Erlang program that runs once ejabberd has started: it makes
// the accounts, which may be there already.
func (o EjabberdOptions) prologue() string {
	var b strings.Builder
	for _, a := range o.accounts() {
		fmt.Fprintf(&b, "ejabberd_auth:try_register(%s,%s,%s), ", erlangBinary(a.local), erlangBinary(a.host), erlangBinary(a.password))
	}
	return b.String() + `io:format("` + ejabberdReady + `~n").`
}

// erlangBinary writes s as a binary by its bytes, whatever they are.
func erlangBinary(s string) string {
	return "<<" + strings.Trim(strings.Join(strings.Fields(fmt.Sprint([]byte(s))), ","), "[]") + ">>"
}

// erlangString writes a path as the string that an argument of erl is parsed
// as.
func erlangString(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
