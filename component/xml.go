package component

import (
	"strconv"
	"strings"

	"gosrc.io/xmpp/stanza"

	"rosterd/roster"
	"rosterd/xmlstream"
)

// The namespaces that gosrc.io/xmpp does not name.
const (
	nsRoster      = "jabber:iq:roster"                    // RFC 6121, section 2
	nsPing        = "urn:xmpp:ping"                       // XEP-0199
	nsBlocking    = "urn:xmpp:blocking"                   // XEP-0191
	nsVersion     = "jabber:iq:version"                   // XEP-0092
	nsDelay       = "urn:xmpp:delay"                      // XEP-0203
	nsForward     = "urn:xmpp:forward:0"                  // XEP-0297
	nsDelegation1 = "urn:xmpp:delegation:1"               // XEP-0355 before 0.4
	nsDelegation2 = "urn:xmpp:delegation:2"               // XEP-0355
	nsPrivilege1  = "urn:xmpp:privilege:1"                // XEP-0356 before 0.4
	nsPrivilege2  = "urn:xmpp:privilege:2"                // XEP-0356
	nsStanzas     = "urn:ietf:params:xml:ns:xmpp-stanzas" // RFC 6120, section 8.3
)

// appendRequest appends the opening tag of an IQ of ours. inner is a namespace
// to declare, or "".
func appendRequest(b []byte, inner string, a stanza.Attrs) []byte {
	return appendOpen(append(b, "<iq"...), inner, a)
}

// appendMessage appends the opening tag of a message of ours.
func appendMessage(b []byte, a stanza.Attrs) []byte {
	return appendOpen(append(b, "<message"...), "", a)
}

func appendOpen(b []byte, inner string, a stanza.Attrs) []byte {
	for _, attr := range [...]struct{ name, value string }{
		{"xmlns", inner}, {"type", string(a.Type)}, {"id", a.Id}, {"from", a.From}, {"to", a.To},
	} {
		if attr.value != "" {
			b = xmlstream.AppendAttr(b, attr.name, attr.value)
		}
	}
	return append(b, '>')
}

// reply is what the answer to a request must repeat of it: the attributes id,
// from and to as they are written, exactly as they were stamped, and the
// addresses the other way round. An empty id is not the same as none.
//
// COMPAT ejabberd, which knows the answers to its own requests by their id,
// whatever their address is, and from 24.10 on drops what a privileged component
// sends to a host unless it has a resource.
type reply []byte

func replyTo(request *xmlstream.Element) reply {
	b := make([]byte, 0, 160) // which is mostly enough
	for _, attr := range [...]struct{ name, of string }{{"id", "id"}, {"from", "to"}, {"to", "from"}} {
		value, has := request.Attr(attr.of)
		if attr.name == "to" && fromEjabberd(request) {
			value += "/rosterd"
		}
		if has && (value != "" || attr.name == "id") {
			b = xmlstream.AppendAttr(b, attr.name, value)
		}
	}
	return b
}

// fromEjabberd reports whether a request is of a host of ejabberd's itself, by the
// look of its id: "rr-", a time in milliseconds, "-", and more.
func fromEjabberd(request *xmlstream.Element) bool {
	id, ours := strings.CutPrefix(request.Get("id"), "rr-")
	if !ours || strings.ContainsAny(request.Get("from"), "@/") {
		return false
	}
	digits := len(id) - len(strings.TrimLeft(id, "0123456789"))
	return digits > 10 && digits < len(id) && id[digits] == '-'
}

// append appends the opening tag of the answer. inner is a namespace to
// declare, or "".
func (r reply) append(b []byte, inner string, kind stanza.StanzaType) []byte {
	b = append(b, "<iq"...)
	if inner != "" {
		b = xmlstream.AppendAttr(b, "xmlns", inner)
	}
	return append(append(xmlstream.AppendAttr(b, "type", string(kind)), r...), '>')
}

// appendError appends a stanza error (RFC 6120, section 8.3.2).
func appendError(b []byte, e stanzaError) []byte {
	b = xmlstream.AppendAttr(append(b, "<error"...), "type", e.kind)
	b = append(append(append(b, "><"...), e.condition...), " xmlns='"+nsStanzas+"'/>"...)
	if e.text != "" {
		b = append(xmlstream.AppendEscaped(append(b, "<text xmlns='"+nsStanzas+"' xml:lang='en'>"...), e.text), "</text>"...)
	}
	return append(b, "</error>"...)
}

// stanzaError is a stanza error's type, condition, and what a person is to read.
type stanzaError struct{ kind, condition, text string }

// The errors rosterd gives.
var (
	errServiceUnavailable = stanzaError{kind: "cancel", condition: "service-unavailable"}
	errBadRequest         = stanzaError{kind: "modify", condition: "bad-request"}
	errPolicyViolation    = stanzaError{kind: "modify", condition: "policy-violation"}
	errForbidden          = stanzaError{kind: "auth", condition: "forbidden"}
	errConflict           = stanzaError{kind: "cancel", condition: "conflict"}
	errNotAllowed         = stanzaError{kind: "cancel", condition: "not-allowed"}
	errManagedElsewhere   = stanzaError{kind: "cancel", condition: "not-allowed", text: managedElsewhere}
	errResourceConstraint = stanzaError{kind: "wait", condition: "resource-constraint"}
	errTimeout            = stanzaError{kind: "wait", condition: "remote-server-timeout"}
	errBackend            = stanzaError{kind: "wait", condition: "internal-server-error"}
)

// managedElsewhere is what clients show to who has tried to change a contact.
const managedElsewhere = "This contact list is kept by the service that your account belongs to. " +
	"It cannot be changed here, only there."

const (
	// maxSent is the default of Options.MaxStanza. COMPAT Prosody, which ends the
	// stream at 512 KiB.
	maxSent = 256 << 10
	// maxWrap is what wrapping a payload takes at most: two stanzas' attributes,
	// see repeatable, and some constant text.
	maxWrap = 32 << 10
	// maxQuery is what <query/> takes around the items, at most.
	maxQuery = 512
)

// appendRoster appends the answer to a roster get (RFC 6121, section 2.1.4), as
// far as max bytes last, and returns the items that did not fit. named says that
// it tells the version (section 2.6).
func appendRoster(b []byte, r *roster.Roster, max int, named bool) ([]byte, []roster.Item) {
	version := ""
	if named {
		version = r.Version()
	}
	if r.Size() <= max {
		if b = appendQuery(b, version); r.Len() == 0 {
			return append(b, "/>"...), nil
		}
		return append(r.AppendXML(append(b, '>')), "</query>"...), nil
	}
	xml, rest := r.Split(max)
	if named && len(rest) > 0 {
		version = roster.Partial(version, len(rest))
	}
	b = append(append(appendQuery(b, version), '>'), xml...)
	return append(b, "</query>"...), rest
}

// appendQuery appends the beginning of a query's tag.
func appendQuery(b []byte, version string) []byte {
	b = append(b, "<query xmlns='"+nsRoster+"'"...)
	if version != "" {
		b = xmlstream.AppendAttr(b, "ver", version)
	}
	return b
}

// appendChange appends the payload of a roster push (RFC 6121, section 2.1.6).
func appendChange(b []byte, c roster.Change) []byte {
	b = append(appendQuery(b, c.Version), '>')
	if c.Action == roster.Removed {
		b = xmlstream.AppendAttr(append(b, "<item"...), "jid", c.Item.JID.String())
		b = append(b, " subscription='remove'/>"...)
	} else {
		b = roster.AppendItem(b, c.Item)
	}
	return append(b, "</query>"...)
}

// short makes remote text fit for a log line or an error: quoted, one line,
// bounded.
func short(s string) string {
	const max = 128
	if len(s) > max {
		return strconv.QuoteToASCII(s[:max]) + "…"
	}
	return strconv.QuoteToASCII(s)
}
