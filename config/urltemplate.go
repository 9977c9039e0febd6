package config

import (
	"errors"
	"fmt"
	"net/url"
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
	parts     []part
	authority int // how many of the parts are scheme and authority
}

// part is a literal text, or the placeholder verb.
type part struct {
	text string
	verb byte // 0, 's' or 'd'
}

var errNoUser = errors.New("URL template: a user without localpart or domain has no URL")

// ParseURLTemplate parses the text of a template. The errors do not repeat it.
func ParseURLTemplate(s string) (URLTemplate, error) {
	t, wants := parseURLTemplate(s, wantsURL)
	if wants != "" {
		return URLTemplate{}, fmt.Errorf("URL template: wants %s", wants)
	}
	return t, nil
}

// What a template wants, if it is none.
const (
	wantsURL      = "an http or https URL that contains %s"
	wantsBulkURL  = "an http or https URL without %s, as it is for many users at once"
	wantsUserPart = "%s in the path or query only, behind the host"
	wantsEncoding = "%s, %d, %% or two hexadecimal digits behind each %"
)

// parseURLTemplate returns what s fails to be, or "". wanted, wantsURL or
// wantsBulkURL, is what it should be.
func parseURLTemplate(s, wanted string) (URLTemplate, string) {
	if !utf8.ValidString(s) {
		return URLTemplate{}, "a URL in UTF-8"
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if scheme = strings.ToLower(scheme); !ok || scheme != "http" && scheme != "https" {
		return URLTemplate{}, wanted
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	host, behind := rest[:end], rest[end:]
	if strings.Contains(host, "@") {
		return URLTemplate{}, "a URL without user and password: use contacts.headers or contacts.token"
	}
	if strings.Contains(behind, "#") {
		return URLTemplate{}, "a URL without fragment, which is never sent (%23 is the character '#')"
	}
	authority, wants := scan(host, isHostByte)
	if wants != "" {
		return URLTemplate{}, wants
	}
	tail, wants := scan(behind, isURIByte)
	if wants != "" {
		return URLTemplate{}, wants
	}
	if contains(authority, 's') && wanted == wantsURL {
		return URLTemplate{}, wantsUserPart
	}
	if (contains(authority, 's') || contains(tail, 's')) != (wanted == wantsURL) {
		return URLTemplate{}, wanted
	}
	t := URLTemplate{parts: append([]part{{text: scheme + "://"}}, authority...)}
	t.authority = len(t.parts)
	t.parts = append(t.parts, tail...)
	return t, t.try("example.org")
}

// try returns what t fails to be with a domain, or "".
func (t URLTemplate) try(domain string) string {
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

// scan splits s at its placeholders, and percent-encodes the bytes of its
// literal texts that are not plain. It returns what s fails to be, or "".
func scan(s string, plain func(byte) bool) (parts []part, wants string) {
	var text strings.Builder
	placeholder := func(verb byte) {
		parts = append(parts, part{text: text.String()}, part{verb: verb})
		text.Reset()
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c <= ' ' || c == 0x7F {
			return nil, "a URL without spaces and control characters"
		}
		if c != '%' {
			encode(&text, s[i:i+1], plain)
			continue
		}
		rest := s[i+1:]
		switch {
		case strings.HasPrefix(rest, "s"):
			placeholder('s')
			i++
		case len(rest) > 1 && rest[0] == 'd' && isHex(rest[1]):
			return nil, fmt.Sprintf("either %%D%c for the encoded byte, or no hexadecimal digit behind %%d", rest[1])
		case strings.HasPrefix(rest, "d"):
			placeholder('d')
			i++
		case startsEncoded(rest):
			text.WriteString(s[i : i+3])
			i += 2
		case strings.HasPrefix(rest, "%") && startsEncoded(rest[1:]):
			text.WriteString(s[i+1 : i+4])
			i += 3
		case strings.HasPrefix(rest, "%"):
			// Not a bare '%', which would encode something together with
			// what follows, be it a part of the localpart.
			text.WriteString("%25")
			i++
		default:
			return nil, wantsEncoding
		}
	}
	return append(parts, part{text: text.String()}), ""
}

func startsEncoded(s string) bool { return len(s) >= 2 && isHex(s[0]) && isHex(s[1]) }

func isHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F' }

func contains(parts []part, verb byte) bool {
	for _, p := range parts {
		if p.verb == verb {
			return true
		}
	}
	return false
}

// Expand is the URL for a user, whose localpart and domain are prepared ones.
// All of their bytes but RFC 3986's unreserved characters are percent-encoded;
// in the host, a domain is written in A-labels instead.
//
// The localparts "." and ".." are an error where they would be a part of the
// path by themselves, even encoded: servers take such parts for steps and ask
// for another resource (RFC 3986, section 5.2.4). The errors do not contain the
// URL.
func (t URLTemplate) Expand(local, domain string) (string, error) {
	if local == "" || domain == "" || len(t.parts) == 0 {
		return "", errNoUser
	}
	var head, tail strings.Builder
	host, err := hostForm(domain)
	if err != nil {
		return "", err
	}
	for i, p := range t.parts {
		switch {
		case i < t.authority && p.verb == 'd':
			head.WriteString(host)
		case i < t.authority:
			head.WriteString(p.text)
		case p.verb == 's':
			encode(&tail, local, isUnreserved)
		case p.verb == 'd':
			encode(&tail, domain, isUnreserved)
		default:
			tail.WriteString(p.text)
		}
	}
	path, _, _ := strings.Cut(tail.String(), "?")
	for segment := range strings.SplitSeq(path, "/") {
		if isDots(segment) {
			return "", errors.New("URL template: the localpart would be a step in the path")
		}
	}
	return head.String() + tail.String(), nil
}

// hostForm is a prepared domain as it stands in a URL's authority.
func hostForm(domain string) (string, error) {
	if strings.HasPrefix(domain, "[") {
		return domain, nil
	}
	host, err := idna.Punycode.ToASCII(domain)
	if err != nil {
		return "", errors.New("URL template: the domain has no A-labels")
	}
	return host, nil
}

// isDots reports whether a segment of a path is "." or "..", in which each dot
// may be encoded. Some servers take a parameter (";v=1") off before they look.
func isDots(segment string) bool {
	segment, _, _ = strings.Cut(segment, ";")
	if len(segment) > len("%2E%2E") {
		return false
	}
	s := strings.ReplaceAll(strings.ToUpper(segment), "%2E", ".")
	return s == "." || s == ".."
}

// encode writes s with all bytes percent-encoded that are not plain.
func encode(b *strings.Builder, s string, plain func(byte) bool) {
	const hex = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		if plain(c) {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hex[c>>4])
		b.WriteByte(hex[c&15])
	}
}

// isUnreserved is RFC 3986, section 2.3.
func isUnreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

// isURIByte reports whether c may stand in a path or query (RFC 3986, sections
// 3.3 and 3.4). A single other byte among them would make net/url decode the
// whole path and encode it again, after which a %2F of the localpart is '/'.
func isURIByte(c byte) bool { return isUnreserved(c) || strings.IndexByte("!$&'()*+,;=:@/?", c) >= 0 }

// isHostByte lets net/url judge the ASCII characters of a host.
func isHostByte(c byte) bool { return c < 0x80 }
