package e2e

import (
	"net/http"
	"strings"
	"testing"

	"rosterd/e2e/harness"
)

// wantNotConnected wants the answer to a refresh while the server is away.
func wantNotConnected(t *testing.T, w *world, users ...string) {
	t.Helper()
	answer, err := w.post(bounded(t), users...)
	if err != nil || answer.Code != http.StatusServiceUnavailable || answer.Status != "error" ||
		answer.Updated != 0 || answer.Errors != len(users) || !strings.Contains(answer.Message, "not connected") {
		t.Errorf("answer %+v, %v", answer, err)
	}
}

// The server is restarted: rosterd says that it is away, connects again, and
// serves the clients that log in again.
func TestServerRestarted(t *testing.T) { onServers(t, testServerRestarted) }

func testServerRestarted(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv, counts: true, own: true})
	w.backend.Set("juliet", contacts("Romeo"))
	wantRoster(ctx, t, w.login(ctx, t, gosrc, "juliet@example.org/balcony"), item("Romeo"))
	if err := w.server.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	waitReadyz(ctx, t, w.rosterd, http.StatusServiceUnavailable, "not connected to the XMPP server: ")
	if got := metric(ctx, t, w.rosterd, "rosterd_connected"); got != 0 {
		t.Errorf("rosterd_connected is %v", got)
	}
	wantNotConnected(t, w, "juliet", "romeo")
	if answer, err := w.rosterd.Metrics("/healthz").Get(ctx); err != nil || answer.Status != http.StatusOK {
		t.Errorf("/healthz: %+v, %v", answer, err)
	}
	if srv.endsTold { // all clients are gone, as Prosody said with its last breath
		waitMetric(ctx, t, w.rosterd, "rosterd_sessions", 0)
	}

	if err := w.server.Start(ctx); err != nil {
		t.Fatal(err)
	}
	waitReadyz(ctx, t, w.rosterd, http.StatusOK, "")
	if got := metric(ctx, t, w.rosterd, "rosterd_reconnects_total"); got != 1 {
		t.Errorf("%v reconnects", got)
	}
	if srv.endsTold {
		wantRequests(t, w, "juliet", 1) // nobody was there for whom to fetch
	}
	for _, lib := range libraries {
		w.backend.Set("juliet", contacts("Romeo"))
		client := w.login(ctx, t, lib, "juliet@example.org/"+lib.name)
		wantRoster(ctx, t, client, item("Romeo"))
		w.backend.Set("juliet", contacts("Romeo", "Nurse"))
		w.refresh(ctx, t, "juliet")
		wantPushes(ctx, t, client, item("Nurse"))
	}
}

// The server is killed and says goodbye to nobody. A user who was reported
// meanwhile is refreshed when the server is back: rosterd cannot know better
// than that the client is still there, until a push comes back, or the server
// does not report him.
func TestServerKilled(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	w := start(t, setup{counts: true, own: true})
	w.backend.Set("juliet", contacts("Romeo"))
	w.backend.Set("romeo", contacts("Nurse"))
	wantRoster(ctx, t, w.login(ctx, t, gosrc, "juliet@example.org/balcony"), item("Romeo"))
	wantRoster(ctx, t, w.login(ctx, t, gosrc, "romeo@example.org/street"), item("Nurse"))
	w.server.Kill()
	waitReadyz(ctx, t, w.rosterd, http.StatusServiceUnavailable, "not connected to the XMPP server: ")
	w.backend.Set("juliet", contacts("Romeo", "Nurse"))
	wantNotConnected(t, w, "juliet", "mercutio")
	wantRequests(t, w, "juliet", 1)

	if err := w.server.Start(ctx); err != nil {
		t.Fatal(err)
	}
	waitRequests(ctx, t, w, "juliet", 2)
	waitMetric(ctx, t, w.rosterd, `rosterd_pushes_total{action="added",result="gone"}`, 1)
	waitMetric(ctx, t, w.rosterd, "rosterd_sessions", 0) // nor romeo's, to whom nothing was sent
	wantRequests(t, w, "mercutio", 0)
	wantRoster(ctx, t, w.login(ctx, t, slixmpp, "juliet@example.org/balcony"), item("Romeo"), item("Nurse"))
}

// Only the component's connection breaks: clients stay logged in. No query gets
// an empty roster meanwhile, and what was reported meanwhile arrives as soon as
// rosterd is back.
func TestStreamCut(t *testing.T) { onServers(t, testStreamCut) }

func testStreamCut(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv, counts: true, link: true})
	w.backend.Set("juliet", contacts("Romeo", "Paris"))
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, juliet, item("Romeo"), item("Paris"))
	w.backend.Set("mercutio", contacts("Romeo"))
	mercutio := w.login(ctx, t, slixmpp, "mercutio@example.org/street")
	wantRoster(ctx, t, mercutio, item("Romeo"))

	left := func() int { return strings.Count(w.server.Log(), srv.componentGone) }
	before := left() // other tests may have used the server
	w.link.cut()
	waitReadyz(ctx, t, w.rosterd, http.StatusServiceUnavailable, "not connected to the XMPP server: ")
	poll(ctx, t, func() bool { return left() > before }, func() string { return "the server has not noticed" })
	if items, err := juliet.Roster(ctx); err == nil {
		t.Errorf("roster %+v while rosterd is away", items)
	}
	w.backend.Set("juliet", contacts("Romeo", "Nurse"))
	w.backend.Set("mercutio", contacts("Romeo", "Nurse")) // but nobody reports it
	wantNotConnected(t, w, "juliet")
	wantNotConnected(t, w, "juliet") // once more is not twice
	wantRequests(t, w, "juliet", 1)

	w.link.mend()
	waitBrought(ctx, t, juliet, item("Nurse"), removed("Paris"))
	waitBrought(ctx, t, mercutio, item("Nurse")) // as all who are online
	waitReadyz(ctx, t, w.rosterd, http.StatusOK, "")
	wantRoster(ctx, t, mercutio, item("Romeo"), item("Nurse"))
	wantRoster(ctx, t, juliet, item("Romeo"), item("Nurse"))
	if got := metric(ctx, t, w.rosterd, "rosterd_reconnects_total"); got != 1 {
		t.Errorf("%v reconnects", got)
	}
}

// The stream breaks while the backend is asked for a query: the reply is lost
// with it. The client, which keeps the contacts it had, is brought in line on
// the next stream, though nobody has reported a change.
func TestStreamCutDuringQuery(t *testing.T) { onServers(t, testStreamCutDuringQuery) }

func testStreamCutDuringQuery(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv, counts: true, link: true})
	w.backend.Set("juliet", contacts("Romeo", "Paris"))
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, juliet, item("Romeo"), item("Paris"))

	w.backend.Set("juliet", contacts("Romeo", "Nurse"))
	release := make(chan struct{})
	w.backend.SetFault("juliet", harness.Fault{Until: release})
	send(t, juliet, iq("get", "lost", "", rosterQuery))
	waitRequests(ctx, t, w, "juliet", 2)
	w.link.cut()
	waitReadyz(ctx, t, w.rosterd, http.StatusServiceUnavailable, "not connected to the XMPP server: ")
	w.backend.ClearFault("juliet")
	close(release)
	waitMetric(ctx, t, w.rosterd, `rosterd_fetches_total{result="ok"}`, 2)
	w.link.mend()
	waitBrought(ctx, t, juliet, item("Nurse"), removed("Paris"))
}

// The stream breaks while the backend is asked for a refresh, which fails; its
// pushes arrive on the next stream.
func TestStreamCutDuringRefresh(t *testing.T) { onServers(t, testStreamCutDuringRefresh) }

func testStreamCutDuringRefresh(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv, counts: true, link: true})
	w.backend.Set("juliet", contacts("Romeo"))
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, juliet, item("Romeo"))

	release := make(chan struct{})
	w.backend.Set("juliet", contacts("Romeo", "Nurse"))
	w.backend.SetFault("juliet", harness.Fault{Until: release})
	refreshed := make(chan harness.RefreshAnswer, 1)
	go func() {
		answer, _ := w.post(ctx, "juliet")
		refreshed <- answer
	}()
	waitRequests(ctx, t, w, "juliet", 2)
	w.link.cut()
	waitReadyz(ctx, t, w.rosterd, http.StatusServiceUnavailable, "not connected to the XMPP server: ")
	w.backend.ClearFault("juliet")
	close(release)
	// The change has not reached the client: that is no success.
	if answer := <-refreshed; answer.Code != http.StatusInternalServerError || answer.Failed["juliet"] == "" {
		t.Errorf("answer %+v", answer)
	}
	w.link.mend()
	waitBrought(ctx, t, juliet, item("Nurse"))
}
