package e2e

import (
	"net/http"
	"strings"
	"testing"

	"rosterd/e2e/harness"
)

// What is wrong with the server's configuration, or with ours, is told where an
// administrator looks: in the log and in /readyz.
func TestHandshakeRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name          string
		settings      map[string]any
		reason, check string
	}{
		{"wrong secret", map[string]any{"xmpp.secret": "not the secret"}, "not-authorized", "xmpp.secret"},
		{"unknown component", map[string]any{"xmpp.domain": "nobody.example.org"}, "host-unknown", "xmpp.domain"},
		{"nobody listens", map[string]any{"xmpp.address": "127.0.0.1:1"}, "connection refused", "xmpp.address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx := bounded(t)
			w := start(t, setup{settings: c.settings, unready: true})
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
func TestWrongPort(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	w := start(t, setup{})
	other := run(t, harness.RosterdOptions{
		Prosody: w.prosody, ContactsURL: w.backend.URL(),
		Settings: map[string]any{"xmpp.address": w.prosody.ClientAddress()},
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
	second := run(t, harness.RosterdOptions{Prosody: w.prosody, ContactsURL: w.backend.URL()})
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

// A server that does not delegate the namespace: nothing a user sends can change
// what rosterd thinks of that.
func TestNoDelegation(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	w := start(t, setup{prosody: harness.ProsodyOptions{NoDelegation: true}, unready: true})
	reason := "example.org does not delegate jabber:iq:roster to " + domain
	w.waitLog(ctx, t, "privileges announced")
	waitReadyz(ctx, t, w.rosterd, http.StatusServiceUnavailable, reason)
	romeo := w.login(ctx, t, gosrc, "romeo@example.org/street")
	send(t, romeo, "<message to='"+domain+"' from='example.org'><delegation xmlns='urn:xmpp:delegation:2'>"+
		"<delegated namespace='jabber:iq:roster'/></delegation></message>")
	handled(ctx, t, romeo)
	waitReadyz(ctx, t, w.rosterd, http.StatusServiceUnavailable, reason)
}

// A server that does not permit the pushes: queries are served; refreshes fail,
// and say why, each in its answer, and once in the log.
func TestNoPrivilege(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	w := start(t, setup{prosody: harness.ProsodyOptions{NoPrivilegeIQ: true}})
	w.backend.Set("juliet", contacts("Romeo"))
	w.backend.Set("mercutio", contacts("Romeo"))
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	mercutio := w.login(ctx, t, slixmpp, "mercutio@example.org/street")
	wantRoster(ctx, t, juliet, item("Romeo"))
	wantRoster(ctx, t, mercutio, item("Romeo"))
	w.refresh(ctx, t, "juliet") // no change, nothing to push
	for _, name := range []string{"Nurse", "Paris", "Tybalt"} {
		w.backend.Set("juliet", contacts(name))
		w.backend.Set("mercutio", contacts(name))
		for _, user := range []string{"juliet", "mercutio"} {
			reason := w.wantFailedRefresh(ctx, t, user)
			if !strings.Contains(reason, "example.org has not permitted privileged IQs") {
				t.Errorf("reason %q", reason)
			}
		}
	}
	if n := strings.Count(w.rosterd.Log(), "roster pushes cannot be delivered"); n != 1 {
		t.Errorf("logged %d times, want once", n)
	}
	wantQuiet(ctx, t, juliet)
	wantRoster(ctx, t, juliet, item("Tybalt"))
	wantOneStream(ctx, t, w)
}

// Without the privilege of presence the end of a session is not told. Pushes
// arrive all the same.
func TestNoPresence(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	w := start(t, setup{prosody: harness.ProsodyOptions{NoPresence: true}})
	w.backend.Set("juliet", contacts("Romeo"))
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, juliet, item("Romeo"))
	w.backend.Set("juliet", contacts("Nurse"))
	w.refresh(ctx, t, "juliet")
	wantPushes(ctx, t, juliet, item("Nurse"), removed("Romeo"))

	juliet.Close()
	if err := w.prosody.WaitLog(ctx, "Unbinding resource for juliet@example.org/balcony"); err != nil {
		t.Fatal(err)
	}
	w.backend.Set("juliet", contacts("Romeo"))
	w.refresh(ctx, t, "juliet") // fetched in vain, as rosterd finds out by the push
	waitMetric(ctx, t, w.rosterd, "rosterd_sessions", 0)
	w.refresh(ctx, t, "juliet")
	wantRequests(t, w, "juliet", 3)
}
