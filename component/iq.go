package component

import (
	"cmp"
	"container/list"
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gosrc.io/xmpp/stanza"

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
	nsExchange    = "http://jabber.org/protocol/rosterx"  // XEP-0144
	nsDelegation1 = "urn:xmpp:delegation:1"               // XEP-0355 before 0.4
	nsDelegation2 = "urn:xmpp:delegation:2"               // XEP-0355
	nsPrivilege1  = "urn:xmpp:privilege:1"                // XEP-0356 before 0.4
	nsPrivilege2  = "urn:xmpp:privilege:2"                // XEP-0356
	nsStanzas     = "urn:ietf:params:xml:ns:xmpp-stanzas" // RFC 6120, section 8.3
)

// request is an IQ of rosterd's own.
type request struct {
	kind    stanza.StanzaType // "": get
	from    string            // "": the component
	to      string
	payload string
	// privilege is the namespace of a privileged IQ, which the server sends in the
	// user's name (XEP-0356, section 6); "": it is an ordinary IQ.
	privilege string
	prepared  string        // who answers, as the server may prepare to; "": as in to
	timeout   time.Duration // 0: Timing.Answer
	proof     bool          // no answer matters once it came back by delegation
}

const pingPayload = "<ping xmlns='" + nsPing + "'/>"

// request sends an IQ and returns its id. callback is called once, with what becomes
// of it; it must not block. queue queues the stanza, as [writer.put] does.
func (s *stream) request(r request, queue func([]byte) error, callback func(answer)) (id string) {
	id, err := s.iqs.register(r, callback)
	if err == nil {
		if err = queue(s.iq(r, id)); err == nil || !s.iqs.cancel(id) {
			return id
		}
	}
	callback(answer{err: err})
	return id
}

// iq makes the stanza of a request.
func (s *stream) iq(r request, id string) []byte {
	b := make([]byte, 0, 384+len(r.payload))
	a := stanza.Attrs{Type: cmp.Or(r.kind, stanza.IQTypeGet), Id: id, From: cmp.Or(r.from, s.domain), To: r.to}
	if r.privilege == "" {
		return append(append(appendStart(b, "iq", "", a), r.payload...), "</iq>"...)
	}
	a.To = bareOf(r.to)
	b = append(append(append(appendStart(b, "iq", "", a), "<privileged_iq xmlns='"...), r.privilege...), "'>"...)
	a.From, a.To = "", r.to
	return append(append(appendStart(b, "iq", stanza.NSClient, a), r.payload...), "</iq></privileged_iq></iq>"...)
}

// ping sends a ping (XEP-0199) from the component; see request.
func (s *stream) ping(to string, queue func([]byte) error, callback func(answer)) {
	s.request(request{to: to, payload: pingPayload}, queue, callback)
}

// appendStart appends the opening tag of a stanza. namespace is declared, unless it
// is "".
func appendStart(b []byte, name, namespace string, a stanza.Attrs) []byte {
	b = append(append(b, '<'), name...)
	for _, attr := range [...]struct{ name, value string }{
		{"xmlns", namespace}, {"type", string(a.Type)}, {"id", a.Id}, {"from", a.From}, {"to", a.To},
	} {
		if attr.value != "" {
			b = xmlstream.AppendAttr(b, attr.name, attr.value)
		}
	}
	return append(b, '>')
}

// maxPending is how many IQs wait for an answer; with one more the oldest is given up.
const maxPending = 1 << 16

var errNoAnswer = errors.New("no answer in time")

// answer is what becomes of an IQ that was sent.
type answer struct {
	iq  *xmlstream.Element // the result or the error; nil: there is none
	err error              // why not: errNoAnswer, or what lost says
}

// lost reports whether the IQ was not sent, or the stream has ended.
func (a answer) lost() bool { return a.err != nil && a.err != errNoAnswer }

// tracker knows the IQs of one stream that wait for an answer (RFC 6120, section
// 8.2.3). It is safe for concurrent use. Callbacks are called without a lock held.
type tracker struct {
	timeout time.Duration
	prefix  string // of the ids; nobody else can guess one

	last    atomic.Uint64 // of the ids
	mu      sync.Mutex
	pending map[string]*pending
	order   list.List // of their ids, the oldest first
	closed  bool
}

type pending struct {
	from     string // who must answer
	prepared string // the same, as the server may prepare it
	proof    bool
	place    *list.Element
	timer    *time.Timer
	callback func(answer)
}

func newTracker(timeout time.Duration, prefix string) *tracker {
	return &tracker{timeout: timeout, prefix: prefix, pending: make(map[string]*pending)}
}

// register notes an IQ before it is sent, and returns its id.
func (t *tracker) register(r request, callback func(answer)) (id string, err error) {
	p := &pending{from: r.to, prepared: r.prepared, proof: r.proof, callback: callback}
	if r.privilege != "" {
		p.from = bareOf(r.to)
	}
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return "", errStreamClosed
	}
	var oldest *pending
	if len(t.pending) >= maxPending {
		oldest = t.remove(t.order.Front().Value.(string))
	}
	id = t.id()
	t.pending[id], p.place = p, t.order.PushBack(id)
	p.timer = time.AfterFunc(cmp.Or(r.timeout, t.timeout), func() {
		if t.cancel(id) {
			callback(answer{err: errNoAnswer})
		}
	})
	t.mu.Unlock()
	if oldest != nil {
		oldest.callback(answer{err: errNoAnswer})
	}
	return id, nil
}

// remove removes the IQ of an id, if it waits. t.mu is held.
func (t *tracker) remove(id string) *pending {
	p := t.pending[id]
	if p != nil {
		delete(t.pending, id)
		t.order.Remove(p.place)
		p.timer.Stop()
	}
	return p
}

// id returns a new id.
func (t *tracker) id() string { return t.prefix + strconv.FormatUint(t.last.Add(1), 36) }

// answered gives a result or an error to who waits for it. It reports false if
// nobody does. The sender must be who was asked.
func (t *tracker) answered(iq *xmlstream.Element) bool {
	from, id := iq.Get("from"), iq.Get("id")
	t.mu.Lock()
	p := t.pending[id]
	if p == nil || from == "" || from != p.from && from != p.prepared {
		t.mu.Unlock()
		return false
	}
	t.remove(id)
	t.mu.Unlock()
	p.callback(answer{iq: iq})
	return true
}

// arrived notes that an IQ came to rosterd itself, and reports whether it is one of
// this stream's.
func (t *tracker) arrived(id string) (own bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.pending[id]; p != nil && p.proof {
		t.remove(id)
	}
	return strings.HasPrefix(id, t.prefix)
}

// cancel drops an IQ; its callback is not called any more. It reports false if the
// callback was called, or is being called.
func (t *tracker) cancel(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.remove(id) != nil
}

// close gives up all: the stream has ended.
func (t *tracker) close() {
	t.mu.Lock()
	all := t.pending
	t.pending, t.closed = nil, true
	t.mu.Unlock()
	for _, p := range all {
		p.timer.Stop()
		p.callback(answer{err: errStreamClosed})
	}
}

// isRequest reports whether an IQ must be answered (RFC 6120, section 8.2.3).
func isRequest(iq *xmlstream.Element) bool {
	kind := iq.Get("type")
	return kind == string(stanza.IQTypeGet) || kind == string(stanza.IQTypeSet)
}

func isError(e *xmlstream.Element) bool { return e.Get("type") == "error" }

// condition returns the defined condition of an error (RFC 6120, sections 4.9.2 and
// 8.3.2), "" if e is nil.
func condition(e *xmlstream.Element, namespace string) string {
	if e == nil {
		return ""
	}
	for _, c := range e.Children {
		if c.Name.Space == namespace && c.Name.Local != "text" {
			return strings.Clone(strings.ToValidUTF8(c.Name.Local[:min(len(c.Name.Local), 64)], ""))
		}
	}
	return "undefined-condition"
}

// errorCondition returns the condition of an IQ's stanza error, or "".
func errorCondition(iq *xmlstream.Element) string {
	return condition(iq.Child(iq.Name.Space, "error"), nsStanzas)
}

// reply is what the answer to a request repeats of it: the attributes id, from and to,
// escaped, with the addresses exchanged. An empty id is not the same as none. It keeps
// nothing of the request.
//
// COMPAT ejabberd from 24.10 on, which drops what a privileged component sends to a host
// unless it has a resource. It knows the answers to its own requests by their id alone.
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

// append appends the opening tag of the answer. namespace is declared, unless it is
// "".
func (r reply) append(b []byte, namespace string, kind stanza.StanzaType) []byte {
	b = append(b, "<iq"...)
	if namespace != "" {
		b = xmlstream.AppendAttr(b, "xmlns", namespace)
	}
	return append(append(xmlstream.AppendAttr(b, "type", string(kind)), r...), '>')
}

// maxRepeated is how long an attribute may be that an answer must repeat, in bytes
// on the stream. A JID has at most 3,071 bytes.
const maxRepeated = 6 << 10

// repeatable reports whether an answer can repeat what it must of a request, or of
// two, one in the other. With a very long id the answer would be too long for the
// server, which would end the stream.
func (c *Component) repeatable(iq *xmlstream.Element) bool {
	var room [512]byte
	size := 0
	for _, name := range [...]string{"id", "from", "to"} {
		n := len(xmlstream.AppendEscaped(room[:0], iq.Get(name)))
		if n > maxRepeated {
			return false
		}
		size += len(" from='/rosterd'") + n
	}
	return size <= c.opts.MaxStanza/4
}

// stanzaError is a stanza error's type, condition, and what a person is to read (RFC
// 6120, section 8.3.2), in a language unless that is "".
type stanzaError struct{ kind, condition, text, lang string }

// The errors rosterd gives.
var (
	errServiceUnavailable = stanzaError{kind: "cancel", condition: "service-unavailable"}
	errBadRequest         = stanzaError{kind: "modify", condition: "bad-request"}
	errPolicyViolation    = stanzaError{kind: "modify", condition: "policy-violation"}
	errForbidden          = stanzaError{kind: "auth", condition: "forbidden"}
	errConflict           = stanzaError{kind: "cancel", condition: "conflict"}
	errNotAcceptable      = stanzaError{kind: "modify", condition: "not-acceptable"}
	errNotAllowed         = stanzaError{kind: "cancel", condition: "not-allowed"}
	errManagedElsewhere   = stanzaError{kind: "cancel", condition: "not-allowed", text: managedElsewhere, lang: "en"}
	errEditRefused        = stanzaError{kind: "cancel", condition: "not-allowed", text: editRefusedText, lang: "en"}
	errResourceConstraint = stanzaError{kind: "wait", condition: "resource-constraint"}
	errTimeout            = stanzaError{kind: "wait", condition: "remote-server-timeout"}
	errBackend            = stanzaError{kind: "wait", condition: "internal-server-error"}
)

// managedElsewhere is what clients show to users who tried to change a contact.
const managedElsewhere = "This contact list is kept by the service that your account belongs to. " +
	"It cannot be changed here, only there."

// editRefusedText is the same where changes are taken, and the backend has refused one without
// a word.
const editRefusedText = "The service that keeps your contact list does not permit this change."

func (e stanzaError) append(b []byte) []byte {
	b = xmlstream.AppendAttr(append(b, "<error"...), "type", e.kind)
	b = append(append(append(b, "><"...), e.condition...), " xmlns='"+nsStanzas+"'/>"...)
	if e.text != "" {
		b = append(b, "<text xmlns='"+nsStanzas+"'"...)
		if e.lang != "" {
			b = xmlstream.AppendAttr(b, "xml:lang", e.lang)
		}
		b = append(xmlstream.AppendEscaped(append(b, '>'), e.text), "</text>"...)
	}
	return append(b, "</error>"...)
}
