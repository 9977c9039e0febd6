package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"rosterd/e2e/harness"
)

// onBothWays runs a test on each server in both ways to presence: relayed by rosterd,
// which may use any address and leaves the server's own rosters alone, and kept, by the
// server's own rosters, with no such power.
func onBothWays(t *testing.T, test func(*testing.T, server)) {
	t.Helper()
	onServers(t, func(t *testing.T, srv server) {
		for _, way := range []server{relayed(srv), kept(srv)} {
			t.Run(way.rosters, func(t *testing.T) {
				t.Parallel()
				test(t, way)
			})
		}
	})
}

// The values of [server].rosters.
const (
	rostersOff  = "relayed"
	rostersKept = "kept"
)

func relayed(s server) server {
	s = unrestricted(s)
	s.rosters = rostersOff
	return s
}

// kept is a server as docs/prosody.md and docs/ejabberd.md recommend it: users cannot change their rosters there.
func kept(s server) server {
	s = stock(s)
	s.rosters = rostersKept
	if s.name == prosody.name {
		s.start = func(ctx context.Context, o harness.ServerOptions) (*harness.Server, error) {
			if o.Edits {
				return startProsody(ctx, o)
			}
			module, err := os.ReadFile("../deploy/prosody/mod_rosterd_readonly.lua")
			if err != nil {
				return nil, err
			}
			return harness.StartProsody(ctx, harness.ProsodyOptions{ServerOptions: o,
				Files:   map[string]string{"mod_rosterd_readonly.lua": string(module)},
				HostLua: `  modules_enabled = { "delegation", "privilege", "rosterd_readonly" }`})
		}
	}
	return s
}

// inStep waits until the server's own rosters of users are the backend's, where they are
// kept: what is then is what is tried, not how it came to that.
func (w *world) inStep(ctx context.Context, t *testing.T, users ...string) {
	t.Helper()
	if w.kind.rosters != rostersKept {
		return
	}
	w.refresh(ctx, t, users...)
	for _, user := range users {
		w.waitOwn(ctx, t, user, w.backend.Items(user)...)
	}
}

// befriend has the backend list some, by their names, as juliet's contacts, and her as
// theirs, and waits until they are in step.
func (w *world) befriend(ctx context.Context, t *testing.T, names ...string) {
	t.Helper()
	w.backend.Set("juliet", contacts(names...))
	users := []string{"juliet"}
	for _, name := range names {
		user := strings.ToLower(name)
		w.backend.Set(user, contacts("Juliet"))
		users = append(users, user)
	}
	w.inStep(ctx, t, users...)
}

// enterAll has several resources enter, one after the other.
func (w *world) enterAll(ctx context.Context, t *testing.T, lib library, fulls ...string) map[string]harness.Client {
	t.Helper()
	clients := map[string]harness.Client{}
	for _, full := range fulls {
		clients[full] = w.enter(ctx, t, lib, full)
	}
	return clients
}

var showElement = regexp.MustCompile(`<show[^>]*>([a-z]+)</show>`)

// seen is the presence of a full JID as a client has it: "", if it was told
// nothing, "available", the show, or "unavailable".
func seen(client harness.Client, full string) string {
	bare, _, _ := strings.Cut(full, "/")
	state := ""
	for _, s := range client.Stanzas() {
		switch {
		case s.Name != "presence" || s.From != full && s.From != bare:
		case s.Type == "unavailable" && (s.From == full || state != ""): // from the bare JID: all resources
			state = "unavailable"
		case s.From == full && s.Type == "":
			state = "available"
			if show := showElement.FindStringSubmatch(s.XML); show != nil {
				state = show[1]
			}
		}
	}
	return state
}

// waitSeen waits until a client has the presence of a full JID.
func waitSeen(ctx context.Context, t *testing.T, client harness.Client, full, want string) {
	t.Helper()
	got := ""
	poll(ctx, t, func() bool {
		got = seen(client, full)
		return got == want
	}, func() string {
		return fmt.Sprintf("%s is seen as %q, not as %q; arrived: %q", full, got, want, presences(client))
	})
}

// wantUnseen wants that a client was never told of a user.
func wantUnseen(t *testing.T, client harness.Client, bare string) {
	t.Helper()
	for _, s := range client.Stanzas() {
		if s.Name == "presence" && strings.HasPrefix(s.From, bare+"/") {
			t.Errorf("was told of %s: %s", bare, s.XML)
		}
	}
}

// presences are the presence stanzas that a client has received.
func presences(client harness.Client) []string {
	var all []string
	for _, s := range client.Stanzas() {
		if s.Name == "presence" {
			all = append(all, s.XML)
		}
	}
	return all
}

// show sends presence.
func show(t *testing.T, client harness.Client, show string) {
	t.Helper()
	if err := client.Presence(show); err != nil {
		t.Fatal(err)
	}
}

// comeAndGo has one of two users who see each other come late, be away and
// back, and go, and come again; the other is online all the time.
func comeAndGo(ctx context.Context, t *testing.T, w *world, lib library, there harness.Client, who, whom string) {
	t.Helper()
	late := w.enter(ctx, t, lib, who)
	waitSeen(ctx, t, there, who, "available")
	waitSeen(ctx, t, late, whom, "available")
	for _, state := range []string{"away", "dnd"} {
		show(t, late, state)
		waitSeen(ctx, t, there, who, state)
	}
	show(t, late, "")
	waitSeen(ctx, t, there, who, "available")
	show(t, there, "xa")
	waitSeen(ctx, t, late, whom, "xa")
	show(t, there, "")
	waitSeen(ctx, t, late, whom, "available")
	show(t, late, "unavailable")
	waitSeen(ctx, t, there, who, "unavailable")
	show(t, late, "away")
	waitSeen(ctx, t, there, who, "away")
	show(t, late, "unavailable")
	waitSeen(ctx, t, there, who, "unavailable")
	late.Close()
}

// Two users whom the backend lists as each other's contacts see each other come
// and go, with each library at either end.
func TestPresence(t *testing.T) { onBothWays(t, testPresence) }

func testPresence(t *testing.T, srv server) {
	w := start(t, setup{server: srv})
	w.befriend(bounded(t), t, "Romeo")
	for _, libs := range [][2]library{{gosrc, slixmpp}, {slixmpp, gosrc}} {
		t.Run(libs[0].name+" and "+libs[1].name, func(t *testing.T) {
			ctx := bounded(t)
			const juliet, romeo = "juliet@example.org/balcony", "romeo@example.org/street"
			there := w.enter(ctx, t, libs[0], juliet)
			comeAndGo(ctx, t, w, libs[1], there, romeo, juliet)
			show(t, there, "unavailable")
			there.Close()
		})
	}
	wantOneStream(bounded(t), t, w)
}

// A client that never asks for its roster takes part all the same.
func TestPresenceWithoutQuery(t *testing.T) { onBothWays(t, testPresenceWithoutQuery) }

func testPresenceWithoutQuery(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv})
	w.befriend(ctx, t, "Romeo")
	const juliet, romeo = "juliet@example.org/balcony", "romeo@example.org/street"
	there := w.login(ctx, t, gosrc, juliet)
	late := w.login(ctx, t, slixmpp, romeo)
	waitSeen(ctx, t, there, romeo, "available")
	waitSeen(ctx, t, late, juliet, "available")
	for range 5 { // updates fetch nothing
		show(t, late, "away")
		waitSeen(ctx, t, there, romeo, "away")
		show(t, late, "")
		waitSeen(ctx, t, there, romeo, "available")
	}
	wantRequests(t, w, "juliet", 1)
	wantRequests(t, w, "romeo", 1)
}

// All that presence says arrives, also where it was said before the contact
// came; what is addressed to somebody goes to nobody else.
func TestPresencePayload(t *testing.T) { onBothWays(t, testPresencePayload) }

func testPresencePayload(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv})
	w.befriend(ctx, t, "Romeo")
	const juliet, romeo = "juliet@example.org/balcony", "romeo@example.org/street"
	there := w.enter(ctx, t, gosrc, juliet)
	send(t, there, "<presence id='p1'><show>chat</show><status>wherefore art &lt;thou&gt; &amp; \u2603</status><priority>7</priority>"+
		"<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:x' ver='QgayPKawpkPSDYmwT/WM94uAlu0='/>"+
		"<x xmlns='vcard-temp:x:update'><photo>sha1-of-it</photo></x><y xmlns='urn:own' b='&apos;'><z xmlns='urn:inner'/></y></presence>")
	send(t, there, "<presence to='mercutio@example.org'><status>for mercutio</status></presence>")
	late := w.enter(ctx, t, slixmpp, romeo)
	waitSeen(ctx, t, late, juliet, "chat")
	for _, s := range late.Stanzas() {
		if s.Name != "presence" || s.From != juliet {
			continue
		}
		for _, want := range []string{"<status>wherefore art &lt;thou&gt; &amp; \u2603</status>", "<priority>7</priority>",
			"http://jabber.org/protocol/caps", "QgayPKawpkPSDYmwT/WM94uAlu0=", "<photo>sha1-of-it</photo>", "urn:own", "urn:inner"} {
			if !strings.Contains(s.XML, want) {
				t.Errorf("%s lacks %s", s.XML, want)
			}
		}
		if s.ID == "p1" && srv.rosters == rostersOff || strings.Contains(s.XML, "for mercutio") {
			t.Errorf("was told what is no affair of his: %s", s.XML)
		}
	}
	send(t, there, "<presence type='unavailable'><status>gone</status></presence>")
	waitSeen(ctx, t, late, juliet, "unavailable")
	if all := presences(late); !strings.Contains(all[len(all)-1], "gone") {
		t.Errorf("why she left is missing: %q", all)
	}
}

// Each resource is one: those of a contact are all seen, and all of one's own
// see.
func TestPresenceResources(t *testing.T) { onBothWays(t, testPresenceResources) }

func testPresenceResources(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv})
	w.befriend(ctx, t, "Romeo")
	const balcony, phone, street, home = "juliet@example.org/balcony", "juliet@example.org/phone <&'> ☎", "romeo@example.org/street", "romeo@example.org/home"
	first := w.enter(ctx, t, gosrc, balcony)
	romeo := w.enter(ctx, t, gosrc, street)
	waitSeen(ctx, t, romeo, balcony, "available")
	second := w.enter(ctx, t, slixmpp, phone)
	waitSeen(ctx, t, romeo, phone, "available")
	waitSeen(ctx, t, second, street, "available")
	waitSeen(ctx, t, first, street, "available")
	show(t, second, "away")
	waitSeen(ctx, t, romeo, phone, "away")
	if got := seen(romeo, balcony); got != "available" {
		t.Errorf("%s is seen as %s", balcony, got)
	}

	late := w.enter(ctx, t, slixmpp, home)
	waitSeen(ctx, t, late, balcony, "available")
	waitSeen(ctx, t, late, phone, "away")
	for _, client := range []harness.Client{first, second} {
		waitSeen(ctx, t, client, home, "available")
	}
	show(t, first, "unavailable")
	for _, client := range []harness.Client{romeo, late} {
		waitSeen(ctx, t, client, balcony, "unavailable")
		if got := seen(client, phone); got != "away" {
			t.Errorf("%s is seen as %s", phone, got)
		}
	}
	// Who is available may still hear; the unavailable resource need not.
	show(t, romeo, "dnd")
	waitSeen(ctx, t, second, street, "dnd")
}

// contact is one with a subscription.
func contact(user, subscription string) harness.Contacts {
	return harness.Contacts{user + "@example.org": {Subscription: subscription}}
}

// While both are online, the backend makes them contacts, in one direction, in
// both, and takes it away again: a refresh is enough for their clients to see.
func TestPresenceRefresh(t *testing.T) { onBothWays(t, testPresenceRefresh) }

func testPresenceRefresh(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv})
	const balcony, phone, street = "juliet@example.org/balcony", "juliet@example.org/phone", "romeo@example.org/street"
	set := func(user string, list harness.Contacts) {
		w.backend.Set(user, list)
		w.refresh(ctx, t, user)
		w.inStep(ctx, t, user)
	}
	w.backend.Set("juliet", contacts())
	w.backend.Set("romeo", contacts())
	w.inStep(ctx, t, "juliet", "romeo")
	first := w.login(ctx, t, gosrc, balcony)
	second := w.login(ctx, t, slixmpp, phone)
	romeo := w.login(ctx, t, slixmpp, street)
	for _, client := range []harness.Client{first, second, romeo} {
		roster(ctx, t, client)
	}
	show(t, second, "away")
	handled(ctx, t, second)

	set("juliet", contact("romeo", "both"))
	waitSeen(ctx, t, romeo, balcony, "available")
	waitSeen(ctx, t, romeo, phone, "away")
	wantUnseen(t, first, "romeo@example.org")

	set("romeo", contact("juliet", "from"))
	waitSeen(ctx, t, first, street, "available")
	waitSeen(ctx, t, second, street, "available")

	for _, step := range []struct {
		what string
		list harness.Contacts
		want map[string]string
	}{
		{"to takes her presence away", contact("romeo", "to"), map[string]string{balcony: "unavailable", phone: "unavailable"}},
		{"from gives it back", contact("romeo", "from"), map[string]string{balcony: "available", phone: "away"}},
		{"none takes it away", contact("romeo", "none"), map[string]string{balcony: "unavailable", phone: "unavailable"}},
		{"both gives it back", contact("romeo", "both"), map[string]string{balcony: "available", phone: "away"}},
		{"removed", contacts(), map[string]string{balcony: "unavailable", phone: "unavailable"}},
	} {
		set("juliet", step.list)
		for full, want := range step.want {
			waitSeen(ctx, t, romeo, full, want)
		}
		if got := seen(first, street); got != "available" {
			t.Fatalf("%s: %s is seen as %q, and his roster has not changed", step.what, street, got)
		}
	}
	set("romeo", contacts())
	waitSeen(ctx, t, first, street, "unavailable")
	waitSeen(ctx, t, second, street, "unavailable")
	wantOneStream(ctx, t, w)
}

// Romeo lists juliet all the time, and is there when she comes. When she lists him, too,
// she sees him, though he says nothing, and he sees her, with each of her clients.
func TestPresenceListedLater(t *testing.T) { onBothWays(t, testPresenceListedLater) }

func testPresenceListedLater(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv})
	const balcony, phone, street = "juliet@example.org/balcony", "juliet@example.org/phone", "romeo@example.org/street"
	w.backend.Set("juliet", contacts())
	w.backend.Set("romeo", contacts("Juliet"))
	w.inStep(ctx, t, "juliet", "romeo")
	romeo := w.enter(ctx, t, slixmpp, street)
	show(t, romeo, "dnd")
	first, second := w.login(ctx, t, gosrc, balcony), w.login(ctx, t, slixmpp, phone)
	for _, client := range []harness.Client{first, second} {
		roster(ctx, t, client)
		handled(ctx, t, client)
	}
	wantUnseen(t, romeo, "juliet@example.org")
	w.backend.Set("juliet", contacts("Romeo"))
	w.refresh(ctx, t, "juliet")
	for _, client := range []harness.Client{first, second} {
		waitSeen(ctx, t, client, street, "dnd")
	}
	waitSeen(ctx, t, romeo, balcony, "available")
	waitSeen(ctx, t, romeo, phone, "available")
	show(t, romeo, "unavailable")
	for _, client := range []harness.Client{first, second} {
		waitSeen(ctx, t, client, street, "unavailable")
	}
}

// Whose presence goes to whom is in the roster of the one whose presence it is:
// juliet lists romeo, who does not list her. The nurse, who is listed by all,
// hears all, and so tells when enough has been waited for.
func TestPresenceAsymmetric(t *testing.T) { onBothWays(t, testPresenceAsymmetric) }

func testPresenceAsymmetric(t *testing.T, srv server) {
	for _, c := range []struct {
		name   string
		juliet harness.Contacts
		shown  bool // juliet to romeo
	}{
		{"both", contact("romeo", "both"), true},
		{"from", contact("romeo", "from"), true},
		{"to", contact("romeo", "to"), false},
		{"none", contact("romeo", "none"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx := bounded(t)
			w := start(t, setup{server: srv})
			c.juliet["nurse@example.org"] = harness.Contact{Subscription: "both"}
			w.backend.Set("juliet", c.juliet)
			w.backend.Set("romeo", contact("nurse", "from"))
			w.backend.Set("nurse", contact("juliet", "to"))
			w.inStep(ctx, t, "juliet", "romeo", "nurse")
			const balcony, street, kitchen = "juliet@example.org/balcony", "romeo@example.org/street", "nurse@example.org/kitchen"
			clients := w.enterAll(ctx, t, gosrc, kitchen, balcony, street)
			for _, state := range []string{"away", "dnd", "xa"} {
				for _, full := range []string{balcony, street} {
					show(t, clients[full], state)
					waitSeen(ctx, t, clients[kitchen], full, state)
				}
			}
			show(t, clients[kitchen], "away")
			if c.shown {
				waitSeen(ctx, t, clients[street], balcony, "xa")
			} else {
				wantUnseen(t, clients[street], "juliet@example.org")
			}
			for _, full := range []string{balcony, street} {
				handled(ctx, t, clients[full])
				wantUnseen(t, clients[full], "nurse@example.org")
			}
			wantUnseen(t, clients[balcony], "romeo@example.org")
		})
	}
}

// Juliet lists romeo, who lists nobody: he is shown all that she says, and not she what he
// says. What she said before he came he is told only by rosterd: the server asks those whom
// his own roster has. She alone can end it.
func TestPresenceOneSided(t *testing.T) { onBothWays(t, testPresenceOneSided) }

func testPresenceOneSided(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv})
	w.backend.Set("juliet", contacts("Romeo", "Nurse"))
	w.backend.Set("romeo", contacts())
	w.backend.Set("nurse", contacts("Juliet"))
	w.inStep(ctx, t, "juliet", "romeo", "nurse")
	const balcony, street, home, kitchen = "juliet@example.org/balcony", "romeo@example.org/street", "romeo@example.org/home", "nurse@example.org/kitchen"
	nurse, romeo := w.enter(ctx, t, gosrc, kitchen), w.enter(ctx, t, gosrc, street)
	juliet := w.enter(ctx, t, slixmpp, balcony)
	waitSeen(ctx, t, romeo, balcony, "available")
	show(t, juliet, "away")
	waitSeen(ctx, t, romeo, balcony, "away")

	late := w.enter(ctx, t, gosrc, home)
	handled(ctx, t, late)
	if srv.rosters == rostersOff {
		waitSeen(ctx, t, late, balcony, "away")
	}
	show(t, juliet, "dnd")
	waitSeen(ctx, t, late, balcony, "dnd")
	for _, xml := range presences(late) {
		if srv.rosters == rostersKept && strings.Contains(xml, ">away<") {
			t.Errorf("romeo, who came later, was told %s", xml)
		}
	}
	show(t, juliet, "unavailable")
	waitSeen(ctx, t, romeo, balcony, "unavailable")
	show(t, juliet, "xa")
	waitSeen(ctx, t, romeo, balcony, "xa")

	w.backend.Set("juliet", contacts("Nurse"))
	w.refresh(ctx, t, "juliet")
	w.inStep(ctx, t, "juliet")
	waitSeen(ctx, t, romeo, balcony, "unavailable")
	waitSeen(ctx, t, late, balcony, "unavailable")
	show(t, juliet, "chat")
	waitSeen(ctx, t, nurse, balcony, "chat")
	handled(ctx, t, romeo)
	if got := seen(romeo, balcony); got != "unavailable" {
		t.Errorf("juliet, who does not list him any more, is seen as %q", got)
	}
	wantUnseen(t, juliet, "romeo@example.org")
	if srv.rosters == rostersKept {
		w.wantOwn(ctx, t, "romeo")
	}
}

// A client that is cut off goes without a word. Prosody says it in its place, and so does
// each server to whom its rosters show; where ejabberd's are not kept, it takes rosterd
// minutes to find out.
func TestPresenceCut(t *testing.T) {
	onBothWays(t, func(t *testing.T, srv server) {
		if srv.rosters == rostersKept || srv.endsTold {
			testPresenceCut(t, srv)
		}
	})
}

func testPresenceCut(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv})
	w.befriend(ctx, t, "Romeo")
	const juliet, romeo = "juliet@example.org/balcony", "romeo@example.org/street"
	there := w.enter(ctx, t, gosrc, juliet)
	for _, lib := range libraries {
		cut := w.enter(ctx, t, lib, romeo)
		waitSeen(ctx, t, there, romeo, "available")
		cut.Cut()
		waitSeen(ctx, t, there, romeo, "unavailable")
	}
}

// The server is restarted or killed, and of three contacts two come back: who is
// seen is who is there.
func TestPresenceServerRestarted(t *testing.T) { onBothWays(t, testPresenceServerRestarted) }

func testPresenceServerRestarted(t *testing.T, srv server) {
	for name, end := range map[string]func(context.Context, *testing.T, *world){
		"stopped": func(ctx context.Context, t *testing.T, w *world) {
			if err := w.server.Stop(ctx); err != nil {
				t.Fatal(err)
			}
		},
		"killed": func(_ context.Context, _ *testing.T, w *world) { w.server.Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := bounded(t)
			w := start(t, setup{server: srv, own: true})
			w.befriend(ctx, t, "Romeo", "Mercutio")
			const juliet, romeo, mercutio = "juliet@example.org/balcony", "romeo@example.org/street", "mercutio@example.org/street"
			clients := w.enterAll(ctx, t, gosrc, juliet, romeo, mercutio)
			waitSeen(ctx, t, clients[juliet], romeo, "available")
			waitSeen(ctx, t, clients[juliet], mercutio, "available")
			waitSeen(ctx, t, clients[mercutio], juliet, "available")
			end(ctx, t, w)
			waitReadyz(ctx, t, w.rosterd, http.StatusServiceUnavailable, "not connected to the XMPP server: ")
			if err := w.server.Start(ctx); err != nil {
				t.Fatal(err)
			}
			waitReadyz(ctx, t, w.rosterd, http.StatusOK, "")

			there := w.enter(ctx, t, gosrc, juliet)
			if got := seen(there, romeo); got != "" && got != "unavailable" {
				t.Errorf("%s, who has not come back, is seen as %s", romeo, got)
			}
			comeAndGo(ctx, t, w, slixmpp, there, mercutio, juliet)
			if got := seen(there, romeo); got != "" && got != "unavailable" {
				t.Errorf("%s, who has not come back, is seen as %s", romeo, got)
			}
			comeAndGo(ctx, t, w, slixmpp, there, romeo, juliet)
		})
	}
}

// rosterd is away while one contact goes, one comes and one stays. When it is
// back, and the clients have said that they are there, who is seen is who is
// there.
func TestPresenceRosterdRestarted(t *testing.T) { onBothWays(t, testPresenceRosterdRestarted) }

func testPresenceRosterdRestarted(t *testing.T, srv server) {
	for name, end := range map[string]func(context.Context, *testing.T, *world){
		"stopped": func(ctx context.Context, t *testing.T, w *world) {
			if code, err := w.rosterd.Stop(ctx); code != 0 || err != nil {
				t.Fatalf("exit code %d, %v", code, err)
			}
		},
		"killed": func(_ context.Context, _ *testing.T, w *world) { w.rosterd.Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := bounded(t)
			w := start(t, setup{server: srv})
			w.befriend(ctx, t, "Romeo", "Mercutio", "Nurse")
			const juliet, romeo = "juliet@example.org/balcony", "romeo@example.org/street"
			const mercutio, nurse = "mercutio@example.org/street", "nurse@example.org/kitchen"
			there := w.enter(ctx, t, gosrc, juliet)
			goes := w.enter(ctx, t, gosrc, romeo)
			stays := w.enter(ctx, t, slixmpp, nurse)
			waitSeen(ctx, t, there, romeo, "available")
			waitSeen(ctx, t, there, nurse, "available")
			waitSeen(ctx, t, goes, juliet, "available")

			end(ctx, t, w)
			show(t, goes, "unavailable")
			if err := goes.Ping(ctx, "example.org"); err != nil { // the server has handled it
				t.Fatal(err)
			}
			comes := w.login(ctx, t, gosrc, mercutio)
			w.connect(ctx, t)
			// COMPAT ejabberd, which does not say who is there: their clients do.
			show(t, there, "")
			show(t, stays, "away")
			show(t, comes, "dnd")
			waitSeen(ctx, t, there, nurse, "away")
			waitSeen(ctx, t, there, mercutio, "dnd")
			waitSeen(ctx, t, there, romeo, "unavailable")
			waitSeen(ctx, t, stays, juliet, "available")
			waitSeen(ctx, t, comes, juliet, "available")
			show(t, goes, "")
			waitSeen(ctx, t, there, romeo, "available")
			show(t, there, "unavailable")
			for _, client := range []harness.Client{goes, stays, comes} {
				waitSeen(ctx, t, client, juliet, "unavailable")
			}
		})
	}
}

// The stream breaks while one contact goes and another is away: when it is back,
// Prosody tells who is there, and rosterd those whom it concerns.
func TestPresenceStreamCut(t *testing.T) {
	onBothWays(t, func(t *testing.T, srv server) {
		if srv.rosters == rostersKept || srv.endsTold {
			testPresenceStreamCut(t, srv)
		}
	})
}

func testPresenceStreamCut(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv, link: true})
	w.befriend(ctx, t, "Romeo", "Nurse")
	const juliet, romeo, nurse = "juliet@example.org/balcony", "romeo@example.org/street", "nurse@example.org/kitchen"
	clients := w.enterAll(ctx, t, gosrc, juliet, romeo, nurse)
	waitSeen(ctx, t, clients[juliet], romeo, "available")
	waitSeen(ctx, t, clients[juliet], nurse, "available")
	w.link.cut()
	waitReadyz(ctx, t, w.rosterd, http.StatusServiceUnavailable, "not connected to the XMPP server: ")
	clients[romeo].Cut()
	show(t, clients[nurse], "xa")
	if err := clients[nurse].Ping(ctx, "example.org"); err != nil {
		t.Fatal(err)
	}
	w.link.mend()
	waitSeen(ctx, t, clients[juliet], nurse, "xa")
	waitSeen(ctx, t, clients[juliet], romeo, "unavailable")
	if got := seen(clients[nurse], juliet); got != "available" {
		t.Errorf("juliet, who was there all the time, is seen as %q", got)
	}
}

// Nothing is relayed where it is not wanted, or not possible.
func TestPresenceOff(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		server server
		grants harness.Grants
		mode   string
	}{
		{"off on Prosody", unrestricted(prosody), harness.Grants{}, "off"},
		{"off on ejabberd", ejabberd, harness.Grants{}, "off"},
		{"restricted Prosody", prosody, harness.Grants{}, "auto"},
		{"restricted ejabberd", stock(ejabberd), harness.Grants{}, "auto"},
		{"Prosody without the privilege", unrestricted(prosody), harness.Grants{NoPresence: true}, "relay"},
		{"ejabberd without the privilege", ejabberd, harness.Grants{NoPresence: true}, "relay"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx := bounded(t)
			w := start(t, setup{server: c.server, options: harness.ServerOptions{Grants: c.grants}, own: true,
				settings: map[string]any{"xmpp.presence": c.mode, "xmpp.server_roster": "off"}})
			w.backend.Set("juliet", contacts("Romeo"))
			w.backend.Set("romeo", contacts("Juliet"))
			juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
			romeo := w.login(ctx, t, slixmpp, "romeo@example.org/street")
			for _, client := range []harness.Client{juliet, romeo} {
				roster(ctx, t, client)
				show(t, client, "away")
			}
			// A refresh, and all that goes with it, comes after that.
			w.backend.Set("juliet", contacts())
			w.refresh(ctx, t, "juliet")
			handled(ctx, t, juliet)
			handled(ctx, t, romeo)
			wantUnseen(t, juliet, "romeo@example.org")
			wantUnseen(t, romeo, "juliet@example.org")
			if got := metric(ctx, t, w.rosterd, "rosterd_presences_relayed_total"); got != 0 {
				t.Errorf("%v presences relayed", got)
			}
			wantOneStream(ctx, t, w)
		})
	}
}

// Presence that is odd, large or much disturbs nobody, and the last word is
// heard.
func TestHostilePresence(t *testing.T) { onBothWays(t, testHostilePresence) }

func testHostilePresence(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv})
	w.backend.Set("juliet", contacts("Romeo"))
	w.backend.Set("romeo", contacts("Juliet"))
	w.backend.Set("nurse", contacts("Romeo"))
	w.inStep(ctx, t, "juliet", "romeo", "nurse")
	const juliet, romeo = "juliet@example.org/balcony", "romeo@example.org/street"
	there := w.enter(ctx, t, gosrc, juliet)
	odd := w.enter(ctx, t, gosrc, romeo)
	nurse := w.login(ctx, t, gosrc, "nurse@example.org/kitchen")
	last := "xa"
	for name, stanzas := range map[string]string{
		"ten thousand children":     "<presence>" + strings.Repeat("<c xmlns='urn:c'/>", 10_000) + "</presence>",
		"ten thousand attributes":   "<presence><c xmlns='urn:c'" + attributes(10_000) + "/></presence>",
		"a long status":             "<presence><status>" + strings.Repeat("'", 110_000) + "</status></presence>",
		"priorities that are none":  "<presence><priority>500</priority></presence><presence><priority>abc</priority><priority/></presence>",
		"a show that is none":       "<presence><show>foo</show><priority>500</priority></presence>",
		"names in other namespaces": "<presence><y xmlns='urn:d' xmlns:q='urn:q' xml:foo='1' q:bar='2'><q:z/></y></presence>",
		"no namespace":              "<presence><y xmlns=''><z/></y></presence>",
		"an error inside":           "<presence><error type='cancel'/></presence>",
		"for the component":         "<presence to='" + domain + "'/><presence to='juliet@" + domain + "'/>",
		"subscriptions":             "<presence type='subscribed' to='nurse@example.org'/><presence type='unsubscribed' to='nurse@example.org'/>",
		"a thousand updates":        strings.Repeat("<presence><show>away</show></presence><presence/>", 500),
		"coming and going":          strings.Repeat("<presence type='unavailable'/><presence/>", 500),
	} {
		t.Run(name, func(t *testing.T) {
			ctx := bounded(t)
			send(t, odd, stanzas)
			wantRoster(ctx, t, nurse, item("Romeo"))
			handled(ctx, t, odd)
			state := map[string]string{"dnd": "xa", "xa": "dnd"}[last]
			last = state
			show(t, odd, state)
			waitSeen(ctx, t, there, romeo, state)
			wantOneStream(ctx, t, w)
		})
	}
	wantUnseen(t, nurse, "romeo@example.org")
}

// attributes are n different ones.
func attributes(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, " a%d=''", i)
	}
	return b.String()
}

// dropped reports whether a client was told that a full JID is unavailable since
// the stanza number from: there are some that drop a resource for nothing else.
func dropped(client harness.Client, from int, full string) bool {
	return slices.ContainsFunc(client.Stanzas()[from:], func(s harness.Stanza) bool {
		return s.Name == "presence" && s.Type == "unavailable" && s.From == full
	})
}

// rosterd is killed, and a contact leaves meanwhile, with one client or with both,
// or a moment before the kill: it is taken back from each full JID.
func TestGhosts(t *testing.T) { onBothWays(t, testGhosts) }

func testGhosts(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv, settings: map[string]any{"state.path": filepath.Join(t.TempDir(), "state.db")}})
	w.befriend(ctx, t, "Mercutio", "Nurse")
	const juliet = "juliet@example.org/balcony"
	const piazza, tavern, kitchen, hall = "mercutio@example.org/piazza", "mercutio@example.org/tavern", "nurse@example.org/kitchen", "nurse@example.org/hall"
	clients := w.enterAll(ctx, t, gosrc, juliet, piazza, tavern, kitchen, hall)
	there := clients[juliet]
	for _, full := range []string{piazza, tavern, kitchen, hall} {
		waitSeen(ctx, t, there, full, "available")
	}
	from := len(there.Stanzas())
	w.rosterd.Kill()
	for _, full := range []string{piazza, tavern, hall} {
		show(t, clients[full], "unavailable")
		if err := clients[full].Ping(ctx, "example.org"); err != nil { // the server has handled it
			t.Fatal(err)
		}
	}
	w.connect(ctx, t)
	// COMPAT ejabberd, which does not say who is there: their clients do.
	show(t, there, "")
	show(t, clients[kitchen], "away")
	for _, full := range []string{piazza, tavern, hall} {
		poll(ctx, t, func() bool { return dropped(there, from, full) }, func() string {
			return fmt.Sprintf("%s is still there; arrived: %q", full, presences(there))
		})
	}
	waitSeen(ctx, t, there, kitchen, "away")
	for _, s := range there.Stanzas()[from:] {
		if s.Name == "presence" && s.Type == "unavailable" && !strings.Contains(s.From, "/") {
			t.Errorf("taken back from the bare JID: %s", s.XML)
		}
	}
}

// Whom a user has blocked is shown nothing more of that user, where the server says
// whom: not the next presence, not to a new client of theirs, not why the user
// leaves; and all again when the user has unblocked them (XEP-0191).
func TestBlockedContact(t *testing.T) {
	onBothWays(t, func(t *testing.T, srv server) {
		if srv.blocksAnswered || srv.rosters == rostersKept {
			testBlockedContact(t, srv)
		} else {
			testBlockListIsNotSaid(t, srv)
		}
	})
}

// Where nobody says who is blocked, presence is not held up for that, or once.
func testBlockListIsNotSaid(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv})
	w.backend.Set("juliet", contacts("Romeo"))
	w.backend.Set("romeo", contacts("Juliet"))
	const juliet, street = "juliet@example.org/balcony", "romeo@example.org/street"
	there := w.login(ctx, t, gosrc, street)
	late := w.login(ctx, t, gosrc, juliet)
	for _, state := range []string{"dnd", "xa"} {
		show(t, late, state)
		waitSeen(ctx, t, there, juliet, state)
	}
	wantOneStream(ctx, t, w)
}

func testBlockedContact(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv, own: true}) // it keeps whom juliet has blocked
	w.befriend(ctx, t, "Romeo", "Nurse")
	const juliet, street, home, kitchen = "juliet@example.org/balcony", "romeo@example.org/street", "romeo@example.org/home", "nurse@example.org/kitchen"
	clients := w.enterAll(ctx, t, gosrc, juliet, street, kitchen)
	waitSeen(ctx, t, clients[street], juliet, "available")
	block := func(what, whom string) {
		t.Helper()
		id := what + whom
		if answer := request(ctx, t, clients[juliet], id, iq("set", id, "", "<"+what+" xmlns='urn:xmpp:blocking'><item jid='"+whom+"'/></"+what+">")); answer.Type != "result" {
			t.Fatalf("answered %s", answer.XML)
		}
	}
	secret := func(client harness.Client, text string) { // once unblocked, it is none any more
		t.Helper()
		for _, xml := range presences(client) {
			if strings.Contains(xml, text) {
				t.Errorf("was shown %s", xml)
			}
		}
	}
	entries := []string{"romeo@example.org", "romeo@example.org/street"}
	told := true
	if srv.rosters == rostersKept { // what becomes of a full JID is the server's affair
		entries, told = entries[:1], srv.blockTold
	}
	for _, whom := range entries {
		block("block", whom)
		send(t, clients[juliet], "<presence><show>dnd</show><status>secret</status></presence>")
		waitSeen(ctx, t, clients[kitchen], juliet, "dnd")
		if told {
			waitSeen(ctx, t, clients[street], juliet, "unavailable")
		}
		late := w.enter(ctx, t, slixmpp, home)
		send(t, clients[juliet], "<presence><show>xa</show><status>secret</status></presence>")
		waitSeen(ctx, t, clients[kitchen], juliet, "xa")
		secret(clients[street], "secret")
		wantUnseen(t, late, "juliet@example.org")
		late.Close()
		block("unblock", whom)
		send(t, clients[juliet], "<presence/>")
		waitSeen(ctx, t, clients[street], juliet, "available")
	}
	block("block", "romeo@example.org")
	send(t, clients[juliet], "<presence type='unavailable'><status>why</status></presence>")
	waitSeen(ctx, t, clients[kitchen], juliet, "unavailable")
	if told {
		waitSeen(ctx, t, clients[street], juliet, "unavailable")
	}
	handled(ctx, t, clients[street])
	secret(clients[street], "why")
	wantOneStream(ctx, t, w)
}
