package harness

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
)

// EjabberdOptions say how an ejabberd is set up. Before 24.10 it knows no
// privileged IQs.
type EjabberdOptions struct {
	ServerOptions

	// API has the HTTP API run at [Server.APIURL], with the commands for rosters alone. It
	// says who may call them, as YAML of api_permissions: [ByAddress] or [ByAccount].
	API string
	// ReadOnlyRosters sets mod_roster up as deploy/ejabberd.yml says: what users change of
	// their rosters is refused (access: none).
	ReadOnlyRosters bool

	// Lines of YAML at the end of the configuration, and of the modules, which
	// are indented by two blanks.
	ExtraYAML, ModulesYAML string

	// IncludedYAML is a file of its own, for include_config_file.
	IncludedYAML string
}

// Who may call the API, for [EjabberdOptions].
const (
	ByAddress = "{ip: 127.0.0.0/8}"
	// ByAccount is rosterd@example.org with their password or a token, see [Server.Token], and
	// needs the access rule configure from 26.07 on.
	ByAccount = "{access: {allow: {user: rosterd@example.org}}, oauth: {scope: [get_roster, add_rosteritem, delete_rosteritem], access: {allow: {user: rosterd@example.org}}}}"
)

// config is the configuration file. Values are written as JSON, which is YAML.
func (o EjabberdOptions) config(s *Server) string {
	var b strings.Builder
	if o.OwnRosters {
		o.API, o.ReadOnlyRosters = cmp.Or(o.API, ByAddress), o.ReadOnlyRosters || !o.Edits
	}
	access := "all"
	if o.ReadOnlyRosters {
		access = "none, store_current_id: true"
	}
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
  mod_roster: {versioning: true, access: %s}
  mod_ping: {}
  mod_version: {}
  mod_privacy: {}
  mod_blocking: {}
%s
`, yaml(o.Hosts()), s.c2s, s.service, !o.AnyFromAddress, yaml(o.Component), yaml(o.Secret), o.api(s), yaml(o.Component), access, o.ModulesYAML)
	for _, more := range []struct {
		on      bool
		modules string
	}{
		{o.API != "", "  mod_admin_extra: {}\n  mod_http_api: {}"},
		{o.PEP, "  mod_caps: {}\n  mod_pubsub: {plugins: [flat, pep]}"},
		{o.BlockStrangers, "  mod_block_strangers: {allow_local_users: false}"},
	} {
		if more.on {
			fmt.Fprintln(&b, more.modules)
		}
	}
	fmt.Fprintln(&b, "append_host_config:")
	for _, host := range o.Hosts() {
		fmt.Fprintf(&b, "  %s:\n    modules: {%s}\n", yaml(host), strings.Join(o.grants(host).modules(s.root.ejabberdVersion()), ", "))
	}
	if o.IncludedYAML != "" {
		fmt.Fprintf(&b, "include_config_file: %s\n", yaml(s.path("included.yml")))
	}
	fmt.Fprintln(&b, o.ExtraYAML)
	return b.String()
}

// api is the listener of the HTTP API, and who may call it.
func (o EjabberdOptions) api(s *Server) string {
	if o.API == "" {
		return ""
	}
	return fmt.Sprintf(`  - {port: %d, ip: "127.0.0.1", module: ejabberd_http, request_handlers: {"/api": mod_http_api}}
oauth_access: {allow: {user: rosterd@example.org}}
api_permissions:
  rosterd:
    from: mod_http_api
    who: %s
    what: [get_roster, add_rosteritem, delete_rosteritem, send_stanza, srg_create, srg_user_add]
`, s.api, o.API)
}

// modules are those that give a host's grants. Privileged IQs came with 24.10.
func (g Grants) modules(version string) []string {
	var modules []string
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

// wholeLog has Erlang write every line: as set, it drops those beyond 500 a second.
const wholeLog = "logger:update_handler_config(default, config, #{burst_limit_enable => false, drop_mode_qlen => 100000, flush_qlen => 100000}), "

// prologue is the Erlang program that runs once ejabberd has started: it makes
// the accounts, which may be there already.
func (o EjabberdOptions) prologue() string {
	var b strings.Builder
	b.WriteString(wholeLog)
	for _, a := range o.accounts() {
		fmt.Fprintf(&b, "ejabberd_auth:try_register(%s,%s,%s), ", erlangBinary(a.local), erlangBinary(a.host), erlangBinary(a.password))
	}
	if o.API == ByAccount { // what ejabberdctl would do
		fmt.Fprintf(&b, `catch ejabberd_ctl:process(["oauth_issue_token","rosterd@example.org","%s","%s"]), `, tokenSeconds,
			strings.Join([]string{"get_roster", "add_rosteritem", "delete_rosteritem"}, scopeSeparator(suiteRoot().ejabberdVersion())))
	}
	return b.String() + `io:format("` + ejabberdReady + `~n").`
}

// tokenSeconds is for how long a token is good: a year.
const tokenSeconds = "31536000"

// scopeSeparator is what oauth_issue_token has between scopes.
func scopeSeparator(version string) string {
	if version < "24.02" {
		return ";"
	}
	return ","
}

// Token is the token that an ejabberd with the API [ByAccount] has issued at its start; "" if
// it could not, as Debian's ejabberd cannot without the package erlang-p1-oauth2.
func (s *Server) Token() string {
	for line := range strings.Lines(s.Log()) {
		if token, rest, ok := strings.Cut(line, "\t"); ok && strings.Contains(rest, tokenSeconds+" seconds") {
			return token[strings.LastIndexAny(token, " |")+1:]
		}
	}
	return ""
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
