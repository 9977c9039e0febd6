package fetcher

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"rosterd/roster"
)

// What came with a roster is sent back, and an answer 304 is none of its own.
func TestConditionalFetch(t *testing.T) {
	const etag, modified = `"v1"`, "Sun, 22 Nov 2026 10:00:00 GMT"
	tests := []struct {
		name    string
		send    http.Header // what the backend sends with its roster
		request roster.Request
		result  string
		again   roster.Fetched // without the roster
	}{
		{"first", http.Header{"Etag": {etag}, "Last-Modified": {modified}}, roster.Request{}, resultOK, roster.Fetched{ETag: etag, Modified: modified}},
		{"same tag", http.Header{"Etag": {etag}}, roster.Request{ETag: etag}, resultNotModified, roster.Fetched{ETag: etag}},
		{"same tag, not sent again", nil, roster.Request{ETag: etag, Modified: modified}, resultNotModified, roster.Fetched{ETag: etag, Modified: modified}},
		{"same time", http.Header{"Last-Modified": {modified}}, roster.Request{Modified: modified}, resultNotModified, roster.Fetched{Modified: modified}},
		{"another tag", http.Header{"Etag": {`"v2"`}}, roster.Request{ETag: `"v0"`}, resultOK, roster.Fetched{ETag: `"v2"`}},
		{"a tag that is too long", http.Header{"Etag": {longTag}}, roster.Request{}, resultOK, roster.Fetched{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for name, values := range test.send {
					w.Header()[name] = values
				}
				if r.Header.Get("If-None-Match") == etag || r.Header.Get("If-Modified-Since") == modified {
					w.WriteHeader(http.StatusNotModified)
					return
				}
				w.Write([]byte(good))
			}))
			defer server.Close()
			b := newBench(t, server.URL)
			test.request.User = juliet
			got, err := b.Fetcher.Fetch(t.Context(), test.request)
			if err != nil || b.fetches(test.result) != 1 || (got.Roster == nil) != (test.result == resultNotModified) {
				t.Fatalf("%+v, %v", got, err)
			}
			if got.ETag != test.again.ETag || got.Modified != test.again.Modified {
				t.Errorf("got %+v, want %+v", got, test.again)
			}
		})
	}
}

var longTag = `"` + strings.Repeat("x", maxValidator) + `"`

// A backend that answers 304 to a request that had no condition has no roster.
func TestNotModifiedWithoutCondition(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) }))
	defer server.Close()
	b := newBench(t, server.URL)
	if r, err := b.Fetch(t.Context(), juliet); err == nil {
		t.Errorf("got %v", r)
	}
}
