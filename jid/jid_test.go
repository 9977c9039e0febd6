package jid

import (
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestParse(t *testing.T) {
	long := strings.Repeat("a", maxPart)
	tests := []struct {
		name, in string
		want     JID // zero: invalid
	}{
		// The examples of RFC 7622, section 3.5.
		{"example 1", "juliet@example.com", JID{"juliet", "example.com", ""}},
		{"example 2", "juliet@example.com/foo", JID{"juliet", "example.com", "foo"}},
		{"example 3, space in resourcepart", "juliet@example.com/foo bar", JID{"juliet", "example.com", "foo bar"}},
		{"example 4, at sign in resourcepart", "juliet@example.com/foo@bar", JID{"juliet", "example.com", "foo@bar"}},
		{"example 5, escaped space", `foo\20bar@example.com`, JID{`foo\20bar`, "example.com", ""}},
		{"example 6", "fussball@example.com", JID{"fussball", "example.com", ""}},
		{"example 7, but servers fold sharp s", "fu\u00DFball@example.com", JID{"fussball", "example.com", ""}},
		{"example 8", "\u03C0@example.com", JID{"\u03C0", "example.com", ""}},
		{"example 9, capital sigma", "\u03A3@example.com/foo", JID{"\u03C3", "example.com", "foo"}},
		{"example 10, small sigma", "\u03C3@example.com/foo", JID{"\u03C3", "example.com", "foo"}},
		{"example 11, but servers fold final sigma", "\u03C2@example.com/foo", JID{"\u03C3", "example.com", "foo"}},
		{"example 12, symbol in resourcepart", "king@example.com/\u265A", JID{"king", "example.com", "\u265A"}},
		{"example 13, domain only", "example.com", JID{"", "example.com", ""}},
		{"example 14", "example.com/foobar", JID{"", "example.com", "foobar"}},
		{"example 15, at sign behind the slash", "a.example.com/b@example.net", JID{"", "a.example.com", "b@example.net"}},
		{"example 16, quotes", `"juliet"@example.com`, JID{}},
		{"example 17, space in localpart", "foo bar@example.com", JID{}},
		{"example 18, leading space in resourcepart", "juliet@example.com/ foo", JID{}},
		{"example 19, empty localpart and resourcepart", "@example.com/", JID{}},
		{"example 20, but servers have a character with a compatibility equivalent", "henry\u2163@example.com", JID{"henryiv", "example.com", ""}},
		{"example 21, but servers have a symbol in localpart", "\u265A@example.com", JID{"\u265A", "example.com", ""}},
		{"example 22, no domainpart", "juliet@", JID{}},
		{"example 23, resourcepart alone", "/foobar", JID{}},

		{"upper case", "Romeo@Example.ORG/Orchard", JID{"romeo", "example.org", "Orchard"}},
		{"fullwidth", "\uFF32omeo@\uFF25xample.org", JID{"romeo", "example.org", ""}},
		{"composed", "Jose\u0301@example.org", JID{"jos\u00E9", "example.org", ""}},
		{"right to left", "\u05D0\u05D1@example.org", JID{"\u05D0\u05D1", "example.org", ""}},
		{"mixed directions", "\u05D0a@example.org", JID{}},
		{"space of another kind in resourcepart", "a@example.org/b\u00A0c", JID{"a", "example.org", "b c"}},
		{"leading space of another kind in resourcepart", "a@example.org/\u00A0c", JID{}},
		{"slashes in resourcepart", "a@example.org//b/", JID{"a", "example.org", "/b/"}},
		{"control character in resourcepart", "a@example.org/b\x01", JID{}},
		{"control character in localpart", "a\x7F@example.org", JID{}},
		{"not UTF-8 in localpart", "\xff@example.org", JID{}},
		{"not UTF-8 in domainpart", "a@example.\xff", JID{}},
		{"not UTF-8 in resourcepart", "a@example.org/\xff", JID{}},
		{"fullwidth at sign", "a\uFF20b@example.org", JID{}},
		{"fullwidth slash", "a\uFF0Fb@example.org", JID{}},
		{"two at signs", "a@b@example.org", JID{}},
		{"empty", "", JID{}},
		{"separators alone", "@/", JID{}},
		{"longest", long + "@" + long + "/" + long, JID{long, long, long}},
		{"localpart too long", long + "a@example.org", JID{}},
		{"domainpart too long", long + "a", JID{}},
		{"resourcepart too long", "example.org/" + long + "a", JID{}},
		{"localpart too long once prepared", strings.Repeat("\uFDFA", maxPart/3) + "@example.org", JID{}}, // 3 bytes, decomposed 33
		{"localpart of nothing", "\u00AD@example.org", JID{}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Parse(tc.in)
			if (err != nil) != tc.want.IsZero() || got != tc.want {
				t.Fatalf("Parse(%q) = %q, %v, want %q", tc.in, got, err, tc.want)
			}
			if err != nil {
				return
			}
			if again, err := Parse(got.String()); err != nil || again != got {
				t.Errorf("Parse(%q) = %q, %v, not stable", got, again, err)
			}
			if parts, err := New(got.Local(), got.Domain(), got.Resource()); err != nil || parts != got {
				t.Errorf("New of the parts = %q, %v, want %q", parts, err, got)
			}
		})
	}
}

func TestPrepareDomain(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"name", "example.org", "example.org"},
		{"upper case", "EXAMPLE.Org", "example.org"},
		{"one label", "localhost", "localhost"},
		{"underscore", "My_Host.example", "my_host.example"},
		{"underscore first", "_xmpp.example", "_xmpp.example"},
		{"underscore beside a U-label", "my_b\u00FCcher.example", "my_b\u00FCcher.example"},
		{"hyphens third and fourth", "r3---sn-a.example", "r3---sn-a.example"},
		{"trailing dot", "example.org.", "example.org"},
		{"trailing dot behind a U-label", "B\u00FCcher.example.", "b\u00FCcher.example"},
		{"ideographic dots", "example\u3002org\u3002", "example.org"},
		{"U-label", "b\u00FCcher.example", "b\u00FCcher.example"},
		{"U-label in upper case", "B\u00DCCHER.example", "b\u00FCcher.example"},
		{"U-label decomposed", "bu\u0308cher.example", "b\u00FCcher.example"},
		{"A-label", "xn--bcher-kva.example", "b\u00FCcher.example"},
		{"A-label in upper case", "XN--BCHER-KVA.example", "b\u00FCcher.example"},
		{"A-label behind others", "www.xn--bcher-kva", "www.b\u00FCcher"},
		{"sharp s", "fa\u00DF.example", "fa\u00DF.example"},
		{"sharp s as A-label", "xn--fa-hia.example", "fa\u00DF.example"},
		{"right to left", "\u05D0\u05D1.example", "\u05D0\u05D1.example"},
		{"label longer than in the DNS", strings.Repeat("a", 64) + ".example", strings.Repeat("a", 64) + ".example"},
		{"IPv4", "192.0.2.1", "192.0.2.1"},
		{"IPv6", "[2001:DB8::1]", "[2001:db8::1]"},
		{"IPv6 in another form", "[2001:db8:0:0:0:0:0:1]", "[2001:db8::1]"},

		{"empty", "", ""},
		{"dot", ".", ""},
		{"empty label", "a..b", ""},
		{"leading dot", ".a", ""},
		{"two trailing dots", "a..", ""},
		{"two trailing dots, one ideographic", "a.\u3002", ""},
		{"hyphen first", "-a.example", ""},
		{"hyphen last", "a-.example", ""},
		{"hyphen last in the name", "example-", ""},
		{"hyphen first beside a U-label", "-b\u00FCcher.example", ""},
		{"space", "a b", ""},
		{"slash", "a/b", ""},
		{"character that maps to a slash", "\u2100.example", ""},
		{"character that maps to brackets", "\u2474.example", ""},
		{"at sign", "a@b", ""},
		{"colon", "example.org:5222", ""},
		{"IPv6 without brackets", "::1", ""},
		{"IPv6 half bracketed", "[::1", ""},
		{"IPv6 with a zone", "[fe80::1%eth0]", ""},
		{"IPv6 with a dot", "[::1].", ""},
		{"IPv4 in brackets", "[192.0.2.1]", ""},
		{"name in brackets", "[example.org]", ""},
		{"A-label of nothing", "xn--", ""},
		{"A-label of ASCII", "xn--abc-", ""},
		{"A-label that is no Punycode", "xn--\u00FC", ""},
		{"A-label of upper case", "xn--Bcher-Kva-.example", ""},
		{"not UTF-8", "\xff", ""},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			got, err := PrepareDomain(tc.in)
			if (err != nil) != (tc.want == "") || got != tc.want {
				t.Fatalf("PrepareDomain(%q) = %q, %v, want %q", tc.in, got, err, tc.want)
			}
			if err != nil {
				return
			}
			if again, err := PrepareDomain(got); err != nil || again != got {
				t.Errorf("PrepareDomain(%q) = %q, %v, not stable", got, again, err)
			}
		})
	}
}

func TestParseStamped(t *testing.T) {
	tests := []struct {
		name, in string
		want     JID
	}{
		{"bare", "Juliet@EXAMPLE.org", JID{"juliet", "example.org", ""}},
		{"resource as it is", "Juliet@Example.org/ Cafe\u0301\u00A0", JID{"juliet", "example.org", " Cafe\u0301\u00A0"}},
		{"resource of a later Unicode", "a@example.org/\U000E0080", JID{"a", "example.org", "\U000E0080"}},
		{"resource with a tab", "a@example.org/\t", JID{"a", "example.org", "\t"}},
		{"empty resource", "a@example.org/", JID{}},
		{"resource that XML forbids", "a@example.org/\x00", JID{}},
		{"resource with a noncharacter", "a@example.org/\uFFFE", JID{}},
		{"resource that is not UTF-8", "a@example.org/\xff", JID{}},
		{"resource too long", "a@example.org/" + strings.Repeat("\u265A", 342), JID{}},
		{"bad localpart", "a b@example.org/c", JID{}},
		{"bad domainpart", "a@-/c", JID{}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ParseStamped(tc.in)
			if (err != nil) != tc.want.IsZero() || got != tc.want {
				t.Errorf("ParseStamped(%q) = %q, %v, want %q", tc.in, got, err, tc.want)
			}
		})
	}
}

func TestNew(t *testing.T) {
	got, err := New("Romeo", "Example.org.", "a b")
	if want := (JID{"romeo", "example.org", "a b"}); err != nil || got != want {
		t.Errorf("New = %q, %v, want %q", got, err, want)
	}
	for _, parts := range [][3]string{{"a", "", ""}, {"a@b", "c", ""}, {"a", "b/c", ""}, {"a", "b", "\x00"}} {
		if got, err := New(parts[0], parts[1], parts[2]); err == nil || !got.IsZero() {
			t.Errorf("New(%q) = %q, %v, want an error", parts, got, err)
		}
	}
}

func TestParts(t *testing.T) {
	j := JID{"juliet", "example.org", "balcony"}
	if j.Local() != "juliet" || j.Domain() != "example.org" || j.Resource() != "balcony" {
		t.Errorf("parts of %q: %q, %q, %q", j, j.Local(), j.Domain(), j.Resource())
	}
	if j.IsBare() || !j.Bare().IsBare() || j.Bare() != (JID{"juliet", "example.org", ""}) {
		t.Errorf("Bare = %q", j.Bare())
	}
	if j.IsZero() || !(JID{}).IsZero() || (JID{}).String() != "" {
		t.Error("zero value")
	}
	if b, err := json.Marshal(map[string]JID{"user": j}); err != nil || string(b) != `{"user":"juliet@example.org/balcony"}` {
		t.Errorf("JSON %s, %v", b, err)
	}
}

// One entity is one map key, however its address was written.
func TestMapKey(t *testing.T) {
	seen := make(map[JID]int)
	for _, s := range []string{"juliet@b\u00FCcher.example", "JULIET@xn--bcher-kva.example.", "\uFF2Auliet@B\u00DCCHER.example"} {
		j, err := Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		seen[j]++
	}
	if len(seen) != 1 {
		t.Errorf("one entity became %v", seen)
	}
}

func TestCompare(t *testing.T) {
	sorted := []JID{{}, {"", "a", ""}, {"", "a", "r"}, {"b", "a", ""}, {"b", "a", "r"}, {"a", "b", ""}}
	got := slices.Clone(sorted)
	slices.Reverse(got)
	slices.SortFunc(got, JID.Compare)
	if !slices.Equal(got, sorted) {
		t.Errorf("sorted %q, want %q", got, sorted)
	}
}

// An error must not carry the address, which comes from outside.
func TestErrorsHideInput(t *testing.T) {
	for _, s := range []string{"evil!evil evil@example.org", "a@evil evil", "a@xn--evil-", "a@b/evil\x00", "evil\xff"} {
		if _, err := Parse(s); err == nil || strings.Contains(err.Error(), "evil") {
			t.Errorf("Parse(%q): %v", s, err)
		}
	}
}

// The profiles are shared by all goroutines; -race watches.
func TestConcurrent(t *testing.T) {
	const s = "\u00C4@\u00DCB.example/e\u0301\u00A0"
	want, err := Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if got, err := Parse(s); err != nil || got != want {
					t.Errorf("Parse(%q) = %q, %v", s, got, err)
				}
			}
		})
	}
	wg.Wait()
}

// What most addresses look like costs no allocation.
func TestPlainAllocatesNothing(t *testing.T) {
	for _, s := range plainJIDs {
		if n := testing.AllocsPerRun(100, func() { _, _ = Parse(s) }); n != 0 {
			t.Errorf("Parse(%q) allocates %v times", s, n)
		}
		if n := testing.AllocsPerRun(100, func() { _, _ = ParseStamped(s) }); n != 0 {
			t.Errorf("ParseStamped(%q) allocates %v times", s, n)
		}
	}
}

var plainJIDs = []string{"example.org", "juliet@example.org", "juliet.capulet-1@my_host.example./Gajim 1.8"}

func BenchmarkParse(b *testing.B) {
	for _, bc := range []struct{ name, in string }{
		{"plain bare", "juliet@example.org"},
		{"plain full", "juliet@example.org/balcony"},
		{"upper case", "Juliet@Example.ORG"},
		{"non-ASCII", "j\u00FCliet@b\u00FCcher.example"},
	} {
		b.Run(bc.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse(bc.in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkString(b *testing.B) {
	j := JID{"juliet", "example.org", "balcony"}
	b.ReportAllocs()
	for b.Loop() {
		_ = j.String()
	}
}

func TestStableDomain(t *testing.T) {
	for domain, want := range map[string]string{
		"example.org": "example.org", "[::1]": "[::1]", "bücher.example": "bücher.example", "テスト.example": "テスト.example",
		"straße.example": "xn--strae-oqa.example", "βόλος.example": "xn--nxasmm1c.example", "💩.example": "xn--ls8h.example",
		"نامه\u200cای.example": "xn--mgba3gch31f060k.example",
	} {
		got := StableDomain(domain)
		if got != want {
			t.Errorf("%s: %s", domain, got)
		}
		if again, err := PrepareDomain(got); err != nil || again != domain || Nameprep(got) != got {
			t.Errorf("%s: %s becomes %s, %v; with nameprep %s", domain, got, again, err, Nameprep(got))
		}
	}
}
