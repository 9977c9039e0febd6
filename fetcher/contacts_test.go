package fetcher

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"rosterd/jid"
	"rosterd/roster"
)

var juliet = mustParse("juliet@example.org")

func mustParse(s string) jid.JID {
	j, err := jid.Parse(s)
	if err != nil {
		panic(err)
	}
	return j
}

// item is the item of an address with everything else left to the defaults.
func item(address string) roster.Item {
	return roster.Item{JID: mustParse(address), Subscription: roster.SubscriptionBoth}
}

// romeo is the item of romeo@example.org, changed by with.
func romeo(with func(*roster.Item)) []roster.Item {
	i := item("romeo@example.org")
	with(&i)
	return []roster.Item{i}
}

func inGroups(names ...string) []roster.Item {
	return romeo(func(i *roster.Item) { i.Groups = names })
}

func named(name string) []roster.Item { return romeo(func(i *roster.Item) { i.Name = name }) }

type counts map[string]int

var decodeTests = []struct {
	name    string
	body    string
	want    []roster.Item
	skipped counts
	ignored counts
	failure string
}{
	// The forms of the whole.
	{name: "the module's form", body: `{"romeo@example.org": {"name": "Romeo", "groups": {"Friends": true}}}`,
		want: romeo(func(i *roster.Item) { i.Name, i.Groups = "Romeo", []string{"Friends"} })},
	{name: "array form", body: `[{"name": "Romeo", "jid": "romeo@example.org", "groups": ["Friends"]}, {"jid":"nurse@example.org"}]`,
		want: []roster.Item{item("nurse@example.org"),
			romeo(func(i *roster.Item) { i.Name, i.Groups = "Romeo", []string{"Friends"} })[0]}},
	{name: "every field", body: `{"romeo@example.org":{"name":"R","groups":["b","a"],"subscription":"to","ask":"subscribe","approved":true}}`,
		want: []roster.Item{{JID: mustParse("romeo@example.org"), Name: "R", Groups: []string{"a", "b"},
			Subscription: roster.SubscriptionTo, Ask: true, Approved: true}}},
	{name: "empty array", body: `[]`},
	{name: "empty object", body: " {\r\n\t} "},
	{name: "space everywhere", body: "\n[ { \"jid\" :\t\"romeo@example.org\" , \"name\" : \"R\" , \"x\" : [ 1 , { } ] } ]\r\n", want: named("R")},
	{name: "null", body: `null`, failure: "neither a JSON object nor an array"},
	{name: "string", body: `"romeo@example.org"`, failure: "neither a JSON object nor an array"},
	{name: "number", body: `7`, failure: "neither a JSON object nor an array"},
	{name: "false", body: `false`, failure: "neither a JSON object nor an array"},
	{name: "no body", body: ``, failure: "an empty body"},
	{name: "only space", body: " \n", failure: "an empty body"},
	{name: "HTML", body: `<!DOCTYPE html><html></html>`, failure: "not JSON"},
	{name: "garbage after the value", body: `{} <b>Warning</b>`, failure: "more than one JSON value"},
	{name: "two values", body: `[][]`, failure: "more than one JSON value"},
	{name: "cut off in an entry", body: `{"romeo@example.org": {"name": "Ro`, failure: "cut off"},
	{name: "cut off after an entry", body: `{"romeo@example.org": {}`, failure: "cut off"},
	{name: "trailing comma", body: `[{"jid":"romeo@example.org"},]`, failure: "not JSON"},
	{name: "single quotes", body: `{'romeo@example.org': {}}`, failure: "not JSON"},
	{name: "deep", body: strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000), failure: "not JSON"},

	// Answers that tell of a failure, with status 200.
	{name: "error text", body: `{"error": "no such user"}`, skipped: counts{"jid": 1}, failure: "none of 1 entries is usable"},
	{name: "error object", body: `{"error": {"code": 5}}`, skipped: counts{"jid": 1}, failure: "none of 1 entries is usable"},
	{name: "wrapped", body: `{"status": {}, "data": []}`, skipped: counts{"jid": 2}, failure: "none of 2 entries is usable"},
	{name: "one object of the array form", body: `{"jid": "romeo@example.org", "name": "R"}`, skipped: counts{"jid": 2}, failure: "none of 2 entries is usable"},
	{name: "error with a dot", body: `{"error.code": 5, "error.text": "no such user"}`, skipped: counts{"jid": 2}, failure: "none of 2 entries is usable"},
	{name: "array of words", body: `["error", "not.found"]`, skipped: counts{"jid": 2}, failure: "none of 2 entries is usable"},

	// Contacts.
	{name: "prepared", body: `{"Romeo@Example.ORG": {}}`, want: []roster.Item{item("romeo@example.org")}},
	{name: "escaped", body: `{"\u0072omeo@example.org": {"n\u0061me": "R"}}`, want: named("R")},
	{name: "escaped field jid", body: `[{"\u006aid": "romeo@example.org"}]`, want: []roster.Item{item("romeo@example.org")}},
	{name: "domain", body: `{"irc.example.org": {}}`, want: []roster.Item{item("irc.example.org")}},
	{name: "one label that says it is a JID", body: `[{"jid": "localhost"}]`, want: []roster.Item{item("localhost")}},
	{name: "one label after a localpart", body: `{"romeo@localhost": {}}`, want: []roster.Item{item("romeo@localhost")}},
	{name: "bad JIDs", body: `{"": {}, "@example.org": {}, "a b@example.org": {}, "x@": {}, "x@\ud800.org": {}, "\u0000@example.org": {}, "romeo@example.org": {}}`,
		want: []roster.Item{item("romeo@example.org")}, skipped: counts{"jid": 6}},
	{name: "bad JID before wrong type", body: `{"@": 5}`, skipped: counts{"jid": 1}, failure: "none of 1 entries is usable"},
	{name: "resource", body: `{"nurse@example.org/x": {}, "romeo@example.org": {}}`,
		want: []roster.Item{item("romeo@example.org")}, skipped: counts{"resource": 1}},
	{name: "self", body: `{"Juliet@example.org": {}, "romeo@example.org": {}}`,
		want: []roster.Item{item("romeo@example.org")}, skipped: counts{"self": 1}},
	{name: "self alone", body: `{"juliet@example.org": {}}`, skipped: counts{"self": 1}, failure: "none of 1 entries is usable"},
	{name: "double key", body: `{"romeo@example.org": {"name": "1"}, "romeo@example.org": {"name": "2"}}`,
		want: named("1"), skipped: counts{"double": 1}},
	{name: "double after preparation", body: `[{"jid": "romeo@example.org", "name": "1"}, {"jid": "ROMEO@example.org.", "name": "2"}]`,
		want: named("1"), skipped: counts{"double": 1}},
	{name: "double of one with an odd field", body: `{"romeo@example.org": {"name": 1}, "ROMEO@example.org": {"name": "2"}}`,
		want: named("1"), skipped: counts{"double": 1}},
	{name: "array form without JID", body: `[{"name": "R"}, {"jid": null}, [], {"jid": ""}, {"jid": "romeo@example.org"}]`,
		want: []roster.Item{item("romeo@example.org")}, skipped: counts{"jid": 4}},
	{name: "array form with wrong types", body: `[{"jid": 5}, {"jid": {}}, null, 5, "x", [1], {"jid": "romeo@example.org"}]`,
		want: []roster.Item{item("romeo@example.org")}, skipped: counts{"jid": 2, "wrong_type": 4}},

	// Entries.
	{name: "PHP's empty object", body: `{"romeo@example.org": [ ]}`, want: []roster.Item{item("romeo@example.org")}},
	{name: "entries of a wrong type", body: `{"a@example.org": true, "b@example.org": null, "c@example.org": "x", "d@example.org": 1, "e@example.org": [{}], "romeo@example.org": {}}`,
		want: []roster.Item{item("a@example.org"), item("b@example.org"), item("c@example.org"), item("d@example.org"), item("e@example.org"), item("romeo@example.org")}, ignored: counts{"entry": 5}},
	{name: "an array of JIDs", body: `["romeo@example.org", "nurse@example.org/x", "example.net", "no such user"]`,
		want: []roster.Item{item("romeo@example.org")}, skipped: counts{"resource": 1, "jid": 2}, ignored: counts{"entry": 1}},
	{name: "fields of a wrong type", body: `{"romeo@example.org": {"name": ["x"], "groups": 7, "subscription": {}, "ask": [], "approved": "maybe"}}`,
		want: []roster.Item{item("romeo@example.org")}, ignored: counts{"name": 1, "groups": 1, "subscription": 1, "ask": 1, "approved": 1}},
	{name: "names that are numbers", body: `{"romeo@example.org": {"name": -4.50}}`, want: named("-4.50")},
	{name: "names that are neither", body: `[{"jid": "romeo@example.org", "name": false}, {"jid": "a@example.org", "name": {"first": "A"}}]`,
		want: []roster.Item{item("a@example.org"), item("romeo@example.org")}, ignored: counts{"name": 2}},
	{name: "booleans in other words", body: `{"romeo@example.org": {"ask": " SubScribe", "approved": "Yes"}}`,
		want: romeo(func(i *roster.Item) { i.Ask, i.Approved = true, true })},
	{name: "booleans as numbers", body: `{"romeo@example.org": {"ask": 1, "approved": 1.0}}`,
		want: romeo(func(i *roster.Item) { i.Ask, i.Approved = true, true })},
	{name: "booleans as texts of numbers", body: `{"romeo@example.org": {"ask": "1", "approved": " 1 "}}`,
		want: romeo(func(i *roster.Item) { i.Ask, i.Approved = true, true })},
	{name: "booleans that are off", body: `{"romeo@example.org": {"ask": "0", "approved": "False"}, "a@example.org": {"ask": 0, "approved": 0.0}, "b@example.org": {"ask": "off", "approved": ""}, "c@example.org": {"ask": -0, "approved": "0.0"}}`,
		want: []roster.Item{item("a@example.org"), item("b@example.org"), item("c@example.org"), item("romeo@example.org")}},
	{name: "ask that is something else", body: `{"romeo@example.org": {"ask": "unsubscribe"}}`, want: []roster.Item{item("romeo@example.org")}, ignored: counts{"ask": 1}},
	{name: "groups in other words", body: `{"romeo@example.org": {"groups": {"a": "1", "b": "no", "c": "TRUE", "d": "0", "e": "", "f": 2, "g": "on"}}}`, want: inGroups("a", "c", "f", "g")},
	{name: "groups with a member that says nothing", body: `{"romeo@example.org": {"groups": {"a": {}, "b": true, "c": "perhaps"}}}`, want: inGroups("b"), ignored: counts{"groups": 1}},
	{name: "groups with elements that are none", body: `{"romeo@example.org": {"groups": ["b", 12, null, {"name": "a"}, true]}}`, want: inGroups("12", "b"), ignored: counts{"groups": 1}},
	{name: "one group", body: `{"romeo@example.org": {"groups": "Friends"}}`, want: inGroups("Friends")},
	{name: "groups of PHP that failed", body: `{"romeo@example.org": {"groups": false, "name": "R"}}`, want: named("R"), ignored: counts{"groups": 1}},
	{name: "subscriptions in any case", body: `{"romeo@example.org": {"subscription": " FROM "}}`, want: romeo(func(i *roster.Item) { i.Subscription = roster.SubscriptionFrom })},
	{name: "unknown subscriptions", body: `{"a@example.org": {"subscription": "remove"}, "b@example.org": {"subscription": 3}, "c@example.org": {"subscription": ""}, "romeo@example.org": {"subscription": false}}`,
		want: []roster.Item{item("a@example.org"), item("b@example.org"), item("c@example.org"), item("romeo@example.org")}, ignored: counts{"subscription": 4}},
	{name: "odd and right fields", body: `{"romeo@example.org": {"approved": [], "name": "R", "name": "Romeo"}}`, want: named("Romeo"), ignored: counts{"approved": 1}},
	{name: "null fields", body: `{"romeo@example.org": {"name": null, "groups": null, "subscription": null, "ask": null, "approved": null}}`,
		want: []roster.Item{item("romeo@example.org")}},
	{name: "fields that are off", body: `{"romeo@example.org": {"name": "", "groups": {}, "ask": false, "approved": false}}`,
		want: []roster.Item{item("romeo@example.org")}},
	{name: "ask empty", body: `{"romeo@example.org": {"ask": ""}}`, want: []roster.Item{item("romeo@example.org")}},
	{name: "ask true", body: `{"romeo@example.org": {"ask": true}}`, want: romeo(func(i *roster.Item) { i.Ask = true })},
	{name: "field twice", body: `{"romeo@example.org": {"name": "1", "name": "2"}}`, want: named("2")},
	{name: "field in another case", body: `{"romeo@example.org": {"Name": 5}}`, want: []roster.Item{item("romeo@example.org")}},
	{name: "unknown fields", body: `{"romeo@example.org": {"avatar": {"name": 5, "x": ["}", "\"]"]}, "id": -1.5e3, "name": "R"}}`, want: named("R")},
	{name: "subscription none", body: `{"romeo@example.org": {"subscription": "none"}}`,
		want: romeo(func(i *roster.Item) { i.Subscription = roster.SubscriptionNone })},
	{name: "subscription from", body: `{"romeo@example.org": {"subscription": "from"}}`,
		want: romeo(func(i *roster.Item) { i.Subscription = roster.SubscriptionFrom })},

	// Groups and text.
	{name: "groups sorted and once", body: `{"romeo@example.org": {"groups": ["b", "a", "b", "\u0061"]}}`, want: inGroups("a", "b")},
	{name: "too large", body: `{"a@example.org": {"name": "` + strings.Repeat("x", maxText+1) + `"}, "b@example.org": {"groups": ["` + strings.Repeat("x", maxText-15) + `"]},` +
		`"romeo@example.org": {"name": "` + strings.Repeat("x", maxText) + `"}}`,
		want:    []roster.Item{item("a@example.org"), item("b@example.org"), named(strings.Repeat("x", maxText))[0]},
		ignored: counts{"name": 1, "groups": 1}},
	{name: "too large as XML", body: `{"a@example.org": {"name": "` + strings.Repeat("'", maxText/6+1) + `"}, "romeo@example.org": {"name": "` + strings.Repeat("'", maxText/6) + `"}}`,
		want:    []roster.Item{item("a@example.org"), named(strings.Repeat("'", maxText/6))[0]},
		ignored: counts{"name": 1}},
	{name: "too large together", body: `{"romeo@example.org": {"name": "` + strings.Repeat("y", maxText-20) + `", "groups": ["Fri", "ends"]}}`,
		want: named(strings.Repeat("y", maxText-20)), ignored: counts{"groups": 1}},
	{name: "groups with numbers", body: `{"romeo@example.org": {"groups": {"a": 1, "b": 0, "c": -2.5}}}`, want: inGroups("a", "c")},
	{name: "groups that are none", body: `{"romeo@example.org": {"groups": {"a": true, "b": false, "c": null}}}`, want: inGroups("a")},
	{name: "groups empty after cleaning", body: `{"romeo@example.org": {"groups": ["", "\u0000", "a\u0001", "a"]}}`, want: inGroups("a")},
	{name: "groups by PHP", body: `{"romeo@example.org": {"groups": []}}`, want: []roster.Item{item("romeo@example.org")}},
	{name: "text that XML forbids", body: `{"romeo@example.org": {"name": "R\u0000o\ufffem\u001be\uffffo\t"}}`, want: named("Romeo\t")},
	{name: "surrogates", body: `{"romeo@example.org": {"name": "\ud83d\ude00 \ud800x \udc00"}}`, want: named("😀 \uFFFDx \uFFFD")},
	{name: "not UTF-8", body: "{\"romeo@example.org\": {\"name\": \"Ren\xe9\", \"groups\": [\"\xff\xfe\"]}}",
		want: romeo(func(i *roster.Item) { i.Name, i.Groups = "Ren\uFFFD", []string{"\uFFFD\uFFFD"} })},
	{name: "quotes and backslashes", body: `{"romeo@example.org": {"name": "\"\\\" \/ {[", "groups": {"\\": true}}}`,
		want: romeo(func(i *roster.Item) { i.Name, i.Groups = `"\" / {[`, []string{`\`} })},
}

func TestDecode(t *testing.T) {
	for _, test := range decodeTests {
		t.Run(test.name, func(t *testing.T) {
			r, found, failure := newDecoder().decode(test.body, juliet)
			if !maps.Equal(found.Skipped.by, test.skipped) || !maps.Equal(found.Ignored.by, test.ignored) {
				t.Errorf("skipped %v and ignored %v, want %v and %v", found.Skipped.by, found.Ignored.by, test.skipped, test.ignored)
			}
			if test.failure != "" {
				if failure == nil {
					t.Fatalf("decoded to %v, want the failure %q", r.Items(), test.failure)
				}
				if r != nil || failure.Error() != test.failure || failure.Result != resultInvalid {
					t.Errorf("failed with %q (%s), want %q", failure, failure.Result, test.failure)
				}
				return
			}
			if failure != nil {
				t.Fatal(failure)
			}
			if !slices.EqualFunc(r.Items(), test.want, roster.Item.Equal) {
				t.Errorf("got  %+v\nwant %+v", r.Items(), test.want)
			}
		})
	}
}

func TestDecodeNamesFirstSkipped(t *testing.T) {
	_, found, _ := newDecoder().decode(`{"romeo@example.org":{"ask": "x"}, "@one": {}, "@two": {}}`, juliet)
	if found.Skipped.First[0].Contact != "@one" || found.Ignored.First[0].Contact != "romeo@example.org" {
		t.Errorf("found %+v", found)
	}
}

// A decoder that was used before decodes as a new one, and holds nothing of the
// answers before.
func TestDecoderAgain(t *testing.T) {
	used := newDecoder()
	for _, test := range decodeTests {
		r, found, failure := used.decode(test.body, juliet)
		want, wantFound, wantFailure := newDecoder().decode(test.body, juliet)
		used.begin("")
		if !r.Equal(want) || !reflect.DeepEqual(found, wantFound) || (failure == nil) != (wantFailure == nil) {
			t.Errorf("%s: %v, %v, %v, want %v, %v, %v", test.name, r.Items(), found, failure, want.Items(), wantFound, wantFailure)
		}
		for _, i := range used.items[:cap(used.items)] {
			if !i.Equal(roster.Item{}) {
				t.Fatalf("%s: keeps %+v", test.name, i)
			}
		}
		for _, g := range used.groups[:cap(used.groups)] {
			if g != "" {
				t.Fatalf("%s: keeps %q", test.name, g)
			}
		}
	}
}

// The memory for a large answer is not kept.
func TestLargeAnswerIsNotKept(t *testing.T) {
	b := newBench(t, "")
	d := newDecoder()
	if _, _, failure := d.decode(strings.Repeat(" ", maxReused)+"[]", juliet); failure != nil {
		t.Fatal(failure)
	}
	b.putDecoder(d)
	if b.decoders.Get() == any(d) || d.body != "" {
		t.Error("the decoder is used again")
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"romeo@example.org":            "romeo@example.org",
		"a\nlevel=ERROR b\x1b[m":       `a\nlevel=ERROR b\x1b[m`,
		"\u202eevil":                   `\u202eevil`,
		`{"a": "\n"}`:                  `{"a": "\\n"}`,
		strings.Repeat("é", 500):       strings.Repeat("é", 50) + "…",
		"x" + strings.Repeat("é", 500): "x" + strings.Repeat("é", 49) + "…",
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q) is %q, want %q", in, got, want)
		}
	}
}

// FuzzDecode: whatever a backend sends, no panic, no item that the protocol
// does not allow, and no empty roster but for an empty object or array.
func FuzzDecode(f *testing.F) {
	for _, test := range decodeTests {
		f.Add([]byte(test.body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r, found, failure := newDecoder().decode(string(body), juliet)
		var whole any
		if err := json.Unmarshal(body, &whole); err != nil && failure == nil {
			t.Fatalf("decoded what is not JSON: %v", err)
		}
		if failure != nil {
			if r != nil || !slices.Contains(Results, failure.Result) || len(failure.Error()) > 100 {
				t.Fatalf("roster %v with failure %q", r, failure)
			}
			return
		}
		if v := reflect.ValueOf(whole); (r.Len() == 0) != (v.Len() == 0) {
			t.Fatalf("%d items of %d entries", r.Len(), v.Len())
		}
		n := r.Len()
		for field := range found.Ignored.by {
			if !slices.Contains(Fields, field) {
				t.Fatalf("field %q", field)
			}
		}
		for reason, count := range found.Skipped.by {
			if !slices.Contains(SkipReasons, reason) {
				t.Fatalf("reason %q", reason)
			}
			n += count
		}
		if entries, ok := whole.([]any); ok && n != len(entries) {
			t.Fatalf("%d entries became %d", len(entries), n)
		}
		for _, i := range r.Items() {
			checkItem(t, i)
		}
	})
}

func checkItem(t *testing.T, i roster.Item) {
	t.Helper()
	if i.JID.IsZero() || !i.JID.IsBare() || i.JID == juliet || !i.Subscription.Valid() {
		t.Fatalf("item %+v", i)
	}
	if again, err := jid.Parse(i.JID.String()); err != nil || again != i.JID {
		t.Fatalf("JID %q is not prepared: %v", i.JID, err)
	}
	for _, s := range append([]string{i.Name}, i.Groups...) {
		if !utf8.ValidString(s) || s != roster.CleanText(s) {
			t.Fatalf("text %q is not clean", s)
		}
	}
	if !slices.IsSorted(i.Groups) || len(slices.Compact(slices.Clone(i.Groups))) != len(i.Groups) || slices.Contains(i.Groups, "") {
		t.Fatalf("groups %q", i.Groups)
	}
}
