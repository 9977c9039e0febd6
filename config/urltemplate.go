package config

import (
	"cmp"
	"errors"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"rosterd/jid"
)

// URLTemplate makes the URL of one user's contacts. In its text
//
//   - %s is the localpart, which must be in the path or the query at least once,
//     and nowhere else: a user name must not choose the host;
//   - %d is the domain, which may be in the host, too;
//   - %41 and the like are percent-encoded bytes (RFC 3986, section 2.1). One
//     that begins with %d needs an upper-case D;
//   - %% is one percent sign, as mod_http_roster_admin's string.format has it:
//     %%41 is the same as %41, and any other %% is %25.
//
// What else may not stand in a path or query is percent-encoded.
//
// A URLTemplate is immutable and safe for concurrent use. The zero value makes
// no URL.
type URLTemplate struct {
	authority, rest string // of the URL, the former with the scheme; marks stand for the user
}

// What stands in a template for %s and %d. No URL has control characters.
const (
	localMark  = "\x01"
	domainMark = "\x02"
)

// What a text should be.
const (
	wantsURL     = "an http or https URL with %s in its path or query"
	wantsBulkURL = "an http or https URL without %s, as it is for many users at once"
	wantsEditURL = "an http or https URL without %s, as it is for all users of a domain"
	wantsAPIURL  = "an http or https URL without %s and %d, as in http://127.0.0.1:5281/api"
	wantsValid   = "a URL with a valid host, port and path (no part of which is '.' or '..')"
)

// TemplateFor is the URL for the users of a prepared domain: the domain's own, or else
// that of all. If the domain is served, it fails only if [Config.Validate] would, too.
func (c Contacts) TemplateFor(domain string) (URLTemplate, error) {
	if own := c.Hosts[domain]; own.URL != "" {
		return parseURL(join(hostsKey, showName(domain))+".url", own.URL, wantsURL, domain)
	}
	return parseURL("contacts.url", c.URL, wantsURL, domain)
}

// BulkURLFor is the URL at which many users of a prepared domain are asked for at once;
// "" if there is none. If the domain is served, it fails only if [Config.Validate]
// would, too.
func (c Contacts) BulkURLFor(domain string) (string, error) {
	return c.sharedURL(domain, "bulk_url", wantsBulkURL, c.BulkURL, c.Hosts[domain].BulkURL)
}

// EditURLFor is the URL to which the changes are POSTed that users of a prepared domain
// make; "" if they are refused. If the domain is served, it fails only if
// [Config.Validate] would, too.
func (c Contacts) EditURLFor(domain string) (string, error) {
	return c.sharedURL(domain, "edit_url", wantsEditURL, c.EditURL, c.Hosts[domain].EditURL)
}

// BaseURL is the URL to which "/" and a command's name are added; "" if the API is not used.
// It fails only if [Config.Validate] would, too.
func (a EjabberdAPI) BaseURL() (string, error) {
	if a.URL == "" {
		return "", nil
	}
	const unused = "example.org" // neither user nor domain is in it
	t, err := parseURL("ejabberd.api.url", a.URL, wantsAPIURL, unused)
	if err != nil {
		return "", err
	}
	return t.Expand("user", unused)
}

// TakesEdits reports whether users of a prepared domain can change their contacts.
func (c Contacts) TakesEdits(domain string) bool {
	url, err := c.EditURLFor(domain)
	return err == nil && url != ""
}

// sharedURL is the URL of a key for the users of a domain: the domain's own, or else that
// of all; "" if there is none.
func (c Contacts) sharedURL(domain, name, wanted, ofAll, own string) (string, error) {
	key, text := "contacts."+name, ofAll
	if own != "" {
		key, text = join(hostsKey, showName(domain))+"."+name, own
	} else if c.Hosts[domain].URL != "" || text == "" { // another backend than that of all
		return "", nil
	}
	t, err := parseURL(key, text, wanted, domain)
	if err != nil {
		return "", err
	}
	return t.Expand("user", domain) // who is nowhere in it
}

// parseURL parses the value of a key, and tries it for a domain. wanted is one of
// the texts above. The error has nothing of the URL that may be a secret.
func parseURL(key, text, wanted, domain string) (URLTemplate, error) {
	scheme, rest, ok := strings.Cut(text, "://")
	scheme = strings.ToLower(scheme)
	end := strings.IndexAny(rest+"/", "/?#")
	host, path := rest[:end], rest[end:]
	marked, wants := mark(path)
	secrets := "contacts.token and contacts.headers"
	if wanted == wantsAPIURL {
		secrets = "the other keys of ejabberd.api"
	}
	t := URLTemplate{scheme + "://" + strings.ReplaceAll(host, "%d", domainMark), marked}
	switch {
	case text == "":
		wants = wanted + " for users of " + domain
	case !ok || scheme != "http" && scheme != "https", strings.Contains(host, "%s"):
		wants = wanted
	case strings.Contains(host, "@") || strings.Contains(path, "#"):
		wants = "a URL without user, password and fragment: " + secrets + " are for secrets, %23 is the character '#'"
	case !isText(text) || strings.Contains(text, " ") || !utf8.ValidString(text):
		wants = "a URL in UTF-8, without spaces and control characters"
	case wants != "":
	case strings.Contains(marked, localMark) != (wanted == wantsURL),
		wanted == wantsAPIURL && strings.Contains(t.authority+marked, domainMark):
		wants = wanted
	case !t.isValid(domain):
		wants = wantsValid
	}
	if wants != "" {
		return URLTemplate{}, problem(key, wants, showURL(text))
	}
	return t, nil
}

// token matches what begins with a percent sign behind the host, and what RFC 3986,
// sections 3.3 and 3.4, does not allow there: a single such character would make
// net/url decode the whole path and encode it again, after which a %2F of the
// localpart is '/'.
var token = regexp.MustCompile(`%s|%d[0-9A-Fa-f]?|%%?[0-9A-Fa-f]{2}|%%|%|[^-A-Za-z0-9._~!$&'()*+,;=:@/?]`)

// mark puts the marks into a path and query, and encodes what has to be.
func mark(s string) (marked, wants string) {
	marked = token.ReplaceAllStringFunc(s, func(token string) string {
		switch {
		case token == "%s":
			return localMark
		case token == "%d":
			return domainMark
		case token == "%%": // not a bare '%', which would encode something with what follows
			return "%25"
		case token == "%" || strings.HasPrefix(token, "%d"):
			wants = "%s, %d, %% or two hexadecimal digits behind each % (%D0, not %d0)"
		case token[0] == '%':
			return token[len(token)-len("%41"):]
		}
		return escape(token)
	})
	return marked, wants
}

// escape percent-encodes all bytes but RFC 3986's unreserved characters (section 2.3).
func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// isValid reports whether t makes a URL for the users of a domain.
func (t URLTemplate) isValid(domain string) bool {
	s, err := t.Expand("user", domain)
	if err != nil {
		return false
	}
	u, err := url.Parse(s)
	return err == nil && canDial(u)
}

// canDial reports whether a URL has a host, and a port that can be one if it has any.
func canDial(u *url.URL) bool {
	port, err := strconv.ParseUint(cmp.Or(u.Port(), "80"), 10, 16)
	return u.Hostname() != "" && err == nil && port != 0 && !strings.HasSuffix(u.Host, ":")
}

var encodedDots = strings.NewReplacer("%2E", ".", "%2e", ".")

// Expand is the URL for a user, whose localpart and domain are prepared ones.
// All of their bytes but RFC 3986's unreserved characters are percent-encoded;
// in the host, a domain is written in A-labels instead.
//
// The localparts "." and ".." are an error where they would be a part of the
// path by themselves, even encoded: servers take such parts for steps and ask
// for another resource (RFC 3986, section 5.2.4). The errors do not contain the
// URL.
func (t URLTemplate) Expand(local, domain string) (string, error) {
	if local == "" || domain == "" || t.authority == "" {
		return "", errors.New("URL template: a user without localpart or domain has no URL")
	}
	rest := strings.ReplaceAll(t.rest, localMark, escape(local))
	rest = strings.ReplaceAll(rest, domainMark, escape(domain))
	path, _, _ := strings.Cut(rest, "?")
	for segment := range strings.SplitSeq(encodedDots.Replace(path), "/") {
		// Some servers take a parameter (";v=1") off before they look.
		if segment, _, _ = strings.Cut(segment, ";"); segment == "." || segment == ".." {
			return "", errors.New("URL template: the localpart would be a step in the path")
		}
	}
	return strings.ReplaceAll(t.authority, domainMark, jid.ASCIIDomain(domain)) + rest, nil
}
