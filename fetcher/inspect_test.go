package fetcher

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

func TestInspect(t *testing.T) {
	body := `{"romeo@example.org": {"name": {"first": "R"}, "ask": 0}, "nurse@example.org/kitchen": {}, "tybalt@example.org": "` + bodySecret + `", "bad\n@@": {},` +
		"\"paris@example.org\": {\"name\": \"P\xe2ris\"}, \"peter@example.org\": {\"x\": \"\xc3\xa9\"}}"
	backend := serve(t, func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(body)) })
	b := newBench(t, backend.URL)
	got := b.Inspect(t.Context(), juliet)
	if got.Err != nil || got.Missing || got.Items != 4 {
		t.Errorf("%+v", got)
	}
	for _, test := range []struct {
		kind      string
		got, want []Finding
	}{
		{"skipped", got.Skipped.First, []Finding{{Contact: "nurse@example.org/kitchen", Reason: reasonResource}, {Contact: `bad\n@@`, Reason: reasonJID}}},
		{"ignored", got.Ignored.First, []Finding{{Contact: "romeo@example.org", Field: "name", Value: `{"first": "R"}`}, {Contact: "tybalt@example.org", Field: "entry", Value: "a text"}}},
		{"not UTF-8", got.NotUTF8.First, []Finding{{Contact: "paris@example.org"}}},
	} {
		if !reflect.DeepEqual(test.got, test.want) {
			t.Errorf("%s: %+v, want %+v", test.kind, test.got, test.want)
		}
	}
	if got.URL != backend.URL+"/contacts/"+juliet.String() {
		t.Errorf("URL %s", got.URL)
	}
	if n := b.fetches(resultOK); n != 0 {
		t.Errorf("counted %v fetches", n)
	}

	var entries strings.Builder
	for n := range maxNamed + 7 {
		fmt.Fprintf(&entries, `,"a@example.org/%d": {}`, n)
	}
	body = `{"romeo@example.org": {}` + entries.String() + `}`
	if got := b.Inspect(t.Context(), juliet); len(got.Skipped.First) != maxNamed || got.Skipped.Count() != maxNamed+7 || got.Items != 1 {
		t.Errorf("%d skipped of %d, %d items", len(got.Skipped.First), got.Skipped.Count(), got.Items)
	}
	body = "<html>" + bodySecret
	got = b.Inspect(t.Context(), juliet)
	if got.Err == nil || got.Err.Error() != "not JSON" || got.Items != 0 {
		t.Errorf("%+v", got)
	}
	if text := fmt.Sprintf("%+v", got); strings.Contains(text, secret) || strings.Contains(text, bodySecret) {
		t.Errorf("tells a secret: %s", text)
	}
}
