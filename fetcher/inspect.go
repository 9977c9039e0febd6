package fetcher

import (
	"cmp"
	"context"
	"net/url"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// maxNamed is how many findings of a kind are named.
const maxNamed = 100

// Findings are what of one answer could not be served as it was sent.
type Findings struct {
	Skipped Found // entries that were left out
	Ignored Found // fields that have their defaults, as their values cannot be understood
	NotUTF8 Found // entries that are served with U+FFFD in place of bytes that are not UTF-8
}

// Found are findings of one kind.
type Found struct {
	First []Finding
	by    map[string]int // all of them, by reason or field; nil: none
}

// Count is how many there are.
func (f Found) Count() (n int) {
	for _, times := range f.by {
		n += times
	}
	return n
}

// add counts a finding, and names it if it is one of the first.
func (f *Found) add(finding Finding) {
	if f.by == nil {
		f.by = make(map[string]int)
	}
	f.by[cmp.Or(finding.Reason, finding.Field)]++
	if len(f.First) < maxNamed {
		finding.Contact, finding.Value = printable(finding.Contact), printable(finding.Value)
		f.First = append(f.First, finding)
	}
}

// Finding is one entry, or a field of one, that cannot be served as it was sent. Its
// texts are the backend's, shortened and fit for a line.
type Finding struct {
	Contact      string // the JID
	Reason       string // of an entry that was left out: one of SkipReasons
	Field, Value string // of a field: one of Fields
}

// Inspection is the outcome of one fetch, for an administrator's eyes.
type Inspection struct {
	URL     string // that was asked, without its query, which may hold a key; "" if there is none
	Err     *Error // why there is no roster; nil if there is one, or if Missing
	Missing bool   // 404 where that is an empty roster, or not in an answer for many users
	Items   int    // of the roster
	Findings
	Took time.Duration
}

// Inspect is [Fetcher.Fetch] that tells all it finds, and counts no fetch.
func (f *Fetcher) Inspect(ctx context.Context, user jid.JID) (i Inspection) {
	user = user.Bare()
	text, _ := f.options.URL(user) // without one the fetch fails
	i.URL = withoutSecrets(text)
	began := time.Now()
	var got roster.Fetched
	got, i.Findings, i.Err = f.fetch(ctx, roster.Request{User: user, Hurry: true})
	i.Missing, i.Items, i.Took = got.Missing, got.Roster.Len(), time.Since(began)
	return i
}

// InspectBulk is [Fetcher.Inspect] for the URL at which many users are asked for at
// once, without Findings; ok says whether the user's domain has one.
func (f *Fetcher) InspectBulk(ctx context.Context, user jid.JID) (i Inspection, ok bool) {
	b := f.bulk(user.Domain())
	if b == nil {
		return i, false
	}
	i.URL, i.Missing = withoutSecrets(b.url), true
	began := time.Now()
	failure := f.post(ctx, b.url, []jid.JID{user.Bare()}, func(_ int, r *roster.Roster) { i.Missing, i.Items = false, r.Len() })
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
