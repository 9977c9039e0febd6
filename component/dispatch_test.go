package component

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

func TestDisco(t *testing.T) {
	r := start(t)
	k := r.server.serve()
	disco := func(node string) string {
		k.send("<iq type='get' id='1' from='romeo@example.org/x' to='contacts.example.org'><query xmlns='http://jabber.org/protocol/disco#info'%s/></iq>", node)
		return k.next()
	}
	got := disco("")
	for _, want := range []string{"<iq type='result' id='1' from='contacts.example.org' to='romeo@example.org/x'>",
		`<identity name="rosterd" category="component" type="generic">`, `var="http://jabber.org/protocol/disco#info"`, `var="jabber:iq:version"`, `var="urn:xmpp:ping"`} {
		if !strings.Contains(got, want) {
			t.Errorf("%s lacks %s", got, want)
		}
	}
	for _, version := range []string{"1", "2"} {
		node := "urn:xmpp:delegation:" + version + "::jabber:iq:roster"
		if got := disco(" node='" + node + "'"); !strings.Contains(got, `node="`+node+`"`) || !strings.Contains(got, `<feature var="jabber:iq:roster">`) {
			t.Errorf("got %s", got)
		}
		node = "urn:xmpp:delegation:" + version + ":bare:jabber:iq:roster"
		if got := disco(" node='" + node + "'"); !strings.Contains(got, `node="`+node+`"`) || !strings.Contains(got, "type='result'") {
			t.Errorf("got %s", got)
		}
	}
	for _, node := range []string{"", "x", "urn:xmpp:delegation:2::jabber:iq:private"} {
		if got := disco(" node='" + node + "'"); !strings.Contains(got, "service-unavailable") {
			t.Errorf("node %q: got %s", node, got)
		}
	}
}

func TestVersionAndPing(t *testing.T) {
	r := start(t)
	k := r.server.serve()
	k.send("<iq type='get' id='1' from='romeo@example.org/x' to='contacts.example.org'><query xmlns='jabber:iq:version'/></iq>")
	if got := k.next(); !strings.Contains(got, "<name>rosterd</name><version>1.0</version>") || !strings.Contains(got, "type='result'") {
		t.Errorf("got %s", got)
	}
	k.send("<iq type='get' id='2' from='romeo@example.org/x' to='contacts.example.org'><ping xmlns='urn:xmpp:ping'/></iq>")
	k.expect("<iq type='result' id='2' from='contacts.example.org' to='romeo@example.org/x'></iq>")
	k.send("<iq type='get' id='' from='romeo@example.org/x' to='contacts.example.org'><ping xmlns='urn:xmpp:ping'/></iq>")
	k.expect("<iq type='result' id='' from='contacts.example.org' to='romeo@example.org/x'></iq>")
}

func TestEveryOtherRequestIsRefused(t *testing.T) {
	r := start(t)
	k := r.server.serve()
	for _, kind := range []string{"get", "set"} {
		for _, payload := range []string{"<query xmlns='jabber:iq:private'/>", "<x/>", "", "<a/><b/>", "<error/>"} {
			k.send("<iq type='%s' id='1' from='romeo@example.org/x' to='contacts.example.org'>%s</iq>", kind, payload)
			k.expect("<iq type='error' id='1' from='contacts.example.org' to='romeo@example.org/x'><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>")
		}
		k.send("<iq type='set' id='1' from='romeo@example.org/x' to='contacts.example.org'><ping xmlns='urn:xmpp:ping'/></iq>")
		k.expect("<iq type='error' id='1' from='contacts.example.org' to='romeo@example.org/x'><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>")
		k.send("<iq type='get' id='1' from='romeo@example.org/x' to='me@contacts.example.org/r'><ping xmlns='urn:xmpp:ping'/></iq>")
		k.expect("<iq type='error' id='1' from='me@contacts.example.org/r' to='romeo@example.org/x'><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>")
	}
}

// oddStanzas are what somebody can send, or a server may be led to send. None
// has an answer, and none ends the stream.
var oddStanzas = map[string]string{
	"result":                 "<iq type='result' id='1' from='romeo@example.org/x'/>",
	"error":                  "<iq type='error' id='1' from='romeo@example.org/x'><error type='cancel'/></iq>",
	"error without child":    "<iq type='error' from='romeo@example.org/x'/>",
	"unknown type":           "<iq type='foo' id='1' from='romeo@example.org/x'><a/></iq>",
	"no type":                "<iq id='1' from='romeo@example.org/x'><a/></iq>",
	"presence priority":      "<presence from='romeo@example.org/x'><priority>500</priority></presence>",
	"presence priority text": "<presence from='romeo@example.org/x'><priority>abc</priority></presence>",
	"presence error":         "<presence type='error' from='romeo@example.org/x'/>",
	"presence foo":           "<presence type='foo' from='romeo@example.org/x'/>",
	"presence subscribe":     "<presence type='subscribe' from='romeo@example.org'/>",
	"message":                "<message from='romeo@example.org/x'><body>hi</body></message>",
	"message error":          "<message type='error' from='example.org'><delegation xmlns='urn:xmpp:delegation:2'><delegated namespace='jabber:iq:roster'/></delegation></message>",
	"message foo":            "<message type='foo' from='romeo@example.org/x'/>",
	"unknown stanza":         "<foo xmlns='urn:foo'><bar/></foo>",
	"unknown stream element": "<stream:foo/>",
	"CDATA":                  "<message from='romeo@example.org/x'><body><![CDATA[</body></message></stream:stream>]]></body></message>",
	"comment":                "<message><!-- > </stream:stream> --></message>",
	"comment that is none":   "<message><!-- a -- b ---></message>",
	"instruction":            "<message><?y > </stream:stream> ?></message>",
	"end of CDATA":           "<message>]]></message>",
	"attribute twice":        "<message a='1' a='2'/>",
	"noncharacters":          "<message a='\uFFFE'>\uFFFF</message>",
	"white space":            " \n\t ",
	"undeclared prefix":      "<message><x:y/></message>",
	"several colons":         "<message><a:b:c/></message>",
	"attribute with colons":  "<message a:b:c='1'/>",
	"markup in an attribute": "<message from='a>b' to=\"'>\"/>",
	"broken entity":          "<message a='&nbsp;'>&foo; & so &#0; on</message>",
	"deep":                   strings.Repeat("<a>", 20_000) + strings.Repeat("</a>", 20_000),
	"wide":                   "<message>" + strings.Repeat("<a/>", 20_000) + "</message>",
	"long":                   "<message><body>" + strings.Repeat("x", 2*maxStanza) + "</body></message>",
	"many attributes":        "<presence from='romeo@example.org/x' type='unavailable'" + strings.Repeat(" a='1'", 100_000) + "/>",
	"long id":                "<iq type='get' from='romeo@example.org/x' id='" + strings.Repeat("&apos;", 110_000) + "'><ping xmlns='urn:xmpp:ping'/></iq>",
	"long delegated result":  "<iq type='result' from='example.org' id='1'><delegation xmlns='urn:xmpp:delegation:2'>" + strings.Repeat("<a/>", maxStanza/4+1) + "</delegation></iq>",
}

func TestNoStanzaEndsTheStream(t *testing.T) {
	t.Parallel()
	r := start(t)
	k := r.server.serve()
	for name, odd := range oddStanzas {
		t.Run(name, func(t *testing.T) {
			k.t = t
			k.send("%s", odd)
			k.quiet()
		})
	}
	if n := r.counted(t, "rosterd_reconnects_total"); n != 0 {
		t.Errorf("%v reconnects", n)
	}
}

func TestOddRequestsAreAnsweredOnce(t *testing.T) {
	t.Parallel()
	r := start(t)
	k := r.server.serve()
	long := strings.Repeat("x", 2<<20)
	for name, odd := range map[string]string{
		"too long":       "<iq type='get' id='1' from='romeo@example.org/x'><query xmlns='jabber:iq:roster'>" + long + "</query></iq>",
		"too deep":       "<iq type='get' id='1' from='romeo@example.org/x'>" + strings.Repeat("<a>", 20_000) + strings.Repeat("</a>", 20_000) + "</iq>",
		"twice, one id":  "<iq type='get' id='1' from='romeo@example.org/x'><x xmlns='a'/></iq>",
		"the same again": "<iq type='get' id='1' from='romeo@example.org/x'><x xmlns='a'/></iq>",
	} {
		t.Run(name, func(t *testing.T) {
			k.t = t
			k.send("%s", odd)
			if got := k.next(); !strings.HasPrefix(got, "<iq type='error' id='1' to='romeo@example.org/x'>") {
				t.Errorf("got %s", got)
			}
			k.quiet()
		})
	}
	t.Run("no id", func(t *testing.T) {
		k.t = t
		k.send("<iq type='get' from='romeo@example.org/x'><x xmlns='a'/></iq>")
		if got := k.next(); !strings.HasPrefix(got, "<iq type='error' to='romeo@example.org/x'>") {
			t.Errorf("got %s", got)
		}
	})
	// The user chose an id that the answer cannot repeat: the server's own IQ is
	// answered all the same.
	t.Run("delegated with a long id", func(t *testing.T) {
		k.t = t
		k.send("%s", delegate(nsDelegation2, "<iq xmlns='jabber:client' type='get' from='"+juliet+"' id='"+strings.Repeat("&apos;", 110_000)+"'>"+rosterGet+"</iq>"))
		if got := k.next(); !strings.HasPrefix(got, "<iq type='error' id='D' from='contacts.example.org' to='example.org'>") {
			t.Errorf("got %s", got)
		}
	})
}

// An item list that the server would not take in one stanza ends no stream
// either: the rest is handed back, to be pushed.
func TestLongRosterIsCutWhereItFits(t *testing.T) {
	r := start(t)
	var items []roster.Item
	for i := range 5000 {
		items = append(items, item(t, fmt.Sprintf("contact%05d@example.org", i), "A name of some length", "A group", "Another group"))
	}
	r.rosters.answer = func(jid.JID) (*roster.Roster, error) { return roster.New(items), nil }
	r.rosters.rest = make(chan []roster.Item, 1)
	k := r.server.serve()
	k.send("%s", delegate(nsDelegation2, "<iq xmlns='jabber:client' type='get' id='1' from='"+juliet+"'>"+rosterGet+"</iq>"))
	got := k.next()
	rest := receive(t, r.rosters.rest)
	if n := strings.Count(got, "<item "); n == 0 || n+len(rest) != len(items) || len(got) > defaultMaxStanza || !strings.Contains(got, "</query></iq>") {
		t.Errorf("%d items in %d bytes, %d left", n, len(got), len(rest))
	}
}

func TestPresence(t *testing.T) {
	r := start(t)
	k := r.server.serve()
	for _, ignored := range []string{
		"<presence from='romeo@evil.example/x'/>",
		"<presence from='romeo@example.org'/>",
		"<presence from='example.org/x'/>",
		"<presence from='romeo@sub.example.org/x'/>",
		"<presence from='ro\u00dfmeo@example.org/x'/>", // nobody knows yet how the server would prepare it
		"<presence/>",
		"<presence type='probe' from='romeo@example.org/x'/>",
		"<presence type='error' from='romeo@example.org/x'/>",
		"<presence type='unavailable' from='romeo@example.org/x'/>",
	} {
		k.send("%s", ignored)
	}
	k.quiet()
	if n, _ := r.sessions.Counts(); n != 0 {
		t.Errorf("%d sessions", n)
	}
	k.send("<presence from='romeo@example.org/x'><delay xmlns='urn:xmpp:delay' stamp='2026-01-01T00:00:00Z'/></presence><presence from='romeo@example.org/x'><show>away</show></presence>" +
		"<presence from='romeo@example.org/y z'/><presence from='nurse@example.net/x'/>")
	k.quiet()
	if n, interested := r.sessions.Counts(); n != 3 || interested != 0 {
		t.Errorf("%d sessions, %d interested", n, interested)
	}
	for range 2 {
		k.send("<presence type='unavailable' from='romeo@example.org/y z'/>")
	}
	k.send("<presence type='unavailable' from='nurse@example.net/x'/>")
	k.quiet()
	if n, _ := r.sessions.Counts(); n != 1 || !r.sessions.HasConnected(mustJID(t, "romeo@example.org")) {
		t.Errorf("%d sessions", n)
	}
	r.rosters.mu.Lock()
	defer r.rosters.mu.Unlock()
	if !slices.Equal(r.rosters.gone, []string{"romeo@example.org/x", "romeo@example.org/y z", "romeo@example.org/y z", "nurse@example.net/x"}) {
		t.Errorf("gone: %v", r.rosters.gone)
	}
}

// What is remote text in the log stays one line and short.
func TestRemoteTextInTheLog(t *testing.T) {
	r := start(t)
	k := r.server.serve()
	k.send("%s", delegate(nsDelegation2, "<iq xmlns='jabber:client' type='get' id='1' from='"+strings.Repeat("evil&#10;level=ERROR ", 200)+"'>"+rosterGet+"</iq>"))
	k.next()
	k.quiet()
	for line := range strings.Lines(r.log.String()) {
		if len(line) > 1000 || strings.HasPrefix(line, "level=") {
			t.Errorf("log line %q", line)
		}
	}
}

func TestPingIsNoBusyLoop(t *testing.T) {
	r := start(t, func(o *Options) { o.Timing.Ping, o.Timing.Dead = 40*time.Millisecond, 10*time.Second })
	k := r.server.serve()
	began := time.Now()
	for range 3 {
		k.nextElement()
	}
	if d := time.Since(began); d < 60*time.Millisecond {
		t.Errorf("three pings within %v", d)
	}
}
