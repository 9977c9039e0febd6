package jid

import (
	"testing"
	"unicode/utf8"
)

// What has been parsed once is prepared: its text parses to the same JID, in
// both ways. Nothing panics.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"", "@", "/", "@/", "juliet@example.com/foo bar", `foo\20bar@example.com`, "\u03A3@example.com/\u265A", "a@b@c", "a/b@c/d",
		"Jose\u0301@B\u00DCCHER.example./\u00A0", "a@xn--bcher-kva", "a@xn--", "a@xn--a", "a@[::1]/r", "a@[::ffff:1.2.3.4]", "a@[fe80::1%z]",
		"\uFF20@\uFF0F", "\u2100", "a\u3002b\uFF61", "\u0130@\u0130", "\u1E9E@\u1E9E", "\u05D0\u05D1@\u05D0\u05D1", "a@b/\xff", "a@b/\x00",
		"l\u00B7l@l\u00B7l", "\u0375\u03B1@\u30FB", "\u0915\u094D\u200D\u0937@a\u200Cb", "\uFF9E@\uFF9E", "xn--xn---epa",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if j, err := Parse(s); err == nil {
			check(t, s, j)
			if again, err := Parse(j.String()); err != nil || again != j {
				t.Errorf("Parse(%q) = %q, then %q, %v", s, j, again, err)
			}
		} else if !j.IsZero() {
			t.Errorf("Parse(%q) = %q with an error", s, j)
		}
		if j, err := ParseStamped(s); err == nil {
			check(t, s, j)
			if again, err := ParseStamped(j.String()); err != nil || again != j {
				t.Errorf("ParseStamped(%q) = %q, then %q, %v", s, j, again, err)
			}
			if bare, err := Parse(j.Bare().String()); err != nil || bare != j.Bare() {
				t.Errorf("Parse(%q) = %q, %v", j.Bare(), bare, err)
			}
		}
	})
}

func check(t *testing.T, s string, j JID) {
	if j.domain == "" || len(j.local) > maxPart || len(j.domain) > maxPart || len(j.resource) > maxPart || !utf8.ValidString(j.String()) {
		t.Errorf("%q became %#v", s, j)
	}
}
