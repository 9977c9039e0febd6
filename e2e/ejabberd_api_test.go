package e2e

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"rosterd/e2e/harness"
	rosters "rosterd/roster"
	"rosterd/serverroster"
)

// withAPI is an ejabberd with its HTTP API, which refuses what users change.
func withAPI(who string) server {
	srv := ejabberd
	srv.name = "ejabberd with API " + who
	srv.start = func(ctx context.Context, o harness.ServerOptions) (*harness.Server, error) {
		return harness.StartEjabberd(ctx, harness.EjabberdOptions{ServerOptions: o, API: who, ReadOnlyRosters: true})
	}
	return srv
}

// api is what rosterd would use of a server's API.
func api(t *testing.T, s *harness.Server, login serverroster.EjabberdLogin, hosts ...string) *serverroster.Ejabberd {
	t.Helper()
	return apiAt(t, s.APIURL(), login, append(hosts, s.Options().Host)...)
}

func apiAt(t *testing.T, url string, login serverroster.EjabberdLogin, hosts ...string) *serverroster.Ejabberd {
	t.Helper()
	e, err := serverroster.NewEjabberd(serverroster.EjabberdOptions{URL: url, Login: login, Hosts: hosts, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	e.Prove(t.Context())
	return e
}

// proven is the way of an API that works for example.org.
func proven(t *testing.T, s *harness.Server) serverroster.Way {
	t.Helper()
	e := api(t, s, serverroster.EjabberdLogin{})
	if works, why := e.State("example.org"); !works {
		t.Fatal(why)
	}
	return e.Way("example.org")
}

// put makes a user's roster at the server the given one.
func put(ctx context.Context, t *testing.T, way serverroster.Way, user string, items ...rosters.Item) {
	t.Helper()
	changes := rosters.Diff(stored(ctx, t, way, user), rosters.New(items))
	written := 0
	if err := way.Set(ctx, mustJID(t, user), changes, func(rosters.Change) { written++ }); err != nil || written != len(changes) {
		t.Fatalf("%d of %d written: %v", written, len(changes), err)
	}
}

// stored is the roster that the server has.
func stored(ctx context.Context, t *testing.T, way serverroster.Way, user string) *rosters.Roster {
	t.Helper()
	r, err := way.Get(ctx, mustJID(t, user))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What is written by ejabberd's API is read again, whatever names there are, also while
// the namespace is delegated.
func TestEjabberdAPI(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	w := start(t, setup{server: withAPI(harness.ByAddress), counts: true})
	way := proven(t, w.server)
	item := func(contact, name string, s rosters.Subscription, groups ...string) rosters.Item {
		return rosters.Item{JID: mustJID(t, contact), Name: name, Subscription: s, Groups: groups}
	}
	items := []rosters.Item{
		item("romeo@example.org", "Roméo 👍 <&'\"> \\ %s", rosters.SubscriptionBoth, " y ", "Friends", "Grüße <&>", "[x]"),
		item("juliet@example.org", "I", rosters.SubscriptionBoth), // herself
		item("irc.example.net", "a\tdomain\n", rosters.SubscriptionTo, "0"),
		item("Straße@example.org", "", rosters.SubscriptionFrom),
		item("JÜRGEN@example.org", "", rosters.SubscriptionBoth),
		item("x@münchen.example", "", rosters.SubscriptionNone, "z"),
		item(`d\27artagnan@example.net`, strings.Repeat("n", 20_000), rosters.SubscriptionBoth, strings.Repeat("g", 2000)),
		item("a?b#c%d=e+f;g@example.net", "a?b#c&d=e+f", rosters.SubscriptionBoth),
		item("羅密歐@example.org", "羅密歐", rosters.SubscriptionBoth, "羅"),
		item(strings.Repeat("l", 1023)+"@example.net", "", rosters.SubscriptionBoth),
	}
	put(ctx, t, way, "juliet@example.org", items...)
	if got, want := stored(ctx, t, way, "juliet@example.org"), rosters.New(items); !got.Equal(want) {
		t.Errorf("differs: %.2000v", rosters.Diff(want, got))
	}
	// Once more, renamed, regrouped, with other subscriptions, and most of them gone.
	items = items[:2]
	items[0] = item("romeo@example.org", "R", rosters.SubscriptionFrom, "New")
	put(ctx, t, way, "juliet@example.org", items...)
	if got := stored(ctx, t, way, "juliet@example.org"); !got.Equal(rosters.New(items)) {
		t.Errorf("got %s", got.XML())
	}

	// COMPAT before 24.02 the name of a group is split at each ';', and Get says so.
	put(ctx, t, way, "mercutio@example.org", item("romeo@example.org", "", rosters.SubscriptionBoth, "a;b", "c;"))
	want := []string{"a", "b", "c"}
	if ejabberdVersion >= "24.02" {
		want = []string{"a;b", "c;"}
	}
	if got := stored(ctx, t, way, "mercutio@example.org").Items(); len(got) != 1 || !slices.Equal(got[0].Groups, want) {
		t.Errorf("got %+v, want %q", got, want)
	}

	// ejabberd keeps a roster for whoever has no account.
	put(ctx, t, way, "nobody@example.org", items[0])
	if got := stored(ctx, t, way, "nobody@example.org"); got.Len() != 1 {
		t.Errorf("got %s", got.XML())
	}
	put(ctx, t, way, "nobody@example.org")
}

// The API is proven to work, or why it does not is known.
func TestEjabberdAPIRefused(t *testing.T) {
	t.Parallel()
	w := start(t, setup{server: withAPI(harness.ByAccount), counts: true,
		options: harness.ServerOptions{Users: users("rosterd", "juliet")}})
	login := serverroster.EjabberdLogin{User: "rosterd@example.org", Password: password}
	for _, c := range []struct {
		login serverroster.EjabberdLogin
		why   string
	}{
		{login, map[bool]string{true: "from 26.07 on"}[ejabberdVersion >= "26.07"]}, // who has no right to configure
		{serverroster.EjabberdLogin{User: login.User, Password: "wrong"}, "401"},
		{serverroster.EjabberdLogin{User: "juliet@example.org", Password: password}, "403"},
		{serverroster.EjabberdLogin{Token: "nonsense"}, "401"},
		{serverroster.EjabberdLogin{}, "403"},
	} {
		e := api(t, w.server, c.login, "example.net")
		works, why := e.State("example.org")
		if works != (c.why == "") || !strings.Contains(why, c.why) || strings.Contains(why, password) {
			t.Errorf("%s: works %v, %q, want %q", c.login.User, works, why, c.why)
		}
		if works, why := e.State("example.net"); works || c.why == "" && !strings.Contains(why, "does not have this domain") {
			t.Errorf("a domain that is not there: %v %q", works, why)
		}
	}
	t.Run("token", func(t *testing.T) { // issued by oauth_issue_token
		token := w.server.Token()
		if token == "" {
			t.Fatalf("ejabberd issues no token:\n%s", w.server.Log())
		}
		e := api(t, w.server, serverroster.EjabberdLogin{Token: token})
		works, why := e.State("example.org")
		if refused := ejabberdVersion >= "26.07"; works == refused || strings.Contains(why, token) {
			t.Fatalf("works %v, %q", works, why)
		}
		if works {
			romeo := rosters.Item{JID: mustJID(t, "romeo@example.org"), Name: "R", Subscription: rosters.SubscriptionBoth, Groups: []string{"A"}}
			put(t.Context(), t, e.Way("example.org"), "juliet@example.org", romeo)
			if got := stored(t.Context(), t, e.Way("example.org"), "juliet@example.org"); !got.Equal(rosters.New([]rosters.Item{romeo})) {
				t.Errorf("got %s", got.XML())
			}
			put(t.Context(), t, e.Way("example.org"), "juliet@example.org")
		}
	})
	// mod_admin_extra is not there, or no API at all.
	plain := start(t, setup{server: ejabberd, counts: true})
	if works, why := api(t, plain.server, login).State("example.org"); works || !strings.Contains(why, "connection refused") {
		t.Error(works, why)
	}
}

// ejabberd exchanges presence at once when the API has made two users contacts, and when
// it parts them, also while the namespace is delegated. What becomes of one roster leaves
// the contact's as it is.
func TestEjabberdAPIPresence(t *testing.T) {
	t.Parallel()
	for _, lib := range libraries {
		t.Run(lib.name, func(t *testing.T) {
			t.Parallel()
			testEjabberdAPIPresence(t, lib)
		})
	}
}

func testEjabberdAPIPresence(t *testing.T, lib library) {
	ctx := bounded(t)
	w := start(t, setup{server: withAPI(harness.ByAddress), counts: true}) // rosterd relays nothing
	way := proven(t, w.server)
	for _, user := range []string{"juliet@example.org", "romeo@example.org"} {
		put(ctx, t, way, user)
	}
	w.backend.Set("juliet", contacts("Romeo"))
	w.backend.Set("romeo", contacts("Juliet"))
	juliet := w.login(ctx, t, lib, "juliet@example.org/balcony")
	wantRoster(ctx, t, juliet, item("Romeo"))
	romeo := w.login(ctx, t, lib, "romeo@example.org/street")
	wantRoster(ctx, t, romeo, item("Juliet"))
	both := func(contact string) rosters.Item {
		return rosters.Item{JID: mustJID(t, contact), Name: strings.ToUpper(contact[:1]) + contact[1:strings.Index(contact, "@")], Subscription: rosters.SubscriptionBoth}
	}
	put(ctx, t, way, "juliet@example.org", both("romeo@example.org"))
	waitSeen(ctx, t, romeo, "juliet@example.org/balcony", "available")
	wantUnseen(t, juliet, "romeo@example.org") // his own roster lets her see him
	put(ctx, t, way, "romeo@example.org", both("juliet@example.org"))
	waitSeen(ctx, t, juliet, "romeo@example.org/street", "available")
	waitBrought(ctx, t, juliet, item("Romeo")) // by ejabberd's own push
	waitBrought(ctx, t, romeo, item("Juliet"))
	comeAndGo(ctx, t, w, lib, juliet, "romeo@example.org/garden", "juliet@example.org/balcony")

	put(ctx, t, way, "juliet@example.org")
	waitSeen(ctx, t, romeo, "juliet@example.org/balcony", "unavailable")
	if got := stored(ctx, t, way, "romeo@example.org"); !got.Equal(rosters.New([]rosters.Item{both("juliet@example.org")})) {
		t.Errorf("romeo's roster: %s", got.XML())
	}
	for _, s := range romeo.Stanzas() {
		if s.Name == "presence" && strings.HasPrefix(s.Type, "unsubscribe") {
			t.Errorf("romeo was told %s", s.XML)
		}
	}
	put(ctx, t, way, "romeo@example.org")
	waitSeen(ctx, t, juliet, "romeo@example.org/street", "unavailable")
	wantRoster(ctx, t, juliet, item("Romeo")) // which is the backend's
}

// COMPAT mod_roster: access: none refuses users' roster sets, subscribe and subscribed.
// unsubscribe and unsubscribed are answered with an error, too, and are carried out
// nevertheless: on both sides, by what ejabberd then sends.
func TestEjabberdReadOnlyRosters(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	srv := withAPI(harness.ByAddress)
	w := start(t, setup{server: srv, later: true, options: harness.ServerOptions{Grants: harness.Grants{NoDelegation: true}}})
	way := proven(t, w.server)
	both := func(contact string) rosters.Item {
		return rosters.Item{JID: mustJID(t, contact), Subscription: rosters.SubscriptionBoth}
	}
	put(ctx, t, way, "juliet@example.org", both("romeo@example.org"))
	put(ctx, t, way, "romeo@example.org", both("juliet@example.org"))
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, juliet, harness.Item{JID: "romeo@example.org", Subscription: "both"}) // ejabberd answers
	refused := func(kind, to string) {
		t.Helper()
		send(t, juliet, "<presence type='"+kind+"' to='"+to+"'/>")
		if _, err := juliet.WaitStanza(ctx, func(s harness.Stanza) bool {
			return s.Name == "presence" && s.Type == "error" && s.From == to && strings.Contains(s.XML, "<forbidden ")
		}); err != nil {
			t.Fatal(err)
		}
	}
	subscription := func(user, contact string) string {
		i, _ := stored(ctx, t, way, user).Item(mustJID(t, contact))
		return string(i.Subscription)
	}
	for i, change := range []string{"name='R'", "subscription='remove'"} {
		id := "edit" + string(rune('0'+i))
		wantError(t, request(ctx, t, juliet, id, iq("set", id, "", "<query xmlns='jabber:iq:roster'><item jid='romeo@example.org' "+change+"/></query>")), "not-allowed")
	}
	refused("subscribe", "mercutio@example.org")
	if got := stored(ctx, t, way, "juliet@example.org"); got.Len() != 1 || stored(ctx, t, way, "mercutio@example.org").Len() != 0 {
		t.Errorf("got %s", got.XML())
	}
	if got := subscription("juliet@example.org", "romeo@example.org"); got != "both" {
		t.Error(got)
	}
	refused("unsubscribe", "romeo@example.org")
	poll(ctx, t, func() bool {
		return subscription("juliet@example.org", "romeo@example.org") == "from" && subscription("romeo@example.org", "juliet@example.org") == "to"
	}, func() string { return "unsubscribe is refused: say so in the documents" })
}

// `rosterd check` tries the API, and says what ejabberd.yml lacks.
func TestCheckEjabberdAPI(t *testing.T) {
	t.Parallel()
	harness.Require(t.Context(), t)
	for _, c := range []struct {
		who   string
		lines []string
		code  int
	}{
		{harness.ByAddress, []string{"ok   example.org: ejabberd's API reads and writes its own rosters"}, 0},
		{"{ip: 127.0.0.2}", []string{"FAIL example.org: ejabberd's API does not work: delete_rosteritem: 403: api_permissions does not permit it",
			"what: [get_roster, add_rosteritem, delete_rosteritem]", "in mod_roster: access: none", "who: {ip: 127.0.0.0/8}"}, 1},
	} {
		srv := withAPI(c.who)
		w := start(t, setup{server: srv, later: true})
		settings := (&site{w.server, w.backend}).settings(t)
		settings["xmpp.unrestricted"], settings["xmpp.server_roster"] = true, "auto"
		settings["ejabberd.api"] = map[string]string{"url": w.server.APIURL(), "token": ""}
		output, code := check(t, settings)
		if code != c.code || slices.ContainsFunc(c.lines, func(line string) bool { return !strings.Contains(output, line) }) {
			t.Errorf("exit code %d, want %d with %q:\n%s", code, c.code, c.lines, output)
		}
	}
}
