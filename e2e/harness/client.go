package harness

import (
	"cmp"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
)

const (
	nsRoster    = "jabber:iq:roster"
	nsDiscoInfo = "http://jabber.org/protocol/disco#info"
)

// Client is a user's session through a client library, the same for all of
// them. A client logs in once. Its methods are for one goroutine at a time.
type Client interface {
	// JID is the full one that was asked for.
	JID() string

	// Login connects, authenticates, binds the resource and sends initial
	// presence.
	Login(ctx context.Context) error

	// Roster asks for the roster, as the library does it, and returns what the
	// library understood, in the order of the answer. An error that was
	// answered is a *StanzaError, and a result without a roster ErrUnchanged.
	Roster(ctx context.Context) ([]Item, error)

	// WaitPush waits for the next roster push (RFC 6121, section 2.1.6) in the
	// order of arrival, and for the library to take and answer it, and returns
	// what the library understood.
	WaitPush(ctx context.Context) (Item, error)

	// PendingPushes returns the XML of the roster pushes that have arrived and
	// were not waited for. Call Ping first, so that nothing is under way.
	PendingPushes() []string

	// Presence sends available presence with a show (RFC 6121, section
	// 4.7.2.1), with none if it is "", or unavailable presence if it is
	// "unavailable".
	Presence(show string) error

	// SendRaw sends any XML.
	SendRaw(xml string) error

	// Ping sends a XEP-0199 ping and waits for the answer, result or error: all
	// that to has sent this client before has arrived when Ping returns.
	Ping(ctx context.Context, to string) error

	// WaitStanza waits for a stanza that matches among those that have arrived
	// since login.
	WaitStanza(ctx context.Context, match func(Stanza) bool) (Stanza, error)

	// Stanzas are all that have arrived since login, in their order.
	Stanzas() []Stanza

	// Cut breaks the TCP connection without a word on the stream.
	Cut()

	// Close logs out, if still logged in, and ends all that the client has
	// started.
	Close()
}

// Publisher is a [Client] whose library knows PEP (XEP-0163), nicknames (XEP-0172) and
// avatars (XEP-0084): slixmpp's, if it was opened with Notify.
type Publisher interface {
	Client
	PublishNick(ctx context.Context, nick string) error
	// PublishAvatar publishes an image and its metadata, and returns its id.
	PublishAvatar(ctx context.Context, image []byte) (id string, err error)
	// Avatar fetches an image that a user (a bare JID) has published. An error that
	// was answered is a *StanzaError.
	Avatar(ctx context.Context, of, id string) ([]byte, error)
	// WaitEvent waits for an event that matches among those that the library has
	// understood since login.
	WaitEvent(ctx context.Context, match func(Event) bool) (Event, error)
}

// Event is what a user (a bare JID) has published, as a client library understood it:
// of a nickname the name, of an avatar the id, of other nodes the item's XML.
type Event struct {
	From, Node, Text string
}

// ClientOptions say who logs in, and how.
type ClientOptions struct {
	Address  string // host:port of the server
	JID      string // full: the resource is asked for
	Password string
	Bound    string // the bare JID that the server gives; "": that of JID

	// RefusePushes answers each roster push with an error. Only the client of
	// gosrc.io/xmpp can do that; slixmpp answers by itself.
	RefusePushes bool

	// IgnorePushes never answers a roster push. The same holds.
	IgnorePushes bool

	// Notify are the nodes whose events the client wants (XEP-0163, section 4.3.2):
	// it announces them as real ones do (XEP-0115).
	Notify []string

	// Invisible has Login send no presence, so that the roster can be asked for
	// before, as real clients do. Only slixmpp can do that.
	Invisible bool

	// Unpadded sends and receives as it is, without the blanks that have long
	// tags parsed whatever libexpat there is.
	Unpadded bool
}

// Item is one contact as a client library understood it (RFC 6121, section
// 2.1.2).
type Item struct {
	JID, Name, Subscription, Ask string
	Approved                     bool // gosrc.io/xmpp does not know it: always false
	Groups                       []string
}

// ErrUnchanged is a roster get that was answered with an empty result: the client
// has what is current (RFC 6121, section 2.6.3).
var ErrUnchanged = errors.New("the roster has not changed")

// StanzaError is a stanza error as a client library understood it (RFC 6120,
// section 8.3).
type StanzaError struct {
	Type, Condition, Text string
}

func (e *StanzaError) Error() string {
	return strings.TrimRight(fmt.Sprintf("stanza error: %s, %s: %s", e.Type, e.Condition, e.Text), ": ")
}

// push is a roster push as a client library understood it.
type push struct {
	id    string
	items []Item
}

// session is what the clients of all libraries share.
type session struct {
	opts   ClientOptions
	wire   *wire
	pushes *feed[push]   // in any order
	read   int           // stanzas that WaitPush has looked at
	ids    atomic.Uint64 // of stanzas that the harness sends itself
}

func newSession(opts ClientOptions) (*session, error) {
	wire, err := newWire(opts.Address, opts.Unpadded)
	if err != nil {
		return nil, err
	}
	return &session{opts: opts, wire: wire, pushes: newFeed[push]()}, nil
}

// JID implements [Client].
func (s *session) JID() string { return s.opts.JID }

func (s *session) bare() string {
	bare, _, _ := strings.Cut(s.opts.JID, "/")
	return cmp.Or(s.opts.Bound, bare)
}

// trusted says whether a client may accept a roster push from this address: it
// has to be absent or the user's bare JID (RFC 6121, section 2.1.6).
func (s *session) trusted(from string) bool {
	return from == "" || from == s.bare()
}

func (s *session) isPush(stanza Stanza) bool {
	return stanza.Name == "iq" && stanza.Type == "set" && stanza.Payload.Space == nsRoster && s.trusted(stanza.From)
}

// WaitPush implements [Client]. The order is the wire's: a library may handle
// each stanza in a goroutine of its own.
func (s *session) WaitPush(ctx context.Context) (Item, error) {
	stanza, next, err := s.wire.wait(ctx, s.read, s.isPush)
	if err != nil {
		return Item{}, fmt.Errorf("no roster push for %s: %w", s.opts.JID, err)
	}
	s.read = next
	p, _, err := s.pushes.wait(ctx, 0, func(p push) bool { return p.id == stanza.ID })
	if err != nil {
		return Item{}, fmt.Errorf("the client library did not take the push %s: %w", stanza.XML, err)
	}
	if len(p.items) != 1 {
		return Item{}, fmt.Errorf("a push has to have one item: %s", stanza.XML)
	}
	return p.items[0], nil
}

// PendingPushes implements [Client].
func (s *session) PendingPushes() []string {
	var pending []string
	stanzas, _ := s.wire.arrived.since(s.read)
	for _, stanza := range stanzas {
		if s.isPush(stanza) {
			pending = append(pending, stanza.XML)
		}
	}
	return pending
}

// WaitStanza implements [Client].
func (s *session) WaitStanza(ctx context.Context, match func(Stanza) bool) (Stanza, error) {
	stanza, _, err := s.wire.wait(ctx, 0, match)
	if err != nil {
		err = fmt.Errorf("no such stanza for %s: %w", s.opts.JID, err)
	}
	return stanza, err
}

// Stanzas implements [Client].
func (s *session) Stanzas() []Stanza {
	stanzas, _ := s.wire.arrived.since(0)
	return stanzas
}

// Cut implements [Client].
func (s *session) Cut() { s.wire.cut(true) }

// ping is Ping of [Client], with the library's way to send.
func (s *session) ping(ctx context.Context, to string, send func(string) error) error {
	id := s.nextID("ping")
	err := send("<iq type='get' id='" + id + "' to='" + escape(to) + "'><ping xmlns='urn:xmpp:ping'/></iq>")
	if err != nil {
		return err
	}
	_, err = s.WaitStanza(ctx, func(stanza Stanza) bool {
		return stanza.Name == "iq" && stanza.ID == id && (stanza.Type == "result" || stanza.Type == "error")
	})
	return err
}

func (s *session) nextID(prefix string) string {
	return fmt.Sprintf("%s-%d", prefix, s.ids.Add(1))
}

// presenceXML is the stanza of Presence of [Client].
func (s *session) presenceXML(show string) string {
	switch {
	case show == "unavailable":
		return "<presence type='unavailable'/>"
	case show != "":
		show = "<show>" + escape(show) + "</show>"
	}
	return "<presence>" + show + s.caps() + "</presence>"
}

// capsNode names the clients of the harness that announce what they can.
const capsNode = "urn:rosterd:harness"

// caps announces the features (XEP-0115, section 4), if there are any.
func (s *session) caps() string {
	if s.opts.Notify == nil {
		return ""
	}
	sum := sha1.Sum([]byte("client/pc//<" + strings.Join(s.features(), "<") + "<")) // section 5.1
	return "<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='" + capsNode + "' ver='" + base64.StdEncoding.EncodeToString(sum[:]) + "'/>"
}

// features are what the client answers to disco#info, sorted.
func (s *session) features() []string {
	features := []string{nsDiscoInfo}
	for _, node := range s.opts.Notify {
		features = append(features, node+"+notify")
	}
	slices.Sort(features)
	return features
}

// discoXML is the payload of that answer.
func (s *session) discoXML(node string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "<query xmlns='%s' node='%s'><identity category='client' type='pc'/>", nsDiscoInfo, escape(node))
	for _, feature := range s.features() {
		fmt.Fprintf(&b, "<feature var='%s'/>", escape(feature))
	}
	return b.String() + "</query>"
}

// errNotLoggedIn is returned by methods that need a login first.
var errNotLoggedIn = errors.New("not logged in")
