package fetcher

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

func TestInspect(t *testing.T) {
	body := `{"romeo@example.org": {}, "nurse@example.org/kitchen": {}, "tybalt@example.org": "` + bodySecret + `", "bad\n@@": {}}`
	backend := serve(t, func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(body)) })
	b := newBench(t, backend.URL)
	got := b.Inspect(t.Context(), juliet)
	want := []Skip{{"nurse@example.org/kitchen", reasonResource}, {"tybalt@example.org", reasonWrongType}, {`bad\n@@`, reasonJID}}
	if got.Err != nil || got.Items != 1 || got.More != 0 || !reflect.DeepEqual(got.Skipped, want) {
		t.Errorf("%+v", got)
	}
	if got.URL != backend.URL+"/contacts/"+juliet.String() {
		t.Errorf("URL %s", got.URL)
	}
	if n := b.fetches(resultOK); n != 0 {
		t.Errorf("counted %v fetches", n)
	}

	var entries strings.Builder
	for n := range maxInspected + 7 {
		fmt.Fprintf(&entries, `,"a@example.org/%d": {}`, n)
	}
	body = `{"romeo@example.org": {}` + entries.String() + `}`
	if got := b.Inspect(t.Context(), juliet); len(got.Skipped) != maxInspected || got.More != 7 || got.Items != 1 {
		t.Errorf("%d skipped, %d more, %d items", len(got.Skipped), got.More, got.Items)
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
