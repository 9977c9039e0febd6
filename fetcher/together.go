package fetcher

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"

	"rosterd/jid"
	"rosterd/roster"
)

// The results of a request for several users, as label values.
const (
	bulkOK     = "ok"
	bulkFailed = "failed"
)

// BulkResults are all values of the label of [Metrics.BulkFetches]. Nobody may
// modify it.
var BulkResults = []string{bulkOK, bulkFailed}

func (f *Fetcher) countBulk(result string) {
	if f.metrics.BulkFetches != nil {
		f.metrics.BulkFetches.WithLabelValues(result).Inc()
	}
}

// asked is one of several users of one domain, and who is told his roster if the
// answer has it.
type asked struct {
	user jid.JID
	got  func(*roster.Roster)
}

// together asks for the contacts of several users with one request: a POST of the
// array of their localparts, answered with an object that has the contacts of
// each. It fails if the answer has no contacts of any of them.
func (f *Fetcher) together(ctx context.Context, url string, users []asked) *Error {
	names := make([]string, len(users))
	for i, u := range users {
		names[i] = u.user.Local()
	}
	body, err := json.Marshal(names)
	if err != nil {
		return &Error{Result: resultOther, text: "the users cannot be written as JSON"}
	}
	header := http.Header{
		"Content-Type": {"application/json"},
		// It changes nothing, so it may be sent again on a new connection if the old
		// one was closed meanwhile, as a GET may. The empty list says that to net/http
		// alone, and is not sent.
		"Idempotency-Key": {},
	}
	req, failure := f.newRequest(http.MethodPost, url, header, bytes.NewReader(body))
	if failure != nil {
		return failure
	}
	return f.exchange(ctx, req, users[0].user, false, func(a response) *Error {
		values, failure := split(a.body, names)
		if failure != nil {
			return failure
		}
		usable := 0
		d := f.decoders.Get().(*decoder)
		defer f.decoders.Put(d)
		for i, u := range users {
			if values[i] == "" || ctx.Err() != nil {
				continue
			}
			if r, found, failure := d.decodeValid(values[i], u.user, nil); failure == nil {
				usable++
				f.report(ctx, u.user, found)
				u.got(r)
			}
		}
		if usable == 0 && ctx.Err() == nil {
			return &Error{Result: resultInvalid, text: "no contacts of the users that were asked for", nobody: true}
		}
		return nil
	})
}

// split finds what an answer has for each name, "" if nothing. A name that comes
// twice has nothing: nobody knows which one is meant. What it finds is valid JSON.
func split(body string, names []string) ([]string, *Error) {
	places := make(map[string]int, len(names))
	for i, name := range names {
		places[name] = i
	}
	values := make([]string, len(names))
	found := func(key, value string) {
		if i, known := places[text(key)]; known {
			if values[i] != "" {
				value = "null"
			}
			values[i] = value
		}
	}
	begin := skipSpace(body, 0)
	if begin == len(body) || body[begin] != '{' {
		if !valid(body) {
			return nil, notJSON(body)
		}
		return nil, &Error{Result: resultInvalid, text: "not a JSON object"}
	}
	if end := skipMembers(body, begin+1, 1, found); end < 0 || skipSpace(body, end) != len(body) {
		return nil, notJSON(body)
	}
	return values, nil
}
