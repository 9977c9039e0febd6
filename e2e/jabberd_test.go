package e2e

import (
	"os"
	"strings"
	"testing"

	"rosterd/e2e/harness"
)

// jabberd2 cannot be served: its session manager answers each roster query from
// its own rosters, those to the component, too.
func TestJabberd(t *testing.T) {
	t.Parallel()
	if harness.Versions(os.Getenv("E2E_SUITE"))["jabberd2"] == "" {
		t.Skip("there is no jabberd2 on this machine: make matrix has one")
	}
	ctx := bounded(t)
	server, err := harness.StartJabberd(ctx, harness.ServerOptions{Users: users("juliet")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	backend := startBackend(t)
	backend.Set("juliet", contacts("Romeo"))
	w := &world{server: server, backend: backend}
	w.rosterd = run(t, harness.RosterdOptions{Server: server, ContactsURL: backend.URL()})
	w.waitLog(ctx, t, "connected to the XMPP server")

	t.Run("query", func(t *testing.T) {
		juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
		wantRoster(ctx, t, juliet)
		for _, to := range []string{"example.org", domain, domain + "/x"} {
			if answer := request(ctx, t, juliet, to, iq("get", to, to, rosterQuery)); answer.Type != "result" || strings.Contains(answer.XML, "<item") {
				t.Errorf("answer from %s: %s", to, answer.XML)
			}
		}
		wantRequests(t, w, "juliet", 0)
		t.Attr(harness.Cell, "no: jabberd2 answers roster queries itself, whomever they are to")
	})
	if code, err := w.rosterd.Stop(ctx); code != 0 || err != nil { // jabberd2 lets in both, and answers one of them
		t.Fatalf("exit code %d, %v", code, err)
	}
	t.Run("check", func(t *testing.T) {
		output, code := check(t, (&site{server: server, backend: backend}).settings(t), "--user", "juliet")
		if code == 0 || !strings.Contains(output, "FAIL example.org runs \"jabberd2 ") {
			t.Errorf("exit code %d, though nobody will be served:\n%s", code, output)
		}
	})
}
