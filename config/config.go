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
	// Unrestricted says that the server takes stanzas from every address of
	// Hosts, which is more than XEP-0114 promises.
	Unrestricted bool
	Presence     string // auto, relay or off; relay wants Unrestricted
}

// Contacts is the HTTP backend that knows the users' contacts.
type Contacts struct {
	// URL is parsed by [Contacts.TemplateFor]. It may hold a key in its query
	// that is nobody's business, so it should not be logged. It may be empty if
	// each of the domains that are served has its own.
	URL         string
	Timeout     time.Duration     // of one fetch, from dialling to the last byte
	MaxInFlight int               // fetches under way at once
	MaxBytes    int64             // of a response
	Headers     map[string]Secret // sent with every fetch; names in lower case if Load read them
	Token       Secret            // sent as "Authorization: Bearer", or ""
	TokenFile   string            // from which Load read Token, or ""
	// Hosts are what differs for some of the domains of [XMPP], by their
	// prepared form. Headers and Token are for all of them.
	Hosts map[string]ContactsHost
}

// ContactsHost is what one domain has of its own.
type ContactsHost struct {
	URL string // in place of that of [Contacts], or ""; to be logged as little
}

// Template is URL, parsed. It fails if URL is empty, or if [Config.Validate]
// would, too.
func (c Contacts) Template() (URLTemplate, error) { return ParseURLTemplate(c.URL) }

// TemplateFor is the URL for the users of a prepared domain, parsed: the
// domain's own, or else that of all. If the domain is served, it fails only if
// [Config.Validate] would, too.
func (c Contacts) TemplateFor(domain string) (URLTemplate, error) {
	return ParseURLTemplate(c.urlFor(domain))
}

func (c Contacts) urlFor(domain string) string {
	if own := c.Hosts[domain].URL; own != "" {
		return own
	}
	return c.URL
}

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
		XMPP:     XMPP{Address: "127.0.0.1:5347", Presence: "auto"},
		Contacts: Contacts{Timeout: 5 * time.Second, MaxInFlight: 64, MaxBytes: 16 << 20},
		Refresh:  Refresh{Listen: "127.0.0.1:5290", MaxBytes: 8 << 20},
		Metrics:  Metrics{Listen: "127.0.0.1:9590"},
		Log:      Log{Level: "info", Format: "text"},
	}
}
