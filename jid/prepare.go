package jid

import (
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/secure/precis"
)

// enforce prepares a part of a JID. Most parts are plain, lower-case ASCII: they
// are returned as they are, without allocation.
func enforce(s string, bad error, isPlain func(string) bool, profile func(string) (string, bool)) (string, error) {
	if len(s) == 0 || len(s) > maxPart {
		return "", bad
	}
	if isPlain(s) {
		return s, nil
	}
	if p, ok := profile(s); ok && len(p) > 0 && len(p) <= maxPart {
		return p, nil
	}
	return "", bad
}

// all reports whether all bytes of s are such. It is inlined.
func all(s string, such func(c byte) bool) bool {
	for i := range len(s) {
		if !such(s[i]) {
			return false
		}
	}
	return true
}

// settle applies a profile until nothing changes any more, as one time need not be
// enough (RFC 8264, section 7). It gives up after four (RFC 8266, section 2.1).
func settle(s string, profile func(string) (string, error)) (string, bool) {
	for range 4 {
		p, err := profile(s)
		if err != nil {
			return "", false
		}
		if p == s {
			return s, true
		}
		s = p
	}
	return "", false
}

// prepareResource enforces the OpaqueString profile (RFC 7622, section 3.4). The
// profile allows a space at the beginning, but RFC 7622, section 3.5, says of
// example 18 that no resource begins with one.
func prepareResource(s string) (string, error) {
	s, err := enforce(s, errResource, isPlainResource, func(s string) (string, bool) { return settle(s, precis.OpaqueString.String) })
	if err == nil && s[0] == ' ' {
		return "", errResource
	}
	return s, err
}

func isPlainResource(s string) bool {
	return all(s, func(c byte) bool { return c >= ' ' && c < 0x7F })
}

// checkStamped accepts every resource that XML can carry (XML 1.0, section 2.2,
// Char), and changes none.
func checkStamped(s string) (string, error) {
	if len(s) > maxPart {
		return "", errResource
	}
	for _, r := range s {
		if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF {
			return "", errResource
		}
	}
	return s, nil
}

// domainProfile maps and checks domain names by UTS #46, non-transitional, which
// contains the preparation of RFC 7622, section 3.2. It is wider than IDNA2008,
// as names of real servers are: '_' may be anywhere (intranets), "--" at the third
// place of a label. It allows all ASCII characters, which [PrepareDomain] narrows.
var domainProfile = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(false), idna.CheckHyphens(false))

// PrepareDomain prepares a domainpart (RFC 7622, section 3.2): in lower case,
// without a trailing dot, in U-labels. Domains are compared in this form alone:
// "xn--bcher-kva.example" and "Bücher.example." both become "bücher.example".
// A name of one label, labels with '_' or longer than the DNS allows, IPv4
// addresses, and IPv6 addresses in brackets (in RFC 5952 form) are valid, too.
func PrepareDomain(s string) (string, error) {
	switch {
	case len(s) > maxPart:
		return "", errDomain
	case strings.HasPrefix(s, "["):
		return prepareIPv6(s)
	}
	for _, dot := range [...]string{".", "\u3002", "\uFF0E", "\uFF61"} { // RFC 3490, section 3.1, and UTS #46
		if trimmed, ok := strings.CutSuffix(s, dot); ok {
			s = trimmed
			break
		}
	}
	return enforce(s, errDomain, func(s string) bool {
		return isPlainDomain(s) && !strings.HasPrefix(s, "xn--") && !strings.Contains(s, ".xn--")
	}, func(s string) (string, bool) {
		p, ok := settle(s, domainProfile.ToUnicode)
		return p, ok && utf8.ValidString(s) && isPlainDomain(strings.Map(func(c rune) rune {
			if c >= utf8.RuneSelf {
				return 'a' // the profile has checked it
			}
			return c // the profile may have made it, as '/' of another character
		}, p))
	})
}

// prepareIPv6 accepts an IP-literal (RFC 3986, section 3.2.2) without a zone,
// which has a meaning on one machine alone.
func prepareIPv6(s string) (string, error) {
	inner, ok := strings.CutSuffix(s[1:], "]")
	if a, err := netip.ParseAddr(inner); ok && err == nil && a.Is6() && a.Zone() == "" {
		return "[" + a.String() + "]", nil
	}
	return "", errDomain
}

// isPlainDomain reports whether s consists of labels of lower-case ASCII letters,
// digits, '-' and '_' that neither begin nor end with '-' (RFC 5890, section
// 2.3.1, with '_').
func isPlainDomain(s string) bool {
	prev := byte('.')
	plain := all(s, func(c byte) bool {
		ok := 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '_' || c == '-' && prev != '.' || c == '.' && prev != '.' && prev != '-'
		prev = c
		return ok
	})
	return plain && prev != '.' && prev != '-'
}

// ASCIIDomain is a prepared domain with A-labels (RFC 5890) in place of U-labels,
// or the domain itself if it has none.
func ASCIIDomain(domain string) string {
	if ascii, err := idna.Punycode.ToASCII(domain); err == nil && !strings.HasPrefix(domain, "[") {
		return ascii
	}
	return domain
}

// StableDomain is a prepared domain in a spelling that stands for the same domain to servers
// that prepare by nameprep (RFC 3491), which knows Unicode 3.2: with A-labels in place of
// U-labels that it makes others of, or does not take. "straße.example" would become
// "strasse.example".
func StableDomain(domain string) string {
	if isASCII(domain) || Nameprep(domain) == domain && strings.IndexFunc(domain, unassigned.Contains) < 0 {
		return domain
	}
	return ASCIIDomain(domain)
}

// Nameprep is a domain as servers compare it (RFC 3491): its labels are folded as
// localparts are, and stay U-labels or A-labels. It is "" if it is no domain.
func Nameprep(domain string) string {
	if isASCII(domain) {
		return strings.ToLower(domain)
	}
	if len(domain) > maxPart {
		return ""
	}
	p, _ := nodeprep(domain)
	return p
}
