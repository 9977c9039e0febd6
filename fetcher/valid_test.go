package fetcher

import (
	"encoding/json"
	"strings"
	"testing"
)

// maxDepth is how deep arrays and objects may be in one another: as deep as
// encoding/json takes them.
const maxDepth = 10_000

// FuzzValid: what is JSON for encoding/json is for us, and nothing else, however it
// is read.
func FuzzValid(f *testing.F) {
	for _, s := range []string{
		"", " ", "{", "}", "[", "]", "{]", "[}", "{}", "[]", " [ ] ", "{ }", "[,]", "[1,]", "[,1]", "[1 2]", "[1,2]", "{,}", `{"a"}`, `{"a":}`, `{"a":1,}`,
		`{"a":1}`, `{"a" : 1 , "b":[ ]}`, `{a:1}`, `{1:1}`, `{"a":1 "b":2}`, `{"a":1}}`, `[[]`, "[]x", "[] []", "\v[]", "\ufeff[]",
		`"`, `""`, `"a`, `"\`, `"\"`, `"\""`, `"\x"`, `"\u"`, `"\u12"`, `"\u123"`, `"\u123g"`, `"\u123G"`, `"\uabCD"`, `"\b\f\n\r\t\/\\"`, "\"\n\"", "\"\x7f\"", "\"\x00\"", "\"\xff\"", `"\ud800"`,
		"0", "-", "-0", "00", "01", "-01", "1", "+1", "1.", "1.5", ".5", "1e", "1e5", "1E+5", "1e-", "1.5e-05", "1.e5", "0x1", "--1", "1-", "1..5", "0e", "0.0",
		"true", "tru", "truee", "false", "fals", "null", "nul", "nulll", "True", "NaN", "undefined",
		strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth), strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1),
		strings.Repeat(`{"a":`, maxDepth) + "1" + strings.Repeat("}", maxDepth), strings.Repeat(`{"a":`, maxDepth+1) + "1" + strings.Repeat("}", maxDepth+1),
	} {
		f.Add(s)
	}
	for _, test := range decodeTests {
		f.Add(test.body)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want := json.Valid([]byte(s))
		d := newDecoder()
		d.begin(s)
		d.skipValue()
		if got := d.end() == nil; got != want {
			t.Errorf("skipping %.100q says %v", s, got)
		}
		_, _, failure := d.decode(s, juliet)
		if got := failure == nil || failure.text == "neither a JSON object nor an array" || strings.HasPrefix(failure.text, "none of "); got != want {
			t.Errorf("decoding %.100q says %v", s, failure)
		}
		_, failure = d.split(s, []string{"a", "juliet"})
		if got := failure == nil || failure.text == "not a JSON object"; got != want {
			t.Errorf("splitting %.100q says %v", s, failure)
		}
	})
}
