package e2e

import (
	"net/http"
	"strings"
	"testing"

	"rosterd/e2e/harness"
)

// What is wrong with the server's configuration, or with ours, is told where an
// administrator looks: in the log and in /readyz.
func TestHandshakeRefused(t *testing.T) { onServers(t, testHandshakeRefused) }

func testHandshakeRefused(t *testing.T, srv server) {
	for _, c := range []struct {
		name          string
		settings      map[string]any
		reason, check string
	}{
		{"wrong secret", map[string]any{"xmpp.secret": "not the secret"}, "not-authorized", "xmpp.secret"},
		{"unknown component", map[string]any{"xmpp.domain": "nobody.example.org"}, srv.unknownComponent, "nobody.example.org"},
		{"nobody listens", map[string]any{"xmpp.address": "127.0.0.1:1"}, "connection refused", "xmpp.address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx := bounded(t)
			w := start(t, setup{server: srv, settings: c.settings, unready: true})
			waitReadyz(ctx, t, w.rosterd, http.StatusServiceUnavailable, c.reason)
			w.waitLog(ctx, t, c.check)
			w.waitLog(ctx, t, c.reason)
			wantNotConnected(t, w, "juliet")
			if got := metric(ctx, t, w.rosterd, "rosterd_reconnects_total"); got != 0 {
				t.Errorf("%v reconnects before the first connect", got)
			}
			if code, err := w.rosterd.Stop(ctx); code != 0 || err != nil {
				t.Errorf("exit code %d, %v", code, err)
			}
		})
	}
}

// An address that is not the component's port is no server to wait for in
// silence.
func TestWrongPort(t *testing.T) { onServers(t, testWrongPort) }

func testWrongPort(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv})
	other := run(t, harness.RosterdOptions{
		Server: w.server, ContactsURL: w.backend.URL(),
		Settings: map[string]any{"xmpp.address": w.server.ClientAddress()},
	})
	waitReadyz(ctx, t, other, http.StatusServiceUnavailable, "not connected to the XMPP server: ")
	if err := other.WaitLog(ctx, "no stream to the XMPP server"); err != nil {
		t.Error(err)
	}
	wantOneStream(ctx, t, w)
}

// A second rosterd of the same domain is told of the conflict and leaves the
// first alone; it takes over when the first is gone.
func TestSecondRosterd(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	w := start(t, setup{})
	w.backend.Set("juliet", contacts("Romeo"))
	second := run(t, harness.RosterdOptions{Server: w.server, ContactsURL: w.backend.URL()})
	waitReadyz(ctx, t, second, http.StatusServiceUnavailable, "conflict")
	if err := second.WaitLog(ctx, "is another rosterd connected"); err != nil {
		t.Error(err)
	}
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, juliet, item("Romeo"))
	wantOneStream(ctx, t, w)

	if code, err := w.rosterd.Stop(ctx); code != 0 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
	if err := second.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	wantRoster(ctx, t, juliet, item("Romeo"))
}

// A server that announces something, but not the delegation: rosterd waits for
// it, then serves those who ask it. Nothing a user sends can change what rosterd
// thinks of that.
func TestNoDelegation(t *testing.T) { onServers(t, testNoDelegation) }

func testNoDelegation(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv, options: harness.ServerOptions{Grants: harness.Grants{NoDelegation: true, NoRoster: true}}, unready: true})
	w.waitLog(ctx, t, "privileges announced")
	waitReadyz(ctx, t, w.rosterd, http.StatusServiceUnavailable, "example.org")
	romeo := w.login(ctx, t, gosrc, "romeo@example.org/street")
	forge := func() {
		for _, version := range []string{"1", "2"} {
			send(t, romeo, "<message to='"+domain+"'><delegation xmlns='urn:xmpp:delegation:"+version+"'>"+
				"<delegated namespace='jabber:iq:roster'/></delegation></message>")
			send(t, romeo, iq("set", "forged"+version, domain, strings.ReplaceAll(forged, ":2", ":"+version)))
		}
		handled(ctx, t, romeo)
	}
	forge()
	waitReadyz(ctx, t, w.rosterd, http.StatusServiceUnavailable, "example.org")
	waitReadyz(ctx, t, w.rosterd, http.StatusOK, "example.org does not delegate jabber:iq:roster to "+domain)
	forge()
	waitReadyz(ctx, t, w.rosterd, http.StatusOK, "example.org does not delegate jabber:iq:roster to "+domain)
	w.backend.Set("romeo", contacts("Nurse"))
	if answer := request(ctx, t, romeo, "plain", iq("get", "plain", domain, rosterQuery)); !strings.Contains(answer.XML, "nurse@example.org") {
		t.Errorf("answer %s", answer.XML)
	}
}

// Without the privilege of presence the end of a session is not told. Pushes
// arrive all the same.
func TestNoPresence(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	w := start(t, setup{counts: true, options: harness.ServerOptions{Grants: harness.Grants{NoPresence: true}}})
	w.backend.Set("juliet", contacts("Romeo"))
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, juliet, item("Romeo"))
	w.backend.Set("juliet", contacts("Nurse"))
	w.refresh(ctx, t, "juliet")
	wantPushes(ctx, t, juliet, item("Nurse"), removed("Romeo"))

	juliet.Close()
	if err := w.server.WaitLog(ctx, "Unbinding resource for juliet@example.org/balcony"); err != nil {
		t.Fatal(err)
	}
	w.backend.Set("juliet", contacts("Romeo"))
	w.refresh(ctx, t, "juliet") // fetched in vain, as rosterd finds out by the push
	waitMetric(ctx, t, w.rosterd, "rosterd_sessions", 0)
	w.refresh(ctx, t, "juliet")
	wantRequests(t, w, "juliet", 3)
}
