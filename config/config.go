// Package config is what an administrator can set: [Load] reads a YAML file and
// the environment, and stops at the first unknown key, missing or senseless
// value with an error of one line that names the key, what it wants and, if it
// is no secret, what it got. No error contains a secret, and neither does a
// [Config] that is printed.
package config

import (
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Config is the whole configuration. Its keys in the file and the environment
// are the names of its fields in snake case.
//
// Neither Config nor its parts may be modified while others use them.
type Config struct {
	XMPP     XMPP
	Contacts Contacts
	Refresh  Refresh
	Metrics  Metrics
	State    State
	Limits   Limits
	Log      Log
}

// XMPP is the component's connection to the server (XEP-0114).
type XMPP struct {
	Address    string   // host:port of the server's component port
	Domain     string   // the component's own domain, prepared: in U-labels
	Secret     Secret   // shared with the server
	SecretFile string   // from which Load read Secret, or ""
	Hosts      []string // the domains whose users are served, prepared: in U-labels
	// Unrestricted says that the server takes stanzas from every address of
	// Hosts, which is more than XEP-0114 promises.
	Unrestricted bool
	Presence     string // auto, relay or off; relay wants Unrestricted
	TLS          XMPPTLS
	// MaxStanzaBytes is the largest stanza that the server is sent.
	MaxStanzaBytes int
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
	TLS         ContactsTLS
	// MaxStale is how old a last known roster may be that a query is answered
	// with while the backend fails; 0 is any age.
	MaxStale time.Duration
	NotFound string // what the status 404 means: error, or empty, a roster without contacts
	// MaxRemoved is the part of a roster of 10 contacts or more, from 0 to 1,
	// that a fetch may remove without being confirmed by a second one, which is
	// made after ConfirmAfter.
	MaxRemoved   float64
	ConfirmAfter time.Duration
	ResyncRate   int // users a second that are brought in line in the background
	// MaxAge is for how long a query is answered with a roster that was fetched,
	// without asking again; 0: not at all.
	MaxAge time.Duration
	// BulkURL is where the contacts of up to BulkSize users are asked for at once,
	// parsed by [ParseBulkTemplate]; "" if they are not.
	BulkURL  string
	BulkSize int
	// Hosts are what differs for some of the domains of [XMPP], by their
	// prepared form. Headers and Token are for all of them.
	Hosts map[string]ContactsHost
}

// ContactsHost is what one domain has of its own.
type ContactsHost struct {
	URL string // in place of that of [Contacts], or ""; to be logged as little
	// BulkURL is in place of that of [Contacts], or "". If URL is set and this is
	// not, the domain's users are not asked for together.
	BulkURL string
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

// BulkFor is the URL at which many users of a prepared domain are asked for at
// once, parsed; ok says whether there is one. If the domain is served, it fails
// only if [Config.Validate] would, too.
func (c Contacts) BulkFor(domain string) (t BulkTemplate, ok bool, err error) {
	text := c.bulkFor(domain)
	if text == "" {
		return t, false, nil
	}
	t, err = ParseBulkTemplate(text)
	return t, err == nil, err
}

func (c Contacts) bulkFor(domain string) string {
	switch own := c.Hosts[domain]; {
	case own.BulkURL != "":
		return own.BulkURL
	case own.URL != "": // another backend than that of contacts.bulk_url
		return ""
	}
	return c.BulkURL
}

func (c Contacts) urlFor(domain string) string {
	if own := c.Hosts[domain].URL; own != "" {
		return own
	}
	return c.URL
}

// Refresh is the HTTP endpoint at which the backend reports changes.
type Refresh struct {
	Listen    string   // host:port, port 0 is any free one
	Token     Secret   // that callers must send as "Authorization: Bearer", or ""
	TokenFile string   // from which Load read Token, or ""
	Tokens    []Secret // that callers may send as well, for the time of a change
	MaxBytes  int64    // of a request's body
	TLS       RefreshTLS
}

// Metrics is the HTTP endpoint of Prometheus and of the health checks.
type Metrics struct {
	Listen string // host:port, port 0 is any free one
}

// State is where rosterd keeps what it must know after a restart.
type State struct {
	Path string // the file; "": nowhere but in memory
}

// stateFile is the file in $STATE_DIRECTORY, which systemd sets, or else in the
// working directory.
func stateFile() string {
	first, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":")
	return filepath.Join(first, "rosterd.db")
}

// Limits are what each user may ask for.
type Limits struct {
	QueriesBurst     int     // roster queries at once
	QueriesPerSecond float64 // and from then on
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
		XMPP: XMPP{Address: "127.0.0.1:5347", Presence: "auto", MaxStanzaBytes: 256 << 10},
		Contacts: Contacts{
			Timeout: 5 * time.Second, MaxInFlight: 64, MaxBytes: 16 << 20,
			NotFound: "error", MaxRemoved: 0.9, ConfirmAfter: 30 * time.Second, ResyncRate: 100,
			BulkSize: 100,
		},
		Refresh: Refresh{Listen: "127.0.0.1:5290", MaxBytes: 8 << 20},
		Metrics: Metrics{Listen: "127.0.0.1:9590"},
		State:   State{Path: stateFile()},
		Limits:  Limits{QueriesBurst: 60, QueriesPerSecond: 2},
		Log:     Log{Level: "info", Format: "text"},
	}
}
