package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"rosterd/e2e/harness"
)

// forged is what romeo sends to be taken for the server.
const forged = "<delegation xmlns='urn:xmpp:delegation:2'><forwarded xmlns='urn:xmpp:forward:0'>" +
	"<iq xmlns='jabber:client' type='get' id='inner' from='juliet@example.org/balcony'>" + rosterQuery +
	"</iq></forwarded></delegation>"

// Nobody gets the roster of somebody else, nor has it fetched.
func TestNobodyElsesRoster(t *testing.T) { onServers(t, testNobodyElsesRoster) }

func testNobodyElsesRoster(t *testing.T, srv server) {
	attacks := []struct{ name, stanza, condition string }{
		{"get from her bare JID", iq("get", "x", "juliet@example.org", rosterQuery), "forbidden"},
		{"get from her bare JID, written differently", iq("get", "x", "Juliet@EXAMPLE.org", rosterQuery), "forbidden"},
		{"set to her bare JID", iq("set", "x", "juliet@example.org", "<query xmlns='jabber:iq:roster'><item jid='romeo@example.org'/></query>"), "forbidden"},
		{"get from nobody's bare JID", iq("get", "x", "nobody@example.org", rosterQuery), "forbidden"},
		{"get from the domain", iq("get", "x", "example.org", rosterQuery), "forbidden"},
		{"set to the domain", iq("set", "x", "example.org", rosterQuery), "forbidden"},
		{"get from a resource of the domain", iq("get", "x", "example.org/juliet", rosterQuery), srv.foreignResource},
		{"set to the component", iq("set", "x", domain, rosterQuery), "not-allowed"},
		{"forged delegation", iq("set", "x", domain, forged), "service-unavailable"},
		{"forged delegation of the first version", iq("set", "x", domain, strings.ReplaceAll(forged, ":2", ":1")), "service-unavailable"},
		{"forged delegation as a get", iq("get", "x", domain, forged), "service-unavailable"},
		{"forged delegation to a resource", iq("set", "x", domain+"/example.org", forged), "service-unavailable"},
		{"privileged IQ by way of the component", iq("set", "x", domain, "<privileged_iq xmlns='urn:xmpp:privilege:2'>"+
			"<iq xmlns='jabber:client' type='get' id='inner' to='juliet@example.org'>"+rosterQuery+"</iq></privileged_iq>"), "service-unavailable"},
	}
	ctx := bounded(t)
	w := start(t, setup{server: srv, counts: true})
	w.backend.Set("juliet", contacts("Capulet"))
	w.backend.Set("romeo", contacts("Montague"))
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, juliet, item("Capulet"))
	for _, lib := range libraries {
		t.Run(lib.name, func(t *testing.T) {
			romeo := w.login(ctx, t, lib, "romeo@example.org/"+lib.name)
			for i, attack := range attacks {
				t.Run(attack.name, func(t *testing.T) {
					id := fmt.Sprint("x", i)
					answer := request(ctx, t, romeo, id, strings.Replace(attack.stanza, "id='x'", "id='"+id+"'", 1))
					wantError(t, answer, attack.condition)
				})
			}
			// Whom the component itself is asked by gets his own.
			answer := request(ctx, t, romeo, "own", iq("get", "own", domain, rosterQuery))
			if answer.Type != "result" || !strings.Contains(answer.XML, "montague@example.org") {
				t.Errorf("answer %s", answer.XML)
			}
			handled(ctx, t, romeo)
			for _, s := range romeo.Stanzas() {
				if strings.Contains(s.XML, "capulet") {
					t.Errorf("romeo received %s", s.XML)
				}
			}
		})
	}
	wantQuiet(ctx, t, juliet)
	wantRequests(t, w, "juliet", 1)
	if !srv.unrestricted { // there romeo, who is available, may be fetched for his presence
		wantRequests(t, w, "romeo", len(libraries))
	}
	wantRequests(t, w, "nobody", 0)
	wantOneStream(ctx, t, w)
}

// A user's messages announce nothing and take nothing away, whoever they claim
// to be from.
func TestForgedAnnouncements(t *testing.T) { onServers(t, testForgedAnnouncements) }

func testForgedAnnouncements(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv})
	w.backend.Set("juliet", contacts("Nurse"))
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, juliet, item("Nurse"))
	romeo := w.login(ctx, t, slixmpp, "romeo@example.org/street")
	for _, version := range []string{"1", "2"} {
		for _, from := range []string{"", " from='example.org'", " from='romeo@example.org/street'"} {
			if strings.Contains(from, "'example") && srv.checksFrom {
				continue // ends his stream
			}
			for _, payload := range []string{
				"<delegation xmlns='urn:xmpp:delegation:" + version + "'/>",
				"<delegation xmlns='urn:xmpp:delegation:" + version + "'><delegated namespace='urn:other'/></delegation>",
				"<privilege xmlns='urn:xmpp:privilege:" + version + "'/>",
				"<privilege xmlns='urn:xmpp:privilege:" + version + "'><perm access='iq'/></privilege>",
			} {
				send(t, romeo, "<message to='"+domain+"'"+from+">"+payload+"</message>")
			}
		}
	}
	handled(ctx, t, romeo)
	if answer, err := w.rosterd.Metrics("/readyz").Get(ctx); err != nil || answer.Status != http.StatusOK {
		t.Errorf("/readyz: %+v, %v", answer, err)
	}
	w.backend.Set("juliet", contacts("Nurse", "Paris"))
	w.refresh(ctx, t, "juliet")
	wantPushes(ctx, t, juliet, item("Paris"))
	wantOneStream(ctx, t, w)
}

// Who knows the ids of rosterd's IQs, and everybody who is sent a push sees
// some, can still not answer in the place of another user.
func TestGuessedIDs(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	w := start(t, setup{})
	w.backend.Set("juliet", contacts("Nurse"))
	w.backend.Set("romeo", contacts("Nurse"))
	juliet := w.loginAs(ctx, t, gosrc, harness.ClientOptions{JID: "juliet@example.org/balcony", IgnorePushes: true})
	wantRoster(ctx, t, juliet, item("Nurse"))
	romeo := w.login(ctx, t, slixmpp, "romeo@example.org/street")
	wantRoster(ctx, t, romeo, item("Nurse"))

	w.backend.Set("juliet", contacts("Nurse", "Paris"))
	w.refresh(ctx, t, "juliet") // this push nobody answers
	push, err := juliet.WaitStanza(ctx, func(s harness.Stanza) bool { return s.Type == "set" && s.Payload.Space == "jabber:iq:roster" })
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{domain, "juliet@example.org", "example.org"} {
		for _, payload := range []string{
			"", "<error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>",
			"<privilege xmlns='urn:xmpp:privilege:2'><forwarded xmlns='urn:xmpp:forward:0'>" +
				"<iq xmlns='jabber:client' type='error' id='" + push.ID + "' from='juliet@example.org/balcony'/></forwarded></privilege>",
		} {
			send(t, romeo, iq("error", push.ID, to, payload))
			send(t, romeo, iq("result", push.ID, to, payload))
		}
	}
	for i := range 200 {
		send(t, romeo, iq("result", fmt.Sprint(i), domain, ""))
	}
	handled(ctx, t, romeo)
	values, err := w.rosterd.Scrape(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for series, want := range map[string]float64{
		`rosterd_pushes_total{action="added",result="ok"}`: 0, `rosterd_pushes_total{action="added",result="gone"}`: 0,
		`rosterd_pushes_total{action="added",result="refused"}`: 0, "rosterd_interested_resources": 2,
	} {
		if values[series] != want {
			t.Errorf("%s is %v, want %v", series, values[series], want)
		}
	}
	w.backend.Set("juliet", contacts("Nurse"))
	w.refresh(ctx, t, "juliet")
	wantPushes(ctx, t, juliet, item("Paris"), removed("Paris"))
	wantOneStream(ctx, t, w)
}

// A domain that the server delegates but rosterd does not serve is nobody.
func TestUnservedHost(t *testing.T) { onServers(t, testUnservedHost) }

func testUnservedHost(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{
		server: srv, counts: true,
		options: harness.ServerOptions{
			ExtraHosts: []string{"example.net"}, Users: users("juliet@example.org", "juliet@example.net"),
		},
		settings: map[string]any{"xmpp.hosts": []string{"example.org"}},
	})
	w.backend.Set("juliet", contacts("Romeo"))
	foreign := w.login(ctx, t, gosrc, "juliet@example.net/balcony")
	for _, to := range []string{"", "juliet@example.org", "juliet@example.net"} {
		answer := request(ctx, t, foreign, "to "+to, iq("get", "to "+to, to, rosterQuery))
		// ejabberd does not delegate what rosterd does not serve, and answers itself.
		if answer.Type != "error" && (srv.name != "ejabberd" || strings.Contains(answer.XML, "romeo@")) {
			t.Errorf("answer %s", answer.XML)
		}
	}
	wantRequests(t, w, "juliet", 0)
	if got := metric(ctx, t, w.rosterd, "rosterd_sessions"); got != 0 {
		t.Errorf("%v sessions of an unserved host", got)
	}
	if reason := w.wantFailedRefresh(ctx, t, "juliet@example.net"); reason != "not a user of a served domain" {
		t.Errorf("reason %q", reason)
	}
	wantRoster(ctx, t, w.login(ctx, t, gosrc, "juliet@example.org/balcony"), item("Romeo"))
	wantOneStream(ctx, t, w)
}

// wantOneStream wants that the stream is still the one rosterd began with.
func wantOneStream(ctx context.Context, t *testing.T, w *world) {
	t.Helper()
	values, err := w.rosterd.Scrape(ctx)
	if err != nil {
		t.Fatal(err)
	}
	log := w.rosterd.Log()
	if values["rosterd_connected"] != 1 || values["rosterd_reconnects_total"] != 0 ||
		strings.Count(log, "connected to the XMPP server") != 1 || strings.Contains(log, "no stream to the XMPP server") {
		t.Errorf("connected %v, %v reconnects: the stream has ended",
			values["rosterd_connected"], values["rosterd_reconnects_total"])
	}
}
