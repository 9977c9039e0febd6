package e2e

import (
	"context"
	"encoding/xml"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"rosterd/e2e/harness"
)

// unrestricted is a server whose component may use any address, and a rosterd
// that knows it.
func unrestricted(s server) server {
	s.unrestricted = true
	return s
}

// stock is a server as its package comes: a component has no address but its
// own.
func stock(s server) server {
	s.unrestricted = false
	return s
}

// way is the series of how a host is served, see the table in docs/other-servers.md.
func way(host, query, push, presence, serverRoster string) string {
	return fmt.Sprintf("rosterd_host_way{host=%q,presence=%q,push=%q,query=%q,server_roster=%q}", host, presence, push, query, serverRoster)
}

// rosterd takes the best way that each server leaves, and says what is missing
// for a better one.
func TestWays(t *testing.T) {
	t.Parallel()
	noIQ := harness.Grants{NoPrivilegeIQ: true}
	for _, c := range []struct {
		name                  string
		server                server
		grants                harness.Grants
		query, push, presence string
		missing               []string // what the warnings and the notes are about
	}{
		{"delegated, privileged on Prosody", prosody, harness.Grants{}, "delegated", "privileged", "server", nil},
		{"delegated, privileged, unrestricted on Prosody", unrestricted(prosody), harness.Grants{}, "delegated", "privileged", "relayed", nil},
		{"delegated, unrestricted on Prosody", unrestricted(prosody), noIQ, "delegated", "direct", "relayed", nil},
		{"delegated, privileged where it can be, unrestricted on ejabberd", ejabberd, harness.Grants{}, "delegated", ejabberd.push(), "relayed", []string{"own rosters"}},
		{"delegated, unrestricted on ejabberd without privileged IQs", ejabberd, noIQ, "delegated", "direct", "relayed", []string{"own rosters"}},
		{"delegated, unrestricted on ejabberd without presence", ejabberd, harness.Grants{NoPresence: true},
			"delegated", ejabberd.push(), "server", []string{"presence between contacts"}},
		{"delegated alone on Prosody", prosody, noIQ, "delegated", "exchange", "server", []string{"roster item exchange"}},
		{"delegated alone on ejabberd", stock(ejabberd), noIQ,
			"delegated", "exchange", "server", []string{"roster item exchange", "presence between contacts"}},
		{"plain Prosody", prosody, harness.Grants{Plain: true}, "plain", "exchange", "server", []string{"does not delegate"}},
		{"plain ejabberd", stock(ejabberd), harness.Grants{Plain: true}, "plain", "exchange", "server", []string{"does not delegate"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx := bounded(t)
			w := start(t, setup{server: c.server, options: harness.ServerOptions{Grants: c.grants}})
			w.backend.Set("juliet", contacts("Romeo"))
			w.backend.Set("romeo", contacts("Nurse"))
			juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
			if c.query != "plain" {
				wantRoster(ctx, t, juliet, item("Romeo"))
			}
			romeo := w.login(ctx, t, slixmpp, "romeo@example.org/street")
			if c.query == "plain" {
				wantPlain(ctx, t, juliet, romeo)
			} else {
				wantRoster(ctx, t, romeo, item("Nurse"))
			}
			if c.push == "exchange" {
				wantExchange(ctx, t, w, "juliet", juliet, romeo)
			} else {
				for _, lists := range []struct {
					now  harness.Contacts
					push harness.Item
				}{
					{contacts("Romeo", "Nurse"), item("Nurse")},
					{harness.Contacts{"romeo@example.org": {Name: "Montague"}, "nurse@example.org": {Name: "Nurse"}},
						harness.Item{JID: "romeo@example.org", Name: "Montague", Subscription: "both"}},
					{contacts("Nurse"), removed("Romeo")},
				} {
					w.backend.Set("juliet", lists.now)
					w.refresh(ctx, t, "juliet")
					wantPushes(ctx, t, juliet, lists.push)
				}
				result := c.server.pushed
				if c.push == "direct" {
					result = "sent"
				}
				waitMetric(ctx, t, w.rosterd, fmt.Sprintf("rosterd_pushes_total{action=%q,result=%q}", "changed", result), 1)
			}
			wantQuiet(ctx, t, romeo)
			wantMissing(ctx, t, w, c.missing)
			own := "none"
			if strings.HasSuffix(c.name, "Prosody") && c.query == "delegated" {
				own = "privilege"
			}
			waitMetric(ctx, t, w.rosterd, way("example.org", c.query, c.push, c.presence, own), 1)
			wantOneStream(ctx, t, w)
		})
	}
}

// wantMissing wants that the log, in one warning each, and /readyz say what a
// better way needs, and warn of nothing else.
func wantMissing(ctx context.Context, t *testing.T, w *world, missing []string) {
	t.Helper()
	w.waitLog(ctx, t, "msg=ways")
	for _, what := range missing { // which is logged next
		w.waitLog(ctx, t, what)
	}
	answer, err := w.rosterd.Metrics("/readyz").Get(ctx)
	if err != nil || answer.Status != http.StatusOK {
		t.Fatalf("/readyz: %+v, %v", answer, err)
	}
	notes := string(answer.Body)
	if n := strings.Count(notes, "note:"); n != len(missing) {
		t.Errorf("%d notes, want %q: %s", n, missing, notes)
	}
	var warnings []string
	for _, line := range strings.Split(w.rosterd.Log(), "\n") {
		if strings.Contains(line, "level=WARN") && (ejabberd.blocksAnswered || !strings.Contains(line, "does not say whom a user has blocked")) {
			warnings = append(warnings, line)
		}
	}
	if len(warnings) != len(missing) {
		t.Errorf("warned %q, want %q", warnings, missing)
	}
	for _, what := range missing {
		if !strings.Contains(notes, what) || !strings.Contains(strings.Join(warnings, ""), what) {
			t.Errorf("%q is missing in %s or in %q", what, notes, warnings)
		}
	}
}

// wantPlain has two users ask the component itself, as their clients must where
// nothing is delegated: each gets his own contacts, and nobody another's.
func wantPlain(ctx context.Context, t *testing.T, juliet, romeo harness.Client) {
	t.Helper()
	for client, want := range map[harness.Client]string{juliet: "romeo@example.org", romeo: "nurse@example.org"} {
		answer := request(ctx, t, client, "plain", iq("get", "plain", domain, rosterQuery))
		if answer.Type != "result" || answer.From != domain || !strings.Contains(answer.XML, want) {
			t.Errorf("answer %s, want the contact %s", answer.XML, want)
		}
	}
	item := regexp.MustCompile(`<item [^>]*jid=.romeo@`) // juliet's
	for i, to := range []string{"juliet@" + domain, domain + "/juliet", `juliet\40example.org@` + domain, "juliet@example.org"} {
		id := fmt.Sprint("other", i)
		if answer := request(ctx, t, romeo, id, iq("get", id, to, rosterQuery)); item.MatchString(answer.XML) {
			t.Errorf("romeo asked %s and got %s", to, answer.XML)
		}
	}
	wantError(t, request(ctx, t, juliet, "set", iq("set", "set", domain,
		"<query xmlns='jabber:iq:roster'><item jid='paris@example.org'/></query>")), "not-allowed")
	// What the component answers for anybody it does not answer in her name.
	wantError(t, request(ctx, t, romeo, "forged", iq("set", "forged", domain, forged)), "service-unavailable")
}

// suggestion is an item of a roster item exchange (XEP-0144, section 3).
type suggestion struct {
	Action string   `xml:"action,attr"`
	JID    string   `xml:"jid,attr"`
	Name   string   `xml:"name,attr"`
	Groups []string `xml:"group"`
}

// suggestions are all that a client has received, in their order.
func suggestions(t *testing.T, client harness.Client) []suggestion {
	t.Helper()
	var all []suggestion
	for _, s := range client.Stanzas() {
		if s.Name != "message" || s.Payload.Space != "http://jabber.org/protocol/rosterx" {
			continue
		}
		if s.From != domain || s.Type != "headline" {
			t.Errorf("a roster item exchange that is no headline of %s: %s", domain, s.XML)
		}
		var message struct {
			Items []suggestion `xml:"http://jabber.org/protocol/rosterx x>item"`
		}
		if err := xml.Unmarshal([]byte(s.XML), &message); err != nil {
			t.Fatalf("%v: %s", err, s.XML)
		}
		all = append(all, message.Items...)
	}
	return all
}

// wantExchange changes the contacts of user, who has romeo, and wants the
// changes as roster item exchange at his client, at no other's, and no push.
func wantExchange(ctx context.Context, t *testing.T, w *world, user string, client, other harness.Client) {
	t.Helper()
	key := user
	if _, host, isJID := strings.Cut(user, "@"); isJID && host != "" {
		key, _, _ = strings.Cut(user, "@")
	}
	var want []suggestion
	for _, change := range []struct {
		now  harness.Contacts
		item suggestion
	}{
		{harness.Contacts{"romeo@example.org": {Name: "Romeo"}, "nurse@example.org": {Name: "<Nurse> & Co", Groups: map[string]bool{"Capulet": true}}},
			suggestion{"add", "nurse@example.org", "<Nurse> & Co", []string{"Capulet"}}},
		{harness.Contacts{"romeo@example.org": {Name: "Montague"}, "nurse@example.org": {Name: "<Nurse> & Co", Groups: map[string]bool{"Capulet": true}}},
			suggestion{"modify", "romeo@example.org", "Montague", nil}},
		{harness.Contacts{"nurse@example.org": {Name: "<Nurse> & Co", Groups: map[string]bool{"Capulet": true}}},
			suggestion{"delete", "romeo@example.org", "", nil}},
	} {
		w.backend.Set(key, change.now)
		w.refresh(ctx, t, user)
		want = append(want, change.item)
		var got []suggestion
		poll(ctx, t, func() bool {
			got = suggestions(t, client)
			return len(got) >= len(want)
		}, func() string { return fmt.Sprintf("suggested %+v, want %+v", got, want) })
		if last := got[len(got)-1]; last.Action == "delete" {
			got[len(got)-1].Name = "" // may be told, and means nothing
		}
		if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Errorf("suggested %+v, want %+v", got, want)
		}
	}
	wantQuiet(ctx, t, client)
	if got := suggestions(t, client); len(got) != len(want) {
		t.Errorf("suggested %+v, want %+v", got, want)
	}
	if got := suggestions(t, other); len(got) > 0 {
		t.Errorf("somebody else was suggested %+v", got)
	}
}

// Each virtual host is served in its own way, with contacts from its own
// backend, and has its own troubles.
func TestHostsDiffer(t *testing.T) { onServers(t, testHostsDiffer) }

func testHostsDiffer(t *testing.T, srv server) {
	ctx := bounded(t)
	other := startBackend(t)
	w := start(t, setup{
		server: srv,
		options: harness.ServerOptions{
			ExtraHosts: []string{"example.net", "example.com"},
			Users:      users("juliet@example.org", "juliet@example.net", "juliet@example.com"),
			HostGrants: map[string]harness.Grants{"example.net": {NoPrivilegeIQ: true, NoPresence: true}, "example.com": {Plain: true}},
		},
		path:     "/contacts/%d/%s",
		settings: map[string]any{"contacts.hosts": map[string]any{"example.net": map[string]any{"url": other.URL()}}},
	})
	w.backend.Set("example.org/juliet", contacts("Romeo"))
	other.Set("juliet", contacts("Nurse"))
	w.backend.Set("example.com/juliet", contacts("Paris"))
	org := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, org, item("Romeo"))
	net := w.login(ctx, t, slixmpp, "juliet@example.net/balcony")
	wantRoster(ctx, t, net, item("Nurse"))
	com := w.login(ctx, t, gosrc, "juliet@example.com/balcony")
	if answer := request(ctx, t, com, "plain", iq("get", "plain", domain, rosterQuery)); !strings.Contains(answer.XML, "paris@example.org") {
		t.Errorf("answer %s", answer.XML)
	}
	push := srv.push()
	pushNet := map[string]string{"prosody": "exchange", "ejabberd": "direct"}[srv.name]
	presence := map[string]string{"prosody": "server", "ejabberd": "relayed"}[srv.name]
	own := map[string]string{"prosody": "privilege", "ejabberd": "none"}[srv.name]
	waitMetric(ctx, t, w.rosterd, way("example.org", "delegated", push, presence, own), 1)
	waitMetric(ctx, t, w.rosterd, way("example.net", "delegated", pushNet, "server", own), 1)
	waitMetric(ctx, t, w.rosterd, way("example.com", "plain", "exchange", "server", "none"), 1)

	// The backend of one fails, and the others are as they were.
	other.Refuse()
	wantRoster(ctx, t, net, item("Nurse")) // the last known
	waitMetric(ctx, t, w.rosterd, `rosterd_queries_total{result="stale"}`, 1)
	if reason := w.wantFailedRefresh(ctx, t, "juliet@example.net"); reason != "connection refused" {
		t.Errorf("reason %q", reason)
	}
	w.backend.Set("example.org/juliet", contacts("Romeo", "Tybalt"))
	w.backend.Set("example.com/juliet", contacts("Paris", "Tybalt"))
	w.refresh(ctx, t, "juliet@example.org", "juliet@example.com")
	wantPushes(ctx, t, org, item("Tybalt"))
	poll(ctx, t, func() bool { return len(suggestions(t, com)) == 1 }, func() string { return "nothing was suggested at example.com" })
	wantQuiet(ctx, t, net)

	if err := other.Accept(); err != nil {
		t.Fatal(err)
	}
	other.Set("juliet", contacts("Tybalt"))
	w.refresh(ctx, t, "juliet@example.net")
	if pushNet == "direct" {
		wantPushes(ctx, t, net, item("Tybalt"), removed("Nurse"))
	} else {
		poll(ctx, t, func() bool { return len(suggestions(t, net)) == 2 }, func() string { return "nothing was suggested at example.net" })
	}
	wantOneStream(ctx, t, w)
}

// ejabberd lets in a second instance, and shares queries between the two: the
// younger one finds out, says so and goes, and ejabberd takes the delegation with
// it. The older one serves on, and the younger one when the older is gone.
func TestTwoInstances(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	w := start(t, setup{server: ejabberd, own: true}) // when one leaves, no delegation is left
	w.backend.Set("juliet", contacts("Romeo"))
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, juliet, item("Romeo"))
	second := run(t, w.opts)
	said := func(r *harness.Rosterd, what string) func() bool {
		return func() bool { return strings.Contains(r.Log(), what) }
	}
	poll(ctx, t, said(second, "another rosterd is connected as contacts.example.org"), func() string { return "the younger says nothing" })
	poll(ctx, t, said(w.rosterd, "roster queries of example.org have ceased to be delegated"), func() string { return "the older does not notice" })
	waitReadyz(ctx, t, second, http.StatusServiceUnavailable, "another rosterd is connected")
	if err := w.rosterd.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	poll(ctx, t, func() bool { // that is no empty roster meanwhile
		items, err := juliet.Roster(ctx)
		if err == nil && len(items) != 1 {
			t.Errorf("roster %+v", items)
		}
		return err == nil
	}, func() string { return "no roster" })
	w.backend.Set("juliet", contacts("Romeo", "Nurse"))
	w.refresh(ctx, t, "juliet")
	for got := (harness.Item{}); !equal(got, item("Nurse")); { // others may come before, as the stream was lost
		var err error
		if got, err = juliet.WaitPush(ctx); err != nil {
			t.Fatal(err)
		}
	}

	// The younger one takes over at its next attempt, a minute after the first.
	w.rosterd.Kill()
	w.rosterd = second
	if err := second.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	waitBest(ctx, t, w)
	wantRoster(ctx, t, juliet, item("Romeo"), item("Nurse"))
	w.backend.Set("juliet", contacts("Nurse"))
	w.refresh(ctx, t, "juliet")
	waitBrought(ctx, t, juliet, removed("Romeo"))
}
