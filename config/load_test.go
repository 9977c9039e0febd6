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
		t.Setenv(k.env(), "") // empty counts as not set
	}
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
		XMPP: XMPP{Address: "[::1]:5348", Domain: "rosters.example.org", Secret: "a", Hosts: []string{"example.org", "b\u00FCcher.example"}, Unrestricted: true, Presence: "relay"},
		Contacts: Contacts{
			URL: "https://example.org/%d/%s?x=%%", Timeout: 10 * time.Second, MaxInFlight: 7, MaxBytes: 70,
			Headers: map[string]Secret{"x-api.key": "b", "x-two": ""}, Token: "c",
			Hosts: map[string]ContactsHost{"b\u00FCcher.example": {URL: "https://%d/%s?Key=K"}, "example.org": {}},
		},
		Refresh: Refresh{Listen: ":5291", Token: "d", MaxBytes: 80},
		Metrics: Metrics{Listen: "0.0.0.0:0"},
		Log:     Log{Level: "debug", Format: "json"},
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
contacts:
  url: https://example.org/%d/%s?x=%%
  timeout: 10s
  max_in_flight: 7
  max_bytes: 70
  headers:
    X-Api.Key: b
    X-Two: ""
  token: c
  hosts:
    Example.org: # as all
    BÜCHER.example.:
      URL: https://%d/%s?Key=K
refresh:
  listen: :5291
  token: d
  max_bytes: 80
metrics: {listen: "0.0.0.0:0"}
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
	empty := minimum
	empty.Contacts.Hosts = map[string]ContactsHost{"example.org": {}}
	tests := []struct {
		name, yaml string
		want       Config
	}{
		{"everything", fullYAML, full()},
		{"defaults", minimal, minimum},
		{"keys without values", minimal + "refresh:\nlog:\n  level:\nmetrics: {listen: ~}", minimum},
		{"one document that begins with a marker", "---" + minimal, minimum},
		{"hosts as one text", strings.Replace(minimal, "[example.org]", "Example.org.", 1), minimum},
		{"off is no boolean", strings.Replace(minimal, "hosts:", "presence: off, unrestricted: False, hosts:", 1), off},
		{"URLs of hosts alone", strings.Replace(minimal, `url: "http://127.0.0.1:8000/contacts/%s"`, `hosts: {example.org: {url: "http://x/%s"}}`, 1), own},
		{"hosts as JSON in one text", strings.Replace(minimal, `url: "http://127.0.0.1:8000/contacts/%s"`, `hosts: '{"example.org": {"url": "http://x/%s"}}'`, 1), own},
		{"host without URL", strings.Replace(minimal, "%s\"", "%s\", hosts: {example.org: {url: }}", 1), empty},
		{"host with an empty URL", strings.Replace(minimal, "%s\"", "%s\", hosts: {example.org: {url: ''}}", 1), empty},
		{"listeners with any port", minimal + "refresh: {listen: \"localhost:0\"}\nmetrics: {listen: \"localhost:0\"}", one},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			clearEnv(t)
			got, err := Load(write(t, tc.yaml))
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
			c, err := Load(name)
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
		"XMPP_UNRESTRICTED": "true", "XMPP_PRESENCE": "relay", "CONTACTS_HOSTS": `{"XN--bcher-kva.example": {"Url": "https://%d/%s?Key=K"}, "example.org.": null}`,
		"REFRESH_LISTEN": ":5291", "REFRESH_TOKEN": "d", "REFRESH_MAX_BYTES": "80",
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
		if c, err := Load(""); err != nil || !reflect.DeepEqual(c, full()) {
			t.Errorf("Load = %+v, %v, want %+v", c, err, full())
		}
	})
	t.Run("over the file", func(t *testing.T) {
		set(t)
		file := minimal + "refresh: {token: z}\nlog: {level: loud}\n"
		file = strings.Replace(file, "%s\"", "%s\", headers: {X-Three: z}, token: z, hosts: {example.org: {url: \"http://z/%s\"}}", 1)
		if c, err := Load(write(t, file)); err != nil || !reflect.DeepEqual(c, full()) {
			t.Errorf("Load = %+v, %v, want %+v", c, err, full())
		}
	})
	t.Run("empty is not set", func(t *testing.T) {
		clearEnv(t)
		if c, err := Load(write(t, fullYAML)); err != nil || !reflect.DeepEqual(c, full()) {
			t.Errorf("Load = %+v, %v, want %+v", c, err, full())
		}
	})
	t.Run("files", func(t *testing.T) {
		clearEnv(t)
		for _, k := range []string{"XMPP_SECRET_FILE", "CONTACTS_TOKEN_FILE", "REFRESH_TOKEN_FILE"} {
			t.Setenv("ROSTERD_"+k, write(t, k))
		}
		c, err := Load(write(t, strings.Replace(minimal, `secret: "s"`, `secret: ""`, 1)))
		if err != nil || c.XMPP.Secret != "XMPP_SECRET_FILE" || c.Contacts.Token != "CONTACTS_TOKEN_FILE" || c.Refresh.Token != "REFRESH_TOKEN_FILE" {
			t.Errorf("Load: %v, secrets %q, %q, %q", err, c.XMPP.Secret.Reveal(), c.Contacts.Token.Reveal(), c.Refresh.Token.Reveal())
		}
	})
	t.Run("bad", func(t *testing.T) {
		clearEnv(t)
		t.Setenv("ROSTERD_CONTACTS_TIMEOUT", "7")
		const want = `contacts.timeout: wants a time with its unit, such as 7s, got "7"`
		if _, err := Load(write(t, minimal)); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	})
	for value, want := range map[string]string{
		`http://x/%s`:                              "contacts.hosts: wants a mapping (in the environment: a JSON object) of domains to mappings with url",
		`null`:                                     "contacts.hosts: wants a mapping (in the environment: a JSON object) of domains to mappings with url",
		`{"example.org": {"url": "http://x/%s"}`:   "contacts.hosts: wants a mapping (in the environment: a JSON object) of domains to mappings with url",
		`{"example.org": "http://x/%s"}`:           "contacts.hosts.example.org: wants a mapping with url",
		`{"example.org": {"url": ["planted"]}}`:    "contacts.hosts.example.org.url: wants a URL",
		`{"example.org": {"uri=planted": ""}}`:     "contacts.hosts.example.org.uri…: wants to be left out: unknown key, there are url",
		`{"example.org": {"url": "", "URL": ""}}`:  "contacts.hosts.example.org.url: wants to stand once",
		`{"example.org": {}, "Example.org.": {}}`:  `contacts.hosts: wants each domain once, got "example.org" twice`,
		`{"example.net": {"url": "http://x/%s"}}`:  "contacts.hosts.example.net: wants a domain of xmpp.hosts",
		`{"http://x/?planted": {}}`:                "contacts.hosts.http…: wants a domain name",
		`{"example.org": {"url": "x?k=planted"}}`:  `contacts.hosts.example.org.url: wants an http or https URL that contains %s, got "x" and a query that is not shown`,
		`{"example.org": {"url": "http://x/%d0"}}`: `contacts.hosts.example.org.url: wants either %D0 for the encoded byte, or no hexadecimal digit behind %d, got "http://x/%d0"`,
	} {
		t.Run("bad hosts "+value, func(t *testing.T) {
			clearEnv(t)
			t.Setenv("ROSTERD_CONTACTS_HOSTS", value)
			if _, err := Load(write(t, minimal)); err == nil || err.Error() != want {
				t.Errorf("error\n\t%v, want\n\t%s", err, want)
			}
		})
	}
}

func TestLoadWhichFile(t *testing.T) {
	t.Run("the local one", func(t *testing.T) {
		clearEnv(t)
		t.Chdir(filepath.Dir(write(t, minimal)))
		if c, err := Load(""); err != nil || c.XMPP.Domain != "contacts.example.org" {
			t.Errorf("Load = %+v, %v", c, err)
		}
	})
	t.Run("none", func(t *testing.T) {
		clearEnv(t)
		t.Chdir(t.TempDir())
		if _, err := os.Stat(systemFile); err == nil {
			t.Skipf("this machine has a %s", systemFile)
		}
		const want = "xmpp.domain: wants this component's own domain, got nothing (there is no configuration file: neither ./config.yaml nor /etc/rosterd/config.yaml exists)"
		if _, err := Load(""); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	})
	t.Run("one that is not there", func(t *testing.T) {
		clearEnv(t)
		t.Chdir(filepath.Dir(write(t, minimal)))
		const want = `configuration file "none.yaml": no such file or directory`
		if _, err := Load("none.yaml"); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	})
	t.Run("a local one that cannot be read", func(t *testing.T) {
		clearEnv(t)
		t.Chdir(t.TempDir())
		if err := os.Mkdir("config.yaml", 0o700); err != nil {
			t.Fatal(err)
		}
		const want = `configuration file "./config.yaml": is a directory`
		if _, err := Load(""); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	})
	t.Run("one that is too long", func(t *testing.T) {
		clearEnv(t)
		if _, err := Load(write(t, minimal+"#"+strings.Repeat("x", maxConfigFile))); err == nil || !strings.HasSuffix(err.Error(), ": too long") {
			t.Errorf("error %v", err)
		}
	})
}

func TestSecretFile(t *testing.T) {
	long := strings.Repeat("x", maxSecretFile)
	tests := []struct{ name, content, want, err string }{
		{"text", "a b", "a b", ""},
		{"line", "a\n", "a", ""},
		{"line of Windows", "a\r\n", "a", ""},
		{"longest", long, long, ""},
		{"too long", long + "x", "", `xmpp.secret_file: wants a readable file of at most 64 KiB, got "FILE": too long`},
		{"empty", "", "", `xmpp.secret_file: wants a file with a text in it, got "FILE", which is empty`},
		{"empty line", "\n", "", `xmpp.secret_file: wants a file with a text in it, got "FILE", which is empty`},
		{"two lines", "a\nb\n", "", "xmpp.secret: wants a text without control characters"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			clearEnv(t)
			t.Chdir(t.TempDir())
			if err := os.WriteFile("s", []byte(tc.content), 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := Load(write(t, strings.Replace(minimal, `secret: "s"`, `secret_file: s`, 1)))
			if got := fmt.Sprint(err); err != nil && got != strings.Replace(tc.err, "FILE", "s", 1) || (err == nil) != (tc.err == "") {
				t.Fatalf("error %v, want %s", err, tc.err)
			}
			if c.XMPP.Secret.Reveal() != tc.want {
				t.Errorf("secret %q, want %q", c.XMPP.Secret.Reveal(), tc.want)
			}
		})
	}
}
