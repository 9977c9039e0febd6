package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// clearEnv takes every variable that is a key out of the environment of a test.
func clearEnv(t testing.TB) {
	t.Helper()
	var c Config
	for _, k := range c.keys() {
		t.Setenv(envName(k.name), "") // empty counts as not set
	}
	t.Setenv("STATE_DIRECTORY", "")
}

// load is [Load] without its warnings.
func load(path string) (Config, error) {
	c, _, err := Load(path)
	return c, err
}

const minimal = `
xmpp: {domain: contacts.example.org, secret: "s", hosts: [example.org]}
contacts: {url: "http://127.0.0.1:8000/contacts/%s"}
`

func write(t testing.TB, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// full is a configuration in which no field has its default or zero value, but
// for the files, which are tested by themselves.
func full() Config {
	return Config{
		XMPP: XMPP{Address: "[::1]:5348", Domain: "rosters.example.org", Secret: "a", Hosts: []string{"example.org", "b\u00FCcher.example"}, Unrestricted: true, Presence: "relay", ServerRoster: "off",
			TLS: XMPPTLS{ServerName: "b\u00FCcher.example", CA: "/etc/x/ca.pem"}, MaxStanzaBytes: 10_000},
		Contacts: Contacts{
			URL: "https://example.org/%d/%s?x=%%", Timeout: 10 * time.Second, MaxInFlight: 7, MaxBytes: 70,
			Headers: map[string]Secret{"x-api.key": "b", "x-two": ""}, Token: "c",
			MaxStale: 36 * time.Hour, NotFound: "empty", MaxRemoved: 0.25, ConfirmAfter: Patience(time.Minute), ResyncRate: 9,
			MaxAge: 90 * time.Second, BulkURL: "https://example.org/bulk/%d", BulkSize: 25, EditURL: "https://example.org/edit",
			Hosts: map[string]ContactsHost{"b\u00FCcher.example": {URL: "https://%d/%s?Key=K", BulkURL: "https://%d/?Key=K", EditURL: "https://%d/edit?Key=K"}, "example.org": {}},
		},
		Refresh: Refresh{
			Listen: ":5291", Token: "d", Tokens: []Secret{"e", "f g"}, MaxBytes: 80,
			TLS: RefreshTLS{Cert: "cert.pem", Key: "key.pem", ClientCA: "/etc/x/clients.pem"},
		},
		Metrics:  Metrics{Listen: "0.0.0.0:0"},
		State:    State{Path: "/var/lib/x/y.db", ForgetAfter: 720 * time.Hour},
		Limits:   Limits{QueriesBurst: 5, QueriesPerSecond: 0.5},
		Ejabberd: Ejabberd{API: EjabberdAPI{URL: "http://127.0.0.1:5280/api", User: "admin@example.org", Password: "g"}},
		Log:      Log{Level: "debug", Format: "json"},
	}
}

const fullYAML = `
XMPP:
  address: "[::1]:5348"
  domain: Rosters.Example.ORG.
  secret: a
  hosts:
    - Example.org
    - xn--bcher-kva.example
  unrestricted: true
  presence: relay
  server_roster: off
  tls:
    Server_Name: bücher.example
    ca: /etc/x/ca.pem
  max_stanza_bytes: 10000
contacts:
  url: https://example.org/%d/%s?x=%%
  timeout: 10s
  max_in_flight: 7
  max_bytes: 70
  headers:
    X-Api.Key: b
    X-Two: ""
  token: c
  max_stale: 36h
  not_found: empty
  max_removed: 0.25
  confirm_after: 1m
  resync_rate: 9
  max_age: 90s
  bulk_url: https://example.org/bulk/%d
  bulk_size: 25
  edit_url: https://example.org/edit
  hosts:
    Example.org: # as all
    BÜCHER.example.:
      URL: https://%d/%s?Key=K
      Bulk_URL: https://%d/?Key=K
      Edit_URL: https://%d/edit?Key=K
refresh:
  listen: :5291
  token: d
  tokens: [e, f g]
  max_bytes: 80
  tls: {cert: cert.pem, key: key.pem, client_ca: /etc/x/clients.pem}
metrics: {listen: "0.0.0.0:0"}
state: {path: /var/lib/x/y.db, forget_after: 720h}
limits: {queries_burst: 5, queries_per_second: 0.5}
ejabberd: {api: {url: "http://127.0.0.1:5280/api", user: admin@example.org, password: g}}
log: {level: debug, format: json}
`

func TestLoad(t *testing.T) {
	minimum := Default()
	minimum.XMPP.Domain, minimum.XMPP.Secret, minimum.XMPP.Hosts = "contacts.example.org", "s", []string{"example.org"}
	minimum.Contacts.URL = "http://127.0.0.1:8000/contacts/%s"
	one := minimum
	one.Refresh.Listen, one.Metrics.Listen = "localhost:0", "localhost:0"
	off := minimum
	off.XMPP.Presence = "off"
	own := minimum
	own.Contacts.URL, own.Contacts.Hosts = "", map[string]ContactsHost{"example.org": {URL: "http://x/%s"}}
	patient := minimum
	patient.Contacts.ConfirmAfter = Never
	empty := minimum
	empty.Contacts.Hosts = map[string]ContactsHost{"example.org": {}}
	bulk := minimum
	bulk.Contacts.MaxAge, bulk.Contacts.BulkSize, bulk.Contacts.BulkURL = 24*time.Hour, 10_000, "http://x"
	ownBulk := minimum
	ownBulk.Contacts.Hosts = map[string]ContactsHost{"example.org": {BulkURL: "http://x/"}}
	memory := minimum
	memory.State.Path = ""
	never := minimum
	never.State.ForgetAfter = 0
	limits := minimum
	limits.Contacts.MaxRemoved, limits.Contacts.ResyncRate, limits.Limits = 1, 1, Limits{QueriesBurst: 1, QueriesPerSecond: 0.001}
	asTexts := limits
	asTexts.Contacts.ResyncRate = minimum.Contacts.ResyncRate
	trusting := minimum
	trusting.XMPP.TLS = XMPPTLS{CA: "ca"}
	noTokens := minimum
	noTokens.Refresh.Tokens = []Secret{}
	clients := minimum
	clients.Refresh.Listen, clients.Refresh.TLS = ":1", RefreshTLS{Cert: "a", Key: "b", ClientCA: "c"}
	tokens := minimum
	tokens.Refresh.Listen, tokens.Refresh.Tokens = ":1", []Secret{"a", "b c"}
	tests := []struct {
		name, yaml string
		want       Config
	}{
		{"state in memory alone", minimal + "state: {path: ''}", memory},
		{"state without a path", minimal + "state: {path: }", minimum},
		{"nobody is forgotten", minimal + "state: {forget_after: 0}", never},
		{"limits at their ends", strings.Replace(minimal, "url:", "max_removed: 1, resync_rate: 1, url:", 1) + "limits: {queries_burst: 1, queries_per_second: 1e-3}", limits},
		{"any age, without a unit", strings.Replace(minimal, "url:", "max_stale: 0, url:", 1), minimum},
		{"any age, as text", strings.Replace(minimal, "url:", "max_stale: '0', url:", 1), minimum},
		{"numbers as texts", strings.Replace(minimal, "url:", "max_removed: '1', url:", 1) + "limits: {queries_burst: '1', queries_per_second: '0.001'}", asTexts},
		{"a section in a section without values", strings.Replace(minimal, "hosts:", "tls: , hosts:", 1) + "refresh:\n  tls:\n    cert:\n    # key: x\n", minimum},
		{"the authority alone", strings.Replace(minimal, "hosts:", "tls: {ca: ca, server_name: ''}, hosts:", 1), trusting},
		{"no more tokens", minimal + "refresh: {tokens: []}", noTokens},
		{"no more tokens in one text", minimal + "refresh: {tokens: ' '}", noTokens},
		{"more tokens alone", minimal + "refresh: {listen: ':1', tokens: [a, b c]}", tokens},
		{"more tokens in one text", minimal + "refresh: {listen: ':1', tokens: 'a, b c'}", tokens},
		{"certificates in place of a token", minimal + "refresh: {listen: ':1', tls: {cert: a, key: b, client_ca: c}}", clients},
		{"everything", fullYAML, full()},
		{"defaults", minimal, minimum},
		{"keys without values", minimal + "refresh:\nlog:\n  level:\nmetrics: {listen: ~}", minimum},
		{"one document that begins with a marker", "---" + minimal, minimum},
		{"hosts as one text", strings.Replace(minimal, "[example.org]", "Example.org.", 1), minimum},
		{"off is no boolean", strings.Replace(minimal, "hosts:", "presence: off, unrestricted: False, hosts:", 1), off},
		{"URLs of hosts alone", strings.Replace(minimal, `url: "http://127.0.0.1:8000/contacts/%s"`, `hosts: {example.org: {url: "http://x/%s"}}`, 1), own},
		{"hosts as JSON in one text", strings.Replace(minimal, `url: "http://127.0.0.1:8000/contacts/%s"`, `hosts: '{"example.org": {"url": "http://x/%s"}}'`, 1), own},
		{"asked in bulk, as all", strings.Replace(minimal, "%s\"", "%s\", max_age: 24h, bulk_size: '10000', bulk_url: http://x", 1), bulk},
		{"asked in bulk by itself", strings.Replace(minimal, "%s\"", "%s\", hosts: {example.org: {bulk_url: http://x/}}", 1), ownBulk},
		{"host without URL", strings.Replace(minimal, "%s\"", "%s\", hosts: {example.org: {url: }}", 1), empty},
		{"host with an empty URL", strings.Replace(minimal, "%s\"", "%s\", hosts: {example.org: {url: ''}}", 1), empty},
		{"a person decides", strings.Replace(minimal, "url:", "confirm_after: never, url:", 1), patient},
		{"listeners with any port", minimal + "refresh: {listen: \"localhost:0\"}\nmetrics: {listen: \"localhost:0\"}", one},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			clearEnv(t)
			got, err := load(write(t, tc.yaml))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("Load = %+v, want %+v", got, tc.want)
			}
			if err := got.Validate(); err != nil {
				t.Errorf("Validate after Load: %v", err)
			}
		})
	}
}

// Each file of testdata/bad begins with the error that it is for.
func TestLoadBad(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) < 50 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".yaml"), func(t *testing.T) {
			clearEnv(t)
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(string(b), "\n")
			want, ok := strings.CutPrefix(first, "# error: ")
			if !ok {
				t.Fatal("the file does not say its error")
			}
			want = strings.Replace(want, "FILE", name, 1)
			c, err := load(name)
			if err == nil || err.Error() != want {
				t.Errorf("error\n\t%v, want\n\t%s", err, want)
			}
			if !reflect.DeepEqual(c, Config{}) {
				t.Errorf("a configuration with the error: %+v", c)
			}
			if err != nil && strings.Contains(err.Error(), "planted") {
				t.Errorf("the error tells a secret: %v", err)
			}
		})
	}
}

func TestLoadEnvironment(t *testing.T) {
	env := map[string]string{
		"XMPP_ADDRESS": "[::1]:5348", "XMPP_DOMAIN": "Rosters.Example.org", "XMPP_SECRET": "a", "XMPP_HOSTS": "Example.org, xn--bcher-kva.example",
		"CONTACTS_URL": "https://example.org/%d/%s?x=%%", "CONTACTS_TIMEOUT": "10s", "CONTACTS_MAX_IN_FLIGHT": "7", "CONTACTS_MAX_BYTES": "70",
		"CONTACTS_HEADERS": `{"X-Api.Key": "b", "X-Two": ""}`, "CONTACTS_TOKEN": "c",
		"XMPP_UNRESTRICTED": "true", "XMPP_PRESENCE": "relay", "XMPP_SERVER_ROSTER": "off", "CONTACTS_HOSTS": `{"XN--bcher-kva.example": {"Url": "https://%d/%s?Key=K", "Bulk_Url": "https://%d/?Key=K", "Edit_Url": "https://%d/edit?Key=K"}, "example.org.": null}`,
		"XMPP_TLS_SERVER_NAME": "bücher.example", "XMPP_TLS_CA": "/etc/x/ca.pem", "XMPP_MAX_STANZA_BYTES": "10000",
		"CONTACTS_MAX_STALE": "36h", "CONTACTS_NOT_FOUND": "empty", "CONTACTS_MAX_REMOVED": "0.25", "CONTACTS_CONFIRM_AFTER": "1m", "CONTACTS_RESYNC_RATE": "9",
		"CONTACTS_MAX_AGE": "90s", "CONTACTS_BULK_URL": "https://example.org/bulk/%d", "CONTACTS_BULK_SIZE": "25", "CONTACTS_EDIT_URL": "https://example.org/edit",
		"REFRESH_LISTEN": ":5291", "REFRESH_TOKEN": "d", "REFRESH_MAX_BYTES": "80", "REFRESH_TOKENS": "e, f g",
		"REFRESH_TLS_CERT": "cert.pem", "REFRESH_TLS_KEY": "key.pem", "REFRESH_TLS_CLIENT_CA": "/etc/x/clients.pem",
		"STATE_PATH": "/var/lib/x/y.db", "STATE_FORGET_AFTER": "720h", "LIMITS_QUERIES_BURST": "5", "LIMITS_QUERIES_PER_SECOND": "0.5",
		"EJABBERD_API_URL": "http://127.0.0.1:5280/api", "EJABBERD_API_USER": "admin@example.org", "EJABBERD_API_PASSWORD": "g",
		"METRICS_LISTEN": "0.0.0.0:0", "LOG_LEVEL": "debug", "LOG_FORMAT": "json",
		"PORT": "tcp://10.0.0.1:80", "SERVICE_HOST": "10.0.0.1", // as Kubernetes does it
	}
	set := func(t *testing.T) {
		clearEnv(t)
		for k, v := range env {
			t.Setenv("ROSTERD_"+k, v)
		}
	}
	t.Run("alone", func(t *testing.T) {
		set(t)
		t.Chdir(t.TempDir())
		if _, err := os.Stat(systemFile); err == nil {
			t.Skipf("this machine has a %s", systemFile)
		}
		if c, err := load(""); err != nil || !reflect.DeepEqual(c, full()) {
			t.Errorf("Load = %+v, %v, want %+v", c, err, full())
		}
	})
	t.Run("over the file", func(t *testing.T) {
		set(t)
		file := minimal + "refresh: {token: z}\nlog: {level: loud}\n"
		file = strings.Replace(file, "%s\"", "%s\", headers: {X-Three: z}, token: z, hosts: {example.org: {url: \"http://z/%s\"}}", 1)
		if c, err := load(write(t, file)); err != nil || !reflect.DeepEqual(c, full()) {
			t.Errorf("Load = %+v, %v, want %+v", c, err, full())
		}
	})
	t.Run("empty is not set", func(t *testing.T) {
		clearEnv(t)
		if c, err := load(write(t, fullYAML)); err != nil || !reflect.DeepEqual(c, full()) {
			t.Errorf("Load = %+v, %v, want %+v", c, err, full())
		}
	})
	t.Run("files", func(t *testing.T) {
		clearEnv(t)
		for _, k := range []string{"XMPP_SECRET_FILE", "CONTACTS_TOKEN_FILE", "REFRESH_TOKEN_FILE", "EJABBERD_API_PASSWORD_FILE"} {
			t.Setenv("ROSTERD_"+k, write(t, k))
		}
		c, err := load(write(t, strings.Replace(minimal, `secret: "s"`, `secret: ""`, 1)+"ejabberd: {api: {url: \"http://x/api\", user: a@example.org}}\n"))
		if err != nil || c.XMPP.Secret != "XMPP_SECRET_FILE" || c.Contacts.Token != "CONTACTS_TOKEN_FILE" || c.Refresh.Token != "REFRESH_TOKEN_FILE" || c.Ejabberd.API.Password != "EJABBERD_API_PASSWORD_FILE" {
			t.Errorf("Load: %v, secrets %q, %q, %q, %q", err, c.XMPP.Secret.Reveal(), c.Contacts.Token.Reveal(), c.Refresh.Token.Reveal(), c.Ejabberd.API.Password.Reveal())
		}
	})
	t.Run("bad", func(t *testing.T) {
		clearEnv(t)
		t.Setenv("ROSTERD_CONTACTS_TIMEOUT", "7")
		const want = `contacts.timeout: wants a time with its unit, such as 5s, got "7"`
		if _, err := load(write(t, minimal)); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	})
	for value, want := range map[string]string{
		`http://x/%s`:                                              "contacts.hosts: wants a mapping (in the environment: a JSON object) of domains to mappings with url, bulk_url and edit_url",
		`null`:                                                     "contacts.hosts: wants a mapping (in the environment: a JSON object) of domains to mappings with url, bulk_url and edit_url",
		`{"example.org": {"url": "http://x/%s"}`:                   "contacts.hosts: wants a mapping (in the environment: a JSON object) of domains to mappings with url, bulk_url and edit_url",
		`{"example.org": "http://x/%s"}`:                           "contacts.hosts.example.org: wants a mapping of keys to values",
		`{"example.org": {"url": ["planted"]}}`:                    "contacts.hosts.example.org.url: wants a text, got a list",
		`{"example.org": {"uri=planted": ""}}`:                     "contacts.hosts.example.org.uri…: unknown key, there are url, bulk_url, edit_url",
		`{"example.org": {"url": "", "URL": ""}}`:                  "contacts.hosts.example.org.url: stands twice",
		`{"example.org": {"bulk_url": "x?planted"}}`:               `contacts.hosts.example.org.bulk_url: wants an http or https URL without %s, as it is for many users at once, got "x" and a query that is not shown`,
		`{"example.org": {"bulk_url": ["planted"]}}`:               "contacts.hosts.example.org.bulk_url: wants a text, got a list",
		`{"example.org": {"bulk_url": "", "Bulk_URL": "planted"}}`: "contacts.hosts.example.org.bulk_url: stands twice",
		`{"example.org": {}, "Example.org.": {}}`:                  "contacts.hosts.example.org: stands twice",
		`{"example.net": {"url": "http://x/%s"}}`:                  "contacts.hosts.example.net: wants a domain of xmpp.hosts",
		`{"http://x/?planted": {}}`:                                "contacts.hosts.http…: wants a domain name",
		`{"example.org": {"url": "x?k=planted"}}`:                  `contacts.hosts.example.org.url: wants an http or https URL with %s in its path or query, got "x" and a query that is not shown`,
		`{"example.org": {"url": "http://x/%d0"}}`:                 `contacts.hosts.example.org.url: wants %s, %d, %% or two hexadecimal digits behind each % (%D0, not %d0), got "http://x/%d0"`,
	} {
		t.Run("bad hosts "+value, func(t *testing.T) {
			clearEnv(t)
			t.Setenv("ROSTERD_CONTACTS_HOSTS", value)
			if _, err := load(write(t, minimal)); err == nil || err.Error() != want {
				t.Errorf("error\n\t%v, want\n\t%s", err, want)
			}
		})
	}
}

// An instance of a pair may know no more of itself than its address.
func TestAdvertised(t *testing.T) {
	for _, test := range []struct{ advertise, listen, tls, want string }{
		{"10.1.2.3", ":5290", "", "http://10.1.2.3:5290"},
		{"fd00::1:5290", "[::]:5291", "", "http://[fd00::1:5290]:5291"},
		{"fd00::1", ":5290", "tls: {cert: c, key: k}", "https://[fd00::1]:5290"},
		{"http://rosterd-1:80", ":5290", "", "http://rosterd-1:80"},
		{"fe80::1%eth0", ":5290", "", ""}, // elsewhere it is another interface
		{"10.1.2.3", ":0", "", ""},
		{"10.1.2.3:5290", ":5290", "", ""},
		{"rosterd-1", ":5290", "", ""},
	} {
		clearEnv(t)
		c, err := load(write(t, minimal+fmt.Sprintf("state: {url: postgres://a@b/c}\nrefresh: {listen: %q, advertise: %q, token: t, %s}\n", test.listen, test.advertise, test.tls)))
		if c.Refresh.Advertise != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%+v: %q, %v", test, c.Refresh.Advertise, err)
		}
	}
}
