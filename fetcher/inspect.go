package fetcher

import (
	"context"
	"net/url"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// maxInspected is how many skipped entries an [Inspection] names.
const maxInspected = 100

// Inspection is what one fetch came to, for an administrator's eyes.
type Inspection struct {
	URL     string // that was asked, without its query, which may hold a key; "" if there is none
	Err     *Error // why there is no roster; nil if there is one
	Items   int    // of the roster
	Skipped []Skip // the first entries that were left out
	More    int    // how many others were
	Took    time.Duration
}

// Skip is one entry that was left out.
type Skip struct {
	Contact string // its JID as the backend sent it, shortened and fit for a line
	Reason  string // one of SkipReasons
}

// Inspect is [Fetcher.Fetch] that tells all it finds, and counts nothing. A user
// without a roster is in Err.
func (f *Fetcher) Inspect(ctx context.Context, user jid.JID) Inspection {
	user = user.Bare()
	i := Inspection{URL: f.shownURL(user)}
	began := time.Now()
	r, failure := f.fetch(ctx, roster.Request{User: user, Hurry: true}, func(contact, reason string) {
		if len(i.Skipped) == maxInspected {
			i.More++
			return
		}
		i.Skipped = append(i.Skipped, Skip{printable(contact), reason})
	})
	i.Took, i.Err, i.Items = time.Since(began), failure, r.Roster.Len()
	return i
}

// BulkInspection is what a request for several users, with one alone, came to.
type BulkInspection struct {
	URL   string // as that of an Inspection
	Err   *Error // why the answer is none; nil if it is one
	Found bool   // the user is in it, with contacts that can be read
	Items int    // of his roster
	Took  time.Duration
}

// InspectBulk is [Fetcher.Inspect] for the URL at which many users are asked for
// at once; ok says whether the user's domain has one.
func (f *Fetcher) InspectBulk(ctx context.Context, user jid.JID) (i BulkInspection, ok bool) {
	q := f.bulk(user.Domain())
	if q == nil {
		return i, false
	}
	i.URL = shown(q.url)
	began := time.Now()
	failure := f.together(ctx, q.url, []asked{{user.Bare(), func(r *roster.Roster) { i.Found, i.Items = true, r.Len() }}})
	i.Took = time.Since(began)
	if failure != nobody {
		i.Err = failure
	}
	return i, true
}

// shownURL is the user's contacts URL, shown.
func (f *Fetcher) shownURL(user jid.JID) string {
	text, err := f.url(user)
	if err != nil {
		return ""
	}
	return shown(text)
}

// shown is a URL without all that may be a secret.
func shown(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	u.User, u.RawQuery, u.ForceQuery, u.Fragment, u.RawFragment = nil, "", false, "", ""
	return u.String()
}
