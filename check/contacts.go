package check

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"rosterd/fetcher"
	"rosterd/jid"
)

// madeUp is the user who is asked for where nobody was named, to see whether
// the backend is there.
const madeUp = "rosterd-check"

// contacts asks the backend.
func (c *checker) contacts(ctx context.Context) {
	f, err := c.Fetcher(c.cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		c.fail("contacts: %s", err)()
		return
	}
	defer f.Close()
	if c.User == "" {
		c.backends(ctx, f)
		return
	}
	user, err := c.user()
	if err != nil {
		c.fail("contacts: --user %q is %s", c.User, err)("name a user by localpart or bare JID, of " + strings.Join(c.cfg.XMPP.Hosts, ", "))
		return
	}
	i := f.Inspect(ctx, user)
	where := fmt.Sprintf("contacts of %s: %s", user, i.URL)
	switch took := i.Took.Round(time.Millisecond); {
	case i.Err != nil:
		c.fail("%s: %s", where, i.Err)(mendFetch(i.Err)...)
	case i.Status == http.StatusNotFound:
		c.warn("%s: status 404, which contacts.not_found makes an empty roster, in %s", where, took)(
			"right for a user whom the backend does not know; for all others, is contacts.url right?")
	default:
		c.ok("%s: status %d, %s, in %s", where, i.Status, count(i.Items, "item"), took)
	}
	c.found(i)
	c.bulk(ctx, f, user, i)
}

// found says what of the contacts cannot be served as it was sent.
func (c *checker) found(i fetcher.Inspection) {
	c.findings(i.Skipped, "entry", "skipped", func(f fetcher.Finding) string { return skipReasons[f.Reason] })
	c.findings(i.Ignored, "field", "ignored, the contacts are served without", func(f fetcher.Finding) string {
		return f.Field + " is " + f.Value + ", and not " + wanted[f.Field]
	})
	c.findings(i.NotUTF8, "entry", "not in UTF-8, of which clients see U+FFFD", func(fetcher.Finding) string { return "is not in UTF-8" })
}

func (c *checker) findings(found fetcher.Found, thing, what string, line func(fetcher.Finding) string) {
	if found.Count() == 0 {
		return
	}
	var lines []string
	for _, f := range found.First {
		contact := f.Contact
		if contact == "" {
			contact = "(an entry without a JID)"
		}
		lines = append(lines, contact+": "+line(f))
	}
	if found.More > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", found.More))
	}
	c.warn("contacts: %s %s, mend the backend", count(found.Count(), thing), what)(lines...)
}

// bulk asks for a user at the URL for many users at once, if there is one. i is
// what he was found to have alone; nothing is said of him if it has no URL.
func (c *checker) bulk(ctx context.Context, f *fetcher.Fetcher, user jid.JID, i fetcher.Inspection) {
	b, ok := f.InspectBulk(ctx, user)
	where := "contacts in bulk: " + b.URL
	switch took := b.Took.Round(time.Millisecond); {
	case !ok:
	case b.Err != nil:
		c.warn("%s: %s: all users will be asked for alone", where, b.Err)(mendBulk(b.Err)...)
	case i.URL == "" || !b.Found && i.Err != nil:
		c.ok("%s: status 200, in %s", where, took)
	case !b.Found:
		c.warn("%s: the answer has no contacts of %s", where, user)(
			"the answer has to be a JSON object with a member "+user.Local()+", whose value is what contacts.url answers",
			"who is not in the answer is asked for alone, which takes longer")
	case i.Err == nil && b.Items != i.Items:
		c.warn("%s: %s has %s here, but %d alone", where, user, count(b.Items, "item"), i.Items)("both have to say the same")
	default:
		c.ok("%s: %s, in %s", where, count(b.Items, "item"), took)
	}
}

// backends looks whether the backend of each host is there. An answer is
// enough: nothing is known of its users.
func (c *checker) backends(ctx context.Context, f *fetcher.Fetcher) {
	seen := make(map[string]bool)
	bulk := make(map[string]jid.JID) // by URL, one of those who are asked for there
	for _, host := range c.cfg.XMPP.Hosts {
		user, err := jid.New(madeUp, host, "")
		if err != nil {
			continue
		}
		if url, err := c.cfg.Contacts.BulkURLFor(host); url != "" && err == nil {
			bulk[url] = user
		}
		server := c.backend(user)
		if server == "" || seen[server] {
			continue
		}
		seen[server] = true
		i := f.Inspect(ctx, user)
		doubtful := i.Err != nil && (i.Err.Status == http.StatusUnauthorized || i.Err.Status == http.StatusForbidden || i.Err.Proxy != "")
		switch {
		case i.Err != nil && !answered(i.Err):
			c.fail("contacts: %s: %s", i.URL, i.Err)(mendFetch(i.Err)...)
		case doubtful:
			c.warn("contacts: %s: %s", i.URL, i.Err)(mendFetch(i.Err)...)
		default:
			c.warn("contacts: %s answers, no user was asked for", server)("name one: rosterd check --user NAME")
		}
	}
	for _, url := range slices.Sorted(maps.Keys(bulk)) {
		c.bulk(ctx, f, bulk[url], fetcher.Inspection{})
	}
}

// backend is scheme and host of a user's contacts URL.
func (c *checker) backend(user jid.JID) string {
	template, err := c.cfg.Contacts.TemplateFor(user.Domain())
	if err != nil {
		return ""
	}
	text, err := template.Expand(user.Local(), user.Domain())
	if err != nil {
		return ""
	}
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// answered reports whether a fetch that failed reached the backend.
func answered(err *fetcher.Error) bool {
	return slices.Contains([]string{"status", "invalid", "too_large"}, err.Result)
}

var (
	errNoUser  = errors.New("no user's name")
	errForeign = errors.New("of a domain that xmpp.hosts lacks")
)

// user is the user named on the command line: as in a refresh, a localpart
// alone is of the first host.
func (c *checker) user() (jid.JID, error) {
	if !strings.Contains(c.User, "@") {
		user, err := jid.New(c.User, c.cfg.XMPP.Hosts[0], "")
		if err != nil || user.Local() == "" {
			return jid.JID{}, errNoUser
		}
		return user, nil
	}
	user, err := jid.Parse(c.User)
	switch {
	case err != nil || !user.IsBare() || user.Local() == "":
		return jid.JID{}, errNoUser
	case !slices.Contains(c.cfg.XMPP.Hosts, user.Domain()):
		return jid.JID{}, errForeign
	}
	return user, nil
}

// skipReasons are fetcher.SkipReasons in words.
var skipReasons = map[string]string{
	"jid":        "is no JID",
	"resource":   "is a JID with a resource, a contact is a bare JID",
	"self":       "is the user himself",
	"double":     "is a contact that had an entry before",
	"wrong_type": "the entry is neither an object nor a JID, or its JID is no text",
}

// wanted is what each of fetcher.Fields has to be.
var wanted = map[string]string{
	"entry":        "an object",
	"name":         "a text of up to 32 KiB",
	"groups":       "an object whose true members are the groups, or an array of their names, up to 32 KiB with the name",
	"subscription": "none, to, from or both",
	"ask":          "subscribe, true or false",
	"approved":     "true or false",
}

// mendFetch says what mends a fetch.
func mendFetch(err *fetcher.Error) []string {
	mends := mendBackend(err)
	if err.Proxy != "" {
		mends = append(mends, "is the proxy "+err.Proxy+" of rosterd's environment the way to the backend? NO_PROXY names the hosts that are reached without it")
	}
	return mends
}

// mendBackend is mendFetch for all but a proxy.
func mendBackend(err *fetcher.Error) []string {
	switch {
	case err.Status == http.StatusUnauthorized || err.Status == http.StatusForbidden:
		return []string{"is contacts.token, or contacts.headers, what the backend wants?"}
	case err.Status == http.StatusNotFound:
		return []string{"is contacts.url right? For a user without contacts the backend has to answer 200 and {}"}
	case err.Status >= 300 && err.Status < 400:
		return []string{"redirects are not followed: contacts.url has to be the final URL"}
	case err.Status != 0:
		return []string{"the backend has to answer 200; what does its log say?"}
	}
	switch err.Result {
	case "refused":
		return []string{"start the backend, or correct host and port in contacts.url"}
	case "dns":
		return []string{"correct the host in contacts.url"}
	case "tls":
		return []string{"http or https in contacts.url? The certificate has to be valid for its host; contacts.tls.ca has authorities of your own"}
	case "timeout":
		return []string{"is the backend slow, or a firewall in the way? contacts.timeout is how long rosterd waits"}
	case "invalid":
		return []string{"the answer has to be a JSON object of contacts, see README.md, Contacts: is that the page of a login or an error?"}
	case "too_large":
		return []string{"raise contacts.max_bytes, if the contacts are really that many"}
	}
	return nil
}

// mendBulk says what mends a request for many users at once.
func mendBulk(err *fetcher.Error) []string {
	const what = "contacts.bulk_url is where rosterd sends a POST of a JSON array of user names; see README.md, Many users at once"
	switch {
	case err.Status == http.StatusNotFound || err.Status == http.StatusMethodNotAllowed || err.Status == http.StatusNotImplemented:
		return []string{what}
	case err.Result == "invalid":
		return []string{"the answer has to be a JSON object of user names and their contacts", what}
	case err.Result == "too_large":
		return []string{"raise contacts.max_bytes, if the contacts are really that many"}
	}
	var mends []string
	for _, mend := range mendFetch(err) {
		mends = append(mends, strings.ReplaceAll(mend, "contacts.url", "contacts.bulk_url"))
	}
	return mends
}

// count is a number of things.
func count(n int, thing string) string {
	switch {
	case n == 1:
		return "1 " + thing
	case strings.HasSuffix(thing, "y"):
		return fmt.Sprintf("%d %sies", n, strings.TrimSuffix(thing, "y"))
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
