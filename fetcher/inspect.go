package fetcher

import (
	"context"
	"net/url"
	"time"

	"rosterd/jid"
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
	r, failure := f.fetch(ctx, user, func(contact, reason string) {
		if len(i.Skipped) == maxInspected {
			i.More++
			return
		}
		i.Skipped = append(i.Skipped, Skip{printable(contact), reason})
	})
	i.Took, i.Err, i.Items = time.Since(began), failure, r.Len()
	return i
}

// shownURL is the user's contacts URL without all that may be a secret.
func (f *Fetcher) shownURL(user jid.JID) string {
	text, err := f.url(user)
	if err != nil {
		return ""
	}
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	u.User, u.RawQuery, u.ForceQuery, u.Fragment, u.RawFragment = nil, "", false, "", ""
	return u.String()
}
