package check

import (
	"context"
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

// madeUp is the user who is asked for if nobody is named, to see whether the
// backend is there.
const madeUp = "rosterd-check"

// contacts asks the backend.
func (c *checker) contacts(ctx context.Context) {
	f, err := c.Fetcher(c.cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		c.report(fail("contacts: %s", err))
		return
	}
	defer f.Close()
	c.report(c.edits())
	if c.User == "" {
		c.backends(ctx, f)
		return
	}
	user, err := jid.ParseUser(c.User, c.cfg.XMPP.Hosts[0])
	wrong := ""
	if err != nil {
		wrong = "no user's name"
	} else if !slices.Contains(c.cfg.XMPP.Hosts, user.Domain()) {
		wrong = "of a domain that xmpp.hosts lacks"
	}
	if wrong != "" {
		c.report(fail("contacts: --user %q is %s", c.User, wrong).mend("name a user by localpart or bare JID, of " + strings.Join(c.cfg.XMPP.Hosts, ", ")))
		return
	}
	i := f.Inspect(ctx, user)
	c.report(fetched(user, i),
		unusable(i.Skipped, "entry", "entries", "skipped", func(f fetcher.Finding) string { return skipReasons[f.Reason] }),
		unusable(i.Ignored, "field", "fields", "ignored, the contacts are served without", func(f fetcher.Finding) string {
			return f.Field + " is " + f.Value + ", and not " + wanted[f.Field]
		}),
		unusable(i.NotUTF8, "entry", "entries", "not in UTF-8, of which clients see U+FFFD", func(fetcher.Finding) string { return "is not in UTF-8" }))
	c.report(bulk(ctx, f, user, i))
}

// edits says whose changes are passed to the backend. There is no harmless way to try it.
func (c *checker) edits() finding {
	hosts := slices.DeleteFunc(slices.Clone(c.cfg.XMPP.Hosts), func(host string) bool {
		return !c.cfg.Contacts.TakesEdits(host) || slices.Contains(c.byItself, host)
	})
	if len(hosts) == 0 {
		return finding{}
	}
	return pass("edits: what users of %s change goes to contacts.edit_url, not tried as that would change something", strings.Join(hosts, ", "))
}

// fetched says what a fetch of a user's contacts came to.
func fetched(user jid.JID, i fetcher.Inspection) finding {
	where, took := fmt.Sprintf("contacts of %s: %s", user, i.URL), i.Took.Round(time.Millisecond)
	switch {
	case i.Err != nil:
		return fail("%s: %s", where, i.Err).mend(mendFetch(i.Err, "contacts.url")...)
	case i.Missing:
		return warn("%s: status 404, which contacts.not_found makes an empty roster, in %s", where, took).mend(
			"right for a user whom the backend does not know; for all others, is contacts.url right?")
	}
	return pass("%s: status 200, %s, in %s", where, count(i.Items, "item", "items"), took)
}

// unusable names what of the contacts cannot be served as it was sent: one or many
// of a thing. line says what is wrong with one.
func unusable(found fetcher.Found, one, many, what string, line func(fetcher.Finding) string) finding {
	if found.Count() == 0 {
		return finding{}
	}
	var lines []string
	for _, f := range found.First {
		contact := f.Contact
		if contact == "" {
			contact = "(an entry without a JID)"
		}
		lines = append(lines, contact+": "+line(f))
	}
	if more := found.Count() - len(found.First); more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return warn("contacts: %s %s, mend the backend", count(found.Count(), one, many), what).mend(lines...)
}

// bulk asks for a user at the URL for many users at once, if there is one. i is
// what the user was found to have alone, and without a URL if nobody was named.
func bulk(ctx context.Context, f *fetcher.Fetcher, user jid.JID, i fetcher.Inspection) finding {
	b, ok := f.InspectBulk(ctx, user)
	where, took := "contacts in bulk: "+b.URL, b.Took.Round(time.Millisecond)
	switch {
	case !ok:
		return finding{}
	case b.Err != nil:
		return warn("%s: %s: all users will be asked for alone", where, b.Err).mend(mendBulk(b.Err)...)
	case i.URL == "" || b.Missing && i.Err != nil:
		return pass("%s: status 200, in %s", where, took)
	case b.Missing:
		return warn("%s: the answer has no contacts of %s", where, user).mend(
			"the answer has to be a JSON object with a member "+user.Local()+", whose value is what contacts.url answers",
			"who is not in the answer is asked for alone, which takes longer")
	case i.Err == nil && b.Items != i.Items:
		return warn("%s: %s has %s here, but %d alone", where, user, count(b.Items, "item", "items"), i.Items).mend("both have to say the same")
	}
	return pass("%s: %s, in %s", where, count(b.Items, "item", "items"), took)
}

// backends looks whether each backend is there. An answer is enough: nothing is
// known of its users.
func (c *checker) backends(ctx context.Context, f *fetcher.Fetcher) {
	seen := make(map[string]bool)     // scheme and host
	bulks := make(map[string]jid.JID) // by URL, one of those who are asked for there
	for _, host := range c.cfg.XMPP.Hosts {
		// Config has checked what can fail here.
		user, _ := jid.New(madeUp, host, "")
		if url, _ := c.cfg.Contacts.BulkURLFor(host); url != "" {
			bulks[url] = user
		}
		template, _ := c.cfg.Contacts.TemplateFor(host)
		text, _ := template.Expand(madeUp, host)
		u, err := url.Parse(text)
		if err != nil || u.Host == "" {
			continue
		}
		if server := u.Scheme + "://" + u.Host; !seen[server] {
			seen[server] = true
			c.report(reached(server, f.Inspect(ctx, user)))
		}
	}
	for _, url := range slices.Sorted(maps.Keys(bulks)) {
		c.report(bulk(ctx, f, bulks[url], fetcher.Inspection{}))
	}
}

// reached says whether a backend answered for a user who is made up.
func reached(server string, i fetcher.Inspection) finding {
	answers := i.Err == nil || slices.Contains([]string{"status", "invalid", "too_large"}, i.Err.Result)
	switch {
	case !answers:
		return fail("contacts: %s: %s", i.URL, i.Err).mend(mendFetch(i.Err, "contacts.url")...)
	case i.Err != nil && (i.Err.Status == http.StatusUnauthorized || i.Err.Status == http.StatusForbidden || i.Err.Proxy != ""):
		return warn("contacts: %s: %s", i.URL, i.Err).mend(mendFetch(i.Err, "contacts.url")...)
	}
	return warn("contacts: %s answers, no user was asked for", server).mend("name one: rosterd check --user NAME")
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

// mendFetch says what mends a fetch from the URL that a key of the configuration
// has.
func mendFetch(err *fetcher.Error, key string) (mends []string) {
	switch {
	case err.Status == http.StatusUnauthorized || err.Status == http.StatusForbidden:
		mends = append(mends, "is contacts.token, or contacts.headers, what the backend wants?")
	case err.Status == http.StatusNotFound:
		mends = append(mends, "is "+key+" right? For a user without contacts the backend has to answer 200 and {}")
	case err.Status >= 300 && err.Status < 400:
		mends = append(mends, "redirects are not followed: "+key+" has to be the final URL")
	case err.Status != 0:
		mends = append(mends, "the backend has to answer 200; what does its log say?")
	default:
		if mend, ok := map[string]string{
			"refused":   "start the backend, or correct host and port in " + key,
			"dns":       "correct the host in " + key,
			"tls":       "http or https in " + key + "? The certificate has to be valid for its host; contacts.tls.ca has authorities of your own",
			"timeout":   "is the backend slow, or a firewall in the way? contacts.timeout is how long rosterd waits",
			"invalid":   "the answer has to be a JSON object of contacts, see docs/backend.md: is that the page of a login or an error?",
			"too_large": "raise contacts.max_bytes, if the contacts are really that many",
		}[err.Result]; ok {
			mends = append(mends, mend)
		}
	}
	if err.Proxy != "" {
		mends = append(mends, "is the proxy "+err.Proxy+" of rosterd's environment the way to the backend? NO_PROXY names the hosts that are reached without it")
	}
	return mends
}

// mendBulk says what mends a request for many users at once.
func mendBulk(err *fetcher.Error) []string {
	if err.Result == "invalid" || slices.Contains([]int{http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented}, err.Status) {
		return []string{"contacts.bulk_url gets a POST of a JSON array of user names, and answers a JSON object of user names and their contacts: see docs/backend.md"}
	}
	return mendFetch(err, "contacts.bulk_url")
}

// count is a number of things.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
