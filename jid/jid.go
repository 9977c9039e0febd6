// Package jid is the address of an XMPP entity (RFC 7622): parsed, prepared
// and comparable.
//
// The localpart is prepared as servers do it, by nodeprep (RFC 6122, appendix A):
// who is who is theirs to say. [MatchLocal] says how sure that is of a name that
// a server did not prepare.
//
// A [JID] holds prepared parts, so two addresses of one entity are equal as Go
// values: == compares them, and a JID or its [JID.Bare] is fit to be a map key.
// (The one exception is named at [ParseStamped].)
package jid

import (
	"cmp"
	"errors"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// maxPart is the length in bytes up to which each part of a JID may grow (RFC
// 7622, sections 3.2.1, 3.3.1 and 3.4.1). Longer input is refused before it is
// prepared, so the work on an address is bounded, too.
const maxPart = 1023

// What can be wrong with an address. The texts do not repeat the address: it
// comes from outside, and whoever reports the error knows how to quote it.
var (
	errNotUTF8        = errors.New("jid: not UTF-8")
	errLocal          = errors.New("jid: localpart is none that servers take (RFC 6122, appendix A)")
	errLocalLength    = errors.New("jid: localpart is not 1 to 1023 bytes long")
	errDomain         = errors.New("jid: domainpart is neither a domain name nor an IP address")
	errDomainLength   = errors.New("jid: domainpart is not 1 to 1023 bytes long")
	errNoUser         = errors.New("jid: no localpart or bare JID of a user")
	errResource       = errors.New("jid: resourcepart is no RFC 7622 resourcepart")
	errResourceLength = errors.New("jid: resourcepart is not 1 to 1023 bytes long")
)

// JID is the address of an XMPP entity: a domain, with or without a local and a
// resource part. Its parts are prepared. The zero value is no JID.
//
// JIDs are comparable values and safe for concurrent use.
type JID struct{ local, domain, resource string }

// Parse makes a JID of its text: the localpart prepared by nodeprep, the other
// parts by RFC 7622. It takes a trailing dot off the domain.
//
// The errors of this package are short, and never contain the address.
func Parse(s string) (JID, error) { return parse(s, prepareResource) }

// ParseStamped is Parse for an address that the server stamped on a stanza. It
// keeps the resource byte for byte as long as XML can carry it: what is sent
// back to that resource must name it exactly as the server does, and the server
// may know another edition of Unicode than this program. Hence a JID with a
// resource that was stamped may differ from one of the same entity that was
// parsed; their Bare is the same.
func ParseStamped(s string) (JID, error) { return parse(s, checkStamped) }

// New makes a JID of its parts, each prepared as in [Parse]. An empty local or
// resource part is an absent one.
func New(local, domain, resource string) (JID, error) {
	var j JID
	var err error
	if j.domain, err = PrepareDomain(domain); err != nil {
		return JID{}, err
	}
	if local != "" {
		if j.local, err = prepareLocal(local); err != nil {
			return JID{}, err
		}
	}
	if resource != "" {
		if j.resource, err = prepareResource(resource); err != nil {
			return JID{}, err
		}
	}
	return j, nil
}

// ParseUser is the bare JID of the user whom a person or an application names: by
// their localpart, which is then one of domain, or by their bare JID.
func ParseUser(name, domain string) (JID, error) {
	if !strings.Contains(name, "@") {
		name += "@" + domain
	}
	j, err := Parse(name)
	if err == nil && (j.local == "" || j.resource != "") {
		return JID{}, errNoUser
	}
	return j, err
}

// parse splits s as RFC 7622, section 3.1, says: the resource begins after the
// first '/', and what is before the first '@' of the rest is the local part.
// Hence an empty part behind its separator is an error and no absent part.
func parse(s string, resource func(string) (string, error)) (JID, error) {
	if !utf8.ValidString(s) {
		return JID{}, errNotUTF8
	}
	var j JID
	var err error
	s, r, hasResource := strings.Cut(s, "/")
	if l, d, ok := strings.Cut(s, "@"); ok {
		if j.local, err = prepareLocal(l); err != nil {
			return JID{}, err
		}
		s = d
	}
	if j.domain, err = PrepareDomain(s); err != nil {
		return JID{}, err
	}
	if hasResource {
		if j.resource, err = resource(r); err != nil {
			return JID{}, err
		}
	}
	return j, nil
}

// Local is the local part, or "".
func (j JID) Local() string { return j.local }

// Domain is the domain part: U-labels in lower case, or an IP address.
func (j JID) Domain() string { return j.domain }

// Resource is the resource part, or "".
func (j JID) Resource() string { return j.resource }

// Bare is j without its resource.
func (j JID) Bare() JID { return JID{local: j.local, domain: j.domain} }

// Spelled is j with another spelling of its domain, to be written: it is not
// prepared, and equal to no JID that is.
func (j JID) Spelled(domain string) JID {
	j.domain = domain
	return j
}

// ASCIIDomain is a prepared domain with A-labels (RFC 5890) in place of U-labels,
// or the domain itself if it has none.
func ASCIIDomain(domain string) string {
	if ascii, err := idna.Punycode.ToASCII(domain); err == nil && !strings.HasPrefix(domain, "[") {
		return ascii
	}
	return domain
}

// IsBare reports whether j has no resource.
func (j JID) IsBare() bool { return j.resource == "" }

// IsZero reports whether j is the zero value, no JID.
func (j JID) IsZero() bool { return j == JID{} }

// String is the text of j, from which [Parse] makes j again ([ParseStamped], if
// j came from there). The text of the zero value is empty.
func (j JID) String() string {
	switch {
	case j.local != "" && j.resource != "":
		return j.local + "@" + j.domain + "/" + j.resource
	case j.local != "":
		return j.local + "@" + j.domain
	case j.resource != "":
		return j.domain + "/" + j.resource
	}
	return j.domain
}

// MarshalText is the text of j, for JSON and for the handlers of slog.
func (j JID) MarshalText() ([]byte, error) { return []byte(j.String()), nil }

// Compare orders JIDs by domain, then local, then resource part, by bytes.
func (j JID) Compare(o JID) int {
	return cmp.Or(cmp.Compare(j.domain, o.domain), cmp.Compare(j.local, o.local), cmp.Compare(j.resource, o.resource))
}
