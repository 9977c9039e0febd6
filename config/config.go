// Package config is what an administrator can set: [Load] reads a YAML file and
// the environment, and stops at the first unknown key, missing or senseless
// value with an error of one line that names the key, what it wants and, if it
// is no secret, what it got. No error contains a secret, and neither does a
// [Config] that is printed.
package config

import "time"

// Config is the whole configuration. Its keys in the file and the environment
// are the names of its fields in snake case.
//
// Neither Config nor its parts may be modified while others use them.
type Config struct {
	XMPP     XMPP
	Contacts Contacts
	Refresh  Refresh
	Metrics  Metrics
	Log      Log
}

// XMPP is the component's connection to the server (XEP-0114).
type XMPP struct {
	Address    string   // host:port of the server's component port
	Domain     string   // the component's own domain, prepared by RFC 7622
	Secret     Secret   // shared with the server
	SecretFile string   // from which Load read Secret, or ""
	Hosts      []string // the domains whose users are served, prepared by RFC 7622
}

// Contacts is the HTTP backend that knows the users' contacts.
type Contacts struct {
	// URL is parsed by [Contacts.Template]. It may hold a key in its query
	// that is nobody's business, so it should not be logged.
	URL         string
	Timeout     time.Duration     // of one fetch, from dialling to the last byte
	MaxInFlight int               // fetches under way at once
	MaxBytes    int64             // of a response
	Headers     map[string]Secret // sent with every fetch; names in lower case if Load read them
	Token       Secret            // sent as "Authorization: Bearer", or ""
	TokenFile   string            // from which Load read Token, or ""
}

// Template is URL, parsed. It fails only if [Config.Validate] would, too.
func (c Contacts) Template() (URLTemplate, error) { return ParseURLTemplate(c.URL) }

// Refresh is the HTTP endpoint at which the backend reports changes.
type Refresh struct {
	Listen    string // host:port, port 0 is any free one
	Token     Secret // that callers must send as "Authorization: Bearer", or ""
	TokenFile string // from which Load read Token, or ""
	MaxBytes  int64  // of a request's body
}

// Metrics is the HTTP endpoint of Prometheus and of the health checks.
type Metrics struct {
	Listen string // host:port, port 0 is any free one
}

// Log says what is logged, and how.
type Log struct {
	Level  string // debug, info, warn or error
	Format string // text or json
}

// Default is the configuration of an administrator who has set nothing. It is
// not valid: xmpp.domain, xmpp.secret, xmpp.hosts and contacts.url have no
// default.
func Default() Config {
	return Config{
		XMPP:     XMPP{Address: "127.0.0.1:5347"},
		Contacts: Contacts{Timeout: 5 * time.Second, MaxInFlight: 64, MaxBytes: 16 << 20},
		Refresh:  Refresh{Listen: "127.0.0.1:5290", MaxBytes: 8 << 20},
		Metrics:  Metrics{Listen: "127.0.0.1:9590"},
		Log:      Log{Level: "info", Format: "text"},
	}
}
