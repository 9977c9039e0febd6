package jid

import (
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/secure/precis"
)

// Most addresses are lower-case ASCII already. Each prepare function knows them
// by one look at their bytes and returns its argument, without allocation.

// prepareResource enforces the OpaqueString profile (RFC 7622, section 3.4).
func prepareResource(s string) (string, error) {
	if len(s) == 0 || len(s) > maxPart {
		return "", errResourceLength
	}
	if !plainResource(s) {
		var ok bool
		if s, ok = settle(s, precis.OpaqueString.String); !ok {
			return "", errResource
		}
		if len(s) > maxPart {
			return "", errResourceLength
		}
	}
	// The profile allows it, but RFC 7622, section 3.5, says of example 18
	// that a resource does not begin with a space.
	if s[0] == ' ' {
		return "", errResource
	}
	return s, nil
}

func plainResource(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7F {
			return false
		}
	}
	return true
}

// checkStamped accepts every resource that XML can carry (XML 1.0, section 2.2,
// Char), and changes none.
func checkStamped(s string) (string, error) {
	if len(s) == 0 || len(s) > maxPart {
		return "", errResourceLength
	}
	for _, r := range s {
		if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF {
			return "", errResource
		}
	}
	return s, nil
}

// domainProfile maps and checks domain names by UTS #46, non-transitional,
// which contains the preparation of RFC 7622, section 3.2. It is wider than
// IDNA2008 where names of real servers are: '_' may be anywhere (intranets),
// "--" may be at the third place of a label. [PrepareDomain] narrows the ASCII
// characters, of which the profile then allows all.
var domainProfile = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(false), idna.CheckHyphens(false))

// PrepareDomain prepares a domainpart (RFC 7622, section 3.2): in lower case,
// without a trailing dot, in U-labels. That is the one form in which domains
// are compared, so "xn--bcher-kva.example" and "Bücher.example." both become
// "bücher.example". A name of one label, labels with '_', an IPv4 address and
// an IPv6 address in brackets are valid, too; the latter becomes its RFC 5952
// form. Labels may be longer than the DNS allows: not every name is in the DNS.
func PrepareDomain(s string) (string, error) {
	if len(s) == 0 || len(s) > maxPart {
		return "", errDomainLength
	}
	if s[0] == '[' {
		return prepareIPv6(s)
	}
	s = trimDot(s)
	if plainDomain(s) && !hasALabel(s) {
		return s, nil
	}
	if !utf8.ValidString(s) {
		return "", errNotUTF8
	}
	s, ok := settle(s, domainProfile.ToUnicode)
	if !ok || !plainDomain(toASCIIShape(s)) {
		return "", errDomain
	}
	if len(s) > maxPart {
		return "", errDomainLength
	}
	return s, nil
}

// trimDot takes one dot off the end, whichever of the characters that RFC 3490,
// section 3.1, and UTS #46 take for a dot it is.
func trimDot(s string) string {
	for _, dot := range [...]string{".", "\u3002", "\uFF0E", "\uFF61"} {
		if t, ok := strings.CutSuffix(s, dot); ok {
			return t
		}
	}
	return s
}

// prepareIPv6 accepts an IP-literal (RFC 3986, section 3.2.2) without a zone:
// a zone means something on one machine only.
func prepareIPv6(s string) (string, error) {
	inner, ok := strings.CutSuffix(s[1:], "]")
	if !ok {
		return "", errDomain
	}
	a, err := netip.ParseAddr(inner)
	if err != nil || !a.Is6() || a.Zone() != "" {
		return "", errDomain
	}
	return "[" + a.String() + "]", nil
}

// plainDomain reports whether s consists of labels of lower-case ASCII
// letters, digits, '-' and '_' that neither begin nor end with '-' (RFC 5890,
// section 2.3.1, with '_').
func plainDomain(s string) bool {
	prev := byte('.')
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '_':
		case c == '-':
			if prev == '.' {
				return false
			}
		case c == '.':
			if prev == '.' || prev == '-' {
				return false
			}
		default:
			return false
		}
		prev = c
	}
	return prev != '.' && prev != '-'
}

func hasALabel(s string) bool {
	return strings.HasPrefix(s, "xn--") || strings.Contains(s, ".xn--")
}

// toASCIIShape puts a letter in the place of each non-ASCII character, which
// the profile has judged, so that plainDomain can judge the rest: the mapping
// makes '/' and '@' of some characters, and leaves empty labels.
func toASCIIShape(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= utf8.RuneSelf {
			return 'a'
		}
		return r
	}, s)
}

// settle applies prepare until nothing changes any more, so that a prepared
// part is its own preparation: RFC 8264, section 7, warns that one application
// of a profile need not be. As RFC 8266, section 2.1, it gives up after three
// more applications.
func settle(s string, prepare func(string) (string, error)) (string, bool) {
	for range 4 {
		p, err := prepare(s)
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
