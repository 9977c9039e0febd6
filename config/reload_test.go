package config

import (
	"reflect"
	"slices"
	"testing"
)

// A running rosterd takes over secrets, certificates and the log level, and is told
// of everything else that differs.
func TestReload(t *testing.T) {
	running, next := full(), full()
	if now, took, left, err := running.Reload(next); took != nil || left != nil || err != nil || !reflect.DeepEqual(now, running) {
		t.Errorf("of the same: took %q, left %q, %v", took, left, err)
	}
	next.XMPP.Secret, next.XMPP.SecretFile, next.XMPP.TLS.CA = "new", "/s", "/ca"
	next.Contacts.TLS.CA, next.Contacts.Token, next.Contacts.Headers = "/backends", "new", map[string]Secret{"x-api.key": "new"}
	next.Refresh.Token, next.Refresh.Tokens, next.Refresh.TLS.Cert = "new", []Secret{"d"}, "new.pem"
	next.Ejabberd.API.Password = "new"
	next.Log.Level = "warn"
	want := next
	next.XMPP.Hosts, next.Contacts.MaxAge, next.Refresh.Listen = []string{"example.net"}, 0, "127.0.0.1:1"
	next.State.ForgetAfter, next.Log.Format, next.Contacts.EditURL, next.Ejabberd.API.URL = 0, "text", "", "http://x/api"
	now, took, left, err := running.Reload(next)
	if err != nil || !reflect.DeepEqual(now, want) ||
		!slices.Equal(took, []string{"xmpp.secret", "xmpp.secret_file", "xmpp.tls.ca", "contacts.headers", "contacts.token", "contacts.tls.ca", "refresh.token", "refresh.tokens", "refresh.tls.cert", "ejabberd.api.password", "log.level"}) ||
		!slices.Equal(left, []string{"xmpp.hosts", "contacts.max_age", "contacts.edit_url", "refresh.listen", "state.forget_after", "ejabberd.api.url", "log.format"}) {
		t.Errorf("took %q, left %q, %v: %+v", took, left, err, now)
	}
}

func TestReloadTogether(t *testing.T) {
	// On loopback the new one needs no token, but where rosterd listens it does.
	running, next := full(), full()
	next.Refresh = Refresh{Listen: "127.0.0.1:5291", MaxBytes: running.Refresh.MaxBytes}
	running.Refresh.TLS = RefreshTLS{}
	if err := next.Validate(); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := running.Reload(next); err == nil {
		t.Error("callers from everywhere need no token any more")
	}
	// TLS is not turned on, nor off.
	running, next = full(), full()
	next.Refresh.TLS = RefreshTLS{}
	for range 2 {
		now, took, left, err := running.Reload(next)
		if err != nil || took != nil || !slices.Equal(left, []string{"refresh.tls.cert", "refresh.tls.key", "refresh.tls.client_ca"}) || now.Refresh.TLS != running.Refresh.TLS {
			t.Errorf("took %q, left %q, %v", took, left, err)
		}
		running, next = next, running
	}
}
