package harness

import (
	_ "embed" // the module
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// rostersModule is Prosody's end of [Server.OwnRoster].
//
//go:embed prosody_rosters.lua
var rostersModule string

// ProsodyOptions say how a Prosody is set up.
type ProsodyOptions struct {
	ServerOptions

	// Lines of Lua at the end of the global section, of every host's and of
	// the component's.
	GlobalLua, HostLua, ComponentLua string

	// WebSocket lets clients in browsers log in (RFC 7395), and see avatars as vCards.
	WebSocket bool

	// Files are written into the server's folder, by their paths. Modules are found there.
	Files map[string]string
}

// config is the configuration file.
func (o ProsodyOptions) config(s *Server) string {
	var b strings.Builder
	http, modules := "", ""
	if o.PEP {
		modules += `, "pep"`
	}
	if o.BlockStrangers {
		modules += `, "block_strangers"`
	}
	if o.OwnRosters {
		http, modules = fmt.Sprint(s.api), modules+`, "harness_rosters"`
	}
	if o.WebSocket {
		http, modules = fmt.Sprint(s.api), modules+`, "websocket", "vcard_legacy"`
	}
	fmt.Fprintf(&b, `-- A throw-away Prosody for end-to-end tests: no TLS, no federation.
data_path = %s
pidfile = %s
plugin_paths = { %s, %s }
interfaces = { "127.0.0.1" }
c2s_ports = { %d }
component_ports = { %d }
component_interfaces = { "127.0.0.1" }
s2s_ports = {}
http_ports = { %s }
https_ports = {}
http_interfaces = { "127.0.0.1" }
run_as_root = true
modules_enabled = { "roster", "saslauth", "disco", "ping", "version", "blocklist"%s }
modules_disabled = { "s2s", "tls" }
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
authentication = "internal_plain"
consider_websocket_secure = true
log = { { levels = { min = "debug" }, to = "console" } }
`, luaString(s.path("data")), luaString(s.path("prosody.pid")), luaString(s.path("")), luaString(prosodyModules), s.c2s, s.service, http, modules)
	fmt.Fprintln(&b, o.GlobalLua)
	for _, host := range o.Hosts() {
		fmt.Fprintf(&b, "\nVirtualHost %s\n%s%s\n", luaString(host), o.grants(host).lua(o.Component), o.HostLua)
		if o.OwnRosters || o.WebSocket {
			fmt.Fprintf(&b, "  http_host = \"127.0.0.1\"\n")
		}
	}
	// The modules are enabled on the component too, or nothing is announced.
	fmt.Fprintf(&b, "\nComponent %s\n  component_secret = %s\n  modules_enabled = { \"delegation\", \"privilege\" }\n",
		luaString(o.Component), luaString(o.Secret))
	if o.AnyFromAddress {
		fmt.Fprintln(&b, "  validate_from_addresses = false")
	}
	fmt.Fprintln(&b, o.ComponentLua)
	return b.String()
}

// lua is what a host delegates to the component and allows it.
func (g Grants) lua(to string) string {
	if g.Plain {
		return ""
	}
	var b strings.Builder
	component := luaString(to)
	fmt.Fprintln(&b, `  modules_enabled = { "delegation", "privilege" }`)
	if !g.NoDelegation {
		fmt.Fprintf(&b, "  delegations = { [\"jabber:iq:roster\"] = { jid = %s } }\n", component)
	}
	roster := "both"
	if g.NoRoster {
		roster = "none"
	}
	fmt.Fprintf(&b, "  privileged_entities = { [%s] = {\n    roster = %q, message = \"outgoing\",\n", component, roster)
	if !g.NoPresence {
		fmt.Fprintln(&b, `    presence = "managed_entity",`)
	}
	if !g.NoPrivilegeIQ {
		blocking := `, ["urn:xmpp:blocking"] = "get"`
		if g.NoBlocking {
			blocking = ""
		}
		fmt.Fprintf(&b, "    iq = { [\"jabber:iq:roster\"] = \"set\"%s },\n", blocking)
	}
	fmt.Fprintln(&b, "  } }")
	return b.String()
}

// writeAccounts writes the users as Prosody's mod_auth_internal_plain keeps
// them, which is much faster than a prosodyctl for each.
func (o ProsodyOptions) writeAccounts(data string) error {
	for _, a := range o.accounts() {
		file := filepath.Join(data, dataName(a.host), "accounts", dataName(a.local)+".dat")
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return err
		}
		account := fmt.Sprintf("return {\n\t[\"password\"] = %s;\n};\n", luaString(a.password))
		if err := os.WriteFile(file, []byte(account), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// dataName writes a name as util.datamanager does in paths: what is neither
// letter nor digit of ASCII becomes %xx.
func dataName(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02x", c)
		}
	}
	return b.String()
}

// luaString writes s as a Lua string: decimal escapes for what is not plain.
func luaString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range []byte(s) {
		if c < 0x20 || c == '"' || c == '\\' || c == 0x7f {
			fmt.Fprintf(&b, "\\%03d", c)
		} else {
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
