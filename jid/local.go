package jid

import (
	"strings"
	"unicode/utf8"

	"github.com/xdg-go/stringprep"
	"golang.org/x/text/secure/precis"
	"golang.org/x/text/unicode/norm"
)

// Servers compare localparts as nodeprep makes them (RFC 6122, appendix A), with
// Unicode 3.2. RFC 7622 keeps names apart that are one to them: "straße" is the
// account "strasse", and "€uro" is an account. No later Unicode may be used to
// fold a name: Prosody has the accounts "Ⱥ" and "ⱥ", two of them.

// Match says how a localpart that a server stamped belongs to the account whose
// name it is prepared to.
type Match int

const (
	// Exact is a name that is prepared already, but for the case of ASCII letters,
	// which every server folds.
	Exact Match = iota
	// Agreed is a spelling that RFC 6122 and RFC 7622 prepare to the same name.
	Agreed
	// Legacy is a spelling that nodeprep alone prepares to this name.
	Legacy
)

// Stamp is the name of an account as a server stamped it.
type Stamp struct {
	Match
	// Ordered says that all combining marks were in canonical order. COMPAT
	// ejabberd, whose nodeprep orders marks in another way, so that names are two
	// to it that are one here. It does not fold U+33C6 either, as all others do.
	Ordered bool
}

// MatchLocal compares the localpart of an address that [ParseStamped] took with
// what it was prepared to.
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

func prepareLocal(s string) (string, error) { return enforce(s, errLocal, isPlainLocal, nodeprep) }

// isPlainLocal reports whether s is of the ASCII characters that nodeprep keeps
// (RFC 6122, appendix A.5).
func isPlainLocal(s string) bool {
	return all(s, func(c byte) bool {
		switch c {
		case '"', '&', '\'', '/', ':', '<', '>', '@':
			return false
		}
		return c > ' ' && c < 0x7F && (c < 'A' || c > 'Z')
	})
}

func isASCII(s string) bool {
	return all(s, func(c byte) bool { return c < utf8.RuneSelf })
}

var (
	unassigned = stringprep.TableA1 // in Unicode 3.2

	// corrected has what the library's tables lack of RFC 3454, B.1, and the
	// characters whose decomposition Unicode has corrected since (Corrigendum 4).
	corrected = stringprep.Mapping{0x1806: {}, 0x2F868: {0x2136A}, 0x2F874: {0x5F33}, 0x2F91F: {0x43AB}, 0x2F95F: {0x7AAE}, 0x2F9BF: {0x4D57}}

	// The steps of the profile: RFC 6122, appendix A.3; A.3 and A.4; A.5 and A.6.
	fold     = stringprep.Profile{Mappings: []stringprep.Mapping{corrected, stringprep.TableB1, stringprep.TableB2}}
	nodeMap  = stringprep.Profile{Mappings: fold.Mappings, Normalize: true}
	nodeRule = stringprep.Profile{CheckBiDi: true, Prohibits: []stringprep.Set{
		stringprep.TableC1_1, stringprep.TableC1_2, stringprep.TableC2_1, stringprep.TableC2_2, stringprep.TableC3, stringprep.TableC4,
		stringprep.TableC5, stringprep.TableC6, stringprep.TableC7, stringprep.TableC8, stringprep.TableC9,
		{{'"', '"'}, {'&', '\''}, {'/', '/'}, {':', ':'}, {'<', '<'}, {'>', '>'}, {'@', '@'}},
	}}
)

// nodeprep is that of Unicode 3.2. Like Prosody, it keeps characters that this does
// not know (RFC 3454, section 7), and normalizes what is between them; ejabberd
// refuses them. fold and nodeMap prohibit nothing, so they do not fail.
func nodeprep(s string) (string, bool) {
	if isASCII(s) { // faster
		s = strings.ToLower(s)
		return s, isPlainLocal(s)
	}
	var b strings.Builder
	for s != "" {
		known := strings.IndexFunc(s, unassigned.Contains)
		if known < 0 {
			known = len(s)
		}
		mapped, _ := nodeMap.Prepare(s[:known])
		b.WriteString(mapped)
		_, size := utf8.DecodeRuneInString(s[known:])
		b.WriteString(s[known : known+size])
		s = s[known+size:]
	}
	p, err := nodeRule.Prepare(b.String())
	return p, err == nil
}

// isOrdered reports what [Stamp].Ordered says.
func isOrdered(s string) bool {
	if strings.ContainsRune(s, '\u33C6') {
		return false
	}
	isMark := func(r rune) bool { return norm.NFKD.PropertiesString(string(r)).LeadCCC() != 0 }
	if !strings.ContainsFunc(s, isMark) {
		return true // one character alone is decomposed in order
	}
	var last uint8 // combining class
	for _, r := range s {
		if unassigned.Contains(r) { // and no mark then
			last = 0
			continue
		}
		folded, _ := fold.Prepare(string(r))
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
