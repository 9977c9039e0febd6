package e2e

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"strings"
	"testing"
	"time"

	"rosterd/e2e/harness"
)

// A roster that no server takes in one stanza reaches the client all the same:
// as many contacts as fit in the answer, the others as pushes, each as the
// backend has it. Nobody's stream breaks, and nobody else waits.
func TestTwentyThousandContacts(t *testing.T) { onServers(t, testTwentyThousandContacts) }

func testTwentyThousandContacts(t *testing.T, srv server) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	const n = 20_000
	list, want := harness.Contacts{}, map[string]harness.Item{}
	for i := range n {
		it := harness.Item{JID: fmt.Sprintf("contact%05d@example.org", i), Name: fmt.Sprintf("Contact <%d> & Söhne", i), Subscription: "both"}
		entry := harness.Contact{Name: it.Name}
		if i%3 == 0 {
			it.Groups = []string{"Friends & <Foes>", fmt.Sprint("Group ", i%7)}
			entry.Groups = map[string]bool{it.Groups[0]: true, it.Groups[1]: true}
		}
		if i%5 == 0 {
			it.Subscription, entry.Subscription = "to", "to"
		}
		list[it.JID], want[it.JID] = entry, it
	}
	w := start(t, setup{server: srv, counts: true})
	w.backend.Set("juliet", list)
	w.backend.Set("romeo", contacts("Nurse"))
	romeo := w.login(ctx, t, gosrc, "romeo@example.org/street")
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	send(t, juliet, iq("get", "all", "", rosterQuery))
	answer := answerTo(ctx, t, juliet, "all")
	if got := len(rosterItems(t, answer)); answer.Type != "result" || got == 0 || len(answer.XML) > 256<<10 {
		t.Fatalf("an answer of type %s with %d items in %d bytes", answer.Type, got, len(answer.XML))
	}
	wantRoster(ctx, t, romeo, item("Nurse")) // while pushes are under way
	version := versionOf(t, answer)
	has := map[string]harness.Item{}
	_, err := juliet.WaitStanza(ctx, func(s harness.Stanza) bool {
		for _, it := range rosterItems(t, s) {
			if _, twice := has[it.JID]; twice {
				t.Errorf("%s was sent twice", it.JID)
			}
			has[it.JID] = it
		}
		return len(has) >= n
	})
	if err != nil {
		t.Fatalf("%d contacts: %v", len(has), err)
	}
	for jid, it := range want {
		if !equal(has[jid], it) {
			t.Fatalf("item %+v, want %+v", has[jid], it)
		}
	}
	// She has been told all of it: one change is one push.
	handled(ctx, t, juliet)
	told := len(juliet.Stanzas())
	delete(list, "contact19999@example.org")
	w.backend.Set("juliet", list)
	w.refresh(ctx, t, "juliet")
	handled(ctx, t, juliet)
	var pushed []harness.Item
	for _, s := range juliet.Stanzas()[told:] {
		pushed = append(pushed, rosterItems(t, s)...)
	}
	if len(pushed) != 1 || pushed[0].JID != "contact19999@example.org" || pushed[0].Subscription != "remove" {
		t.Errorf("pushed %+v", pushed)
	}
	// The answer was not all: who names its version (RFC 6121, section 2.6) has
	// not got the others.
	if version != "" {
		again := request(ctx, t, juliet, "again", iq("get", "again", "", "<query xmlns='jabber:iq:roster' ver='"+version+"'/>"))
		if len(rosterItems(t, again)) == 0 {
			t.Errorf("answer %.300s", again.XML)
		}
	}
	wantRoster(ctx, t, romeo, item("Nurse"))
	wantOneStream(ctx, t, w)
}

// versionOf is the version that an answer tells, or "".
func versionOf(t *testing.T, s harness.Stanza) string {
	t.Helper()
	var iq struct {
		Query struct {
			Version string `xml:"ver,attr"`
		} `xml:"query"`
	}
	if err := xml.Unmarshal([]byte(s.XML), &iq); err != nil {
		t.Fatal(err)
	}
	return iq.Query.Version
}

// rosterItems are the items of an answer or a push, as they are on the wire.
func rosterItems(t *testing.T, s harness.Stanza) []harness.Item {
	t.Helper()
	if s.Name != "iq" || s.Payload.Space != "jabber:iq:roster" {
		return nil
	}
	var iq struct {
		Items []struct {
			JID          string   `xml:"jid,attr"`
			Name         string   `xml:"name,attr"`
			Subscription string   `xml:"subscription,attr"`
			Ask          string   `xml:"ask,attr"`
			Groups       []string `xml:"group"`
		} `xml:"query>item"`
	}
	if err := xml.Unmarshal([]byte(s.XML), &iq); err != nil {
		t.Fatalf("%v in %.200s", err, s.XML)
	}
	items := make([]harness.Item, len(iq.Items))
	for i, it := range iq.Items {
		items[i] = harness.Item{JID: it.JID, Name: it.Name, Subscription: it.Subscription, Ask: it.Ask, Groups: it.Groups}
	}
	return items
}

// One user asks without end: each query is answered, most with an error, and
// nobody else notices.
func TestFloodByOneUser(t *testing.T) { onServers(t, testFloodByOneUser) }

func testFloodByOneUser(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv, counts: true})
	w.backend.Set("juliet", contacts("Nurse"))
	w.backend.Set("romeo", contacts("Mercutio"))
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	romeo := w.login(ctx, t, gosrc, "romeo@example.org/street")
	const n = 1000
	var flood strings.Builder
	for i := range n {
		to := []string{"", domain, "romeo@example.org"}[i%3]
		flood.WriteString(iq("get", fmt.Sprint("flood", i), to, rosterQuery))
	}
	began := time.Now()
	send(t, romeo, flood.String())
	wantRoster(ctx, t, juliet, item("Nurse")) // in the midst of it
	answers := map[string]int{}               // by id
	results, refused := 0, 0
	if _, err := romeo.WaitStanza(ctx, func(s harness.Stanza) bool {
		if s.Name != "iq" || !strings.HasPrefix(s.ID, "flood") {
			return false
		}
		answers[s.ID]++
		switch {
		case s.Type == "result" && strings.Contains(s.XML, "mercutio@example.org"):
			results++
		case s.Type == "error" && strings.Contains(s.XML, "<resource-constraint ") && strings.Contains(s.XML, "wait"):
			refused++
		default:
			t.Errorf("answer %.300s", s.XML)
		}
		return len(answers) == n
	}); err != nil {
		t.Fatalf("%d answers: %v", len(answers), err)
	}
	if most := 60 + int(2*time.Since(began).Seconds()) + 2; results < 30 || results > most || results+refused != n {
		t.Errorf("%d results, %d refused, want at most %d results", results, refused, most)
	}
	if got := metric(ctx, t, w.rosterd, `rosterd_queries_total{result="limited"}`); got == 0 {
		t.Error("no query counts as limited")
	}
	wantRoster(ctx, t, juliet, item("Nurse"))
	// What the backend changes reaches him all the same.
	w.backend.Set("romeo", contacts("Mercutio", "Nurse"))
	w.refresh(ctx, t, "romeo")
	wantPushes(ctx, t, romeo, item("Nurse"))
	wantOneStream(ctx, t, w)
}

// However a user writes a query, he gets his own roster or an error, once, and
// never another's.
func TestHostileQueries(t *testing.T) { onServers(t, testHostileQueries) }

func testHostileQueries(t *testing.T, srv server) {
	in := func(attrs, children string) string {
		return "<query xmlns='jabber:iq:roster'" + attrs + ">" + children + "</query>"
	}
	attributes := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, " a%d=''", i)
		}
		return b.String()
	}
	// Far below what ends ejabberd's process.
	deep := strings.Repeat("<a>", srv.depth/6) + strings.Repeat("</a>", srv.depth/6)
	const result = "" // in place of a condition
	cases := []struct{ name, stanza, condition string }{
		{"plain", iq("get", "x", "", rosterQuery), result},
		{"10,000 attributes", iq("get", "x", "", in(attributes(10_000), "")), result},
		{"10,000 attributes of a set", iq("set", "x", "", in(attributes(10_000), "")), "not-allowed"},
		{"10,000 elements", iq("get", "x", "", in("", strings.Repeat("<item/>", 10_000))), result},
		{"deep", iq("get", "x", "", in("", deep)), result},
		{"a prefix", iq("get", "x", "", "<r:query xmlns:r='jabber:iq:roster'/>"), result},
		{"foreign attributes", iq("get", "x", "", in(" xmlns:x='urn:x' x:type='set' ver='1'", "<x:y/>")), result},
		{"CDATA", iq("get", "x", "", in("", "<![CDATA[</query></iq><stream:error/>]]>")), result},
		{"a sender of his own", "<iq xmlns:x='urn:x' x:from='juliet@example.org/balcony' x:to='juliet@example.org' type='get' id='x'>" + rosterQuery + "</iq>", result},
		{"a language", "<iq xml:lang='de' type='get' id='x'>" + rosterQuery + "</iq>", result},
		{"to the component", iq("get", "x", domain, rosterQuery), result},
		{"to himself in capitals", iq("get", "x", "ROMEO@Example.ORG", rosterQuery), result},
		{"to her in capitals", iq("get", "x", "JULIET@Example.ORG", rosterQuery), "forbidden"},
		{"to her with a character that is not seen", iq("get", "x", "juliet\u00ad@example.org", rosterQuery), "forbidden"},
		{"to her, wide", iq("get", "x", "\uff4a\uff55\uff4c\uff49\uff45\uff54@example.org", rosterQuery), "forbidden"},
		{"add", iq("set", "x", "", in("", "<item jid='mallory@example.org' name='M'><group>G</group></item>")), "not-allowed"},
		{"rename", iq("set", "x", "", in("", "<item jid='montague@example.org' name='X'/>")), "not-allowed"},
		{"remove", iq("set", "x", "", in("", "<item jid='montague@example.org' subscription='remove'/>")), "not-allowed"},
		{"two items", iq("set", "x", "", in("", "<item jid='a@example.org'/><item jid='b@example.org'/>")), "not-allowed"},
		{"no item", iq("set", "x", "", rosterQuery), "not-allowed"},
		{"a privileged IQ", iq("set", "x", domain, "<privileged_iq xmlns='urn:xmpp:privilege:2'><iq xmlns='jabber:client' type='get' id='y' to='juliet@example.org'>"+rosterQuery+"</iq></privileged_iq>"), "service-unavailable"},
		{"a delegated answer", iq("set", "x", domain, strings.ReplaceAll(forged, "'get'", "'result'")), "service-unavailable"},
	}
	ctx := bounded(t)
	// The cases are more than what a user may ask at once.
	w := start(t, setup{server: srv, counts: true, settings: map[string]any{"limits.queries_burst": 1000}})
	w.backend.Set("juliet", contacts("Capulet"))
	w.backend.Set("romeo", contacts("Montague"))
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, juliet, item("Capulet"))
	romeo := w.login(ctx, t, slixmpp, "romeo@example.org/street")
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			id := fmt.Sprint("x", i)
			answer := request(ctx, t, romeo, id, strings.Replace(c.stanza, " id='x'", " id='"+id+"'", 1))
			if c.condition != result {
				wantError(t, answer, c.condition)
			} else if items := rosterItems(t, answer); answer.Type != "result" || len(items) != 1 || items[0].JID != "montague@example.org" {
				t.Errorf("answer %.500s", answer.XML)
			}
		})
	}
	// One id twice is two queries; and what cannot be told apart, with an empty
	// id or none, does no harm.
	send(t, romeo, strings.Repeat(iq("get", "twice", "", rosterQuery), 2))
	seen := 0
	if _, err := romeo.WaitStanza(ctx, func(s harness.Stanza) bool {
		if s.ID == "twice" {
			seen++
		}
		return seen == 2
	}); err != nil {
		t.Errorf("%d answers: %v", seen, err)
	}
	send(t, romeo, iq("get", "", "", rosterQuery)+"<iq type='get'>"+rosterQuery+"</iq>"+`<iq type="get" id="`+strings.Repeat("'", 50_000)+`">`+rosterQuery+"</iq>")
	handled(ctx, t, romeo)
	answered := map[string]int{}
	for _, s := range romeo.Stanzas() {
		if strings.Contains(s.XML, "capulet") {
			t.Errorf("romeo received %.500s", s.XML)
		}
		if s.Type == "result" || s.Type == "error" {
			answered[s.ID]++
		}
	}
	for i := range cases {
		if n := answered[fmt.Sprint("x", i)]; n != 1 {
			t.Errorf("%s: %d answers", cases[i].name, n)
		}
	}
	wantRequests(t, w, "juliet", 1)
	wantQuiet(ctx, t, juliet)
	wantOneStream(ctx, t, w)
}

// What ends a client's own stream ends no other.
func TestStanzasThatEndTheirOwnStream(t *testing.T) { onServers(t, testStanzasThatEndTheirOwnStream) }

func testStanzasThatEndTheirOwnStream(t *testing.T, srv server) {
	get := func(payload string) string { return "<iq type='get' id='1'>" + payload + "</iq>" }
	cases := map[string]string{
		"invalid UTF-8":            get("<query xmlns='jabber:iq:roster' a='\xff\xfe'/>"),
		"a character XML forbids":  get("<query xmlns='jabber:iq:roster'>\x01</query>"),
		"the same, escaped":        get("<query xmlns='jabber:iq:roster' a='&#1;'/>"),
		"a document type":          "<!DOCTYPE x [<!ENTITY lol 'lol'>]>" + get("<query xmlns='jabber:iq:roster'>&lol;</query>"),
		"an entity":                get("<query xmlns='jabber:iq:roster'>&lol;</query>"),
		"a comment":                get("<!-- x -->" + rosterQuery),
		"an instruction":           get("<?x y?>" + rosterQuery),
		"no end":                   "<iq type='get' id='1'><query xmlns='jabber:iq:roster'",
		"another end":              get("<query xmlns='jabber:iq:roster'></quer>"),
		"an attribute twice":       get("<query xmlns='jabber:iq:roster' a='1' a='2'/>"),
		"a sender twice":           "<iq type='get' id='1' from='juliet@example.org/balcony' from='romeo@example.org/x'>" + rosterQuery + "</iq>",
		"a prefix of nothing":      "<iq type='get' id='1' xmlns:x='' x:from='juliet@example.org/balcony'>" + rosterQuery + "</iq>",
		"another's name":           "<iq type='get' id='1' from='juliet@example.org/balcony'>" + rosterQuery + "</iq>",
		"the component's name":     "<iq type='get' id='1' from='" + domain + "'>" + rosterQuery + "</iq>",
		"the server's name":        "<iq type='set' id='1' from='example.org' to='" + domain + "'>" + forged + "</iq>",
		"the component's stream":   "<iq xmlns='jabber:component:accept' type='get' id='1'>" + rosterQuery + "</iq>",
		"a stream error":           "<stream:error xmlns:stream='http://etherx.jabber.org/streams'><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>",
		"the end of all streams":   "</stream:stream></stream:stream></stream:stream>",
		"more than a server takes": get("<query xmlns='jabber:iq:roster'>" + strings.Repeat("x", 1<<20) + "</query>"),
	}
	ctx := bounded(t)
	w := start(t, setup{server: srv, counts: true})
	w.backend.Set("juliet", contacts("Capulet"))
	w.backend.Set("romeo", contacts("Montague"))
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, juliet, item("Capulet"))
	for name, stanza := range cases {
		t.Run(name, func(t *testing.T) {
			romeo := w.login(ctx, t, gosrc, "romeo@example.org/"+strings.ReplaceAll(strings.ReplaceAll(name, " ", "-"), "'", ""))
			_ = romeo.SendRaw(stanza)
			// It has been read when this is, or the stream has ended.
			short, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			_ = romeo.Ping(short, domain)
			for _, s := range romeo.Stanzas() {
				if strings.Contains(s.XML, "capulet") {
					t.Errorf("romeo received %.500s", s.XML)
				}
			}
			romeo.Cut()
			w.backend.Set("juliet", contacts("Capulet", "Nurse"))
			w.refresh(ctx, t, "juliet")
			wantPushes(ctx, t, juliet, item("Nurse"))
			w.backend.Set("juliet", contacts("Capulet"))
			w.refresh(ctx, t, "juliet")
			wantPushes(ctx, t, juliet, removed("Nurse"))
			wantOneStream(ctx, t, w)
		})
	}
}

// Whatever the backend puts into the names of contacts and groups, it is one
// contact, and nobody's stream ends.
func TestHostileContacts(t *testing.T) { onServers(t, testHostileContacts) }

func testHostileContacts(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv, counts: true})
	groups := map[string]bool{}
	for i := range 1000 {
		groups[fmt.Sprint("Group ", i)] = true
	}
	names := map[string]any{
		"markup@example.org":    map[string]any{"name": "</query></iq></stream:stream><!-- <![CDATA[ ]]> &amp; ' \""},
		"control@example.org":   map[string]any{"name": "\u0000\u0001\u0008\u000b\u001f\u007f\u0085\ufffe\uffff\ufdd0"},
		"bidi@example.org":      map[string]any{"name": "\u202eoemoR\u202c \u2066x\u2069 \u200f\ufeff"},
		"surrogate@example.org": json.RawMessage(`{"name": "\ud800 \udfff \udbff\udfff"}`),
		"breaks@example.org":    map[string]any{"name": "a\tb\nc\rd\u2028e"},
		"long@example.org":      map[string]any{"name": strings.Repeat("<&>'\"", 6000)},
		"groups@example.org":    map[string]any{"groups": groups},
		"group@example.org":     map[string]any{"groups": map[string]bool{"</group>": true, "\u0000": true, "": true, strings.Repeat("g", 2000): true}},
		"plain@example.org":     map[string]any{"name": "Plain"},
		"huge@example.org":      map[string]any{"name": strings.Repeat("h", 100_000)}, // has no name then
	}
	body, err := json.Marshal(names)
	if err != nil {
		t.Fatal(err)
	}
	w.backend.Set("juliet", contacts("Romeo"))
	w.backend.Set("romeo", contacts("Nurse"))
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	romeo := w.login(ctx, t, slixmpp, "romeo@example.org/street")
	wantRoster(ctx, t, juliet, item("Romeo"))
	// As pushes, then as an answer.
	w.backend.SetBody("juliet", body)
	w.refresh(ctx, t, "juliet")
	pushed := map[string]harness.Item{}
	if _, err := juliet.WaitStanza(ctx, func(s harness.Stanza) bool {
		if s.Type == "set" {
			for _, it := range rosterItems(t, s) {
				pushed[it.JID] = it
			}
		}
		return len(pushed) == len(names)+1 // with the one that is removed
	}); err != nil {
		t.Fatalf("%d pushed: %v", len(pushed), err)
	}
	delete(pushed, "romeo@example.org") // removed
	answer := request(ctx, t, juliet, "answer", iq("get", "answer", "", rosterQuery))
	items := rosterItems(t, answer)
	if len(items) != len(names) {
		t.Errorf("%d items in the answer, want %d", len(items), len(names))
	}
	for _, it := range items {
		if !equal(pushed[it.JID], it) {
			t.Errorf("%s: the push says %.200v, the answer %.200v", it.JID, pushed[it.JID], it)
		}
	}
	if got := pushed["plain@example.org"]; got.Name != "Plain" {
		t.Errorf("plain: %+v", got)
	}
	if got := pushed["huge@example.org"]; got.Name != "" || got.Subscription != "both" {
		t.Errorf("huge: %.200v", got)
	}
	wantRoster(ctx, t, romeo, item("Nurse"))
	wantOneStream(ctx, t, w)
}
