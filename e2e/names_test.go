package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"rosterd/e2e/harness"
)

// spelling is how somebody types their name at login, and the account that the
// servers make of it (nodeprep, RFC 6122).
type spelling struct{ typed, account string }

var spellings = []spelling{
	{"Mercutio", "mercutio"},
	{"gro\u00DF", "gross"},
	{"GROSS", "gross"},
	{"m\u00B3", "m3"},
	{"\u20ACvA", "\u20ACva"},
	{"i\u2665verona", "i\u2665verona"},
	{"Ame\u0301lie", "am\u00E9lie"},
	{"\u03A7\u03A1\u0397\u03A3\u03A4\u039F\u03C2", "\u03C7\u03C1\u03B7\u03C3\u03C4\u03BF\u03C3"}, // final sigma
	{"\uFB01ora", "fiora"},
	{"\uFF34ybalt", "tybalt"},
	{"so\u00ADft\u200D", "soft"},
	{"nguy\u1EC5n\u1ED9", "nguy\u1EC5n\u1ED9"}, // two marks on a letter
	{"\u0130\u0131", "i\u0307\u0131"},
}

// given is the address that a server gives who logs in with a spelling: ejabberd
// leaves it as it was typed.
func (srv server) given(s spelling) string {
	if srv.name == "ejabberd" {
		return s.typed
	}
	return s.account
}

// Whoever logs in, in whatever spelling, has the roster of their account, pushes
// and presence; and so has another client of theirs in another spelling. What the
// backend has for somebody of the typed name is nobody's.
func TestSpellings(t *testing.T) {
	onServers(t, func(t *testing.T, srv server) { testSpellings(t, unrestricted(srv)) })
}

func testSpellings(t *testing.T, srv server) {
	ctx := bounded(t)
	names := []string{"romeo"}
	for _, s := range spellings {
		names = append(names, s.account)
	}
	w := start(t, setup{server: srv, options: harness.ServerOptions{Users: users(names...)}})
	rosterOfRomeo := harness.Contacts{}
	for _, s := range spellings {
		w.backend.Set(s.typed, contacts("Wrong"))
		rosterOfRomeo[s.typed+"@example.org"] = harness.Contact{} // as an application may spell it
	}
	w.backend.Set("romeo", rosterOfRomeo)
	for _, s := range spellings {
		w.backend.Set(s.account, contacts("Romeo"))
	}
	romeo := w.login(ctx, t, gosrc, "romeo@example.org/street")
	if got := roster(ctx, t, romeo); len(got) != len(spellings)-1 { // two are one account
		t.Errorf("romeo has %d contacts: %+v", len(got), got)
	}
	for i, s := range spellings {
		t.Run(s.typed, func(t *testing.T) {
			login := func(s spelling, resource string) harness.Client {
				return w.loginAs(ctx, t, gosrc, harness.ClientOptions{JID: s.typed + "@example.org/" + resource, Bound: srv.given(s) + "@example.org"})
			}
			first, second := login(s, "First"), login(spelling{s.account, s.account}, "second")
			for _, client := range []harness.Client{first, second} {
				wantRoster(ctx, t, client, item("Romeo"))
			}
			waitSeen(ctx, t, romeo, s.account+"@example.org/First", "available")
			waitSeen(ctx, t, first, "romeo@example.org/street", "available")
			nurse := fmt.Sprint("Nurse", i)
			w.backend.Set(s.account, contacts("Romeo", nurse))
			w.refresh(ctx, t, s.typed)
			for _, client := range []harness.Client{first, second} {
				wantPushes(ctx, t, client, item(nurse))
			}
			show(t, first, "away")
			waitSeen(ctx, t, romeo, s.account+"@example.org/First", "away")
			w.backend.Set(s.account, contacts("Romeo"))
			w.refresh(ctx, t, s.account)
			for _, client := range []harness.Client{first, second} {
				wantPushes(ctx, t, client, removed(nurse))
			}
			first.Close()
			second.Close()
		})
	}
	wantOneStream(ctx, t, w)
}

// After a restart rosterd still knows how each client spells its name: no other
// push would be taken.
func TestSpellingIsKept(t *testing.T) {
	onServers(t, func(t *testing.T, srv server) { testSpellingIsKept(t, unrestricted(srv)) })
}

func testSpellingIsKept(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv, options: harness.ServerOptions{Users: users("gross")},
		settings: map[string]any{"state.path": filepath.Join(t.TempDir(), "state.db")}})
	w.backend.Set("gross", contacts("Romeo"))
	s := spelling{"Gro\u00DF", "gross"}
	client := w.loginAs(ctx, t, gosrc, harness.ClientOptions{JID: s.typed + "@example.org/r", Bound: srv.given(s) + "@example.org"})
	wantRoster(ctx, t, client, item("Romeo"))
	w.backend.Set("gross", contacts("Romeo", "Nurse"))
	if code, err := w.rosterd.Stop(ctx); code != 0 || err != nil {
		t.Fatalf("exit code %d, %v", code, err)
	}
	w.rosterd = run(t, w.opts)
	waitBrought(ctx, t, client, item("Nurse"))
}

// Names that one preparation makes one and the server does not: nobody is given
// the roster of the other.
func TestNamesThatTheServerTellsApart(t *testing.T) { onServers(t, testNamesThatTheServerTellsApart) }

func testNamesThatTheServerTellsApart(t *testing.T, srv server) {
	ctx := bounded(t)
	// Prosody folds only what Unicode 3.2 knows; ejabberd's order of three marks is
	// not Unicode's.
	one, other, refused := "\u023Abel", "\u2C65bel", false
	if srv.name == "ejabberd" {
		one, other, refused = "q\u0334\u0316\u0301", "q\u0316\u0301\u0334", true
	}
	w := start(t, setup{server: srv, options: harness.ServerOptions{Users: users(one, other)}})
	w.backend.Set(one, contacts("Romeo"))
	w.backend.Set(other, contacts("Nurse"))
	wantRoster(ctx, t, w.login(ctx, t, gosrc, one+"@example.org/r"), item("Romeo"))
	client := w.login(ctx, t, gosrc, other+"@example.org/r")
	if !refused {
		wantRoster(ctx, t, client, item("Nurse"))
		return
	}
	wantError(t, request(ctx, t, client, "r1", iq("get", "r1", "", rosterQuery)), "forbidden")
	waitMetric(ctx, t, w.rosterd, `rosterd_queries_total{result="ambiguous"}`, 1)
	w.waitLog(ctx, t, "a user is not served: the server may have another account")
	if log := w.rosterd.Log(); !strings.Contains(log, "level=WARN msg=\"a user is not served") {
		t.Errorf("not at level warn")
	}
	wantRequests(t, w, other, 0)
}

// A domain may be written with U-labels or A-labels, wherever rosterd reads one,
// whichever of them the server knows.
func TestDomainSpellings(t *testing.T) {
	onServers(t, func(t *testing.T, srv server) {
		const u, a = "m\u00FCller.example", "xn--mller-kva.example"
		for _, c := range []struct{ server, rosterd string }{{a, u}, {u, a}, {a, a}, {u, u}} {
			if c.server == a && srv.unicodeHosts {
				continue // it has none such
			}
			t.Run(c.server+" as "+c.rosterd, func(t *testing.T) { testDomainSpellings(t, unrestricted(srv), c.server, c.rosterd) })
		}
	})
}

func testDomainSpellings(t *testing.T, srv server, host, setting string) {
	ctx := bounded(t)
	w := start(t, setup{server: srv, path: "/contacts/%d/%s",
		options:  harness.ServerOptions{Host: host, Component: "contacts." + host, Users: users("juliet", "romeo")},
		settings: map[string]any{"xmpp.hosts": []string{setting}, "xmpp.domain": "contacts." + setting}})
	w.backend.Set("m\u00FCller.example/juliet", harness.Contacts{"Romeo@" + setting: {}, "nurse@xn--mller-kva.example": {}, "far@b\u00FCcher.example": {}})
	w.backend.Set("m\u00FCller.example/romeo", harness.Contacts{"juliet@" + setting: {}})
	of := func(local string) harness.Item { return harness.Item{JID: local + "@" + host, Subscription: "both"} }
	far := harness.Item{JID: "far@b\u00FCcher.example", Subscription: "both"}
	romeo := w.login(ctx, t, gosrc, "romeo@"+host+"/street")
	wantRoster(ctx, t, romeo, of("juliet"))
	juliet := w.login(ctx, t, gosrc, "juliet@"+host+"/balcony")
	wantRoster(ctx, t, juliet, of("romeo"), of("nurse"), far)
	waitSeen(ctx, t, romeo, "juliet@"+host+"/balcony", "available")
	waitSeen(ctx, t, juliet, "romeo@"+host+"/street", "available")
	w.backend.Set("m\u00FCller.example/juliet", harness.Contacts{"romeo@" + host: {Name: "Romeo"}, "far@b\u00FCcher.example": {}})
	w.refresh(ctx, t, "juliet@"+setting)
	named := of("romeo")
	named.Name = "Romeo"
	wantPushes(ctx, t, juliet, named, harness.Item{JID: "nurse@" + host, Subscription: "remove"})
	w.refresh(ctx, t, "romeo@"+host)
	wantOneStream(ctx, t, w)
}
