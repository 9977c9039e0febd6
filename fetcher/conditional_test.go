package fetcher

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// answerUnchanged answers with a header, and the contacts unless a validator is sent.
func answerUnchanged(w http.ResponseWriter, r *http.Request, header http.Header) {
	for name, values := range header {
		w.Header()[name] = values
	}
	if conditional(r) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Write([]byte(good))
}

// What is kept of an answer, and sent back when: RFC 9110, section 8.8.2.2.
func TestConditionalFetch(t *testing.T) {
	const tag = `"v1"`
	date := time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)
	older := func(by time.Duration) string { return date.Add(-by).Format(http.TimeFormat) }
	now := date.Format(http.TimeFormat)
	for _, test := range []struct {
		name             string
		sent             http.Header // with the roster
		query, refreshed http.Header // what is sent back with the next query, and with the next refresh
	}{
		{"a tag", http.Header{"Etag": {tag}}, http.Header{"If-None-Match": {tag}}, http.Header{"If-None-Match": {tag}}},
		{"a weak tag", http.Header{"Etag": {"W/" + tag}}, http.Header{"If-None-Match": {"W/" + tag}}, http.Header{"If-None-Match": {"W/" + tag}}},
		{"a tag and a date", http.Header{"Etag": {tag}, "Date": {now}, "Last-Modified": {older(time.Hour)}}, http.Header{"If-None-Match": {tag}}, http.Header{"If-None-Match": {tag}}},
		{"an old date", http.Header{"Date": {now}, "Last-Modified": {older(2 * time.Hour)}}, http.Header{"If-Modified-Since": {older(2 * time.Hour)}}, nil},
		{"clearly older", http.Header{"Date": {now}, "Last-Modified": {older(clearlyOlder)}}, http.Header{"If-Modified-Since": {older(clearlyOlder)}}, nil},
		{"the same second", http.Header{"Date": {now}, "Last-Modified": {now}}, nil, nil},
		{"a second older, by whose clock", http.Header{"Date": {now}, "Last-Modified": {older(time.Second)}}, nil, nil},
		{"from the future", http.Header{"Date": {now}, "Last-Modified": {older(-time.Hour)}}, nil, nil},
		{"no date of the answer", http.Header{"Date": nil, "Last-Modified": {older(time.Hour)}}, nil, nil},
		{"no date at all", http.Header{"Date": {now}, "Last-Modified": {"yesterday"}}, nil, nil},
		{"a tag that is too long", http.Header{"Etag": {`"` + strings.Repeat("x", maxValidator) + `"`}}, nil, nil},
		{"nothing", nil, nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			var asked atomic.Pointer[http.Header]
			server := serve(t, func(w http.ResponseWriter, r *http.Request) {
				asked.Store(&r.Header)
				answerUnchanged(w, r, test.sent)
			})
			b := newBench(t, server.URL)
			first, err := b.Fetcher.Fetch(t.Context(), roster.Request{User: juliet})
			if err != nil || first.Roster.Len() != 1 || (first.Validator != "") != (test.query != nil) {
				t.Fatalf("%+v, %v", first, err)
			}
			for reported, want := range map[bool]http.Header{false: test.query, true: test.refreshed} {
				again, err := b.Fetcher.Fetch(t.Context(), roster.Request{User: juliet, Validator: first.Validator, Reported: reported})
				if err != nil || (again.Roster == nil) != (want != nil) || again.Validator != first.Validator {
					t.Errorf("reported %v: %+v, %v", reported, again, err)
				}
				for _, name := range []string{"If-None-Match", "If-Modified-Since"} {
					if got := asked.Load().Get(name); got != want.Get(name) {
						t.Errorf("reported %v: sent %s %q, want %q", reported, name, got, want.Get(name))
					}
				}
			}
		})
	}
}

// A validator is sent to the URL alone from which it came, and neither is one of
// an earlier rosterd, which did not say.
func TestValidatorOfAnotherURL(t *testing.T) {
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		answerUnchanged(w, r, http.Header{"Etag": {`"7"`}})
	})
	at := func(path string) *bench {
		return newBench(t, "", func(o *Options) { o.URL = func(jid.JID) (string, error) { return server.URL + path, nil } })
	}
	first, err := at("/a").Fetcher.Fetch(t.Context(), roster.Request{User: juliet})
	if err != nil {
		t.Fatal(err)
	}
	for validator, urls := range map[string]map[string]bool{
		first.Validator: {"/a": true, "/b": false, "/a?x=1": false},
		`"7"`:           {"/a": false},
	} {
		for path, same := range urls {
			got, err := at(path).Fetcher.Fetch(t.Context(), roster.Request{User: juliet, Validator: validator})
			if err != nil || (got.Roster == nil) != same {
				t.Errorf("%s with %q: %+v, %v", path, validator, got, err)
			}
		}
	}
	if strings.Contains(first.Validator, server.URL) {
		t.Errorf("the validator tells the URL: %s", first.Validator)
	}
}

// A backend that answers 304, but of something else, is asked once more: a file was
// replaced by an older one, say.
func TestNotModifiedOfSomethingElse(t *testing.T) {
	date := time.Date(2026, time.May, 1, 12, 0, 0, 0, time.UTC)
	at := func(hour int) string { return date.Add(time.Duration(hour) * time.Hour).Format(http.TimeFormat) }
	for _, test := range []struct {
		name       string
		then, now  http.Header
		same, more bool // 304 counts; one more request is made
	}{
		{"an older date", http.Header{"Date": {at(9)}, "Last-Modified": {at(2)}}, http.Header{"Last-Modified": {at(1)}}, false, true},
		{"the same date", http.Header{"Date": {at(9)}, "Last-Modified": {at(2)}}, http.Header{"Last-Modified": {at(2)}}, true, false},
		{"another tag", http.Header{"Etag": {`"5"`}}, http.Header{"Etag": {`"4"`}}, false, true},
		{"the same tag, weak", http.Header{"Etag": {`"5"`}}, http.Header{"Etag": {`W/"5"`}}, true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var requests atomic.Int32
			server := serve(t, func(w http.ResponseWriter, r *http.Request) {
				headers := test.then
				if requests.Add(1) > 1 {
					headers = test.now
				}
				answerUnchanged(w, r, headers)
			})
			b := newBench(t, server.URL)
			first, err := b.Fetcher.Fetch(t.Context(), roster.Request{User: juliet})
			if err != nil {
				t.Fatal(err)
			}
			again, err := b.Fetcher.Fetch(t.Context(), roster.Request{User: juliet, Validator: first.Validator})
			if err != nil || (again.Roster == nil) != test.same || (requests.Load() == 3) != test.more {
				t.Errorf("%+v, %v after %d requests", again, err, requests.Load())
			}
		})
	}
}

// A backend that answers 304 to a request that had no condition has no roster.
func TestNotModifiedWithoutCondition(t *testing.T) {
	server := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) })
	b := newBench(t, server.URL)
	if r, err := b.Fetch(t.Context(), juliet); err == nil {
		t.Errorf("got %v", r)
	}
}
