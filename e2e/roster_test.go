package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"rosterd/e2e/harness"
)

// Whatever form the contacts have, and whatever is in them, a client
// understands the roster that comes of it.
func TestRosterAtLogin(t *testing.T) { onServers(t, testRosterAtLogin) }

func testRosterAtLogin(t *testing.T, srv server) {
	cases := []struct {
		name, body string
		want       []harness.Item
	}{
		{name: "an empty array, as PHP writes an empty object", body: `[]`},
		{name: "an empty object", body: `{}`},
		{
			"the subscription is both", `{"romeo@example.org":{"name":"Romeo"}}`,
			[]harness.Item{item("Romeo")},
		},
		{
			"no name", `{"romeo@example.org":{}}`,
			[]harness.Item{{JID: "romeo@example.org", Subscription: "both"}},
		},
		{
			"markup in names and groups",
			`{"romeo@example.org":{"name":"</item><item jid='x'/> & \"R\" ]]> &amp;","groups":{"<b>'&'</b>":true}}}`,
			[]harness.Item{{JID: "romeo@example.org", Name: `</item><item jid='x'/> & "R" ]]> &amp;`, Subscription: "both",
				Groups: []string{"<b>'&'</b>"}}},
		},
		{
			"names and groups of all the world",
			`{"ромео@example.org":{"name":"Ромео 羅密歐 🌹 \u202eأحمد","groups":{"家族":true}},"romeo@bücher.example":{"name":"\ud83c\udf39"}}`,
			[]harness.Item{
				{JID: "ромео@example.org", Name: "Ромео 羅密歐 🌹 \u202eأحمد", Subscription: "both", Groups: []string{"家族"}},
				{JID: "romeo@bücher.example", Name: "🌹", Subscription: "both"},
			},
		},
		{
			// One of them, sent as it is, ends the component's stream.
			"characters that XML forbids", `{"romeo@example.org":{"name":"R\u0000o\u0001m\ufffee\uffffo\u001b","groups":{"F\u0008r":true}}}`,
			[]harness.Item{{JID: "romeo@example.org", Name: "Romeo", Subscription: "both", Groups: []string{"Fr"}}},
		},
		{
			"groups, true and false", `{"romeo@example.org":{"name":"Romeo","groups":{"Friends":true,"Foes":false,"Family":true}}}`,
			[]harness.Item{{JID: "romeo@example.org", Name: "Romeo", Subscription: "both", Groups: []string{"Family", "Friends"}}},
		},
		{
			"groups in an array", `{"romeo@example.org":{"name":"Romeo","groups":["Friends","Family","Friends"]}}`,
			[]harness.Item{{JID: "romeo@example.org", Name: "Romeo", Subscription: "both", Groups: []string{"Family", "Friends"}}},
		},
		{
			"every subscription", `{"n@example.org":{"subscription":"none"},"t@example.org":{"subscription":"to"},
				"f@example.org":{"subscription":"from"},"b@example.org":{"subscription":"both"}}`,
			[]harness.Item{
				{JID: "n@example.org", Subscription: "none"}, {JID: "t@example.org", Subscription: "to"},
				{JID: "f@example.org", Subscription: "from"}, {JID: "b@example.org", Subscription: "both"},
			},
		},
		{
			"ask and approved", `{"a@example.org":{"subscription":"none","ask":"subscribe"},"p@example.org":{"subscription":"to","approved":true}}`,
			[]harness.Item{
				{JID: "a@example.org", Subscription: "none", Ask: "subscribe"},
				{JID: "p@example.org", Subscription: "to", Approved: true},
			},
		},
		{
			"an array of contacts", `[{"jid":"romeo@example.org","name":"Romeo"},{"jid":"nurse@example.org","name":"Nurse"}]`,
			[]harness.Item{item("Romeo"), item("Nurse")},
		},
		{
			"a JID that is prepared", `{"Romeo@Example.ORG":{"name":"Romeo"}}`,
			[]harness.Item{item("Romeo")},
		},
	}
	w := start(t, setup{server: srv})
	for _, lib := range libraries {
		t.Run(lib.name, func(t *testing.T) {
			t.Parallel()
			user := map[string]string{"gosrc": "juliet", "slixmpp": "mercutio"}[lib.name]
			ctx := bounded(t)
			w.backend.SetBody(user, []byte(`[]`))
			client := w.login(ctx, t, lib, user+"@example.org/balcony")
			for _, c := range cases { // every query fetches
				t.Run(c.name, func(t *testing.T) {
					w.backend.SetBody(user, []byte(c.body))
					wantRoster(ctx, t, client, understood(lib, c.want...)...)
				})
			}
		})
	}
}

// understood are the items as a library can understand them.
func understood(lib library, items ...harness.Item) []harness.Item {
	items = slices.Clone(items)
	for i := range items {
		items[i].Approved = items[i].Approved && lib.name != gosrc.name
	}
	return items
}

func TestRosterOfThousand(t *testing.T) { onServers(t, testRosterOfThousand) }

func testRosterOfThousand(t *testing.T, srv server) {
	w := start(t, setup{server: srv})
	list, want := harness.Contacts{}, make([]harness.Item, 0, 1000)
	for i := range 1000 {
		it := harness.Item{JID: fmt.Sprintf("contact%d@example.org", i), Name: fmt.Sprintf("Contact № %d", i),
			Subscription: "both", Groups: []string{fmt.Sprintf("Group %d", i%7)}}
		list[it.JID] = harness.Contact{Name: it.Name, Groups: map[string]bool{it.Groups[0]: true}}
		want = append(want, it)
	}
	w.backend.Set("juliet", list)
	for _, lib := range libraries {
		t.Run(lib.name, func(t *testing.T) {
			t.Parallel()
			ctx := bounded(t)
			wantRoster(ctx, t, w.login(ctx, t, lib, "juliet@example.org/"+lib.name), want...)
		})
	}
}

// A roster that Prosody would end the stream for, because it does not take a
// stanza of more than 512 KiB, arrives whole: the rest of it by pushes.
func TestRosterLargerThanAStanza(t *testing.T) { onServers(t, testRosterLargerThanAStanza) }

func testRosterLargerThanAStanza(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv})
	list, want := harness.Contacts{}, map[string]bool{}
	for i := range 600 {
		jid := fmt.Sprintf("contact%d@example.org", i)
		list[jid], want[jid] = harness.Contact{Name: strings.Repeat("n", 1000)}, true
	}
	w.backend.Set("juliet", list)
	client := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	got := map[string]bool{}
	for _, it := range roster(ctx, t, client) {
		got[it.JID] = true
	}
	for len(got) < len(want) {
		it, err := client.WaitPush(ctx)
		if err != nil {
			t.Fatalf("%v, after %d contacts", err, len(got))
		}
		got[it.JID] = true
	}
	if !maps.Equal(got, want) {
		t.Error("the client has other contacts than the backend")
	}
	wantQuiet(ctx, t, client)
}

// The user's localpart and domain stand in the URL percent-encoded down to
// RFC 3986's unreserved characters. Without a URI the roster is refused.
func TestContactsURL(t *testing.T) { onServers(t, testContactsURL) }

func testContactsURL(t *testing.T, srv server) {
	cases := []struct{ local, uri string }{
		{"juliet", "/contacts/example.org/juliet?user=juliet"},
		{"a.b-c_d~e", "/contacts/example.org/a.b-c_d~e?user=a.b-c_d~e"},
		{"100%", "/contacts/example.org/100%25?user=100%25"},
		{"%s%d", "/contacts/example.org/%25s%25d?user=%25s%25d"},
		{"a+b;c=d,e!f$g(h)*", "/contacts/example.org/a%2Bb%3Bc%3Dd%2Ce%21f%24g%28h%29%2A?user=a%2Bb%3Bc%3Dd%2Ce%21f%24g%28h%29%2A"},
		{"a?b#c", "/contacts/example.org/a%3Fb%23c?user=a%3Fb%23c"},
		{`d\27artagnan`, "/contacts/example.org/d%5C27artagnan?user=d%5C27artagnan"},
		{"..", ""}, // a step in the path: who knows what the backend would answer
		{"jürgen", "/contacts/example.org/j%C3%BCrgen?user=j%C3%BCrgen"},
		{"羅密歐", "/contacts/example.org/%E7%BE%85%E5%AF%86%E6%AD%90?user=%E7%BE%85%E5%AF%86%E6%AD%90"},
	}
	w := start(t, setup{server: srv, counts: true, path: "/contacts/%d/%s?user=%s"})
	for i, c := range cases {
		t.Run(c.local, func(t *testing.T) {
			t.Parallel()
			ctx := bounded(t)
			user := "example.org/" + c.local
			w.backend.Set(user, contacts("Romeo"))
			client := w.login(ctx, t, libraries[i%len(libraries)], c.local+"@example.org/balcony")
			if c.uri == "" {
				wantNoRoster(ctx, t, client)
				wantRequests(t, w, user, 0)
				return
			}
			wantRoster(ctx, t, client, item("Romeo"))
			if requests := w.backend.Requests(user); len(requests) != 1 || requests[0].URI != c.uri {
				t.Errorf("requests %+v, want one for %s", requests, c.uri)
			}
			// The refresh finds the user by the same name.
			w.backend.Set(user, contacts("Romeo", "Nurse"))
			if !strings.Contains(c.local, `\`) { // post writes no JSON escapes
				w.refresh(ctx, t, c.local)
				wantPushes(ctx, t, client, item("Nurse"))
			}
		})
	}
}

// A user cannot change a roster that the backend owns (RFC 6121, section 2.1.5).
// Whoever tries is told why, in words, and what is true: some clients show what
// they asked for. Other clients of theirs are told nothing.
func TestSetIsRefused(t *testing.T) { onServers(t, testSetIsRefused) }

func testSetIsRefused(t *testing.T, srv server) {
	w := start(t, setup{server: srv})
	romeo, noNurse := item("Romeo"), harness.Item{JID: "nurse@example.org", Subscription: "remove"}
	sets := []struct {
		name, set string
		undone    []harness.Item
	}{
		{"add", "<query xmlns='jabber:iq:roster'><item jid='nurse@example.org' name='Nurse'/></query>", []harness.Item{noNurse}},
		{"remove", "<query xmlns='jabber:iq:roster'><item jid='romeo@example.org' subscription='remove'/></query>", []harness.Item{romeo}},
		{"rename", "<query xmlns='jabber:iq:roster'><item jid='romeo@example.org' name='R'><group>Foes</group></item></query>", []harness.Item{romeo}},
		{"several", "<query xmlns='jabber:iq:roster'><item jid='romeo@example.org'/><item jid='nurse@example.org'/></query>", []harness.Item{romeo, noNurse}},
		{"nothing", "<query xmlns='jabber:iq:roster'/>", nil},
		{"white space in it", "\n  <query xmlns='jabber:iq:roster'><item jid='nurse@example.org'/></query>\n", []harness.Item{noNurse}},
	}
	for _, lib := range libraries {
		t.Run(lib.name, func(t *testing.T) {
			t.Parallel()
			ctx := bounded(t)
			user := map[string]string{"gosrc": "juliet", "slixmpp": "mercutio"}[lib.name]
			w.backend.Set(user, contacts("Romeo"))
			client := w.login(ctx, t, lib, user+"@example.org/"+lib.name)
			wantRoster(ctx, t, client, romeo)
			other := w.login(ctx, t, gosrc, user+"@example.org/other")
			wantRoster(ctx, t, other, romeo)
			for _, c := range sets {
				id := "set " + c.name
				refused := request(ctx, t, client, id, iq("set", id, "", c.set))
				wantError(t, refused, "not-allowed")
				if !strings.Contains(refused.XML, "It cannot be changed here") {
					t.Errorf("%s says nothing to a person", refused.XML)
				}
				wantPushes(ctx, t, client, c.undone...)
			}
			wantQuiet(ctx, t, other)
			wantRoster(ctx, t, client, romeo)
		})
	}
}
