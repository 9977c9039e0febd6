package xmlstream

import (
	"encoding/xml"
	"strings"
	"testing"
)

func TestAppendEscaped(t *testing.T) {
	for in, want := range map[string]string{
		"":                          "",
		"Romeo":                     "Romeo",
		"<a href='x' b=\"y\">&</a>": "&lt;a href=&apos;x&apos; b=&quot;y&quot;&gt;&amp;&lt;/a&gt;",
		"\t\n\r":                    "&#9;&#10;&#13;",
		"a\x00b\x1f\uFFFE\uFFFFc":   "abc",
		"a\xffb\xc3":                "ab",
		"\uFFFD é 😀 \u202E":         "\uFFFD é 😀 \u202E",
	} {
		if got := string(AppendEscaped(nil, in)); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// What is written is read again as it was, here and by encoding/xml, but for
// what XML forbids.
func FuzzEscape(f *testing.F) {
	f.Add("<a href='x'>&\t\n\r\x00\uFFFE\xff&amp;")
	f.Fuzz(func(t *testing.T, s string) {
		escaped := AppendEscaped(nil, s)
		again := Unescape(escaped)
		if string(AppendEscaped(nil, again)) != string(escaped) {
			t.Errorf("%q became %q", s, again)
		}
		var e struct {
			B string `xml:"b,attr"`
		}
		data := string(AppendAttr([]byte("<a"), "b", s)) + "/>"
		if err := xml.NewDecoder(strings.NewReader(data)).Decode(&e); err != nil || e.B != again {
			t.Errorf("%s: %q, %v", data, e.B, err)
		}
	})
}

// Anything else does not panic.
func FuzzUnescape(f *testing.F) {
	f.Add([]byte("&amp;&x;&"))
	f.Fuzz(func(_ *testing.T, b []byte) { Unescape(b) })
}
