package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rosterd/component"
	"rosterd/e2e/harness"
	"rosterd/jid"
	"rosterd/metrics"
	"rosterd/presence"
	rosters "rosterd/roster"
	"rosterd/serverroster"
	"rosterd/session"
)

// noRosters is a [component.Rosters] of nobody.
type noRosters struct{}

func (noRosters) Get(jid.JID, *string, rosters.Reply) error     { return rosters.ErrStopping }
func (noRosters) Edit(jid.JID, rosters.Edit, func(error)) error { return rosters.ErrStopping }
func (noRosters) Refused(jid.JID, []jid.JID)                    {}
func (noRosters) Undelivered(jid.JID)                           {}
func (noRosters) Unasked(jid.JID)                               {}
func (noRosters) Gone(jid.JID)                                  {}
func (noRosters) Resume(string)                                 {}
func (noRosters) Want(jid.JID)                                  {}

// connectComponent connects a component to a server, without the rest of rosterd, until the test ends.
func connectComponent(t *testing.T, server *harness.Server) (c *component.Component, ready chan string) {
	t.Helper()
	ready = make(chan string, 16)
	c = component.New(component.Options{
		Address: server.ComponentAddress(), Domain: server.Options().Component, Secret: server.Options().Secret, Hosts: server.Options().Hosts(),
		Presence: "auto", Timing: component.Timing{MinRetry: 100 * time.Millisecond}, ServerRosterReady: func(host string) { ready <- host },
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Metrics: metrics.New(prometheus.NewRegistry()),
	}, session.NewTable())
	c.Relay(presence.New(nil, nil, presence.Limits{}))
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx, noRosters{}) }()
	t.Cleanup(func() { stop(); <-done })
	return c, ready
}

// readOnlyModule is our module, to be put into Prosody's folder.
func readOnlyModule(t *testing.T) map[string]string {
	const module = "mod_rosterd_readonly.lua"
	return map[string]string{module: read(t, "../deploy/prosody/"+module)}
}

// readOnly is Prosody as docs/prosody.md recommends it.
func readOnly(t *testing.T, options harness.ServerOptions) harness.ProsodyOptions {
	return harness.ProsodyOptions{ServerOptions: options, Files: readOnlyModule(t), HostLua: `  modules_enabled = { "delegation", "privilege", "rosterd_readonly" }`}
}

func startProsodyWith(t *testing.T, options harness.ProsodyOptions) *harness.Server {
	t.Helper()
	harness.Require(t.Context(), t)
	server := runProsody(t, options)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log:\n%s", tail(server.Log()))
		}
	})
	return server
}

// wantOwn wants the server's own roster of a user.
func wantOwn(ctx context.Context, t *testing.T, way serverroster.Way, user string, want ...rosters.Item) {
	t.Helper()
	got, err := way.Get(ctx, mustJID(t, user))
	if err != nil || !got.Equal(rosters.New(want)) {
		t.Errorf("%s: got %.2000s, %v, want %.2000s", user, got.XML(), err, rosters.New(want).XML())
	}
}

// Prosody's own rosters are read and written by privilege, with delegation and without.
func TestOwnRostersByPrivilege(t *testing.T) {
	t.Parallel()
	for name, grants := range map[string]harness.Grants{"delegated": {}, "not delegated": {NoDelegation: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testOwnRostersByPrivilege(t, grants)
		})
	}
}

func testOwnRostersByPrivilege(t *testing.T, grants harness.Grants) {
	ctx := bounded(t)
	server := startProsodyWith(t, harness.ProsodyOptions{ServerOptions: harness.ServerOptions{Users: everybody, Grants: grants}})
	c, ready := connectComponent(t, server)
	if host := <-ready; host != "example.org" {
		t.Errorf("%s is ready", host)
	}
	way := c.OwnRosters("example.org")
	juliet := mustJID(t, "juliet@example.org")
	wantOwn(ctx, t, way, "juliet@example.org")
	romeo := rosters.Item{JID: mustJID(t, "romeo@example.org"), Name: `R & J's <"`, Subscription: rosters.SubscriptionBoth, Groups: []string{"Friends", "Verona & more"}}
	nurse := rosters.Item{JID: mustJID(t, "nurse@b\u00fccher.example"), Subscription: rosters.SubscriptionTo}
	bare := rosters.Item{JID: mustJID(t, "gateway.example.org"), Subscription: rosters.SubscriptionFrom}
	var written []rosters.Change
	set := func(user jid.JID, changes ...rosters.Change) error {
		written = nil
		return way.Set(ctx, user, changes, func(c rosters.Change) { written = append(written, c) })
	}
	add := func(item rosters.Item) rosters.Change { return rosters.Change{Action: rosters.Added, Item: item} }
	remove := func(item rosters.Item) rosters.Change {
		return rosters.Change{Action: rosters.Removed, Item: rosters.Item{JID: item.JID}}
	}
	if err := set(juliet, add(romeo), add(nurse), add(bare)); err != nil || len(written) != 3 {
		t.Errorf("written %+v, %v", written, err)
	}
	wantOwn(ctx, t, way, "juliet@example.org", romeo, nurse, bare)
	if err := set(juliet, remove(nurse), remove(nurse)); err != nil || len(written) != 2 {
		t.Errorf("written %+v, %v", written, err)
	}
	// Itself, and what is no address: refused, and the others are written.
	self := rosters.Item{JID: juliet, Subscription: rosters.SubscriptionBoth}
	err := set(juliet, add(self), add(nurse))
	refused, is := errors.AsType[*serverroster.RefusedError](err)
	if !is || refused.Why != "not-allowed" || len(refused.Contacts) != 1 || len(written) != 1 {
		t.Errorf("written %+v, %v", written, err)
	}
	wantOwn(ctx, t, way, "juliet@example.org", romeo, nurse, bare)
	// Nobody has an account of that name.
	wantOwn(ctx, t, way, "nobody@example.org")
	if err := set(mustJID(t, "nobody@example.org"), add(romeo)); err != serverroster.ErrNoAccount {
		t.Errorf("nobody: %v", err)
	}
	wantOwn(ctx, t, way, "nobody@example.org")
	if err := server.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	<-ready
	if _, err := way.Get(ctx, juliet); !errors.Is(err, rosters.ErrNotConnected) {
		t.Errorf("on the old stream: %v", err)
	}
	wantOwn(ctx, t, c.OwnRosters("example.org"), "juliet@example.org", romeo, nurse, bare)
	if !grants.NoDelegation {
		return
	}
	poll(ctx, t, func() bool { return c.Status().Hosts[0].Query == component.QueryServer }, func() string { return fmt.Sprintf("%+v", c.Status()) })
	// The server answers by itself, and pushes what is written.
	w := &world{server: server}
	client := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	if items := roster(ctx, t, client); len(items) != 3 {
		t.Errorf("got %+v", items)
	}
	way = c.OwnRosters("example.org")
	if err := set(juliet, remove(bare)); err != nil {
		t.Error(err)
	}
	if push, err := client.WaitPush(ctx); err != nil || push.JID != "gateway.example.org" || push.Subscription != "remove" {
		t.Errorf("push %+v, %v", push, err)
	}
}

// A roster of 5,000 contacts is read whole.
func TestLongOwnRoster(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	var items []rosters.Item
	var data strings.Builder
	data.WriteString("return {\n\t[false] = { [\"pending\"] = {}; [\"version\"] = 1; };\n")
	for i := range 5000 {
		it := rosters.Item{JID: mustJID(t, fmt.Sprintf("contact-with-a-name-%d@example.org", i)), Name: "Somebody whose name takes some more bytes than most", Subscription: rosters.SubscriptionBoth,
			Groups: []string{"A group with a long name of its own", "Another group, with a name as long as the other one"}}
		items = append(items, it)
		fmt.Fprintf(&data, "\t[%q] = { [\"name\"] = %q; [\"subscription\"] = \"both\"; [\"groups\"] = { [%q] = true; [%q] = true; }; };\n", it.JID, it.Name, it.Groups[0], it.Groups[1])
	}
	data.WriteString("};\n")
	server := startProsodyWith(t, harness.ProsodyOptions{ServerOptions: harness.ServerOptions{Users: everybody},
		Files: map[string]string{"data/example%2eorg/roster/juliet.dat": data.String()}})
	c, ready := connectComponent(t, server)
	<-ready
	wantOwn(ctx, t, c.OwnRosters("example.org"), "juliet@example.org", items...)
}

// subscriptionKinds are those of RFC 6121, section 3.
var subscriptionKinds = []string{"subscribe", "subscribed", "unsubscribe", "unsubscribed"}

// With our module nobody but rosterd changes Prosody's own rosters: users are refused, the
// contacts see nothing, and what one side does not list is no matter to the other's roster.
func TestReadOnlyProsody(t *testing.T) {
	t.Parallel()
	for name, grants := range map[string]harness.Grants{"delegated": {}, "not delegated": {NoDelegation: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testReadOnlyProsody(t, grants)
		})
	}
}

func testReadOnlyProsody(t *testing.T, grants harness.Grants) {
	ctx := bounded(t)
	server := startProsodyWith(t, readOnly(t, harness.ServerOptions{Users: everybody, Grants: grants}))
	c, ready := connectComponent(t, server)
	<-ready
	way := c.OwnRosters("example.org")
	item := func(name string) rosters.Item {
		return rosters.Item{JID: mustJID(t, name+"@example.org"), Name: name, Subscription: rosters.SubscriptionBoth}
	}
	outside := rosters.Item{JID: mustJID(t, domain), Subscription: rosters.SubscriptionBoth}
	set := func(user string, items ...rosters.Item) {
		t.Helper()
		var changes []rosters.Change
		for _, it := range items {
			changes = append(changes, rosters.Change{Action: rosters.Added, Item: it})
		}
		if err := way.Set(ctx, mustJID(t, user+"@example.org"), changes, func(rosters.Change) {}); err != nil {
			t.Fatal(err)
		}
	}
	// The nurse lists nobody, and romeo lists nobody but juliet.
	set("juliet", item("romeo"), item("nurse"), outside)
	set("romeo", item("juliet"))
	unchanged := func() {
		t.Helper()
		wantOwn(ctx, t, way, "juliet@example.org", item("romeo"), item("nurse"), outside)
		wantOwn(ctx, t, way, "romeo@example.org", item("juliet"))
		wantOwn(ctx, t, way, "nurse@example.org")
	}
	poll(ctx, t, func() bool { return c.Status().Hosts[0].Subscriptions == component.SubscriptionsRefused }, func() string { return fmt.Sprintf("%+v", c.Status()) })

	w := &world{server: server}
	nurse := w.login(ctx, t, gosrc, "nurse@example.org/kitchen")
	romeo := w.login(ctx, t, slixmpp, "romeo@example.org/street")
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	waitSeen(ctx, t, romeo, "juliet@example.org/balcony", "available")
	waitSeen(ctx, t, juliet, "romeo@example.org/street", "available")
	handled(ctx, t, nurse)
	unchanged() // the nurse's server was asked for her presence, and answers that she is no contact
	for _, client := range []harness.Client{juliet, nurse, romeo} {
		for _, kind := range subscriptionKinds {
			for _, to := range []string{"juliet@example.org", "romeo@example.org", "nurse@example.org/kitchen", "paris@example.org", domain, "somebody@" + domain} {
				id := kind + to
				send(t, client, "<presence type='"+kind+"' to='"+to+"' id='"+id+"'/>")
				answer, err := client.WaitStanza(ctx, func(s harness.Stanza) bool { return s.Name == "presence" && s.ID == id })
				if err != nil {
					t.Fatalf("%s to %s: %v", kind, to, err)
				}
				wantError(t, answer, "not-allowed")
			}
		}
		handled(ctx, t, client)
	}
	unchanged()
	for name, client := range map[string]harness.Client{"juliet": juliet, "romeo": romeo, "nurse": nurse} {
		handled(ctx, t, client)
		for _, s := range client.Stanzas() {
			for _, kind := range subscriptionKinds {
				if s.Name == "presence" && s.Type == kind {
					t.Errorf("%s got %s", name, s.XML)
				}
			}
		}
	}
	edit := request(ctx, t, juliet, "edit", iq("set", "edit", "", "<query xmlns='jabber:iq:roster'><item jid='romeo@example.org' subscription='remove'/></query>"))
	if grants.NoDelegation {
		wantError(t, edit, "not-allowed")
	} else if edit.Type != "error" {
		t.Errorf("got %s", edit.XML)
	}
	unchanged()
	// Who is removed by rosterd is told that she is gone, at once, and who is added that she
	// is there; nobody else's roster is changed.
	if exchanger, is := way.(interface{ Exchanges() bool }); !is || !exchanger.Exchanges() {
		t.Error("it is not known that the server exchanges presence")
	}
	if err := way.Set(ctx, mustJID(t, "juliet@example.org"), []rosters.Change{{Action: rosters.Removed, Item: item("romeo")}}, func(rosters.Change) {}); err != nil {
		t.Error(err)
	}
	wantOwn(ctx, t, way, "juliet@example.org", item("nurse"), outside)
	wantOwn(ctx, t, way, "romeo@example.org", item("juliet"))
	waitSeen(ctx, t, romeo, "juliet@example.org/balcony", "unavailable")
	set("juliet", item("romeo"))
	waitSeen(ctx, t, romeo, "juliet@example.org/balcony", "available")
	handled(ctx, t, nurse)
	wantUnseen(t, nurse, "romeo@example.org")
	set("nurse", item("juliet")) // juliet has had her all the time
	waitSeen(ctx, t, nurse, "juliet@example.org/balcony", "available")
	waitSeen(ctx, t, juliet, "nurse@example.org/kitchen", "available")
}

// Where Prosody answers by itself, a refused edit is undone on the screen of who made it:
// the item is pushed as it is. Where it delegates, that is rosterd's to do, and done once.
func TestRefusedEditOnProsody(t *testing.T) {
	t.Parallel()
	for name, grants := range map[string]harness.Grants{"delegated": {}, "not delegated": {NoDelegation: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testRefusedEditOnProsody(t, grants)
		})
	}
}

func testRefusedEditOnProsody(t *testing.T, grants harness.Grants) {
	ctx := bounded(t)
	w := startKept(t, setup{server: kept(prosody), options: harness.ServerOptions{Grants: grants}})
	romeo := harness.Item{JID: "romeo@example.org", Name: "Romeo", Subscription: "both", Groups: []string{"Friends"}}
	w.backend.Set("juliet", harness.Contacts{romeo.JID: {Name: romeo.Name, Groups: map[string]bool{"Friends": true}}})
	w.refresh(ctx, t, "juliet")
	w.waitOwn(ctx, t, "juliet", romeo)
	for _, lib := range libraries {
		client := w.login(ctx, t, lib, "juliet@example.org/"+lib.name)
		wantRoster(ctx, t, client, romeo)
		for id, c := range map[string]struct {
			set  string
			want []harness.Item
		}{
			"add":       {"<item jid='Nurse@example.org' name='Nurse'/>", []harness.Item{removed("Nurse")}},
			"rename":    {"<item jid='romeo@example.org' name='R'><group>Foes</group></item>", []harness.Item{romeo}},
			"remove":    {"<item jid='romeo@example.org' subscription='remove'/>", []harness.Item{romeo}},
			"nothing":   {"", nil},
			"no JID":    {"<item name='R'/>", nil},
			"malformed": {"<item jid='@example.org'/>", nil},
		} {
			if answer := request(ctx, t, client, id, edit(id, c.set)); answer.Type != "error" {
				t.Errorf("%s: %s", id, answer.XML)
			}
			wantPushes(ctx, t, client, c.want...)
		}
		wantRoster(ctx, t, client, romeo)
		client.Close()
	}
	w.wantOwn(ctx, t, "juliet", romeo)
}

// Requests that are open when our module comes are forgotten: the user could neither accept
// nor refuse them, and those of the user would be refused at each login.
func TestOpenRequestsOnProsody(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	options := readOnly(t, harness.ServerOptions{Users: everybody, Grants: harness.Grants{NoDelegation: true}})
	options.Files["data/example%2eorg/roster/juliet.dat"] = `return {
	[false] = { ["pending"] = { ["tybalt@example.org"] = true; }; ["version"] = 7; };
	["nurse@example.org"] = { ["subscription"] = "from"; ["ask"] = "subscribe"; ["groups"] = {}; };
	["romeo@example.org"] = { ["subscription"] = "both"; ["groups"] = {}; };
};
`
	server := startProsodyWith(t, options)
	w := &world{server: server}
	both := func(name string) harness.Item { return harness.Item{JID: name + "@example.org", Subscription: "both"} }
	_, ready := connectComponent(t, server)
	<-ready
	for _, resource := range []string{"balcony", "tomb"} { // at each login
		juliet := w.login(ctx, t, gosrc, "juliet@example.org/"+resource)
		nurse := both("nurse")
		nurse.Subscription = "from"
		wantRoster(ctx, t, juliet, nurse, both("romeo"))
		show(t, juliet, "")
		handled(ctx, t, juliet)
		for _, s := range juliet.Stanzas() {
			if s.Name == "presence" && (s.Type == "error" || slices.Contains(subscriptionKinds, s.Type)) {
				t.Errorf("juliet is sent %s", s.XML)
			}
		}
		juliet.Close()
	}
}

// Without the module one side that does not list the other changes the other's roster, and
// users change their own.
func TestProsodyThatTakesSubscriptions(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	server := startProsodyWith(t, harness.ProsodyOptions{ServerOptions: harness.ServerOptions{Users: everybody}})
	c, ready := connectComponent(t, server)
	<-ready
	way := c.OwnRosters("example.org")
	poll(ctx, t, func() bool { return c.Status().Hosts[0].Subscriptions == component.SubscriptionsTaken }, func() string { return fmt.Sprintf("%+v", c.Status()) })
	nurse := rosters.Item{JID: mustJID(t, "nurse@example.org"), Subscription: rosters.SubscriptionBoth}
	if err := way.Set(ctx, mustJID(t, "juliet@example.org"), []rosters.Change{{Action: rosters.Added, Item: nurse}}, func(rosters.Change) {}); err != nil {
		t.Fatal(err)
	}
	w := &world{server: server}
	w.login(ctx, t, gosrc, "nurse@example.org/kitchen")
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	handled(ctx, t, juliet)
	got, err := way.Get(ctx, mustJID(t, "juliet@example.org"))
	t.Logf("juliet, after login: %s, %v", got.XML(), err)
	send(t, juliet, "<presence type='unsubscribe' to='nurse@example.org'/>")
	handled(ctx, t, juliet)
	nurse.Subscription = rosters.SubscriptionFrom
	wantOwn(ctx, t, way, "juliet@example.org", nurse)
}
