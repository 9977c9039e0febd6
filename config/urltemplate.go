package config

import (
	"cmp"
	"errors"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
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
	wantsURL     = "an http or https URL that contains %s"
	wantsBulkURL = "an http or https URL without %s, as it is for many users at once"
)

// TemplateFor is the URL for the users of a prepared domain: the domain's own, or else
// that of all. If the domain is served, it fails only if [Config.Validate] would, too.
func (c Contacts) TemplateFor(domain string) (URLTemplate, error) {
	if own := c.Hosts[domain]; own.URL != "" {
		return parseURL(join(hostsKey, showDomain(domain))+".url", own.URL, wantsURL, domain)
	}
	return parseURL("contacts.url", c.URL, wantsURL, domain)
}

// BulkURLFor is the URL at which many users of a prepared domain are asked for at once;
// "" if there is none. If the domain is served, it fails only if [Config.Validate]
// would, too.
func (c Contacts) BulkURLFor(domain string) (string, error) {
	key, text := "contacts.bulk_url", c.BulkURL
	if own := c.Hosts[domain]; own.BulkURL != "" {
		key, text = join(hostsKey, showDomain(domain))+".bulk_url", own.BulkURL
	} else if own.URL != "" || text == "" { // another backend than that of contacts.bulk_url
		return "", nil
	}
	t, err := parseURL(key, text, wantsBulkURL, domain)
	if err != nil {
		return "", err
	}
	return t.Expand("user", domain) // who is nowhere in it
}

// parseURL parses the value of a key, and tries it with a domain unless that is empty.
// The error has nothing of the URL that may be a secret.
func parseURL(key, text, wanted, domain string) (URLTemplate, error) {
	t, wants := parseTemplate(text, wanted)
	if domain != "" && (wants == "" || text == "") {
		if wants = cmp.Or(wants, t.try(domain)); wants != "" {
			wants += " for " + show(domain) + " of xmpp.hosts"
		}
	}
	if wants != "" {
		return URLTemplate{}, problem(key, wants, showURL(text))
	}
	return t, nil
}

// parseTemplate returns what s wants to be and is not, or "". wanted is wantsURL or
// wantsBulkURL.
func parseTemplate(s, wanted string) (t URLTemplate, wants string) {
	scheme, rest, ok := strings.Cut(s, "://")
	scheme = strings.ToLower(scheme)
	end := strings.IndexAny(rest+"/", "/?#")
	host, rest := rest[:end], rest[end:]
	switch {
	case !utf8.ValidString(s):
		return t, "a URL in UTF-8"
	case !ok || scheme != "http" && scheme != "https":
		return t, wanted
	case strings.Contains(host, "@"):
		return t, "a URL without user and password: use contacts.headers or contacts.token"
	case strings.Contains(rest, "#"):
		return t, "a URL without fragment, which is never sent (%23 is the character '#')"
	case !isText(s) || strings.Contains(s, " "):
		return t, "a URL without spaces and control characters"
	}
	host, wants = mark(host, tokensOfHost)
	rest, wantsOfRest := mark(rest, tokensOfRest)
	switch inHost := strings.Contains(host, localMark); {
	case wants != "" || wantsOfRest != "":
		return t, cmp.Or(wants, wantsOfRest)
	case inHost && wanted == wantsURL:
		return t, "%s in the path or query only, behind the host"
	case (inHost || strings.Contains(rest, localMark)) != (wanted == wantsURL):
		return t, wanted
	}
	t = URLTemplate{scheme + "://" + host, rest}
	return t, t.try("example.org")
}

// The tokens of a template are what begins with a percent sign, and the characters that
// have to be percent-encoded. In the host, net/url judges those of ASCII. Behind it,
// they are those that RFC 3986, sections 3.3 and 3.4, does not allow: a single one would
// make net/url decode the whole path and encode it again, after which a %2F of the
// localpart is '/'.
var (
	tokensOfHost = regexp.MustCompile(percentTokens + `[^\x00-\x7F]`)
	tokensOfRest = regexp.MustCompile(percentTokens + `[^-A-Za-z0-9._~!$&'()*+,;=:@/?]`)
)

const percentTokens = `%s|%d[0-9A-Fa-f]?|%%?[0-9A-Fa-f]{2}|%%|%|`

// mark puts the marks into s, and encodes what has to be.
func mark(s string, tokens *regexp.Regexp) (marked, wants string) {
	marked = tokens.ReplaceAllStringFunc(s, func(token string) string {
		switch {
		case token == "%s":
			return localMark
		case token == "%d":
			return domainMark
		case strings.HasPrefix(token, "%d"):
			wants = cmp.Or(wants, "either %D"+token[2:]+" for the encoded byte, or no hexadecimal digit behind %d")
		case token == "%":
			wants = cmp.Or(wants, "%s, %d, %% or two hexadecimal digits behind each %")
		case token == "%%": // not a bare '%', which would encode something with what follows
			return "%25"
		case token[0] == '%':
			return token[len(token)-len("%41"):]
		}
		return escape(token)
	})
	return marked, wants
}

// escape percent-encodes all bytes but RFC 3986's unreserved characters (section 2.3).
func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// try returns what t wants to be with a domain and is not, or "".
func (t URLTemplate) try(domain string) (wants string) {
	s, err := t.Expand("user", domain)
	if err != nil {
		return "a URL without '.' or '..' as a part of its path"
	}
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || strings.HasSuffix(u.Host, ":") {
		return "a URL with a valid host and path"
	}
	if p, err := strconv.ParseUint(u.Port(), 10, 16); u.Port() != "" && (err != nil || p == 0) {
		return "a URL with a port from 1 to 65535"
	}
	return ""
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
	host, err := idna.Punycode.ToASCII(domain)
	if strings.HasPrefix(domain, "[") {
		host, err = domain, nil
	}
	if err != nil {
		return "", errors.New("URL template: the domain has no A-labels")
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
	return strings.ReplaceAll(t.authority, domainMark, host) + rest, nil
}
