package component

import (
	"strconv"
	"unicode/utf8"

	"gosrc.io/xmpp/stanza"

	"rosterd/roster"
)

// The namespaces that gosrc.io/xmpp does not name.
const (
	nsRoster      = "jabber:iq:roster"                    // RFC 6121, section 2
	nsPing        = "urn:xmpp:ping"                       // XEP-0199
	nsVersion     = "jabber:iq:version"                   // XEP-0092
	nsForward     = "urn:xmpp:forward:0"                  // XEP-0297
	nsDelegation1 = "urn:xmpp:delegation:1"               // XEP-0355 before 0.4
	nsDelegation2 = "urn:xmpp:delegation:2"               // XEP-0355
	nsPrivilege1  = "urn:xmpp:privilege:1"                // XEP-0356 before 0.4
	nsPrivilege2  = "urn:xmpp:privilege:2"                // XEP-0356
	nsStanzas     = "urn:ietf:params:xml:ns:xmpp-stanzas" // RFC 6120, section 8.3
)

// appendEscaped appends text that may stand in an attribute or between tags.
// Characters that XML forbids are left out: the server would close the stream.
func appendEscaped(b []byte, s string) []byte {
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 || r == 0xFFFE || r == 0xFFFF {
				b = append(b, s[start:i]...)
				start = i + size
			}
			i += size
			continue
		}
		if escape := escapes[c]; escape != "" || c < 0x20 {
			b = append(append(b, s[start:i]...), escape...)
			start = i + 1
		}
		i++
	}
	return append(b, s[start:]...)
}

var escapes = [utf8.RuneSelf]string{'&': "&amp;", '<': "&lt;", '>': "&gt;", '\'': "&apos;", '"': "&quot;",
	'\t': "&#9;", '\n': "&#10;", '\r': "&#13;"}

// appendAttr appends an attribute, its name being a constant.
func appendAttr(b []byte, name, value string) []byte {
	b = append(append(append(b, ' '), name...), "='"...)
	return append(appendEscaped(b, value), '\'')
}

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
			b = appendAttr(b, attr.name, attr.value)
		}
	}
	return append(b, '>')
}

// reply is what the answer to a request must repeat of it: the attributes id,
// from and to as they are written, exactly as they were stamped, and the
// addresses the other way round. An empty id is not the same as none.
type reply string

func replyTo(request *element) reply {
	var b []byte
	for _, attr := range [...]struct{ name, of string }{{"id", "id"}, {"from", "to"}, {"to", "from"}} {
		if value, has := request.attr(attr.of); has && (value != "" || attr.name == "id") {
			b = appendAttr(b, attr.name, value)
		}
	}
	return reply(b)
}

// append appends the opening tag of the answer. inner is a namespace to
// declare, or "".
func (r reply) append(b []byte, inner string, kind stanza.StanzaType) []byte {
	b = append(b, "<iq"...)
	if inner != "" {
		b = appendAttr(b, "xmlns", inner)
	}
	return append(append(appendAttr(b, "type", string(kind)), r...), '>')
}

// appendError appends a stanza error (RFC 6120, section 8.3.2).
func appendError(b []byte, e stanzaError) []byte {
	b = appendAttr(append(b, "<error"...), "type", e.kind)
	b = append(append(append(b, "><"...), e.condition...), " xmlns='"+nsStanzas+"'/></error>"...)
	return b
}

// stanzaError is a stanza error's type and condition.
type stanzaError struct{ kind, condition string }

// The errors rosterd gives.
var (
	errServiceUnavailable = stanzaError{"cancel", "service-unavailable"}
	errBadRequest         = stanzaError{"modify", "bad-request"}
	errPolicyViolation    = stanzaError{"modify", "policy-violation"}
	errForbidden          = stanzaError{"auth", "forbidden"}
	errNotAllowed         = stanzaError{"cancel", "not-allowed"}
	errResourceConstraint = stanzaError{"wait", "resource-constraint"}
	errTimeout            = stanzaError{"wait", "remote-server-timeout"}
	errBackend            = stanzaError{"wait", "internal-server-error"}
)

const (
	// maxSent is the longest stanza sent, in bytes. COMPAT Prosody, which ends
	// the stream at 512 KiB.
	maxSent = 480 << 10
	// maxWrap is what wrapping a payload takes at most: two stanzas' attributes,
	// see repeatable, and some constant text.
	maxWrap = 32 << 10
)

// appendRoster appends the answer to a roster get (RFC 6121, section 2.1.4),
// as far as max bytes last, and returns the items that did not fit.
func appendRoster(b []byte, r *roster.Roster, max int) ([]byte, []roster.Item) {
	items := r.Items()
	if len(items) == 0 {
		return append(b, "<query xmlns='"+nsRoster+"'/>"...), nil
	}
	start := len(b)
	b = append(b, "<query xmlns='"+nsRoster+"'>"...)
	for i, item := range items {
		before := len(b)
		if b = appendItem(b, item); len(b)-start > max && i > 0 { // never an empty answer
			return append(b[:before], "</query>"...), items[i:]
		}
	}
	return append(b, "</query>"...), nil
}

// appendChange appends the payload of a roster push (RFC 6121, section 2.1.6).
func appendChange(b []byte, c roster.Change) []byte {
	b = append(b, "<query xmlns='"+nsRoster+"'>"...)
	if c.Action == roster.Removed {
		b = appendAttr(append(b, "<item"...), "jid", c.Item.JID.String())
		b = append(b, " subscription='remove'/>"...)
	} else {
		b = appendItem(b, c.Item)
	}
	return append(b, "</query>"...)
}

// appendItem appends an item (RFC 6121, section 2.1.2).
func appendItem(b []byte, item roster.Item) []byte {
	b = appendAttr(append(b, "<item"...), "jid", item.JID.String())
	b = appendAttr(b, "subscription", string(item.Subscription))
	if item.Name != "" {
		b = appendAttr(b, "name", item.Name)
	}
	if item.Ask {
		b = append(b, " ask='subscribe'"...)
	}
	if item.Approved {
		b = append(b, " approved='true'"...)
	}
	if len(item.Groups) == 0 {
		return append(b, "/>"...)
	}
	return append(appendGroups(append(b, '>'), item.Groups), "</item>"...)
}

func appendGroups(b []byte, groups []string) []byte {
	for _, group := range groups {
		b = append(appendEscaped(append(b, "<group>"...), group), "</group>"...)
	}
	return b
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
