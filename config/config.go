// Package config holds what an administrator can set. [Load] reads a YAML file and
// the environment, and stops at the first unknown key, missing or senseless value
// with an error of one line. The line names the key, what it wants and, unless it is
// a secret, what it got. Neither an error nor a [Config] that is printed tells a secret.
//
// A new key takes one field with its tag, its value in [Default], one line in
// [Config.Validate] if not every value will do, and one line in config.example.yaml:
// the file, the environment, the reload and the tests find it by the field.
package config

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Config is the whole configuration.
//
// The tag mapstructure names a key or section. The tag reload marks the keys that a
// running rosterd can take over: "yes", or "tls", which means unless that turns TLS
// at the refresh endpoint on or off.
//
// Neither Config nor its parts may be modified while others use them.
type Config struct {
	XMPP     XMPP     `mapstructure:"xmpp"`
	Contacts Contacts `mapstructure:"contacts"`
	Refresh  Refresh  `mapstructure:"refresh"`
	Metrics  Metrics  `mapstructure:"metrics"`
	State    State    `mapstructure:"state"`
	Limits   Limits   `mapstructure:"limits"`
	Ejabberd Ejabberd `mapstructure:"ejabberd"`
	Log      Log      `mapstructure:"log"`
}

// XMPP is the component's connection to the server (XEP-0114).
type XMPP struct {
	Address    string   `mapstructure:"address"`                  // the server's component port
	Domain     string   `mapstructure:"domain"`                   // the component's own domain, prepared: in U-labels
	Secret     Secret   `mapstructure:"secret" reload:"yes"`      // shared with the server
	SecretFile string   `mapstructure:"secret_file" reload:"yes"` // from which Load read Secret, or ""
	Hosts      []string `mapstructure:"hosts"`                    // the domains whose users are served, prepared: in U-labels
	// Unrestricted says that the server takes stanzas from every address of
	// Hosts, which is more than XEP-0114 promises.
	Unrestricted bool    `mapstructure:"unrestricted"`
	Presence     string  `mapstructure:"presence"`      // auto, relay or off; relay wants Unrestricted
	ServerRoster string  `mapstructure:"server_roster"` // auto or off: whether the server's own rosters are kept in step
	TLS          XMPPTLS `mapstructure:"tls"`
	// MaxStanzaBytes is the largest stanza that the server is sent.
	MaxStanzaBytes int `mapstructure:"max_stanza_bytes"`
}

// XMPPTLS is TLS to the server's component port. It is used if one of its fields is set.
type XMPPTLS struct {
	ServerName string `mapstructure:"server_name" reload:"yes"` // that the server's certificate must have; "": the host of the address
	CA         string `mapstructure:"ca" reload:"yes"`          // a file of the certificates to trust, PEM; "": the system's
}

// Contacts is the HTTP backend that knows the users' contacts.
type Contacts struct {
	// URL is parsed by [Contacts.TemplateFor]. Its query may hold a secret, so it
	// should not be logged. It may be empty if each domain that is served has its own.
	URL         string            `mapstructure:"url"`
	Timeout     time.Duration     `mapstructure:"timeout"`                 // of one fetch, from dialling to the last byte
	MaxInFlight int               `mapstructure:"max_in_flight"`           // fetches under way at once
	MaxBytes    int64             `mapstructure:"max_bytes"`               // of a response
	Headers     map[string]Secret `mapstructure:"headers" reload:"yes"`    // sent with every fetch; names in lower case if Load read them
	Token       Secret            `mapstructure:"token" reload:"yes"`      // sent as "Authorization: Bearer", or ""
	TokenFile   string            `mapstructure:"token_file" reload:"yes"` // from which Load read Token, or ""
	TLS         ContactsTLS       `mapstructure:"tls"`
	// MaxStale is how old the last known roster may be that answers a query while
	// the backend fails; 0 is any age.
	MaxStale time.Duration `mapstructure:"max_stale"`
	NotFound string        `mapstructure:"not_found"` // what the status 404 means: error, or empty, a roster without contacts
	// MaxRemoved is the part of a roster of 10 contacts or more, from 0 to 1, that
	// a fetch may remove at once. To remove more, a second fetch must confirm it,
	// ConfirmAfter later; if that is [Never], a person must.
	MaxRemoved   float64  `mapstructure:"max_removed"`
	ConfirmAfter Patience `mapstructure:"confirm_after"`
	ResyncRate   int      `mapstructure:"resync_rate"` // users a second that are brought in line in the background
	// MaxAge is for how long a fetched roster answers queries without asking
	// again; 0: not at all.
	MaxAge time.Duration `mapstructure:"max_age"`
	// BulkURL is where the contacts of up to BulkSize users are asked for at once,
	// used by [Contacts.BulkURLFor]; "" if they are not.
	BulkURL  string `mapstructure:"bulk_url"`
	BulkSize int    `mapstructure:"bulk_size"`
	// EditURL is where users' own changes of their contacts are POSTed, used by
	// [Contacts.EditURLFor]; "" if they are refused.
	EditURL string `mapstructure:"edit_url"`
	// Hosts are what differs for some of the domains of [XMPP], by their prepared
	// form. Headers and Token are for all of them.
	Hosts map[string]ContactsHost `mapstructure:"hosts"`
}

// Patience is a time, or [Never], which is written "never".
type Patience time.Duration

// Never is longer than any time.
const Never Patience = math.MaxInt64

func (p Patience) String() string {
	if p == Never {
		return "never"
	}
	return time.Duration(p).String()
}

// ContactsHost is what one domain has of its own.
type ContactsHost struct {
	URL string `mapstructure:"url"` // in place of that of [Contacts], or ""; not to be logged either
	// BulkURL is in place of that of [Contacts], or "". If URL is set and this is
	// not, the domain's users are not asked for together.
	BulkURL string `mapstructure:"bulk_url"`
	// EditURL is in place of that of [Contacts], or "". If URL is set and this is
	// not, the domain's users cannot change their contacts.
	EditURL string `mapstructure:"edit_url"`
}

// ContactsTLS is TLS to the backends whose URLs are https.
type ContactsTLS struct {
	CA string `mapstructure:"ca" reload:"yes"` // a file of the certificates to trust, PEM; "": the system's
}

// Refresh is the HTTP endpoint at which the backend reports changes.
type Refresh struct {
	Listen    string     `mapstructure:"listen"`                  // port 0 is any free one
	Token     Secret     `mapstructure:"token" reload:"yes"`      // that callers must send as "Authorization: Bearer", or ""
	TokenFile string     `mapstructure:"token_file" reload:"yes"` // from which Load read Token, or ""
	Tokens    []Secret   `mapstructure:"tokens" reload:"yes"`     // that callers may send as well, for the time of a change
	MaxBytes  int64      `mapstructure:"max_bytes"`               // of a request's body
	Advertise string     `mapstructure:"advertise"`               // the URL at which the other instance of a pair reaches this one, or ""; Load makes one of an IP address
	TLS       RefreshTLS `mapstructure:"tls"`
}

// RefreshTLS is TLS at the refresh endpoint. It is used if Cert and Key are set.
// The files are read again when they change.
type RefreshTLS struct {
	Cert string `mapstructure:"cert" reload:"tls"` // a file, PEM, with the chain
	Key  string `mapstructure:"key" reload:"tls"`  // a file, PEM
	// ClientCA is a file, PEM: callers must have a certificate of one of these.
	// "": they need none.
	ClientCA string `mapstructure:"client_ca" reload:"tls"`
}

// Enabled reports whether TLS is used.
func (t RefreshTLS) Enabled() bool { return t.Cert != "" }

// Metrics is the HTTP endpoint of Prometheus and of the health checks.
type Metrics struct {
	Listen string `mapstructure:"listen"` // port 0 is any free one
}

// State is where rosterd keeps what it must know after a restart.
type State struct {
	Path        string        `mapstructure:"path"`         // the file, unless URL is set; "": nowhere but in memory
	URL         Secret        `mapstructure:"url"`          // of the PostgreSQL database of a pair, or ""
	URLFile     string        `mapstructure:"url_file"`     // from which Load read URL, or ""
	ForgetAfter time.Duration `mapstructure:"forget_after"` // how long after they were last seen users are forgotten; 0: never
}

// Limits are what each user may ask for.
type Limits struct {
	QueriesBurst     int     `mapstructure:"queries_burst"`      // roster queries at once
	QueriesPerSecond float64 `mapstructure:"queries_per_second"` // and from then on
}

// Ejabberd is what only ejabberd has.
type Ejabberd struct {
	API EjabberdAPI `mapstructure:"api"`
}

// EjabberdAPI is ejabberd's HTTP API (mod_http_api), by which its own rosters are kept in
// step. It is used if URL is set: with a token, with a user and a password, or with
// neither if ejabberd permits it by address.
type EjabberdAPI struct {
	URL          string `mapstructure:"url"`                        // to which "/" and a command's name are added, or ""
	Token        Secret `mapstructure:"token" reload:"yes"`         // sent as "Authorization: Bearer", or ""
	TokenFile    string `mapstructure:"token_file" reload:"yes"`    // from which Load read Token, or ""
	User         string `mapstructure:"user" reload:"yes"`          // a JID, or ""
	Password     Secret `mapstructure:"password" reload:"yes"`      // of User
	PasswordFile string `mapstructure:"password_file" reload:"yes"` // from which Load read Password, or ""
}

// Log says what is logged, and how.
type Log struct {
	Level  string `mapstructure:"level" reload:"yes"` // debug, info, warn or error
	Format string `mapstructure:"format"`             // text or json
}

// Default is the configuration of an administrator who has set nothing. It is
// not valid: xmpp.domain, xmpp.secret, xmpp.hosts and contacts.url have no default.
func Default() Config {
	// systemd sets $STATE_DIRECTORY; without it, the working directory will do.
	state, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":")
	return Config{
		XMPP: XMPP{Address: "127.0.0.1:5347", Presence: "auto", ServerRoster: "auto", MaxStanzaBytes: 256 << 10},
		Contacts: Contacts{
			Timeout: 5 * time.Second, MaxInFlight: 64, MaxBytes: 16 << 20,
			NotFound: "error", MaxRemoved: 0.9, ConfirmAfter: Patience(30 * time.Second), ResyncRate: 100,
			BulkSize: 100,
		},
		Refresh: Refresh{Listen: "127.0.0.1:5290", MaxBytes: 8 << 20},
		Metrics: Metrics{Listen: "127.0.0.1:9590"},
		State:   State{Path: filepath.Join(state, "rosterd.db"), ForgetAfter: 90 * 24 * time.Hour},
		Limits:  Limits{QueriesBurst: 60, QueriesPerSecond: 2},
		Log:     Log{Level: "info", Format: "text"},
	}
}
