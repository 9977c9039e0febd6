package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"rosterd/e2e/harness"
)

// Every kind of change arrives as one push for each changed item, and nothing
// else arrives (RFC 6121, section 2.1.6).
func TestPushes(t *testing.T) { onServers(t, testPushes) }

func testPushes(t *testing.T, srv server) {
	base := func() harness.Contacts {
		return harness.Contacts{
			"romeo@example.org": {Name: "Romeo", Groups: map[string]bool{"Friends": true}},
			"nurse@example.org": {Name: "Nurse"},
			"paris@example.org": {Name: "Paris", Subscription: "none"},
		}
	}
	romeo := harness.Item{JID: "romeo@example.org", Name: "Romeo", Subscription: "both", Groups: []string{"Friends"}}
	with := func(it harness.Item, change func(*harness.Item)) harness.Item {
		change(&it)
		return it
	}
	cases := []struct {
		name   string
		change func(harness.Contacts)
		want   []harness.Item
	}{
		{"nothing", func(harness.Contacts) {}, nil},
		{"added", func(c harness.Contacts) { c["tybalt@example.org"] = harness.Contact{Name: "Tybalt"} }, []harness.Item{item("Tybalt")}},
		{"removed", func(c harness.Contacts) { delete(c, "romeo@example.org") }, []harness.Item{removed("Romeo")}},
		{"all removed", func(c harness.Contacts) { clear(c) }, []harness.Item{removed("Romeo"), removed("Nurse"), removed("Paris")}},
		{"renamed", func(c harness.Contacts) {
			c["romeo@example.org"] = harness.Contact{Name: "Montague <&'\">", Groups: map[string]bool{"Friends": true}}
		}, []harness.Item{with(romeo, func(it *harness.Item) { it.Name = "Montague <&'\">" })}},
		{"name taken away", func(c harness.Contacts) {
			c["romeo@example.org"] = harness.Contact{Groups: map[string]bool{"Friends": true}}
		}, []harness.Item{with(romeo, func(it *harness.Item) { it.Name = "" })}},
		{"regrouped", func(c harness.Contacts) {
			c["romeo@example.org"] = harness.Contact{Name: "Romeo", Groups: map[string]bool{"Family": true, "Enemies & <Foes>": true}}
		}, []harness.Item{with(romeo, func(it *harness.Item) { it.Groups = []string{"Enemies & <Foes>", "Family"} })}},
		{"taken out of its group", func(c harness.Contacts) {
			c["romeo@example.org"] = harness.Contact{Name: "Romeo", Groups: map[string]bool{"Friends": false}}
		}, []harness.Item{item("Romeo")}},
		{"re-subscribed", func(c harness.Contacts) {
			c["paris@example.org"] = harness.Contact{Name: "Paris", Subscription: "from"}
		}, []harness.Item{{JID: "paris@example.org", Name: "Paris", Subscription: "from"}}},
		{"asked", func(c harness.Contacts) {
			c["paris@example.org"] = harness.Contact{Name: "Paris", Subscription: "none", Ask: "subscribe"}
		}, []harness.Item{{JID: "paris@example.org", Name: "Paris", Subscription: "none", Ask: "subscribe"}}},
		{"approved", func(c harness.Contacts) {
			c["paris@example.org"] = harness.Contact{Name: "Paris", Subscription: "none", Approved: true}
		}, []harness.Item{{JID: "paris@example.org", Name: "Paris", Subscription: "none", Approved: !srv.dropsApproved}}},
		{"several at once", func(c harness.Contacts) {
			c["tybalt@example.org"] = harness.Contact{Name: "Tybalt"}
			c["nurse@example.org"] = harness.Contact{Name: "Angelica"}
			delete(c, "romeo@example.org")
		}, []harness.Item{item("Tybalt"), {JID: "nurse@example.org", Name: "Angelica", Subscription: "both"}, removed("Romeo")}},
	}
	w := start(t, setup{server: srv})
	for _, lib := range libraries {
		t.Run(lib.name, func(t *testing.T) {
			t.Parallel()
			ctx := bounded(t)
			user := map[string]string{gosrc.name: "juliet", slixmpp.name: "mercutio"}[lib.name]
			w.backend.Set(user, base())
			client := w.login(ctx, t, lib, user+"@example.org/balcony")
			for _, c := range cases {
				t.Run(c.name, func(t *testing.T) {
					now := base()
					w.backend.Set(user, now)
					roster(ctx, t, client) // the only resource: nobody is pushed anything
					c.change(now)
					w.backend.Set(user, now)
					w.refresh(ctx, t, user)
					wantPushes(ctx, t, client, understood(lib, c.want...)...)
					w.refresh(ctx, t, user) // and not once more
					wantQuiet(ctx, t, client)
				})
			}
			// What the library does not show: a push for each approval.
			approved := 0
			for _, s := range client.Stanzas() {
				if s.Type == "set" && strings.Contains(s.XML, "approved='true'") {
					approved++
				}
			}
			if approved == 0 != srv.dropsApproved || approved > 1 {
				t.Errorf("%d pushes say approved='true'", approved)
			}
		})
	}
}

// A refresh never takes the result of a fetch that began before it, and a reply
// with the older roster never overtakes the push of the newer one.
func TestRefreshDuringQuery(t *testing.T) { onServers(t, testRefreshDuringQuery) }

func testRefreshDuringQuery(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv, counts: true})
	w.backend.Set("romeo", contacts("Nurse"))
	wantRoster(ctx, t, w.login(ctx, t, gosrc, "romeo@example.org/home"), item("Nurse"))
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")

	w.backend.Set("juliet", contacts("Romeo"))
	release := make(chan struct{})
	w.backend.SetFault("juliet", harness.Fault{Until: release})
	send(t, juliet, iq("get", "old", "", rosterQuery))
	waitRequests(ctx, t, w, "juliet", 1) // which holds the old contacts
	w.backend.ClearFault("juliet")
	w.backend.Set("juliet", contacts("Romeo", "Nurse"))

	posted := make(chan error, 1)
	go func() {
		answer, err := w.post(ctx, "juliet", "romeo")
		if err == nil && (answer.Code != 200 || answer.Updated != 2) {
			err = fmt.Errorf("answer %+v", answer)
		}
		posted <- err
	}()
	// When romeo is fetched, juliet's refresh has arrived, too.
	waitRequests(ctx, t, w, "romeo", 2)
	close(release)
	if err := <-posted; err != nil {
		t.Fatal(err)
	}
	if answer := answerTo(ctx, t, juliet, "old"); strings.Contains(answer.XML, "nurse@") {
		t.Errorf("answer %s, want the older roster", answer.XML)
	}
	wantPushes(ctx, t, juliet, item("Nurse"))
	var order []string
	for _, s := range juliet.Stanzas() {
		// What ejabberd still had to say to an earlier session of that name is no matter.
		if s.Payload.Space == "jabber:iq:roster" && (s.ID == "old" || s.Type == "set") {
			order = append(order, s.Type)
		}
	}
	if got := strings.Join(order, ", "); got != "result, set" {
		t.Errorf("the client received %s, want the reply before the push", got)
	}
	waitRequests(ctx, t, w, "juliet", 2)
}

// However refreshes and changes mix, the client ends up with the backend's last
// word: an older result never replaces a newer one.
func TestConcurrentRefreshes(t *testing.T) { onServers(t, testConcurrentRefreshes) }

func testConcurrentRefreshes(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv})
	clients := map[string]harness.Client{}
	for _, user := range []string{"juliet", "romeo"} {
		w.backend.Set(user, contacts("Nurse"))
		clients[user] = w.login(ctx, t, gosrc, user+"@example.org/home")
		wantRoster(ctx, t, clients[user], item("Nurse"))
	}
	var mu sync.Mutex // the order of the changes is the order of their numbers
	last := 0
	change := func() {
		mu.Lock()
		defer mu.Unlock()
		last++
		for user := range clients {
			w.backend.Set(user, harness.Contacts{"nurse@example.org": {Name: fmt.Sprint("Nurse ", last)}})
		}
	}
	var work sync.WaitGroup
	for range 8 {
		work.Go(func() {
			for range 5 {
				change()
				answer, err := w.post(ctx, "juliet", "romeo")
				if err != nil || answer.Code != 200 || answer.Updated != 2 || answer.Errors != 0 {
					t.Errorf("answer %+v, %v", answer, err)
				}
			}
		})
	}
	work.Wait()
	for user, client := range clients {
		handled(ctx, t, client)
		name := ""
		for pushes := len(client.PendingPushes()); pushes > 0; pushes-- {
			it, err := client.WaitPush(ctx)
			if err != nil {
				t.Fatal(err)
			}
			name = it.Name
		}
		if want := fmt.Sprint("Nurse ", last); name != want {
			t.Errorf("%s has %q, want %q", user, name, want)
		}
		if n := len(w.backend.Requests(user)); n > 41 {
			t.Errorf("%d fetches for %s", n, user)
		}
	}
}

// Queries of one user at the same time share one fetch.
func TestQueriesShareAFetch(t *testing.T) { onServers(t, testQueriesShareAFetch) }

func testQueriesShareAFetch(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv, counts: true})
	w.backend.Set("juliet", contacts("Romeo"))
	balcony := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	phone := w.login(ctx, t, gosrc, "juliet@example.org/phone")
	release := make(chan struct{})
	w.backend.SetFault("juliet", harness.Fault{Until: release})
	for _, client := range []harness.Client{balcony, phone} {
		send(t, client, iq("get", "held", "", rosterQuery))
		handled(ctx, t, client)
	}
	waitRequests(ctx, t, w, "juliet", 1)
	close(release)
	for _, client := range []harness.Client{balcony, phone} {
		if answer := answerTo(ctx, t, client, "held"); !strings.Contains(answer.XML, "romeo@example.org") {
			t.Errorf("answer %s", answer.XML)
		}
	}
	wantRequests(t, w, "juliet", 1)
}
