// Package jid is the address of an XMPP entity (RFC 7622): parsed, prepared and
// comparable.
//
// The localpart is prepared by nodeprep (RFC 6122, appendix A), as servers do it:
// they decide which names are one account. [MatchLocal] says how sure that is for
// a name that the server stamped without preparing it.
//
// A [JID] holds prepared parts, so two addresses of one entity are equal as Go
// values, and a JID can be a map key. [ParseStamped] names the one exception.
package jid

import (
	"cmp"
	"errors"
	"strings"
	"unicode/utf8"
)

// maxPart is how many bytes each part of a JID may have (RFC 7622, sections
// 3.2.1, 3.3.1 and 3.4.1). A longer part is refused before it is prepared.
const maxPart = 1023

// What can be wrong with an address. The texts do not repeat the address, which
// comes from outside: whoever reports the error knows how to quote it.
var (
	errNotUTF8  = errors.New("jid: not UTF-8")
	errLocal    = errors.New("jid: localpart is none that servers take, of 1 to 1023 bytes (RFC 6122, appendix A)")
	errDomain   = errors.New("jid: domainpart is neither a domain name nor an IP address, of 1 to 1023 bytes")
	errResource = errors.New("jid: resourcepart is no RFC 7622 resourcepart, of 1 to 1023 bytes")
	errNoUser   = errors.New("jid: no localpart or bare JID of a user")
)

// JID is the address of an XMPP entity: a domain, with or without a local and a
// resource part. Its parts are prepared. The zero value is no JID.
type JID struct{ local, domain, resource string }

// Parse makes a JID of its text: the localpart prepared by nodeprep, the other
// parts by RFC 7622. A trailing dot of the domain is dropped.
//
// The errors of this package are short, and never contain the address.
func Parse(s string) (JID, error) { return parse(s, prepareResource) }

// ParseStamped is Parse for an address that the server stamped on a stanza. It
// keeps every resource that XML can carry byte for byte, as the server wants it
// back, which may know another edition of Unicode. So a full JID that was stamped
// may differ from the one that Parse makes for the same entity.
func ParseStamped(s string) (JID, error) { return parse(s, checkStamped) }

// ParseUser is the bare JID of a user whom a person or an application names: by
// their bare JID, or by their localpart, which is then one of domain.
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

// New makes a JID of its parts, each prepared as in [Parse]. An empty local or
// resource part is an absent one.
func New(local, domain, resource string) (JID, error) {
	return prepare(local, domain, resource, prepareResource)
}

// parse splits s as RFC 7622, section 3.1, says: the resource begins after the
// first '/', and the localpart ends before the first '@' of the rest. So an empty
// part beside its separator is an error, and not an absent part.
func parse(s string, resourceProfile func(string) (string, error)) (JID, error) {
	if !utf8.ValidString(s) {
		return JID{}, errNotUTF8
	}
	bare, resource, hasResource := strings.Cut(s, "/")
	local, domain, hasLocal := strings.Cut(bare, "@")
	switch {
	case !hasLocal:
		local, domain = "", bare
	case local == "":
		return JID{}, errLocal
	}
	if hasResource && resource == "" {
		return JID{}, errResource
	}
	return prepare(local, domain, resource, resourceProfile)
}

func prepare(local, domain, resource string, resourceProfile func(string) (string, error)) (j JID, err error) {
	if j.domain, err = PrepareDomain(domain); err == nil && local != "" {
		j.local, err = prepareLocal(local)
	}
	if err == nil && resource != "" {
		j.resource, err = resourceProfile(resource)
	}
	if err != nil {
		return JID{}, err
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

// Spelled is j with another spelling of its domain, to be written. It is not
// prepared, and equal to no JID that is.
func (j JID) Spelled(domain string) JID {
	j.domain = domain
	return j
}

// IsBare reports whether j has no resource.
func (j JID) IsBare() bool { return j.resource == "" }

// IsZero reports whether j is the zero value, no JID.
func (j JID) IsZero() bool { return j == JID{} }

// String is the text of j, of which [Parse] makes j again, or [ParseStamped] if j
// comes from there. The text of the zero value is empty.
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
