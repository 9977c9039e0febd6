package jid

import (
	"strings"
	"unicode/utf8"

	"github.com/xdg-go/stringprep"
	"golang.org/x/text/secure/precis"
	"golang.org/x/text/unicode/norm"
)

// What servers compare localparts by is nodeprep (RFC 6122, appendix A), of
// Unicode 3.2, and not RFC 7622, which tells other names apart: "straße" is the
// account "strasse" to them, and "€uro" an account. Nothing of a later Unicode
// may be folded here: Prosody has the accounts "Ⱥ" and "ⱥ", two of them.

// Match says how a localpart that a server stamped belongs to the account whose
// name it is prepared to.
type Match int

const (
	// Exact is a name that is its own preparation, or differs from it in the case of
	// ASCII letters alone, which every server folds.
	Exact Match = iota
	// Agreed is a spelling of which RFC 6122 and RFC 7622 make the same name.
	Agreed
	// Legacy is a spelling of which only nodeprep makes this name.
	Legacy
)

// Stamp is the name of an account as a server stamped it.
type Stamp struct {
	Match
	// Ordered says that no combining marks had to be brought in order. COMPAT
	// ejabberd, whose nodeprep orders them in another way, and tells names apart
	// that are one here. Nor does it fold U+33C6 as all others do.
	Ordered bool
}

// MatchLocal says how the localpart of a stamped address, which [ParseStamped]
// took, belongs to the prepared one.
func MatchLocal(stamped, prepared string) Stamp {
	if isASCII(stamped) {
		return Stamp{Exact, true}
	}
	s := Stamp{Legacy, isOrdered(stamped)}
	if stamped == prepared {
		s.Match = Exact
	} else if p, ok := settle(stamped, precis.UsernameCaseMapped.String); ok && p == prepared {
		s.Match = Agreed
	}
	return s
}

// prepareLocal enforces nodeprep. Code points that Unicode 3.2 does not know stay
// as they are (RFC 3454, section 7), as in Prosody; ejabberd refuses them.
func prepareLocal(s string) (string, error) {
	if len(s) == 0 || len(s) > maxPart {
		return "", errLocalLength
	}
	if plainLocal(s) {
		return s, nil
	}
	p, ok := strings.ToLower(s), true
	if !isASCII(s) {
		p, ok = nodeprep(s)
	} else {
		ok = plainLocal(p)
	}
	if !ok {
		return "", errLocal
	}
	if len(p) == 0 || len(p) > maxPart {
		return "", errLocalLength
	}
	return p, nil
}

func plainLocal(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c <= ' ', c >= 0x7F, 'A' <= c && c <= 'Z':
			return false
		case c == '"', c == '&', c == '\'', c == '/', c == ':', c == '<', c == '>', c == '@': // RFC 6122, appendix A.5
			return false
		}
	}
	return true
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

var (
	// corrected are what the tables of stringprep lack of RFC 3454, B.1, and the
	// compatibility characters whose decomposition Unicode has corrected since
	// (Corrigendum 4).
	corrected = stringprep.Mapping{0x1806: {}, 0x2F868: {0x2136A}, 0x2F874: {0x5F33}, 0x2F91F: {0x43AB}, 0x2F95F: {0x7AAE}, 0x2F9BF: {0x4D57}}

	// The steps of the profile: RFC 6122, appendix A.3; that and A.4; A.5 and A.6.
	fold     = stringprep.Profile{Mappings: []stringprep.Mapping{corrected, stringprep.TableB1, stringprep.TableB2}}
	nodeMap  = stringprep.Profile{Mappings: fold.Mappings, Normalize: true}
	nodeRule = stringprep.Profile{CheckBiDi: true, Prohibits: []stringprep.Set{
		stringprep.TableC1_1, stringprep.TableC1_2, stringprep.TableC2_1, stringprep.TableC2_2, stringprep.TableC3, stringprep.TableC4,
		stringprep.TableC5, stringprep.TableC6, stringprep.TableC7, stringprep.TableC8, stringprep.TableC9,
		{{'"', '"'}, {'&', '\''}, {'/', '/'}, {':', ':'}, {'<', '<'}, {'>', '>'}, {'@', '@'}},
	}}
)

// nodeprep is that of Unicode 3.2: what that does not know is no part of what is
// normalized.
func nodeprep(s string) (string, bool) {
	var b strings.Builder
	for rest := s; rest != ""; {
		known := until(rest, unassigned)
		mapped, err := nodeMap.Prepare(rest[:known])
		if err != nil {
			return "", false
		}
		unknown := known + until(rest[known:], assigned)
		b.WriteString(mapped)
		b.WriteString(rest[known:unknown])
		rest = rest[unknown:]
	}
	p, err := nodeRule.Prepare(b.String())
	return p, err == nil
}

// until is where the first character of a kind is in s, or the length of s.
func until(s string, is func(rune) bool) int {
	if i := strings.IndexFunc(s, is); i >= 0 {
		return i
	}
	return len(s)
}

func unassigned(r rune) bool { return stringprep.TableA1.Contains(r) }
func assigned(r rune) bool   { return !unassigned(r) }

// isOrdered reports what [Stamp].Ordered says.
func isOrdered(s string) bool {
	if !hasMarks(s) {
		return true // one character alone is decomposed in order
	}
	var last uint8 // combining class
	for _, r := range s {
		switch {
		case r == '\u33C6':
			return false
		case unassigned(r): // nor is it a mark then
			last = 0
			continue
		}
		folded, _ := fold.Prepare(string(r)) // which prohibits nothing
		for d := norm.NFKD.String(folded); d != ""; {
			p := norm.NFKD.PropertiesString(d)
			if p.CCC() != 0 && p.CCC() < last {
				return false
			}
			last, d = p.CCC(), d[p.Size():]
		}
	}
	return true
}

// hasMarks reports whether some character of s, or what it is decomposed to, begins
// with a combining mark, or is U+33C6.
func hasMarks(s string) bool {
	for i := 0; i < len(s); {
		p := norm.NFKD.PropertiesString(s[i:])
		if p.LeadCCC() != 0 || strings.HasPrefix(s[i:], "\u33C6") {
			return true
		}
		i += max(p.Size(), 1)
	}
	return false
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
