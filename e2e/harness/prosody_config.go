package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ProsodyOptions say how a Prosody is set up. The zero value serves
// example.org without users, and grants the component contacts.example.org
// all that rosterd asks for.
type ProsodyOptions struct {
	Host       string   // default example.org
	ExtraHosts []string // further hosts with the same grants
	Component  string   // default contacts.HOST
	Secret     string   // of the component, default "component secret"

	// Users maps localparts of Host, or bare JIDs of any host, to passwords.
	Users map[string]string

	NoDelegation   bool // do not delegate jabber:iq:roster (XEP-0355)
	NoPrivilegeIQ  bool // do not allow privileged IQs (XEP-0356, section 6)
	NoPresence     bool // do not forward presence (XEP-0356, section 7)
	AnyFromAddress bool // the component may send in the name of any address

	// Lines of Lua at the end of the global section, of every host's and of
	// the component's.
	GlobalLua, HostLua, ComponentLua string
}

func (o *ProsodyOptions) setDefaults() {
	if o.Host == "" {
		o.Host = "example.org"
	}
	if o.Component == "" {
		o.Component = "contacts." + o.Host
	}
	if o.Secret == "" {
		o.Secret = "component secret"
	}
}

// Hosts are the domains whose users the component serves.
func (o ProsodyOptions) Hosts() []string {
	return append([]string{o.Host}, o.ExtraHosts...)
}

// config is the configuration file.
func (o ProsodyOptions) config(dir string, c2s, component int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `-- A throw-away Prosody for end-to-end tests: no TLS, no federation.
data_path = %s
pidfile = %s
plugin_paths = { %s }
interfaces = { "127.0.0.1" }
c2s_ports = { %d }
component_ports = { %d }
component_interfaces = { "127.0.0.1" }
s2s_ports = {}
http_ports = {}
https_ports = {}
run_as_root = true
modules_enabled = { "roster", "saslauth", "disco", "ping" }
modules_disabled = { "s2s", "tls" }
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
authentication = "internal_plain"
log = { { levels = { min = "debug" }, to = "console" } }
`, luaString(filepath.Join(dir, "data")), luaString(filepath.Join(dir, "prosody.pid")),
		luaString(prosodyModules), c2s, component)
	fmt.Fprintln(&b, o.GlobalLua)
	for _, host := range o.Hosts() {
		fmt.Fprintf(&b, "\nVirtualHost %s\n%s%s\n", luaString(host), o.grants(), o.HostLua)
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

// grants is what a host delegates to the component and allows it.
func (o ProsodyOptions) grants() string {
	var b strings.Builder
	component := luaString(o.Component)
	fmt.Fprintln(&b, `  modules_enabled = { "delegation", "privilege" }`)
	if !o.NoDelegation {
		fmt.Fprintf(&b, "  delegations = { [\"jabber:iq:roster\"] = { jid = %s } }\n", component)
	}
	fmt.Fprintf(&b, "  privileged_entities = { [%s] = {\n    roster = \"both\", message = \"outgoing\",\n", component)
	if !o.NoPresence {
		fmt.Fprintln(&b, `    presence = "managed_entity",`)
	}
	if !o.NoPrivilegeIQ {
		fmt.Fprintln(&b, `    iq = { ["jabber:iq:roster"] = "set" },`)
	}
	fmt.Fprintln(&b, "  } }")
	return b.String()
}

// writeAccounts writes the users as Prosody's mod_auth_internal_plain keeps
// them, which is much faster than a prosodyctl for each.
func (o ProsodyOptions) writeAccounts(data string) error {
	for user, password := range o.Users {
		local, host, isJID := strings.Cut(user, "@")
		if !isJID {
			host = o.Host
		}
		file := filepath.Join(data, dataName(host), "accounts", dataName(local)+".dat")
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return err
		}
		account := fmt.Sprintf("return {\n\t[\"password\"] = %s;\n};\n", luaString(password))
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
