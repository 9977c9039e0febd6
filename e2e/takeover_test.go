package e2e

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"rosterd/e2e/harness"
)

// waitRead waits until rosterd knows that the server has read all answers so far:
// until then they are in doubt. It asks, every few seconds.
func waitRead(ctx context.Context, t *testing.T, w *world, client harness.Client) {
	t.Helper()
	asked := func() int { return w.link.wrote("<ping ") }
	before := asked()
	poll(ctx, t, func() bool { return asked() > before }, func() string { return "rosterd has asked for no sign" })
	handled(ctx, t, client) // the server has answered
	handled(ctx, t, client) // rosterd has read it
}

var versionInPush = regexp.MustCompile(`jabber:iq:roster['"] ver=['"]([^'"]*)['"]|ver=['"]([^'"]*)['"] xmlns=['"]jabber:iq:roster`)

// What is pushed is settled at once, also where no client's answer comes back: it
// has been sent when the refresh is answered, is in doubt no more when the stream
// breaks, and a client that has the version is told just that.
func TestPushesSettled(t *testing.T) { onServers(t, testPushesSettled) }

func testPushesSettled(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv, link: true, counts: true})
	w.backend.Set("juliet", contacts("Romeo"))
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	query := func(id, version string) harness.Stanza {
		answer := request(ctx, t, juliet, id, iq("get", id, "", "<query xmlns='jabber:iq:roster' ver='"+version+"'/>"))
		if answer.Type != "result" {
			t.Fatalf("answer %s", answer.XML)
		}
		return answer
	}
	if first := query("first", ""); !strings.Contains(first.XML, "romeo@example.org") {
		t.Fatalf("answer %s", first.XML)
	}
	waitBest(ctx, t, w)
	w.backend.Set("juliet", contacts("Romeo", "Nurse"))
	w.refresh(ctx, t, "juliet")
	if got := metric(ctx, t, w.rosterd, fmt.Sprintf("rosterd_pushes_total{action=%q,result=%q}", "added", srv.pushed)); got != 1 {
		t.Errorf("%v pushes have been settled when the refresh is answered, want 1", got)
	}
	wantPushes(ctx, t, juliet, item("Nurse"))
	var version string
	for _, s := range juliet.Stanzas() {
		if push := versionInPush.FindStringSubmatch(s.XML); s.Type == "set" && push != nil {
			version = push[1] + push[2]
		}
	}

	waitRead(ctx, t, w, juliet)
	w.link.cut()
	waitReadyz(ctx, t, w.rosterd, http.StatusServiceUnavailable, "not connected to the XMPP server: ")
	w.link.mend()
	waitBest(ctx, t, w)
	if again := query("again", version); again.Payload.Local != "" {
		t.Errorf("asked with version %q, and got %s", version, again.XML)
	}
	wantQuiet(ctx, t, juliet)
	for _, result := range []string{"lost", "unanswered"} {
		if got := metric(ctx, t, w.rosterd, fmt.Sprintf("rosterd_pushes_total{action=%q,result=%q}", "added", result)); got != 0 {
			t.Errorf("%v pushes are %s", got, result)
		}
	}
}

// A client that asked for its roster before rosterd was there has got an error, or
// the server's own roster. It is pushed everything as soon as rosterd is told that
// it is there.
func TestAskedBefore(t *testing.T) { onServers(t, testAskedBefore) }

func testAskedBefore(t *testing.T, srv server) {
	ctx := bounded(t)
	w, _ := behindRelay(t, setup{server: srv, own: true})
	w.backend.Set("juliet", contacts("Romeo", "Nurse"))
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	if items, err := juliet.Roster(ctx); err == nil && (len(items) > 0 || srv.name == "prosody") {
		t.Fatalf("roster %+v of nobody", items)
	}
	w.connect(ctx, t)
	waitBest(ctx, t, w)
	if srv.name == "ejabberd" { // which does not tell who is there
		if err := juliet.Presence("away"); err != nil {
			t.Fatal(err)
		}
	}
	waitBrought(ctx, t, juliet, item("Romeo"), item("Nurse"))
}

// A server is restarted, and a client comes back, under the name that it had, and
// asks before rosterd is back, which knew the client before that. It is pushed
// everything.
func TestAskedBetween(t *testing.T) { onServers(t, testAskedBetween) }

func testAskedBetween(t *testing.T, srv server) {
	ctx := bounded(t)
	w, relay, juliet := servedBehindRelay(ctx, t, setup{server: srv, own: true, link: true})
	waitRead(ctx, t, w, juliet)

	relay.Refuse()
	if err := w.server.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	juliet = w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	if items, err := juliet.Roster(ctx); err == nil && (len(items) > 0 || srv.name == "prosody") {
		t.Fatalf("roster %+v of nobody", items)
	}
	if err := relay.Accept(); err != nil {
		t.Fatal(err)
	}
	waitBest(ctx, t, w)
	if srv.name == "ejabberd" { // else the answer to a question of rosterd's, a minute later, does
		if err := juliet.Presence("away"); err != nil {
			t.Fatal(err)
		}
	}
	waitBrought(ctx, t, juliet, item("Romeo"), item("Nurse"))
}
