package jid

import (
	"strings"
	"testing"
)

// Nodeprep as Prosody 0.12 and 13 (ICU) and ejabberd 23.01 and 24.12 do it: each
// line was tried on them. ejabberd refuses what Unicode 3.2 does not know.
func TestNodeprep(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{ // "": refused
		{"case", "T\u00C4GLICH", "t\u00E4glich"},
		{"sharp s, and the capital one that Unicode 3.2 does not know", "\u00DF\u1E9E", "ss\u1E9E"},
		{"final sigma", "\u03A3\u03C2", "\u03C3\u03C3"},
		{"i with and without dots", "\u0130\u0131I", "i\u0307\u0131i"},
		{"kelvin sign and long s", "\u212A\u017F", "ks"},
		{"ligature", "\uFB03", "ffi"},
		{"fullwidth and halfwidth", "\uFF21\uFF76", "a\u30AB"},
		{"superscript, fraction, roman number", "\u00B2\u00BD\u2167", "21\u20442viii"},
		{"composed and decomposed", "e\u0301\u1EC5", "\u00E9\u1EC5"},
		{"Hangul", "\u1112\u1161\u11AB", "\uD55C"},
		{"mapped to nothing", "a\u00AD\u034F\u1806\u200C\u200D\u2060\uFE0F\uFEFFb", "ab"},
		{"symbols", "\u20AC\u2665", "\u20AC\u2665"},
		{"letters with case of a later Unicode", "\u023A\u2C65\uA64A", "\u023A\u2C65\uA64A"},
		{"compatibility character of a later Unicode", "\u32FF", "\u32FF"},
		{"mark of a later Unicode", "e\u0358\u0316\u1DFE\u0301", "e\u0358\u0316\u1DFE\u0301"}, // 0358 and 1DFE part what is normalized
		{"emoji", "\U0001F339", "\U0001F339"},
		{"decomposition corrected since", "\U0002F868\U0002F874", "\U0002136A\u5F33"},
		{"right to left", "\u05D0\u05D1", "\u05D0\u05D1"},
		{"mixed directions", "\u05D0a\u05D1", ""},
		{"ends in another direction", "\u05D01", ""},
		{"at sign of fullwidth", "\uFF20", ""},
		{"slash in a compatibility character", "\u2100", ""},
		{"blanks of all kinds", "a\u00A0b", ""},
		{"ideographic blank", "\u3000", ""},
		{"control character", "\u0085", ""},
		{"private use", "\uE000", ""},
		{"noncharacter", "\uFDD0", ""},
		{"right-to-left override", "a\u202Eb", ""},
		{"replacement character", "\uFFFD", ""},
		{"ASCII that is reserved", "o'neil", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j, err := New(tt.in, "example.org", "")
			if (err != nil) != (tt.want == "") || j.Local() != tt.want {
				t.Errorf("%+q is %+q, %v, want %+q", tt.in, j.Local(), err, tt.want)
			}
		})
	}
}

func TestMatchLocal(t *testing.T) {
	for _, tt := range []struct {
		name, stamped string
		want          Stamp
	}{
		{"prepared", "juliet", Stamp{Exact, true}},
		{"case of ASCII", "JULIET", Stamp{Exact, true}},
		{"prepared, not ASCII", "j\u00FCrgen", Stamp{Exact, true}},
		{"another case", "J\u00DCRGEN", Stamp{Agreed, true}},
		{"decomposed", "ju\u0308rgen", Stamp{Agreed, true}},
		{"fullwidth", "\uFF4Auliet", Stamp{Agreed, true}},
		{"sharp s", "wei\u00DF", Stamp{Legacy, true}},
		{"superscript", "x\u00B2", Stamp{Legacy, true}},
		{"soft hyphen", "ju\u00ADliet", Stamp{Legacy, true}},
		{"a letter that RFC 7622 folds", "\u023A", Stamp{Exact, true}},
		{"Vietnamese", "nguy\u1EC5n th\u1ECB b\u1ED9", Stamp{}},
		{"two marks on letters", "nguy\u1EC5nth\u1ECBb\u1ED9", Stamp{Exact, true}},
		{"marks out of order", "a\u0301\u0316", Stamp{Agreed, false}},
		{"behind a composed letter", "\u00E1\u0316", Stamp{Exact, false}},
		{"behind one that is folded", "\u00C1\u00AD\u0316", Stamp{Legacy, false}},
		{"U+33C6", "\u33C6", Stamp{Legacy, false}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j, err := New(tt.stamped, "example.org", "")
			if err != nil {
				if tt.want != (Stamp{}) {
					t.Error(err)
				}
				return
			}
			if got := MatchLocal(tt.stamped, j.Local()); got != tt.want {
				t.Errorf("%+q, prepared %+q: %+v, want %+v", tt.stamped, j.Local(), got, tt.want)
			}
		})
	}
}

func TestDomainSpellings(t *testing.T) {
	for domain, ascii := range map[string]string{"example.org": "example.org", "b\u00FCcher.example": "xn--bcher-kva.example", "[2001:db8::1]": "[2001:db8::1]"} {
		if got := ASCIIDomain(domain); got != ascii {
			t.Errorf("%s is %s, want %s", domain, got, ascii)
		}
	}
	for domain, want := range map[string]string{"Example.ORG": "example.org", "B\u00DCcher.example": "b\u00FCcher.example", "XN--BCHER-KVA.example": "xn--bcher-kva.example",
		"\u023A.example": "\u023A.example", "\u2100": "", strings.Repeat("\u00FC", maxPart): ""} {
		if got := Nameprep(domain); got != want {
			t.Errorf("%s is %s, want %s", domain, got, want)
		}
	}
}
