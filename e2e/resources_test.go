package e2e

import (
	"context"
	"fmt"
	"testing"

	"rosterd/e2e/harness"
)

// All resources that asked for the roster get the pushes, with either library;
// one that did not ask gets none (RFC 6121, section 2.1.6).
func TestInterestedResources(t *testing.T) { onServers(t, testInterestedResources) }

func testInterestedResources(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv})
	w.backend.Set("juliet", contacts("Romeo"))
	balcony := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, balcony, item("Romeo"))
	phone := w.login(ctx, t, slixmpp, "juliet@example.org/phone <&'\"> ☎")
	wantRoster(ctx, t, phone, item("Romeo"))
	tablet, known := w.loginSilent(ctx, t, "juliet@example.org/tablet")
	waitMetric(ctx, t, w.rosterd, "rosterd_sessions", 2+known)
	waitMetric(ctx, t, w.rosterd, "rosterd_interested_resources", 2)

	w.backend.Set("juliet", contacts("Romeo", "Nurse"))
	w.refresh(ctx, t, "juliet")
	wantPushes(ctx, t, balcony, item("Nurse"))
	wantPushes(ctx, t, phone, item("Nurse"))
	wantQuiet(ctx, t, tablet)

	// Presence other than unavailable changes nothing.
	for _, show := range []string{"away", "dnd", ""} {
		if err := phone.Presence(show); err != nil {
			t.Fatal(err)
		}
	}
	handled(ctx, t, phone)
	w.backend.Set("juliet", contacts("Romeo"))
	w.refresh(ctx, t, "juliet")
	wantPushes(ctx, t, balcony, removed("Nurse"))
	wantPushes(ctx, t, phone, removed("Nurse"))
	wantQuiet(ctx, t, tablet)
	for series, want := range map[string]float64{
		fmt.Sprintf("rosterd_pushes_total{action=%q,result=%q}", "added", srv.pushed):   2,
		fmt.Sprintf("rosterd_pushes_total{action=%q,result=%q}", "removed", srv.pushed): 2,
	} {
		if got := metric(ctx, t, w.rosterd, series); got != want {
			t.Errorf("%s is %v, want %v", series, got, want)
		}
	}
}

// loginSilent logs in as a client that does not ask for its roster, and says how many sessions
// rosterd knows of by that. COMPAT ejabberd, where who sends presence and has not asked within
// 2 s may have been told something else before, and is told everything: there it sends none.
func (w *world) loginSilent(ctx context.Context, t *testing.T, jid string) (client harness.Client, known float64) {
	t.Helper()
	if w.kind.name == "ejabberd" {
		return w.loginAs(ctx, t, slixmpp, harness.ClientOptions{JID: jid, Invisible: true}), 0
	}
	return w.login(ctx, t, gosrc, jid), 1
}

// What a query of one resource shows to be different, the others are pushed,
// though nobody has reported it.
func TestLoginShowsChange(t *testing.T) { onServers(t, testLoginShowsChange) }

func testLoginShowsChange(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv})
	w.backend.Set("juliet", contacts("Romeo", "Paris"))
	balcony := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, balcony, item("Romeo"), item("Paris"))
	tablet, _ := w.loginSilent(ctx, t, "juliet@example.org/tablet")

	w.backend.Set("juliet", contacts("Romeo", "Nurse"))
	phone := w.login(ctx, t, slixmpp, "juliet@example.org/phone")
	wantRoster(ctx, t, phone, item("Romeo"), item("Nurse"))
	wantPushes(ctx, t, balcony, removed("Paris"), item("Nurse"))
	wantQuiet(ctx, t, phone)
	wantQuiet(ctx, t, tablet)

	w.refresh(ctx, t, "juliet") // has nothing to add
	wantQuiet(ctx, t, balcony)
	wantQuiet(ctx, t, phone)
}

// Users who are not connected count as updated, and the backend is left alone.
func TestOfflineUsers(t *testing.T) { onServers(t, testOfflineUsers) }

func testOfflineUsers(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv, counts: true})
	w.backend.Set("juliet", contacts("Romeo"))
	w.backend.Set("mercutio", contacts("Romeo"))
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, juliet, item("Romeo"))

	w.refresh(ctx, t, "mercutio", "nobody", "juliet")
	wantRequests(t, w, "juliet", 2)
	wantRequests(t, w, "mercutio", 0) // offline
	wantRequests(t, w, "nobody", 0)   // not even a user
	if got := metric(ctx, t, w.rosterd, `rosterd_refreshed_users_total{result="updated"}`); got != 3 {
		t.Errorf("%v users updated, want 3", got)
	}

	// Who logs in later gets what is true then.
	w.backend.Set("mercutio", contacts("Romeo", "Nurse"))
	mercutio := w.login(ctx, t, slixmpp, "mercutio@example.org/street")
	wantRoster(ctx, t, mercutio, item("Romeo"), item("Nurse"))
}

// The end of a session, however it comes, ends the interest of its resource.
func TestEndOfSession(t *testing.T) { onServers(t, testEndOfSession) }

func testEndOfSession(t *testing.T, srv server) {
	cases := []struct {
		name string
		said bool // what happens, in presence
		end  func(*testing.T, harness.Client)
	}{
		{"logout", false, func(_ *testing.T, c harness.Client) { c.Close() }},
		{"connection cut", false, func(_ *testing.T, c harness.Client) { c.Cut() }},
		{"unavailable presence", true, func(t *testing.T, c harness.Client) {
			if err := c.Presence("unavailable"); err != nil {
				t.Fatal(err)
			}
		}},
		{"end of the stream", false, func(t *testing.T, c harness.Client) { send(t, c, "<not-a-stanza/>") }},
	}
	for _, lib := range libraries {
		for _, c := range cases {
			if !c.said && !srv.endsTold {
				continue // rosterd finds out by asking, which takes too long here
			}
			t.Run(lib.name+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				ctx := bounded(t)
				w := start(t, setup{server: srv, counts: true})
				w.backend.Set("juliet", contacts("Romeo"))
				client := w.login(ctx, t, lib, "juliet@example.org/balcony")
				wantRoster(ctx, t, client, item("Romeo"))
				waitMetric(ctx, t, w.rosterd, "rosterd_sessions", 1)
				waitMetric(ctx, t, w.rosterd, "rosterd_interested_resources", 1)

				c.end(t, client)
				waitMetric(ctx, t, w.rosterd, "rosterd_sessions", 0)
				waitMetric(ctx, t, w.rosterd, "rosterd_interested_resources", 0)
				w.refresh(ctx, t, "juliet")
				wantRequests(t, w, "juliet", 1)

				again := w.login(ctx, t, lib, "juliet@example.org/balcony")
				wantRoster(ctx, t, again, item("Romeo"))
				w.backend.Set("juliet", contacts())
				w.refresh(ctx, t, "juliet")
				wantPushes(ctx, t, again, removed("Romeo"))
			})
		}
	}
}

// A resource of whose end Prosody says nothing, because it was unavailable
// already, ends with the first push that comes back as an error.
func TestPushComesBack(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	w := start(t, setup{counts: true})
	w.backend.Set("juliet", contacts("Romeo"))
	phone := w.login(ctx, t, gosrc, "juliet@example.org/phone")
	wantRoster(ctx, t, phone, item("Romeo"))
	balcony := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	if err := balcony.Presence("unavailable"); err != nil {
		t.Fatal(err)
	}
	wantRoster(ctx, t, balcony, item("Romeo"))
	waitMetric(ctx, t, w.rosterd, "rosterd_interested_resources", 2)
	balcony.Cut()
	// Prosody has noticed when the resource is free for another session.
	if err := w.server.WaitLog(ctx, "Unbinding resource for juliet@example.org/balcony"); err != nil {
		t.Fatal(err)
	}
	handled(ctx, t, phone)
	waitMetric(ctx, t, w.rosterd, "rosterd_sessions", 2)

	w.backend.Set("juliet", contacts("Romeo", "Nurse"))
	w.refresh(ctx, t, "juliet") // nobody lacks anything
	wantPushes(ctx, t, phone, item("Nurse"))
	waitMetric(ctx, t, w.rosterd, `rosterd_pushes_total{action="added",result="gone"}`, 1)
	waitMetric(ctx, t, w.rosterd, "rosterd_sessions", 1)
	waitMetric(ctx, t, w.rosterd, "rosterd_interested_resources", 1)

	phone.Close()
	waitMetric(ctx, t, w.rosterd, "rosterd_sessions", 0)
	w.refresh(ctx, t, "juliet")
	wantRequests(t, w, "juliet", 3)
}

// A client that refuses pushes, or never answers them, neither holds up its
// refresh nor fails it, nor keeps a push from anybody else.
func TestUncooperativeClients(t *testing.T) { onServers(t, testUncooperativeClients) }

func testUncooperativeClients(t *testing.T, srv server) {
	for name, opts := range map[string]harness.ClientOptions{
		"refuses": {RefusePushes: true}, "ignores": {IgnorePushes: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := bounded(t)
			w := start(t, setup{server: srv})
			w.backend.Set("juliet", contacts("Romeo"))
			opts.JID = "juliet@example.org/odd"
			odd := w.loginAs(ctx, t, gosrc, opts)
			wantRoster(ctx, t, odd, item("Romeo"))
			phone := w.login(ctx, t, gosrc, "juliet@example.org/phone")
			wantRoster(ctx, t, phone, item("Romeo"))

			w.backend.Set("juliet", contacts("Romeo", "Nurse"))
			w.refresh(ctx, t, "juliet")
			wantPushes(ctx, t, odd, item("Nurse"))
			wantPushes(ctx, t, phone, item("Nurse"))
			w.backend.Set("juliet", contacts("Romeo"))
			w.refresh(ctx, t, "juliet")
			wantPushes(ctx, t, odd, removed("Nurse"))
			wantPushes(ctx, t, phone, removed("Nurse"))
			if code, err := w.rosterd.Stop(ctx); code != 0 || err != nil {
				t.Errorf("exit code %d, %v", code, err)
			}
		})
	}
}
