package component

import (
	"strings"
	"testing"
	"time"

	"rosterd/jid"
	"rosterd/presence"
	"rosterd/roster"
	"rosterd/xmlstream"
)

// known plays the manager for the hub.
type known map[string]*roster.Roster

func (k known) Known(user jid.JID) (*roster.Roster, bool) { r, ok := k[user.String()]; return r, ok }
func (k known) Want(jid.JID)                              {}

func TestRelay(t *testing.T) {
	romeo := roster.New([]roster.Item{item(t, "juliet@example.org", "")})
	both := known{"romeo@example.org": romeo, "juliet@example.org": roster.New([]roster.Item{item(t, "romeo@example.org", "")})}
	hub := presence.New([]string{"example.org"}, both, presence.Limits{Settle: time.Hour})
	r := start(t, only, func(o *Options) { o.Unrestricted = true })
	r.Relay(hub)
	k := r.server.serve()
	k.send("%s", delegationOnly+presenceToo)
	k.send("<presence from='romeo@example.org/orchard' to='bot@contacts.example.org'/>") // an echo
	k.send("<presence from='juliet@example.org/balcony' to='contacts.example.org' id='x' xml:lang='en'><show>away</show><status>a &amp; b</status><c xmlns='http://jabber.org/protocol/caps' ver='1'/></presence>")
	k.send("<presence from='romeo@example.org/orchard' to='contacts.example.org'/>")
	// To romeo or to his resource: that depends on who was seen first.
	either := strings.NewReplacer("to='romeo@example.org/orchard'", "to='romeo@example.org'", "to='juliet@example.org/balcony'", "to='juliet@example.org'")
	got := map[string]bool{either.Replace(k.next()): true, either.Replace(k.next()): true}
	for _, want := range []string{
		"<presence from='juliet@example.org/balcony' to='romeo@example.org'><show>away</show><status>a &amp; b</status><c xmlns='http://jabber.org/protocol/caps' ver='1'></c></presence>",
		"<presence from='romeo@example.org/orchard' to='juliet@example.org'></presence>",
	} {
		if !got[want] {
			t.Errorf("no %s in %v", want, got)
		}
	}
	k.send("<presence type='unavailable' from='juliet@example.org/balcony'><status>bye</status></presence>")
	k.expect("<presence type='unavailable' from='juliet@example.org/balcony' to='romeo@example.org'><status>bye</status></presence>")
	k.quiet()
}

func TestRelayKeepsToItsHosts(t *testing.T) {
	r := start(t)
	k := r.server.serve()
	k.quiet()
	s, _ := r.current()
	for _, p := range []presence.Stanza{
		{From: mustJID(t, "mallory@evil.example/x"), To: mustJID(t, "juliet@example.org")},
		{From: mustJID(t, "juliet@example.org/x"), To: mustJID(t, "bot@contacts.example.org")}, // would come back as news
		{From: mustJID(t, "juliet@example.org/x"), To: mustJID(t, "romeo@example.org")},        // not unrestricted
	} {
		if err := (presenceSender{r.Component, s}).Relay(p); err != nil {
			t.Error(err)
		}
	}
	k.quiet()
}

func TestPayload(t *testing.T) {
	for in, want := range map[string]string{
		"<presence/>": "",
		"<presence from='a'>text<show>dnd</show> </presence>":                                                            "<show>dnd</show>",
		"<presence><x xmlns='a'><y xmlns='b' c='&lt;'/><z/></x><w/></presence>":                                          "<x xmlns='a'><y xmlns='b' c='&lt;'></y><z></z></x><w></w>",
		"<presence xmlns:p='urn:p'><p:x p:y='1' z='2'><p:a/></p:x></presence>":                                           "<x xmlns='urn:p' xmlns:ns0='urn:p' ns0:y='1' z='2'><a></a></x>",
		"<presence><status xml:lang='de'>x</status></presence>":                                                          "<status xml:lang='de'>x</status>",
		"<presence><a xmlns:n='http://www.w3.org/XML/1998/namespace' n:foo='1'/></presence>":                             "<a xml:foo='1'></a>",
		"<presence><n:foo xmlns:n='http://www.w3.org/XML/1998/namespace'/></presence>":                                   "<xml:foo></xml:foo>",
		"<presence><status><![CDATA[<&]]></status></presence>":                                                           "<status>&lt;&amp;</status>",
		"<presence><show>away</show><x xmlns='a'>" + strings.Repeat("x", maxPayload) + "</x></presence>":                 "<show>away</show>",
		"<presence>" + strings.Repeat("<a xmlns='b'/>", 10_000) + "<priority>5</priority></presence>":                    "<priority>5</priority>",
		"<presence><show>xa</show>" + strings.Repeat("<a xmlns='b'>", 100) + strings.Repeat("</a>", 100) + "</presence>": "<show>xa</show>",
		"<presence><status>" + strings.Repeat("x", maxPayload) + "</status></presence>":                                  "",
	} {
		if got := string(payload([]byte(in))); got != want {
			t.Errorf("%.100s: got %.200s, want %s", in, got, want)
		}
	}
}

// What is relayed is one well-formed piece of XML, whatever came in.
func FuzzPayload(f *testing.F) {
	f.Add("<show>away</show><x xmlns='a' xmlns:p='b' p:c='d'/>")
	f.Fuzz(func(t *testing.T, children string) {
		b := payload([]byte("<presence>" + children + "</presence>"))
		if len(b) > maxPayload {
			t.Errorf("%d bytes", len(b))
		}
		frames := xmlstream.NewReader(strings.NewReader("<presence>"+string(b)+"</presence><next/>"), 1<<20)
		data, whole, err := frames.Next()
		if err != nil || !whole {
			t.Fatalf("%q: %v", b, err)
		}
		if data, _, err := frames.Next(); err != nil || string(data) != "<next/>" {
			t.Errorf("%q breaks out: %q, %v", b, data, err)
		}
		if again := payload(data); string(again) != string(b) && len(again) <= maxPayload && again != nil {
			t.Errorf("%q became %q", b, again)
		}
	})
}

// A tag that whoever reads it might wait at is not relayed, see padding.
func TestLongTagsAreNotRelayed(t *testing.T) {
	for name, extra := range map[string]string{
		"attribute":  "<x xmlns='urn:x' a='" + strings.Repeat("a", maxTag) + "'/>",
		"attributes": "<x xmlns='urn:x' a='" + strings.Repeat("a", maxTag/2) + "' b='" + strings.Repeat("b", maxTag/2) + "'/>",
		"escaped":    "<x xmlns='urn:x' a='" + strings.Repeat("&lt;", maxTag/4) + "'/>",
		"namespace":  "<x xmlns='urn:" + strings.Repeat("a", maxTag) + "'/>",
		"deep":       "<x xmlns='urn:x'><y><z a='" + strings.Repeat("a", maxTag) + "'/></y></x>",
	} {
		if got := string(payload([]byte("<presence xmlns='jabber:component:accept'><show>away</show>" + extra + "</presence>"))); got != "<show>away</show>" {
			t.Errorf("%s: %.100s", name, got)
		}
	}
	text := "<x xmlns='urn:x'>" + strings.Repeat("a", 2*maxTag) + "</x>"
	if got := string(payload([]byte("<presence xmlns='jabber:component:accept'>" + text + "</presence>"))); got != text {
		t.Errorf("text: %.100s", got)
	}
}

func TestAsking(t *testing.T) {
	const ejabberd = "<iq type='error' id='%s' from='%s'><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>User session not found</text></error></iq>"
	const prosody = "<iq type='error' id='%s' from='%s'><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
	for name, tt := range map[string]struct {
		learnt, answer string
		asked          bool
		left           int
	}{
		"gone":                  {ejabberd, ejabberd, true, 0},
		"there":                 {ejabberd, "<iq type='result' id='%s' from='%s'/>", true, 1},
		"there, does not know":  {ejabberd, strings.Replace(ejabberd, "<iq ", "<iq xml:lang='en' ", 1), true, 1},
		"there, without a text": {ejabberd, prosody, true, 1},
		"not to be told apart":  {prosody, "", false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, only, func(o *Options) { o.Timing.Ask = 5 * time.Millisecond; o.Timing.Silent = time.Nanosecond })
			k := r.server.serve()
			k.quiet()
			s, _ := r.current()
			r.testAbsence(s, "example.org")
			k.all = true
			e := k.nextElement()
			k.send(tt.learnt, e.Get("id"), e.Get("to"))
			k.quiet()
			full := mustJID(t, juliet)
			r.sessions.Connected(full)
			if tt.asked {
				e := k.nextElement()
				if e.Get("to") != juliet || e.Child(nsPing, "ping") == nil {
					t.Errorf("got %+v", e)
				}
				k.send(tt.answer, e.Get("id"), juliet)
			}
			if tt.left == 0 { // it may be asked again before that is known
				waitFor(t, "gone", func() bool { n, _ := r.sessions.Counts(); return n == 0 })
			} else if tt.asked {
				k.nextElement() // it is asked again after a while
			}
			if n, _ := r.sessions.Counts(); n != tt.left {
				t.Errorf("%d sessions, want %d", n, tt.left)
			}
		})
	}
}
