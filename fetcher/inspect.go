package fetcher

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// maxInspected is how many findings of a kind an [Inspection] names.
const maxInspected = 100

// Inspection is the outcome of one fetch, for an administrator's eyes.
type Inspection struct {
	URL    string // that was asked, without its query, which may hold a key; "" if there is none
	Err    *Error // why there is no roster; nil if there is one
	Status int    // of the answer; 0 if there is Err
	Items  int    // of the roster
	Findings
	Took time.Duration
}

// Findings are what could not be served as it was sent.
type Findings struct {
	Skipped Found // entries that were left out
	Ignored Found // fields that have their defaults, as their values cannot be understood
	NotUTF8 Found // entries with bytes that are not UTF-8
}

// Found are findings of one kind.
type Found struct {
	First []Finding
	More  int            // how many others there are
	by    map[string]int // all of them, by reason or field; nil: none
}

// Count is how many there are.
func (f Found) Count() int { return len(f.First) + f.More }

// Finding is one entry, or a field of one, that cannot be served as it was sent. Its
// texts are the backend's, shortened and fit for a line.
type Finding struct {
	Contact      string // the JID
	Reason       string // of an entry: one of SkipReasons, or NotUTF8
	Field, Value string // of a field: one of Fields
}

// NotUTF8 is the reason of an entry that is served, but with U+FFFD in place of
// bytes that are not UTF-8.
const NotUTF8 = "not_utf8"

// Inspect is [Fetcher.Fetch] that tells all it finds, and counts no fetch. A user
// without a roster is in Err.
func (f *Fetcher) Inspect(ctx context.Context, user jid.JID) Inspection {
	user = user.Bare()
	i := Inspection{}
	if text, err := f.options.URL(user); err == nil {
		i.URL = withoutSecrets(text)
	}
	began := time.Now()
	r, failure := f.fetch(ctx, roster.Request{User: user, Hurry: true}, &i.Findings)
	i.Took, i.Err, i.Items = time.Since(began), failure, r.Roster.Len()
	switch {
	case failure == nil && r.Missing:
		i.Status = http.StatusNotFound
	case failure == nil:
		i.Status = http.StatusOK
	}
	return i
}

// BulkInspection is the outcome of a request for several users, with one alone.
type BulkInspection struct {
	URL   string // as that of an Inspection
	Err   *Error // why the answer is none; nil if it is one
	Found bool   // the user is in it, with contacts that can be read
	Items int    // of their roster
	Took  time.Duration
}

// InspectBulk is [Fetcher.Inspect] for the URL at which many users are asked for
// at once; ok says whether the user's domain has one.
func (f *Fetcher) InspectBulk(ctx context.Context, user jid.JID) (i BulkInspection, ok bool) {
	b := f.bulk(user.Domain())
	if b == nil {
		return i, false
	}
	i.URL = withoutSecrets(b.url)
	began := time.Now()
	failure := f.post(ctx, b.url, []jid.JID{user.Bare()}, func(_ int, r *roster.Roster) { i.Found, i.Items = true, r.Len() })
	i.Took = time.Since(began)
	if failure == nil || !failure.nobody {
		i.Err = failure
	}
	return i, true
}

// withoutSecrets is a URL without all that may be a secret, or "" if it is none.
func withoutSecrets(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	u.User, u.RawQuery, u.ForceQuery, u.Fragment, u.RawFragment = nil, "", false, "", ""
	return u.String()
}
