package fetcher

import (
	"encoding/json"
	"strings"
	"testing"
)

// FuzzValid: what is JSON for encoding/json is for us, and nothing else.
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
		if got, want := valid(s), json.Valid([]byte(s)); got != want {
			t.Errorf("valid(%.100q) = %v", s, got)
		}
	})
}

func BenchmarkValid(b *testing.B) {
	body := string(rosterOf(200))
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if !valid(body) {
			b.Fatalf("%.100q", body)
		}
	}
}
