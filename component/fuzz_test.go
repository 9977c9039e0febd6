package component

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"gosrc.io/xmpp/stanza"

	"rosterd/jid"
	"rosterd/metrics"
	"rosterd/roster"
	"rosterd/session"
	"rosterd/xmlstream"
)

// fuzzRosters answers at once, with a roster that names its owner.
type fuzzRosters struct{ *rosters }

const ownedBy = "roster of "

func (fuzzRosters) Get(full jid.JID, _ *string, reply roster.Reply) error {
	reply(roster.Answer{Roster: roster.New([]roster.Item{{JID: full.Bare(), Name: ownedBy + full.Bare().String(), Subscription: roster.SubscriptionBoth}})})
	return nil
}

func (fuzzRosters) Undelivered(jid.JID) {}

func (fuzzRosters) Edit(_ jid.JID, _ roster.Edit, reply func(error)) error {
	reply(nil)
	return nil
}

func (fuzzRosters) Refused(jid.JID, []jid.JID) {}
func (fuzzRosters) Unasked(jid.JID)            {}
func (fuzzRosters) Want(jid.JID)               {}
func (fuzzRosters) Gone(jid.JID)               {}
func (fuzzRosters) Resume(string)              {}

// FuzzHandle takes whatever comes on a stream through framer, decoder and
// dispatcher. Nothing panics, only a stream error ends the stream, every get and
// set has one answer, which is one element, goes to who asked, and tells him of
// his own roster alone; nothing else is answered; and only a served host's own
// words change what it lets rosterd do.
func FuzzHandle(f *testing.F) {
	query := "<iq xmlns='jabber:client' type='get' id='q1' from='" + juliet + "' to='juliet@example.org'>" + rosterGet + "</iq>"
	for _, seed := range []string{
		delegate(nsDelegation1, query), delegate(nsDelegation2, query),
		strings.Replace(delegate(nsDelegation2, query), "from='example.org'", "from='romeo@example.org/x'", 1),
		delegate(nsDelegation2, strings.Replace(query, "to='juliet@", "to='romeo@", 1)),
		delegate(nsDelegation2, strings.Replace(query, "'get'", "'set'", 1)), delegate(nsDelegation2, strings.Replace(query, "'get'", "'result'", 1)),
		delegate(nsDelegation2, query+query), delegate(nsDelegation2, ""), delegate(nsDelegation2, strings.Replace(query, " id='q1'", "", 1)),
		delegate(nsDelegation2, "<iq xmlns='jabber:client' type='set' id='q1' from='"+juliet+"'><query xmlns='jabber:iq:roster'><item jid='nurse@example.org' name='&amp;'><group>A</group><group><![CDATA[B]]></group></item></query></iq>"),
		"<iq type='get' id='1' from='" + juliet + "' to='contacts.example.org'>" + rosterGet + "</iq>",
		"<iq type='set' id='1' from='" + juliet + "'>" + rosterGet + "</iq>",
		"<iq type='get' id='1' from='example.org' to='contacts.example.org'><query xmlns='http://jabber.org/protocol/disco#info' node='urn:xmpp:delegation:2::jabber:iq:roster'/></iq>",
		"<iq type='get' id='1' from='romeo@example.org/x' to='contacts.example.org'><query xmlns='jabber:iq:version'/></iq>",
		"<iq type='get' id='1' from='romeo@example.org/x'><ping xmlns='urn:xmpp:ping'/></iq>",
		"<message from='example.org' to='contacts.example.org'><delegation xmlns='urn:xmpp:delegation:2'><delegated namespace='jabber:iq:roster'/></delegation></message>",
		"<message from='example.net'><privilege xmlns='urn:xmpp:privilege:2'><perm access='roster' type='both'/><perm access='iq'><namespace ns='jabber:iq:roster' type='set'/></perm><perm access='presence' type='managed_entity'/></privilege></message>",
		"<message from='evil.example'><privilege xmlns='urn:xmpp:privilege:1'/></message>",
		"<message type='error' from='" + juliet + "'/>",
		"<iq type='get' id='1' from='romeo@example.org/x'><query xmlns='jabber:iq:roster'>\x01</query></iq>",
		"<presence from='" + juliet + "'/><presence from='" + juliet + "' type='unavailable'/>",
		"<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>",
		"<iq type='get' id='1' from='romeo@example.org/x'><query xmlns='jabber:iq:roster'>" + strings.Repeat("x", fuzzLimit) + "</query></iq><presence/>",
	} {
		f.Add([]byte(seed))
	}
	for _, odd := range oddStanzas {
		if len(odd) < 1000 {
			f.Add([]byte(odd))
		}
	}
	m := metrics.New(prometheus.NewRegistry())
	hosts := []string{"example.org", "example.net"}
	f.Fuzz(func(t *testing.T, data []byte) {
		table := session.NewTable()
		c := New(Options{Domain: "contacts.example.org", Hosts: hosts, Edits: func(host string) bool { return host == "example.org" }, Version: "1.0", Logger: slog.New(slog.DiscardHandler), Metrics: m}, table)
		c.rosters = fuzzRosters{&rosters{}}
		s := &stream{out: newWriter(1<<20, 1<<20, 0), iqs: newTracker(time.Minute, "t-"), grants: newGrants(hosts, nil), began: time.Now()}
		c.set(s, nil)
		frames := xmlstream.NewReader(bytes.NewReader(data), fuzzLimit)
		for {
			child, _, err := frames.Next()
			if err != nil {
				break
			}
			in, unread := frames.Element(maxStanza)
			checkHandle(t, c, s, child, in, unread)
		}
		for _, full := range slices.Collect(table.Unheard(time.Now().Add(time.Hour))) {
			if !c.names.serves(full.Domain()) || full.Local() == "" || full.IsBare() {
				t.Errorf("a session of %q", full)
			}
		}
	})
}

// fuzzLimit is how many bytes of a stanza are kept here: few, so that stanzas
// are often too long.
const fuzzLimit = 4 << 10

func checkHandle(t *testing.T, c *Component, s *stream, child []byte, in *xmlstream.Element, unread error) {
	handled := in
	if in == nil {
		in = &xmlstream.Element{}
	}
	before := make(map[string]grant)
	for _, host := range c.opts.Hosts {
		before[host] = s.grants.of(host)
	}
	if err := c.handle(s, handled, unread); err != nil {
		if ended := (*StreamError)(nil); !errors.As(err, &ended) || !in.Is(stanza.NSStream, "error") {
			t.Errorf("%q ends the stream: %v", child, err)
		}
	}
	for _, host := range c.opts.Hosts {
		if s.grants.of(host) != before[host] && in.Get("from") != host {
			t.Errorf("%q changes what %s grants", child, host)
		}
	}
	var answers []*xmlstream.Element
	for {
		stanzas, _ := s.out.take()
		if len(stanzas) == 0 {
			break
		}
		for _, stanza := range stanzas {
			if out := decodeSent(t, stanza); out.Get("type") == "result" || isError(out) {
				answers = append(answers, out)
			}
		}
	}
	want := 0
	if in.Is(stanza.NSComponent, "iq") && isRequest(in) && c.repeatable(in) {
		want = 1
	}
	if len(answers) != want {
		t.Fatalf("%q has %d answers, want %d", child, len(answers), want)
	}
	for _, out := range answers {
		checkAnswer(t, in, out)
	}
}

// decodeSent is what was sent, which must be one element.
func decodeSent(t *testing.T, data []byte) *xmlstream.Element {
	t.Helper()
	if len(data) > 64<<10 {
		t.Errorf("%d bytes sent: %.200q", len(data), data)
	}
	frames := xmlstream.NewReader(strings.NewReader(string(data)+"<next/>"), 1<<20)
	first, whole, err := frames.Next()
	if err != nil || !whole || !bytes.Equal(first, data) {
		t.Fatalf("sent %q, which is not one element: %q, %v", data, first, err)
	}
	out, err := xmlstream.Decode(data)
	if err != nil {
		t.Fatalf("sent %q: %v", data, err)
	}
	return out
}

// checkAnswer checks that an answer is for a request, and tells the owner of a
// roster alone of it.
func checkAnswer(t *testing.T, in, out *xmlstream.Element) {
	t.Helper()
	if !out.Is(stanza.NSComponent, "iq") || !mirrors(in, out) {
		t.Errorf("the answer to %+v is %+v", in, out)
	}
	to := out.Get("to") // who sees it: the server gives an inner answer to whom it is for
	if delegation := out.Only(); delegation != nil && isDelegation(delegation) {
		var asked *xmlstream.Element
		if forwarded := in.Only().Child(nsForward, "forwarded"); forwarded != nil {
			asked = forwarded.Child(stanza.NSClient, "iq")
		}
		inner := delegation.Only().Only()
		if !mirrors(asked, inner) {
			t.Errorf("the inner answer to %+v is %+v", asked, inner)
		}
		to = inner.Get("to")
		if full, err := jid.ParseStamped(to); rosterOf(inner) != "" && (err != nil || full.Domain() != in.Get("from")) {
			t.Errorf("%s got a roster for %s", in.Get("from"), to)
		}
		out = inner
	}
	if owner := rosterOf(out); owner != "" {
		if full, err := jid.ParseStamped(to); err != nil || full.Bare().String() != owner {
			t.Errorf("%q sees the roster of %q", to, owner)
		}
	}
}

// mirrors reports whether an answer repeats the id of a request, and goes where
// it came from.
func mirrors(in, out *xmlstream.Element) bool {
	for _, pair := range [...][2]string{{"id", "id"}, {"from", "to"}, {"to", "from"}} {
		a, hasA := in.Attr(pair[0])
		b, hasB := out.Attr(pair[1])
		if pair[0] == "id" && hasA != hasB || a != b {
			return false
		}
	}
	return isRequest(in) && !isRequest(out)
}

// rosterOf is whose roster an IQ carries, or "".
func rosterOf(iq *xmlstream.Element) string {
	query := iq.Child(nsRoster, "query")
	if query == nil {
		query = iq.Child(stanza.NSClient, "query")
	}
	if query == nil || len(query.Children) == 0 {
		return ""
	}
	return strings.TrimPrefix(query.Children[0].Get("name"), ownedBy)
}
