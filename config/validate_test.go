package config

import (
	"math"
	"testing"
)

// Validate is for configurations that were not loaded, too.
func TestValidateByHand(t *testing.T) {
	valid := full()
	if err := valid.Validate(); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"default", func(c *Config) { *c = Default() }, "xmpp.domain: wants this component's own domain, got nothing"},
		{"domain that is not prepared", func(c *Config) { c.XMPP.Domain = "A.example" }, `xmpp.domain: wants a domain name that is prepared, "a.example", got "A.example"`},
		{"host that is not prepared", func(c *Config) { c.XMPP.Hosts = []string{"a."} }, `xmpp.hosts: wants a domain name that is prepared, "a", got "a."`},
		{"headers that differ in case", func(c *Config) { c.Contacts.Headers = map[string]Secret{"X-A": "", "x-a": ""} }, "contacts.headers.x-a: wants each header once"},
		{"no presence", func(c *Config) { c.XMPP.Presence = "" }, "xmpp.presence: wants auto, relay or off, got nothing"},
		{"relay without leave", func(c *Config) { c.XMPP.Unrestricted = false }, `xmpp.presence: wants auto or off, as xmpp.unrestricted is false, got "relay"`},
		{"own host that is not prepared", func(c *Config) { c.Contacts.Hosts = map[string]ContactsHost{"Example.org": {}} }, `contacts.hosts.example.org: wants a domain name that is prepared, "example.org", got "Example.org"`},
		{"own host that is none", func(c *Config) { c.Contacts.Hosts = map[string]ContactsHost{"a/b": {}} }, "contacts.hosts.a…: wants a domain name"},
		{"no URL at all", func(c *Config) { c.Contacts.URL, c.Contacts.Hosts = "", nil }, "contacts.url: wants an http or https URL with %s in its path or query for users of example.org, got nothing"},
		{"no timeout", func(c *Config) { c.Contacts.Timeout = 0 }, `contacts.timeout: wants a time from 10ms to 10m, got 0s`},
		{"server name that is none", func(c *Config) { c.XMPP.TLS.ServerName = "a/b" }, `xmpp.tls.server_name: wants a domain name, got "a/b"`},
		{"no largest stanza", func(c *Config) { c.XMPP.MaxStanzaBytes = 0 }, "xmpp.max_stanza_bytes: wants a number of bytes from 10000 to 67108864, got 0"},
		{"404 without a meaning", func(c *Config) { c.Contacts.NotFound = "" }, "contacts.not_found: wants error or empty, got nothing"},
		{"no part that is removed", func(c *Config) { c.Contacts.MaxRemoved = math.NaN() }, "contacts.max_removed: wants a number from 0 to 1, got NaN"},
		{"no queries", func(c *Config) { c.Limits = Limits{QueriesBurst: 1, QueriesPerSecond: math.NaN()} }, "limits.queries_per_second: wants a number from 0.001 to 1000000, got NaN"},
		{"an empty token", func(c *Config) { c.Refresh.Tokens = []Secret{""} }, "refresh.tokens: wants each token once, and none empty"},
		{"an age below zero", func(c *Config) { c.Contacts.MaxAge = -1 }, `contacts.max_age: wants a time from 0s to 24h, got -1ns`},
		{"nobody in bulk", func(c *Config) { c.Contacts.BulkSize = 0 }, "contacts.bulk_size: wants a number from 1 to 10000, got 0"},
		{"bulk URL of a host with a user", func(c *Config) { c.Contacts.Hosts = map[string]ContactsHost{"example.org": {BulkURL: "http://x/%s"}} }, `contacts.hosts.example.org.bulk_url: wants an http or https URL without %s, as it is for many users at once, got "http://x/%s"`},
		{"forgotten before they were seen", func(c *Config) { c.State.ForgetAfter = -1 }, `state.forget_after: wants a time from 0s, which is never, got -1ns`},
		{"no database", func(c *Config) { c.State = State{Path: Default().State.Path, URL: "mysql://a:b@c/d"} }, "state.url: wants " + wantsDatabase},
		{"a database without a name", func(c *Config) { c.State = State{Path: Default().State.Path, URL: "postgres://a:b@c/"} }, "state.url: wants " + wantsDatabase},
		{"a file and a database", func(c *Config) { c.State.URL = "postgres://a:b@c/d" }, `state.path: wants to be left out, as state.url is set, got "/var/lib/x/y.db"`},
		{"a pair that is not reached", func(c *Config) { c.State = State{Path: Default().State.Path, URL: "postgres://a:b@c/d"} }, "refresh.advertise: wants " + wantsAdvertise + ", as state.url is set, got nothing"},
		{"reached without TLS", func(c *Config) { c.Refresh.Advertise = "http://rosterd-1:5290" }, "refresh.advertise: wants " + wantsAdvertise + `, got "http://rosterd-1:5290"`},
		{"reached at a path", func(c *Config) { c.Refresh.Advertise = "https://rosterd-1:5290/x" }, "refresh.advertise: wants " + wantsAdvertise + `, got "https://rosterd-1:5290/x"`},
		{"reached at a port that is none", func(c *Config) { c.Refresh.Advertise = "https://rosterd-1:99999" }, "refresh.advertise: wants " + wantsAdvertise + `, got "https://rosterd-1:99999"`},
		{"reached without a port", func(c *Config) { c.Refresh.Advertise = "https://rosterd-1:" }, "refresh.advertise: wants " + wantsAdvertise + `, got "https://rosterd-1:"`},
		{"reached with an empty query", func(c *Config) { c.Refresh.Advertise = "https://rosterd-1?" }, "refresh.advertise: wants " + wantsAdvertise + `, got "https://rosterd-1" and a query that is not shown`},
		{"reached with a password", func(c *Config) { c.Refresh.Advertise = "https://u:planted@rosterd-1" }, "refresh.advertise: wants " + wantsAdvertise + ", got one that is not shown, as it may contain a password"},
		{"reached, but alone", func(c *Config) { c.Refresh.Advertise = "https://rosterd-1:5290" }, `refresh.advertise: wants state.url beside it, got "https://rosterd-1:5290"`},
		{"an account with its password", func(c *Config) { c.Ejabberd.API.User = "admin@example.org:planted" }, "ejabberd.api.user: wants the JID of an account, as in admin@example.org, got one that is not shown, as it may contain a password"},
		{"bytes below zero", func(c *Config) { c.Refresh.MaxBytes = -1 }, "refresh.max_bytes: wants a number of bytes from 1 to 1073741824, got -1"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			c := full()
			tc.change(&c)
			if err := c.Validate(); err == nil || err.Error() != tc.want {
				t.Errorf("error %v, want %s", err, tc.want)
			}
		})
	}
}

func TestLoopback(t *testing.T) {
	for listen, want := range map[string]bool{
		"127.0.0.1:1": true, "127.9.9.9:1": true, "[::1]:1": true, "localhost:1": true, "LocalHost:0": true,
		":1": false, "0.0.0.0:1": false, "[::]:1": false, "192.0.2.1:1": false, "127.0.0.1.example:1": false, "localhost.example:1": false,
	} {
		c := full()
		c.Refresh = Refresh{Listen: listen, MaxBytes: 1}
		if err := c.Validate(); (err == nil) != want {
			t.Errorf("without a token on %s: %v", listen, err)
		}
		c.Refresh.Token = "t"
		if err := c.Validate(); err != nil {
			t.Errorf("with a token on %s: %v", listen, err)
		}
		c.Refresh.Token, c.Refresh.Tokens = "", []Secret{"t"}
		if err := c.Validate(); err != nil {
			t.Errorf("with one of the tokens on %s: %v", listen, err)
		}
		c.Refresh.Tokens, c.Refresh.TLS = nil, RefreshTLS{Cert: "a", Key: "b"}
		if err := c.Validate(); (err == nil) != want {
			t.Errorf("with TLS alone on %s: %v", listen, err)
		}
		c.Refresh.TLS.ClientCA = "c"
		if err := c.Validate(); err != nil {
			t.Errorf("with certificates of clients on %s: %v", listen, err)
		}
	}
}
