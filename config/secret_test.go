package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
)

const planted = "s3cr3t-planted"

// Nothing that prints a Config prints a secret.
func TestSecretsNotPrinted(t *testing.T) {
	c := full()
	c.XMPP.Secret, c.Contacts.Token, c.Refresh.Token = planted, planted, planted
	c.Ejabberd.API.Token, c.Ejabberd.API.Password = planted, planted
	c.Contacts.Headers = map[string]Secret{"x-key": planted}
	c.Refresh.Tokens = []Secret{planted, "x" + planted}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		fmt.Fprintf(&out, verb+"\n", c)
		fmt.Fprintf(&out, verb+"\n", &c)
		fmt.Fprintf(&out, verb+"\n", c.XMPP.Secret)
		fmt.Fprintf(&out, verb+"\n", c.Contacts.Headers)
		fmt.Fprintf(&out, verb+"\n", c.Refresh.Tokens)
	}
	fmt.Fprintln(&out, c, c.XMPP.Secret)
	if err := json.NewEncoder(&out).Encode(c); err != nil {
		t.Fatal(err)
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("x", "config", c, "pointer", &c, "secret", c.XMPP.Secret, "headers", c.Contacts.Headers, "tokens", c.Refresh.Tokens)
	}
	for _, form := range []string{planted, fmt.Sprintf("%x", planted), fmt.Sprintf("%X", planted)} {
		if strings.Contains(out.String(), form) {
			t.Errorf("%s in %s", form, out.String())
		}
	}
	if n := strings.Count(out.String(), redacted); n < 50 {
		t.Errorf("%q %d times in %s", redacted, n, out.String())
	}
	if c.XMPP.Secret.Reveal() != planted {
		t.Error("Reveal does not")
	}
}

// No error about a key that holds a secret tells it, whichever way the secret
// is written and wherever else the file is wrong.
func TestSecretsNotInErrors(t *testing.T) {
	secretKeys := []struct{ yaml, env string }{
		{"xmpp: {secret: VALUE, domain: contacts.example.org, hosts: [example.org]}\ncontacts: {url: \"http://x/%s\"}\n", "XMPP_SECRET"},
		{minimal + "refresh: {token: VALUE}\n", "REFRESH_TOKEN"},
		{minimal + "refresh: {tokens: [x, VALUE]}\n", "REFRESH_TOKENS"},
		{minimal + "refresh: {tokens: VALUE}\n", "REFRESH_TOKENS"},
		{strings.Replace(minimal, "%s\"", "%s\", token: VALUE", 1), "CONTACTS_TOKEN"},
		{minimal + "ejabberd: {api: {url: \"http://x/api\", token: VALUE}}\n", "EJABBERD_API_TOKEN"},
		{minimal + "ejabberd: {api: {url: \"http://x/api\", user: a@example.org, password: VALUE}}\n", "EJABBERD_API_PASSWORD"},
		{strings.Replace(minimal, "%s\"", "%s\", headers: {X-Key: VALUE}", 1), "CONTACTS_HEADERS"},
		{strings.Replace(minimal, "%s\"", "%s\", headers: VALUE", 1), "CONTACTS_HEADERS"},
	}
	// How the secret is written wrongly.
	values := []string{
		`"PLANTED\n"`, `"PLANTED\r\nX: y"`, `"PLANTED\0"`, "[PLANTED]", "{PLANTED: 1}", "{PLANTED}", "{a: {PLANTED: b}}", `["PLANTED: x"]`,
		"*PLANTED", "&PLANTED x\x01", "!PLANTED x", "!!int PLANTED", "!!binary PLANTED", "@PLANTED", "`PLANTED", "%PLANTED", "\"PLANTED", "'PLANTED", "|PLANTED",
		"PLANTED: PLANTED", "{PLANTED", "[PLANTED", "\"\\PLANTED\"", "PLANTED\n\tPLANTED", "? PLANTED", "<<: PLANTED",
		"\"PLANTED\"}\nlog: {level: 5}\n#", "\"PLANTED\", nonsense: 1", "\"PLANTED\", secret=PLANTED: 2", "\"PLANTED\"}\nxmpp: {}\n#", "\"PLANTED\"}\nbad\n#",
		"\"PLANTED\xff\"", "\"PLANTED\"}\n---\n{a: PLANTED",
	}
	for _, k := range secretKeys {
		for i, v := range values {
			if v == "{PLANTED: 1}" && strings.Contains(k.yaml, "headers: VALUE") {
				continue // there it is the name of a header
			}
			if strings.Contains(k.yaml, "tokens: VALUE") && slices.Contains([]string{`"PLANTED\n"`, "[PLANTED]", `["PLANTED: x"]`}, v) {
				continue // there it is right, as is a space at the end
			}
			v = strings.ReplaceAll(v, "PLANTED", planted)
			t.Run(fmt.Sprintf("%s %d", k.env, i), func(t *testing.T) { // the name gets into the path of the file
				clearEnv(t)
				_, err := load(write(t, strings.Replace(k.yaml, "VALUE", v, 1)))
				if err == nil {
					t.Fatalf("no error for %s", v)
				}
				if strings.Contains(err.Error(), planted) || strings.Contains(err.Error(), "\n") {
					t.Errorf("error %q", err)
				}
			})
		}
	}
	for _, env := range []string{"XMPP_SECRET", "CONTACTS_TOKEN", "REFRESH_TOKEN", "CONTACTS_HEADERS", "REFRESH_TOKENS", "EJABBERD_API_TOKEN", "EJABBERD_API_PASSWORD"} {
		for i, v := range []string{planted + "\n", `{"X-Key": "` + planted, `{"X-Key": ["` + planted + `"]}`, `{"X ` + planted + `": ""}`, `{"X-Key": "` + planted + `\n"}`} {
			if strings.HasPrefix(v, "{") && env != "CONTACTS_HEADERS" {
				continue
			}
			t.Run(fmt.Sprintf("environment %s %d", env, i), func(t *testing.T) {
				clearEnv(t)
				if env == "REFRESH_TOKENS" {
					v = "x, " + planted + "\n" + planted // one with a line end is none, and around it is space
				}
				t.Setenv("ROSTERD_"+env, v)
				if _, err := load(write(t, minimal)); err == nil || strings.Contains(err.Error(), planted) {
					t.Errorf("error %v", err)
				}
			})
		}
	}
	for _, v := range []string{"http://u:PLANTED@x/%s", "http://x/?k=PLANTED", "http://x/#PLANTED%s", "http://x:PLANTED@/%s"} {
		t.Run("URL of a host "+v[7:9], func(t *testing.T) {
			clearEnv(t)
			own := fmt.Sprintf("%%s\", hosts: {example.org: {url: %q}}", strings.Replace(v, "PLANTED", planted, 1))
			_, err := load(write(t, strings.Replace(minimal, "%s\"", own, 1)))
			if err == nil || !strings.HasPrefix(err.Error(), "contacts.hosts.example.org.url: ") || strings.Contains(err.Error(), planted) {
				t.Errorf("error %v", err)
			}
		})
	}
	// What a password has in it that ends it in a URL, before or behind what is planted.
	for _, password := range []string{"p@PLANTED", "PLANTED@p", "/PLANTED", "12/PLANTED", "PLANTED/1", "?PLANTED", "1?PLANTED", "#PLANTED", "1#PLANTED",
		"%PLANTED", "PLANTED%", "PLANTED%4", "p PLANTED", "@PLANTED", "1,PLANTED@h", "PLANTED\t", "p@[PLANTED]", "p@h:PLANTED", "p@h,PLANTED", "@/PLANTED", "@h?PLANTED"} {
		for _, user := range []string{"rosterd", "ros@terd", "ros/terd", ""} {
			t.Run("URL of a database "+user+strings.Replace(password, "PLANTED", "", 1), func(t *testing.T) {
				clearEnv(t)
				t.Setenv("ROSTERD_STATE_URL", "postgres://"+user+":"+strings.Replace(password, "PLANTED", planted, 1)+"@db.example.org/rosterd")
				t.Setenv("ROSTERD_REFRESH_ADVERTISE", "http://rosterd-1:5290")
				_, err := load(write(t, minimal))
				if err == nil || !strings.HasPrefix(err.Error(), "state.url: ") || !strings.Contains(err.Error(), "write @ as %40") || strings.Contains(err.Error(), planted) {
					t.Errorf("error %v", err)
				}
			})
		}
	}
	for _, key := range []string{"contacts.bulk_url", "contacts.edit_url", "ejabberd.api.url"} {
		for _, v := range []string{"http://u:PLANTED@x/", "http://x/?k=PLANTED%s", "http://x/#PLANTED", "http://x:PLANTED@/"} {
			t.Run(key+" "+v[7:9], func(t *testing.T) {
				clearEnv(t)
				t.Setenv(envName(key), strings.Replace(v, "PLANTED", planted, 1))
				_, err := load(write(t, minimal))
				if err == nil || !strings.HasPrefix(err.Error(), key+": ") || strings.Contains(err.Error(), planted) {
					t.Errorf("error %v", err)
				}
			})
		}
	}
	// All secrets are right and something else is wrong, key by key.
	var c Config
	for _, k := range c.keys() {
		t.Run("beside "+k.name, func(t *testing.T) {
			clearEnv(t)
			for _, env := range []string{"XMPP_SECRET", "CONTACTS_TOKEN", "REFRESH_TOKEN", "REFRESH_TOKENS"} {
				t.Setenv("ROSTERD_"+env, planted)
			}
			t.Setenv("ROSTERD_CONTACTS_HEADERS", `{"X-Key": "`+planted+`"}`)
			t.Setenv("ROSTERD_EJABBERD_API_URL", "http://x/api")
			t.Setenv("ROSTERD_EJABBERD_API_USER", "a@example.org")
			t.Setenv("ROSTERD_EJABBERD_API_PASSWORD", planted)
			t.Setenv(envName(k.name), "\x01 "+k.name)
			if _, err := load(write(t, minimal)); err == nil || !strings.HasPrefix(err.Error(), k.name) || strings.Contains(err.Error(), planted) {
				t.Errorf("error %v", err)
			}
		})
	}
}
