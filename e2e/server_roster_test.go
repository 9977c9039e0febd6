package e2e

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"rosterd/e2e/harness"
)

// onKept runs a test on each server, whose own rosters rosterd keeps, with no other
// power: not that of any address (xmpp.unrestricted).
func onKept(t *testing.T, test func(*testing.T, server)) {
	t.Helper()
	onServers(t, func(t *testing.T, srv server) { test(t, kept(srv)) })
}

// onKeptAndProsodyAlone is onKept, and Prosody without our module: what users and their
// clients do there changes its rosters, and presence goes by these from the next one on.
func onKeptAndProsodyAlone(t *testing.T, test func(*testing.T, server)) {
	t.Helper()
	onKept(t, test)
	t.Run("prosody without the module", func(t *testing.T) {
		t.Parallel()
		alone := stock(prosody)
		alone.rosters = rostersKept
		test(t, alone)
	})
}

// startKept starts a world for such a test. rosterd's state outlives it.
func startKept(t *testing.T, s setup) *world {
	t.Helper()
	s.options = keeping(s.options)
	settings := map[string]any{"state.path": filepath.Join(t.TempDir(), "rosterd.db"), "contacts.resync_rate": 1000}
	for key, value := range s.settings {
		settings[key] = value
	}
	s.settings = settings
	return start(t, s)
}

// again ends rosterd, by kill -9, and starts it with the same state.
func (w *world) again(ctx context.Context, t *testing.T) {
	t.Helper()
	w.rosterd.Kill()
	w.connect(ctx, t)
}

// many are n contacts, with groups.
func many(n int, of string) (harness.Contacts, []harness.Item) {
	list, items := harness.Contacts{}, make([]harness.Item, 0, n)
	for i := range n {
		it := harness.Item{JID: fmt.Sprintf("%s%04d@example.org", of, i), Name: fmt.Sprint("Number ", i), Subscription: "both",
			Groups: []string{fmt.Sprint("Group ", i%7)}}
		list[it.JID] = harness.Contact{Name: it.Name, Groups: map[string]bool{it.Groups[0]: true}}
		items = append(items, it)
	}
	return list, items
}

// differs says how the server's own roster of a user differs from what it should be,
// or is empty.
func (w *world) differs(ctx context.Context, user string, want []harness.Item) string {
	items, err := w.server.OwnRoster(ctx, user+"@example.org")
	if err != nil {
		return err.Error()
	}
	has := map[string]harness.Item{}
	for _, it := range items {
		has[it.JID] = plain(it)
	}
	var differs []string
	for _, it := range want {
		if got, there := has[it.JID]; !there {
			differs = append(differs, "lacks "+it.JID)
		} else if !reflect.DeepEqual(got, plain(it)) {
			differs = append(differs, fmt.Sprintf("has %+v, not %+v", got, it))
		}
		delete(has, it.JID)
	}
	for jid := range has {
		differs = append(differs, "still has "+jid)
	}
	if differs == nil {
		return ""
	}
	return fmt.Sprintf("the server's own roster of %s, %d items, differs %d times: %s", user, len(items), len(differs), differs[0])
}

// plain is an item without what the server alone knows.
func plain(it harness.Item) harness.Item {
	it.Ask, it.Approved = "", false
	if len(it.Groups) == 0 {
		it.Groups = nil
	}
	slices.Sort(it.Groups)
	return it
}

// waitOwn waits until the server's own roster of a user is this one.
func (w *world) waitOwn(ctx context.Context, t *testing.T, user string, want ...harness.Item) {
	t.Helper()
	for last := ""; ; {
		if last = w.differs(ctx, user, want); last == "" {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal(last)
		}
	}
}

// wantOwn wants that it is so now.
func (w *world) wantOwn(ctx context.Context, t *testing.T, user string, want ...harness.Item) {
	t.Helper()
	if differs := w.differs(ctx, user, want); differs != "" {
		t.Error(differs)
	}
}

// waitOwnItems waits until the server's own roster of a user has n items at least,
// and returns how many it has.
func (w *world) waitOwnItems(ctx context.Context, t *testing.T, user string, n int) (has int) {
	t.Helper()
	poll(ctx, t, func() bool {
		items, err := w.server.OwnRoster(ctx, user+"@example.org")
		has = len(items)
		return err == nil && has >= n
	}, func() string { return fmt.Sprintf("the server's own roster of %s has %d items, not %d", user, has, n) })
	return has
}

// writes is how often juliet's roster of the server was written to since its start, by
// items of Prosody's and calls of ejabberd's, of which a removal takes two.
func (w *world) writes(ctx context.Context, t *testing.T) int {
	t.Helper()
	log, err := w.server.LogSoFar(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(log, "Roster set from allowed privileged entity") + len(apiCall.FindAllString(log, -1))
}

var apiCall = regexp.MustCompile(`<<"localuser">>,\s*<<"juliet">>`)

// lists has the backend list these users as each other's contacts.
func (w *world) lists(names ...string) {
	for i, name := range names {
		others := slices.Delete(slices.Clone(names), i, i+1)
		w.backend.Set(strings.ToLower(name), contacts(others...))
	}
}

// juliets and romeos are who logs in.
const (
	julietFull = "juliet@example.org/balcony"
	romeoFull  = "romeo@example.org/street"
)

// pair logs in juliet and romeo.
func (w *world) pair(ctx context.Context, t *testing.T) (juliet, romeo harness.Client) {
	t.Helper()
	return w.loginPEP(ctx, t, slixmpp, julietFull), w.loginPEP(ctx, t, slixmpp, romeoFull)
}

// leave ends sessions, and waits for their end.
func leave(clients ...harness.Client) {
	for _, c := range clients {
		c.Close()
	}
}

// Two users whom the backend lists are contacts to the server: they get each other's
// events, fetch what the other has published, see each other come and go, and their
// messages pass where those of strangers do not; while rosterd is away, too, after
// its restart, and after the server's. After a removal they lose all of it.
func TestServerRosterContacts(t *testing.T) { onKept(t, testServerRosterContacts) }

func testServerRosterContacts(t *testing.T, srv server) {
	ctx := bounded(t)
	w := startKept(t, setup{server: srv, own: true})
	w.lists("Juliet", "Romeo")
	w.backend.Set("mercutio", harness.Contacts{})
	w.refresh(ctx, t, "juliet", "romeo") // who are offline
	w.waitOwn(ctx, t, "juliet", own("Romeo"))
	w.waitOwn(ctx, t, "romeo", own("Juliet"))
	juliet, romeo := w.pair(ctx, t)
	mercutio := w.loginPEP(ctx, t, gosrc, "mercutio@example.org/street")
	wantContacts(ctx, t, juliet, romeo, "listed")
	for _, c := range []harness.Client{juliet, romeo} {
		wantForbidden(ctx, t, mercutio, bareOf(c), "listed"+bareOf(c))
		say(ctx, t, mercutio, c, "listed")
		wantNothing(ctx, t, c, mercutio, "listed")
		wantNothing(ctx, t, mercutio, c, "listed")
		wantUnseen(t, mercutio, bareOf(c))
	}

	w.rosterd.Kill()
	wantContacts(ctx, t, juliet, romeo, "away")
	w.connect(ctx, t)
	leave(juliet, romeo)
	juliet, romeo = w.pair(ctx, t)
	wantContacts(ctx, t, juliet, romeo, "restarted")
	leave(juliet, romeo)
	if err := w.server.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	waitReadyz(ctx, t, w.rosterd, 200, "")
	juliet, romeo = w.pair(ctx, t)
	wantContacts(ctx, t, juliet, romeo, "server restarted")

	w.backend.Set("juliet", harness.Contacts{})
	w.backend.Set("romeo", harness.Contacts{})
	w.refresh(ctx, t, "juliet", "romeo")
	w.waitOwn(ctx, t, "juliet")
	w.waitOwn(ctx, t, "romeo")
	for _, side := range [][2]harness.Client{{juliet, romeo}, {romeo, juliet}} {
		waitSeen(ctx, t, side[1], side[0].JID(), "unavailable")
		publish(ctx, t, side[0], "removed"+bareOf(side[0]))
		wantForbidden(ctx, t, side[1], bareOf(side[0]), "removed"+bareOf(side[0]))
		say(ctx, t, side[0], side[1], "removed")
		wantNothing(ctx, t, side[1], side[0], "removed")
	}
	leave(juliet, romeo)
	juliet, romeo = w.pair(ctx, t)
	wantStrangers(ctx, t, juliet, romeo, "gone")
	w.wantOwn(ctx, t, "juliet")
	w.wantOwn(ctx, t, "romeo")

	// Listed again while both are online: seen at once.
	w.lists("Juliet", "Romeo")
	w.refresh(ctx, t, "juliet", "romeo")
	waitSeen(ctx, t, juliet, romeo.JID(), "available")
	waitSeen(ctx, t, romeo, juliet.JID(), "available")
	wantContacts(ctx, t, juliet, romeo, "again")
}

// The library's own events, avatars and nicknames: nothing of it is the test's.
func TestServerRosterLibrary(t *testing.T) { onKept(t, testServerRosterLibrary) }

func testServerRosterLibrary(t *testing.T, srv server) {
	ctx := bounded(t)
	w := startKept(t, setup{server: srv})
	w.lists("Juliet", "Romeo")
	w.refresh(ctx, t, "juliet", "romeo")
	w.waitOwn(ctx, t, "juliet", own("Romeo"))
	w.waitOwn(ctx, t, "romeo", own("Juliet"))
	wantLibrary(ctx, t, w)
}

// wantLibrary has two clients of slixmpp publish and take each other's nickname and
// avatar.
func wantLibrary(ctx context.Context, t *testing.T, w *world) {
	t.Helper()
	one, other := w.pair(ctx, t)
	juliet, romeo := one.(harness.Publisher), other.(harness.Publisher)
	for _, side := range [][2]harness.Publisher{{juliet, romeo}, {romeo, juliet}} {
		from, to := side[0], side[1]
		waitSeen(ctx, t, to, from.JID(), "available")
		if err := from.PublishNick(ctx, "Nick of "+bareOf(from)); err != nil {
			t.Fatal(err)
		}
		id, err := from.PublishAvatar(ctx, []byte("image of "+bareOf(from)))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []harness.Event{{From: bareOf(from), Node: nodeNick, Text: "Nick of " + bareOf(from)}, {From: bareOf(from), Node: nodeMetadata, Text: id}} {
			if _, err := to.WaitEvent(ctx, func(e harness.Event) bool { return e == want }); err != nil {
				t.Fatalf("%+v: %v", want, err)
			}
		}
		if image, err := to.Avatar(ctx, bareOf(from), id); err != nil || string(image) != "image of "+bareOf(from) {
			t.Errorf("the avatar of %s: %q, %v", from.JID(), image, err)
		}
	}
}

// At their first login users are in step before they are available, if they have few
// contacts, and nobody was refreshed before: each in turn.
func TestServerRosterFirstLogin(t *testing.T) { onKeptAndProsodyAlone(t, testServerRosterFirstLogin) }

func testServerRosterFirstLogin(t *testing.T, srv server) {
	ctx := bounded(t)
	w := startKept(t, setup{server: srv})
	few, items := many(19, "few")
	few["romeo@example.org"] = harness.Contact{Name: "Romeo"}
	w.backend.Set("juliet", few)
	w.backend.Set("romeo", contacts("Juliet"))
	juliet := w.loginAs(ctx, t, slixmpp, harness.ClientOptions{JID: julietFull, Notify: nodes, Invisible: true})
	began := time.Now()
	wantRoster(ctx, t, juliet, append(items, item("Romeo"))...)
	w.inStepSince(ctx, t, began, "juliet", append(items, own("Romeo"))...)
	show(t, juliet, "")
	romeo := w.loginAs(ctx, t, slixmpp, harness.ClientOptions{JID: romeoFull, Notify: nodes, Invisible: true})
	began = time.Now()
	wantRoster(ctx, t, romeo, item("Juliet"))
	w.inStepSince(ctx, t, began, "romeo", own("Juliet"))
	show(t, romeo, "")
	waitSeen(ctx, t, juliet, romeoFull, "available")
	waitSeen(ctx, t, romeo, julietFull, "available")
	wantContacts(ctx, t, juliet, romeo, "first")
	// What each one's login made of the other's item, whose roster the server did not
	// have yet, is put right, or was prevented.
	w.waitOwn(ctx, t, "juliet", append(items, own("Romeo"))...)
	w.waitOwn(ctx, t, "romeo", own("Juliet"))

	leave(juliet)
	juliet = w.loginPEP(ctx, t, slixmpp, julietFull)
	waitSeen(ctx, t, juliet, romeoFull, "available")
	wantContacts(ctx, t, juliet, romeo, "second")
}

// inStepSince wants that a user's roster was in step when their query was answered, which
// came at a time: unless that took 3 s, the longest that a query waits, on a busy machine.
func (w *world) inStepSince(ctx context.Context, t *testing.T, began time.Time, user string, want ...harness.Item) {
	t.Helper()
	if time.Since(began) < 3*time.Second {
		w.wantOwn(ctx, t, user, want...)
	}
	w.waitOwn(ctx, t, user, want...)
}

// A client that sends presence before it has asked for anything sees its contacts with
// its next presence at the latest.
func TestServerRosterPresenceFirst(t *testing.T) {
	onKeptAndProsodyAlone(t, testServerRosterPresenceFirst)
}

func testServerRosterPresenceFirst(t *testing.T, srv server) {
	ctx := bounded(t)
	w := startKept(t, setup{server: srv})
	w.lists("Juliet", "Romeo")
	juliet := w.loginPEP(ctx, t, gosrc, julietFull)
	romeo := w.loginPEP(ctx, t, gosrc, romeoFull)
	w.waitOwn(ctx, t, "juliet", own("Romeo"))
	w.waitOwn(ctx, t, "romeo", own("Juliet"))
	show(t, juliet, "")
	show(t, romeo, "")
	wantContacts(ctx, t, juliet, romeo, "first")
}

// Many contacts are answered at once, and brought to the server afterwards.
func TestServerRosterManyContacts(t *testing.T) { onKept(t, testServerRosterManyContacts) }

func testServerRosterManyContacts(t *testing.T, srv server) {
	ctx := bounded(t)
	w := startKept(t, setup{server: srv, own: true})
	list, items := many(150, "c")
	w.backend.Set("juliet", list)
	juliet := w.loginAs(ctx, t, slixmpp, harness.ClientOptions{JID: julietFull, Invisible: true})
	wantRoster(ctx, t, juliet, items...)
	w.waitOwn(ctx, t, "juliet", items...)
	wantRoster(ctx, t, juliet, items...)
	wantQuietCopy(ctx, t, juliet, items)

	// Nothing is written while nothing changes: neither by a refresh, nor a login, nor a
	// restart of rosterd, but where writing is how those are told who are in doubt.
	before := w.writes(ctx, t)
	w.refresh(ctx, t, "juliet")
	roster(ctx, t, w.login(ctx, t, gosrc, "juliet@example.org/phone"))
	w.settled(ctx, t)
	if got := w.writes(ctx, t) - before; got != 0 {
		t.Errorf("%d writes for nothing", got)
	}
	w.again(ctx, t)
	wantRoster(ctx, t, juliet, items...)
	w.settled(ctx, t)
	if srv.name == "ejabberd" {
		before = w.writes(ctx, t)
	}
	delete(list, items[7].JID)
	w.backend.Set("juliet", list)
	w.refresh(ctx, t, "juliet")
	w.waitOwn(ctx, t, "juliet", slices.Delete(slices.Clone(items), 7, 8)...)
	// On ejabberd a removal is two calls, and two more for a client that is in doubt.
	if got, most := w.writes(ctx, t)-before, map[string]int{"prosody": 1, "ejabberd": 4}[srv.name]; got == 0 || got > most {
		t.Errorf("%d writes for one change, want %d at most", got, most)
	}
}

// wantQuietCopy wants that whatever a client was pushed agrees with the roster that it
// was answered: the server may push what is written to its own roster.
func wantQuietCopy(ctx context.Context, t *testing.T, client harness.Client, want []harness.Item) {
	t.Helper()
	handled(ctx, t, client)
	listed := map[string]bool{}
	for _, it := range want {
		listed[it.JID] = true
	}
	for _, push := range client.PendingPushes() {
		if strings.Contains(push, "remove") {
			t.Errorf("a push takes away: %s", push)
		}
	}
}

// A contact that the backend has removed while the user was offline gets no presence
// from the user's next login, reported or not.
func TestServerRosterRemovedOffline(t *testing.T) { onKept(t, testServerRosterRemovedOffline) }

func testServerRosterRemovedOffline(t *testing.T, srv server) {
	for _, name := range []string{"reported", "everybody reported", "not reported"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := bounded(t)
			w := startKept(t, setup{server: srv})
			w.lists("Juliet", "Romeo", "Nurse")
			w.refresh(ctx, t, "juliet", "romeo", "nurse")
			w.waitOwn(ctx, t, "juliet", own("Nurse"), own("Romeo"))
			w.waitOwn(ctx, t, "romeo", own("Juliet"), own("Nurse"))
			w.waitOwn(ctx, t, "nurse", own("Juliet"), own("Romeo"))
			romeo := w.loginPEP(ctx, t, slixmpp, romeoFull)
			nurse := w.loginPEP(ctx, t, slixmpp, "nurse@example.org/kitchen")
			juliet := w.loginPEP(ctx, t, slixmpp, julietFull)
			waitSeen(ctx, t, romeo, julietFull, "available")
			leave(juliet)
			waitSeen(ctx, t, romeo, julietFull, "unavailable")
			waitSeen(ctx, t, nurse, julietFull, "unavailable")

			w.backend.Set("juliet", contacts("Nurse")) // romeo's own list still has her
			switch name {
			case "reported":
				w.refresh(ctx, t, "juliet")
			case "everybody reported":
				w.refreshAll(ctx, t)
				w.waitOwn(ctx, t, "juliet", own("Nurse"))
			}
			juliet = w.loginPEP(ctx, t, slixmpp, "juliet@example.org/tomb")
			waitSeen(ctx, t, nurse, juliet.JID(), "available")
			show(t, juliet, "away")
			waitSeen(ctx, t, nurse, juliet.JID(), "away")
			publish(ctx, t, juliet, "tomb")
			waitEvents(ctx, t, nurse, bareOf(juliet), "tomb")
			wantForbidden(ctx, t, romeo, bareOf(juliet), "tomb")
			wantNothing(ctx, t, romeo, juliet, "tomb")
			for _, s := range romeo.Stanzas() {
				// COMPAT ejabberd says unavailable of a resource that was not available yet,
				// when it takes away the subscription.
				if s.Name == "presence" && s.From == juliet.JID() && s.Type != "unavailable" {
					t.Errorf("romeo is told %s", s.XML)
				}
			}
			w.waitOwn(ctx, t, "juliet", own("Nurse"))
			w.waitOwn(ctx, t, "romeo", own("Juliet"), own("Nurse")) // as the backend says
		})
	}
}

// What an import was interrupted by does not matter for how it ends.
func TestServerRosterInterrupted(t *testing.T) { onKept(t, testServerRosterInterrupted) }

func testServerRosterInterrupted(t *testing.T, srv server) {
	for name, interrupt := range map[string]func(context.Context, *testing.T, *world){
		"rosterd is killed": func(ctx context.Context, t *testing.T, w *world) { w.again(ctx, t) },
		"rosterd is stopped": func(ctx context.Context, t *testing.T, w *world) {
			if code, err := w.rosterd.Stop(ctx); code != 0 || err != nil {
				t.Errorf("exit code %d, %v", code, err)
			}
			w.connect(ctx, t)
		},
		"the server is restarted": func(ctx context.Context, t *testing.T, w *world) {
			if err := w.server.Restart(ctx); err != nil {
				t.Fatal(err)
			}
		},
		"the server is killed": func(ctx context.Context, t *testing.T, w *world) {
			w.server.Kill()
			if err := w.server.Start(ctx); err != nil {
				t.Fatal(err)
			}
		},
		"the stream is cut": func(ctx context.Context, t *testing.T, w *world) {
			w.link.cut()
			waitReadyz(ctx, t, w.rosterd, 503, "not connected")
			w.link.mend()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := bounded(t)
			w := startKept(t, setup{server: srv, own: true, link: true})
			list, items := many(200, "c")
			w.backend.Set("juliet", list)
			w.refresh(ctx, t, "juliet")
			if has := w.waitOwnItems(ctx, t, "juliet", 15); has == 200 {
				t.Log("the import was over before")
			}
			interrupt(ctx, t, w)
			w.waitOwn(ctx, t, "juliet", items...)
		})
	}
}

// Lists that come faster than they are written end as the last one.
func TestServerRosterOvertaken(t *testing.T) { onKept(t, testServerRosterOvertaken) }

func testServerRosterOvertaken(t *testing.T, srv server) {
	ctx := bounded(t)
	w := startKept(t, setup{server: srv, own: true})
	first, _ := many(60, "first")
	second, _ := many(30, "second")
	last, items := many(25, "last")
	last[items[3].JID] = harness.Contact{Name: "Somebody", Subscription: "to", Groups: map[string]bool{"A": true, "B & C": true}}
	items[3] = harness.Item{JID: items[3].JID, Name: "Somebody", Subscription: "to", Groups: []string{"A", "B & C"}}
	for jid, c := range first {
		second[jid] = c
	}
	w.backend.Set("juliet", first)
	w.refresh(ctx, t, "juliet")
	w.waitOwnItems(ctx, t, "juliet", 5)
	w.backend.Set("juliet", second)
	w.refresh(ctx, t, "juliet")
	w.backend.Set("juliet", last)
	w.refresh(ctx, t, "juliet")
	w.waitOwn(ctx, t, "juliet", items...)
	w.wantNoWrites(ctx, t)
}

// What users do to their server's roster themselves, where they can, is put right at
// the next look, which a restart of the server brings.
func TestServerRosterEdited(t *testing.T) { onKept(t, testServerRosterEdited) }

func testServerRosterEdited(t *testing.T, srv server) {
	ctx := bounded(t)
	w := startKept(t, setup{server: srv, own: true, options: harness.ServerOptions{Grants: harness.Grants{NoDelegation: true}, Edits: true}})
	list, items := many(40, "c")
	w.backend.Set("juliet", list)
	juliet := w.login(ctx, t, gosrc, julietFull)
	w.refresh(ctx, t, "juliet")
	w.waitOwnItems(ctx, t, "juliet", 5)
	for id, it := range map[string]string{
		"adds":    "<item jid='paris@example.org' name='Count'/>",
		"renames": "<item jid='" + items[2].JID + "' name='Renamed'/>",
		"removes": "<item jid='" + items[1].JID + "' subscription='remove'/>",
	} {
		if answer := request(ctx, t, juliet, id, iq("set", id, "", "<query xmlns='jabber:iq:roster'>"+it+"</query>")); answer.Type != "result" {
			t.Logf("%s: %s", id, answer.XML) // the item may not be there yet
		}
	}
	w.waitOwnItems(ctx, t, "juliet", len(items)-1)
	juliet.Close()
	if err := w.server.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	w.waitOwn(ctx, t, "juliet", items...)
}

// Five thousand contacts are compared, and what differs is written.
func TestServerRosterLarge(t *testing.T) { onKept(t, testServerRosterLarge) }

func testServerRosterLarge(t *testing.T, srv server) {
	ctx := bounded(t)
	w := startKept(t, setup{server: srv, own: true})
	list, items := many(5000, "c")
	w.backend.Set("juliet", list)
	// The server has most of it, from a rosterd whose state is lost.
	had := slices.Clone(items)
	had[4000].Name, had[4001].Groups, had[4002].Subscription = "Another", []string{"Another"}, "from"
	had[4003].JID = "somebody@else.example"
	if err := w.server.SetOwnItems(ctx, "juliet@example.org", had...); err != nil {
		t.Fatal(err)
	}
	before := w.writes(ctx, t)
	w.enter(ctx, t, gosrc, julietFull)
	w.waitOwn(ctx, t, "juliet", items...)
	if writes := w.writes(ctx, t) - before; writes > 6 {
		t.Errorf("%d writes for five differences", writes)
	}
}

// Contacts that the server stores otherwise than they were sent, or not at all, are not
// written again and again, and keep no other from being written.
func TestServerRosterStoredOtherwise(t *testing.T) { onKept(t, testServerRosterStoredOtherwise) }

func testServerRosterStoredOtherwise(t *testing.T, srv server) {
	ctx := bounded(t)
	w := startKept(t, setup{server: srv, own: true})
	odd := map[string]harness.Contact{
		"straße@example.org":               {Name: "Nodeprep writes strasse"},
		"Upper@Example.ORG":                {Name: "In lower case"},
		`d\27artagnan@example.org`:         {Name: "Escaped"},
		"juliet@example.org":               {Name: "Herself"},
		"gateway.example.org":              {Name: "No localpart"},
		"羅密歐@例え.example":                   {Name: "罗密欧"},
		"semicolon@example.org":            {Name: "Groups", Groups: map[string]bool{"A;B": true, " blank ": true, "": true}},
		"noname@example.org":               {},
		"blanks@example.org":               {Name: "  two  blanks  "},
		"markup@example.org":               {Name: `<b>&"'`},
		"long@example.org":                 {Name: strings.Repeat("long ", 400)},
		"none@example.org":                 {Name: "None", Subscription: "none"},
		"to@example.org":                   {Name: "To", Subscription: "to", Ask: "subscribe"},
		"from@example.org":                 {Name: "From", Subscription: "from", Approved: true},
		"comma,semicolon@example.org":      {Name: "a,b;c"},
		strings.Repeat("l", 900) + "@x.io": {Name: "Long"},
	}
	list, items := many(12, "c")
	for jid, c := range odd {
		list[jid] = c
	}
	w.backend.Set("juliet", list)
	juliet := w.login(ctx, t, gosrc, julietFull)
	answered := roster(ctx, t, juliet)
	poll(ctx, t, func() bool { // all that it takes are there
		has, err := w.server.OwnRoster(ctx, "juliet@example.org")
		return err == nil && len(has) >= len(items)+len(odd)-4
	}, func() string { return w.differs(ctx, "juliet", answered) })
	w.settled(ctx, t)
	before := w.writes(ctx, t)
	for range 3 {
		w.refresh(ctx, t, "juliet")
		roster(ctx, t, juliet)
	}
	w.again(ctx, t)
	roster(ctx, t, juliet)
	w.refresh(ctx, t, "juliet")
	w.settled(ctx, t)
	most := 2
	if srv.name == "ejabberd" { // where writing is how a client is told that is in doubt after a kill
		most += len(items) + len(odd)
	}
	if got := w.writes(ctx, t) - before; got > most {
		t.Errorf("%d writes though nothing has changed; %s", got, w.differs(ctx, "juliet", answered))
	}
	for jid := range odd {
		delete(list, jid)
	}
	w.backend.Set("juliet", list)
	w.refresh(ctx, t, "juliet")
	w.waitOwn(ctx, t, "juliet", items...)
}

// settled waits until nothing more is written; pushes that the server is to send wait until
// the ways are known.
func (w *world) settled(ctx context.Context, t *testing.T) {
	t.Helper()
	poll(ctx, t, func() bool { return strings.Contains(w.rosterd.Log(), "msg=ways") }, func() string { return "the ways are not known" })
	for last, now := -1, w.writes(ctx, t); last != now; now = w.writes(ctx, t) {
		last = now
		select {
		case <-time.After(2 * time.Second): // nothing tells that nothing comes
		case <-ctx.Done():
			t.Fatal(context.Cause(ctx))
		}
	}
}

// A contact's domain reaches the server so that it means the same to it, whichever spelling
// the backend uses: A-labels where its preparation would make another domain of U-labels
// (RFC 3491 beside RFC 5895). Nothing is written in circles.
func TestServerRosterDomains(t *testing.T) { onKept(t, testServerRosterDomains) }

func testServerRosterDomains(t *testing.T, srv server) {
	ctx := bounded(t)
	w := startKept(t, setup{server: srv, own: true})
	list, want := harness.Contacts{}, []harness.Item{}
	for domain, has := range map[string]string{ // as the backend has it, and as the server is to
		"xn--bcher-kva.example":                    "bücher.example",
		"bücher2.example":                          "bücher2.example",
		"xn--zckzah.example":                       "テスト.example",
		"xn--strae-oqa.example":                    "xn--strae-oqa.example", // not strasse
		"faß.example":                              "xn--fa-hia.example",
		"xn--nxasmm1c.example":                     "xn--nxasmm1c.example",     // a final sigma
		"xn--ls8h.example":                         "xn--ls8h.example",         // younger than nameprep
		"xn--mgba3gch31f060k.test":                 "xn--mgba3gch31f060k.test", // a zero width non-joiner
		"xn--4dbcagdahymbxekheh6e0a7fei0b.example": "xn--4dbcagdahymbxekheh6e0a7fei0b.example",
	} {
		list["romeo@"+domain] = harness.Contact{Name: domain}
		want = append(want, harness.Item{JID: "romeo@" + has, Name: domain, Subscription: "both"})
	}
	w.backend.Set("juliet", list)
	juliet := w.login(ctx, t, gosrc, julietFull)
	if answered := roster(ctx, t, juliet); len(answered) != len(want) {
		t.Errorf("%d contacts", len(answered))
	}
	w.waitOwn(ctx, t, "juliet", want...)
	writes := w.writes(ctx, t)
	w.again(ctx, t) // the server is asked
	roster(ctx, t, juliet)
	w.settled(ctx, t)
	w.wantOwn(ctx, t, "juliet", want...)
	again := w.writes(ctx, t)
	if writes != len(want) || srv.name == "prosody" && again != writes { // ejabberd may push to who is in doubt
		t.Errorf("%d writes, and then %d", writes, again-writes)
	}
	w.refresh(ctx, t, "juliet")
	w.settled(ctx, t)
	if now := w.writes(ctx, t); now != again {
		t.Errorf("%d more writes", now-again)
	}
	w.backend.Set("juliet", harness.Contacts{})
	w.refresh(ctx, t, "juliet")
	w.waitOwn(ctx, t, "juliet")
}

// Users have rosters of their own on a server, made by themselves, when rosterd comes there.
// Nothing is changed before the backend has said something of a user, whatever fails until
// then; then their roster becomes what it says, and what did not change is not interrupted.
func TestServerRosterMigration(t *testing.T) { onKept(t, testServerRosterMigration) }

func testServerRosterMigration(t *testing.T, srv server) {
	ctx := bounded(t)
	// The server serves and takes changes, until rosterd is set up.
	w := startKept(t, setup{server: srv, own: true, later: true, options: harness.ServerOptions{Edits: true, Grants: harness.Grants{NoDelegation: true}}})
	clients := map[string]harness.Client{}
	names := []string{"Juliet", "Romeo", "Nurse"}
	for _, name := range names {
		clients[name] = w.login(ctx, t, gosrc, own(name).JID+"/before")
		roster(ctx, t, clients[name])
	}
	befriend := func(one, other string) {
		t.Helper()
		for _, side := range [][2]string{{one, other}, {other, one}} {
			from, to := clients[side[0]], own(side[1]).JID
			send(t, from, "<presence type='subscribe' to='"+to+"'/>")
			if _, err := clients[side[1]].WaitStanza(ctx, func(s harness.Stanza) bool {
				return s.Name == "presence" && s.Type == "subscribe" && s.From == bareOf(from)
			}); err != nil {
				t.Fatal(err)
			}
			send(t, clients[side[1]], "<presence type='subscribed' to='"+bareOf(from)+"'/>")
			waitSeen(ctx, t, from, to+"/before", "available")
		}
	}
	befriend("Juliet", "Romeo")
	befriend("Juliet", "Nurse")
	wantDone(t, request(ctx, t, clients["Juliet"], "name", edit("name", "<item jid='romeo@example.org' name='My Romeo'><group>Mine</group></item>")))
	hers := func() []harness.Item {
		return []harness.Item{{JID: "nurse@example.org", Subscription: "both"}, {JID: "romeo@example.org", Name: "My Romeo", Subscription: "both", Groups: []string{"Mine"}}}
	}
	w.waitOwn(ctx, t, "juliet", hers()...)
	theirs := harness.Item{JID: "juliet@example.org", Subscription: "both"}

	// rosterd comes, and its backend does not work yet, then knows nobody.
	w.backend.SetFault("", harness.Fault{Status: http.StatusInternalServerError})
	w.connect(ctx, t)
	late := w.login(ctx, t, slixmpp, "juliet@example.org/after")
	show(t, late, "away")
	waitSeen(ctx, t, clients["Romeo"], late.JID(), "away")
	if err := w.backend.WaitRequests(ctx, "juliet", 1); err != nil {
		t.Fatal(err)
	}
	w.wantFailedRefresh(ctx, t, "juliet")
	w.backend.ClearFault("")
	w.wantFailedRefresh(ctx, t, "juliet") // 404
	w.backend.SetFault("juliet", harness.Fault{Status: http.StatusOK, Body: []byte("<html>")})
	w.wantFailedRefresh(ctx, t, "juliet")
	w.backend.ClearFault("juliet")
	w.wantOwn(ctx, t, "juliet", hers()...)

	from := len(clients["Romeo"].Stanzas())
	w.backend.Set("juliet", contacts("Romeo", "Mercutio"))
	w.refresh(ctx, t, "juliet")
	w.waitOwn(ctx, t, "juliet", own("Mercutio"), own("Romeo"))
	handled(ctx, t, clients["Romeo"])
	if dropped(clients["Romeo"], from, late.JID()) || seen(clients["Romeo"], late.JID()) != "away" {
		t.Errorf("romeo, who stays, has %q", presences(clients["Romeo"]))
	}
	w.wantOwn(ctx, t, "romeo", theirs) // of whom nothing is known
	w.wantOwn(ctx, t, "nurse", theirs)
	wantRoster(ctx, t, late, item("Mercutio"), item("Romeo"))
	show(t, late, "dnd")
	waitSeen(ctx, t, clients["Romeo"], late.JID(), "dnd")
	show(t, clients["Romeo"], "xa")
	waitSeen(ctx, t, late, clients["Romeo"].JID(), "xa")
	handled(ctx, t, clients["Nurse"])
	if got := seen(clients["Nurse"], late.JID()); got == "dnd" {
		t.Errorf("the nurse, who is removed, sees %q", got)
	}
	// And the other way: nothing of rosterd's is needed to go on without it.
	w.rosterd.Kill()
	wantRoster(ctx, t, late, item("Mercutio"), item("Romeo"))
	w.wantOwn(ctx, t, "juliet", own("Mercutio"), own("Romeo"))
}

// Where nothing is delegated the server answers by itself from the rosters that rosterd
// keeps: logins work while rosterd is away, who comes is looked up in the background, what
// changes is pushed by the server once, and users cannot change it.
func TestServerRosterAnswersQueries(t *testing.T) { onKept(t, testServerRosterAnswersQueries) }

func testServerRosterAnswersQueries(t *testing.T, srv server) {
	ctx := bounded(t)
	w := startKept(t, setup{server: srv, own: true, options: harness.ServerOptions{Grants: harness.Grants{NoDelegation: true}}})
	kept := map[string]string{"prosody": "privilege", "ejabberd": "api"}[srv.name]
	waitMetric(ctx, t, w.rosterd, way("example.org", "server", "server", "server", kept), 1)
	w.lists("Juliet", "Romeo")
	juliet := w.loginAs(ctx, t, slixmpp, harness.ClientOptions{JID: julietFull, Notify: nodes, Invisible: true})
	wantRoster(ctx, t, juliet) // of before: the first login has it looked up
	show(t, juliet, "")
	w.waitOwn(ctx, t, "juliet", own("Romeo"))
	waitBrought(ctx, t, juliet, item("Romeo"))
	w.refresh(ctx, t, "romeo")
	w.waitOwn(ctx, t, "romeo", own("Juliet"))

	w.rosterd.Kill()
	romeo := w.loginAs(ctx, t, slixmpp, harness.ClientOptions{JID: romeoFull, Notify: nodes, Invisible: true})
	wantRoster(ctx, t, romeo, item("Juliet"))
	show(t, romeo, "")
	wantContacts(ctx, t, juliet, romeo, "alone")
	for id, change := range map[string]string{"adds": "<item jid='paris@example.org'/>", "renames": "<item jid='juliet@example.org' name='J'/>",
		"removes": "<item jid='juliet@example.org' subscription='remove'/>"} {
		wantError(t, request(ctx, t, romeo, id, edit(id, change)), "not-allowed")
	}
	w.wantOwn(ctx, t, "romeo", own("Juliet"))

	w.connect(ctx, t)
	waitMetric(ctx, t, w.rosterd, way("example.org", "server", "server", "server", kept), 1)
	juliet.PendingPushes()
	w.backend.Set("juliet", harness.Contacts{"romeo@example.org": {Name: "R", Groups: map[string]bool{"Friends": true}}})
	w.refresh(ctx, t, "juliet")
	waitBrought(ctx, t, juliet, harness.Item{JID: "romeo@example.org", Name: "R", Subscription: "both", Groups: []string{"Friends"}})
	wantRoster(ctx, t, juliet, harness.Item{JID: "romeo@example.org", Name: "R", Subscription: "both", Groups: []string{"Friends"}})
	handled(ctx, t, juliet)
	if again := juliet.PendingPushes(); len(again) > 0 {
		t.Errorf("pushed again: %q", again)
	}
	w.backend.Set("juliet", contacts())
	w.refresh(ctx, t, "juliet")
	waitBrought(ctx, t, juliet, removed("Romeo"))
	waitSeen(ctx, t, romeo, julietFull, "unavailable")
	wantRoster(ctx, t, juliet)
	w.wantNoWrites(ctx, t)
}

// Where the server answers by itself, a contact whom the backend has removed without a report
// may be shown the user's next login. That ends as soon as rosterd has looked.
func TestServerRosterAnswersUnreported(t *testing.T) { onKept(t, testServerRosterAnswersUnreported) }

func testServerRosterAnswersUnreported(t *testing.T, srv server) {
	ctx := bounded(t)
	w := startKept(t, setup{server: srv, options: harness.ServerOptions{Grants: harness.Grants{NoDelegation: true}}})
	w.lists("Juliet", "Romeo", "Nurse")
	w.refresh(ctx, t, "juliet", "romeo", "nurse")
	for _, user := range []string{"juliet", "romeo", "nurse"} {
		w.waitOwn(ctx, t, user, w.backend.Items(user)...)
	}
	romeo := w.loginPEP(ctx, t, slixmpp, romeoFull)
	nurse := w.loginPEP(ctx, t, slixmpp, "nurse@example.org/kitchen")
	w.backend.Set("juliet", contacts("Nurse")) // romeo's own list still has her
	juliet := w.loginPEP(ctx, t, slixmpp, julietFull)
	waitSeen(ctx, t, romeo, julietFull, "unavailable")
	w.waitOwn(ctx, t, "juliet", own("Nurse"))
	show(t, juliet, "away")
	waitSeen(ctx, t, nurse, julietFull, "away")
	handled(ctx, t, romeo)
	if got := seen(romeo, julietFull); got != "unavailable" {
		t.Errorf("romeo sees %q", got)
	}
	wantRoster(ctx, t, juliet, item("Nurse"))
	w.waitOwn(ctx, t, "romeo", own("Juliet"), own("Nurse"))
}

// At the first installation, or after the state was lost, one empty answer of the backend
// takes nobody's contacts from the server: it counts when the backend has said so again.
func TestServerRosterFirstLook(t *testing.T) { onKept(t, testServerRosterFirstLook) }

func testServerRosterFirstLook(t *testing.T, srv server) {
	ctx := bounded(t)
	w := startKept(t, setup{server: srv, own: true, settings: map[string]any{"contacts.confirm_after": "5s"}})
	list, items := many(30, "c")
	for _, user := range []string{"juliet@example.org", "romeo@example.org"} {
		if err := w.server.SetOwnItems(ctx, user, items...); err != nil {
			t.Fatal(err)
		}
	}
	w.backend.Set("juliet", harness.Contacts{})
	w.backend.Set("romeo", harness.Contacts{})
	wantRoster(ctx, t, w.login(ctx, t, gosrc, julietFull))
	w.refresh(ctx, t, "romeo") // who is offline
	waitMetric(ctx, t, w.rosterd, "rosterd_removals_held_total", 2)
	w.wantOwn(ctx, t, "juliet", items...)
	w.wantOwn(ctx, t, "romeo", items...)
	w.backend.Set("romeo", list)
	w.waitOwn(ctx, t, "juliet")
	w.waitOwn(ctx, t, "romeo", items...)
}
