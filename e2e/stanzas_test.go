package e2e

import (
	"fmt"
	"strings"
	"testing"

	"rosterd/e2e/harness"
)

// No stanza that a user can send ends the component's stream, or keeps another
// user from an answer. Each is followed by a query of juliet's.
func TestHostileStanzas(t *testing.T) { onServers(t, testHostileStanzas) }

func testHostileStanzas(t *testing.T, srv server) {
	var (
		// 110 KB for the server, which writes it in 660 KB for rosterd: it takes
		// no answer that repeats it, but ends the stream.
		quotes = strings.Repeat("'", 110_000)
		longID = func(kind, to, payload string) string {
			return strings.NewReplacer("<iq type='"+kind+"' id='x'", `<iq type="`+kind+`" id="`+quotes+`"`).Replace(iq(kind, "x", to, payload))
		}
		deep = func(n int) string {
			return "<x xmlns='urn:u'>" + strings.Repeat("<a>", n) + strings.Repeat("</a>", n) + "</x>"
		}
		// Prosody writes the namespace of each element and attribute in full: of
		// 17 KB come 10 MB.
		elements = func(n int) string {
			return "<y xmlns='urn:d' xmlns:x='" + strings.Repeat("u", 5000) + "'>" + strings.Repeat("<x:a/>", n) + "</y>"
		}
		attributes = func(n int) string {
			var b strings.Builder
			for i := range n {
				fmt.Fprintf(&b, " x:a%d=''", i)
			}
			return "<y xmlns='urn:d' xmlns:x='" + strings.Repeat("u", 5000) + "'" + b.String() + "/>"
		}
		inQuery = func(payload string) string { return "<query xmlns='jabber:iq:roster'>" + payload + "</query>" }
		message = func(payload string) string { return "<message to='" + domain + "'>" + payload + "</message>" }
		// What is well-formed to the server but not when it is sent back.
		xmlNames = "<y xmlns='urn:d' xml:foo='1'><xml:bar/></y>"
	)
	cases := []struct {
		name, stanzas string
		answer        string // condition of the answer to the id x; "": there need not be one
	}{
		{"presence with a priority out of range", "<presence to='" + domain + "'><priority>500</priority></presence><presence><priority>500</priority></presence>", ""},
		{"presence with a priority that is none", "<presence to='" + domain + "'><priority>abc</priority><priority/><show>foo</show></presence>", ""},
		{"presence of every type", "<presence to='" + domain + "' type='probe'/><presence to='" + domain + "' type='subscribe'/>" +
			"<presence to='x@" + domain + "/y' type='subscribe'/><presence to='" + domain + "' type='unsubscribe'/>" +
			"<presence to='" + domain + "' type='subscribed'/><presence to='" + domain + "' type='unsubscribed'/>" +
			"<presence to='" + domain + "' type='error'/><presence to='" + domain + "' type='unavailable'/>", ""},
		{"get without a payload of ours", iq("get", "x", domain, "<query xmlns='urn:unknown'/>"), "service-unavailable"},
		{"set to a node of the component", iq("set", "x", "node@"+domain, "<ping xmlns='urn:xmpp:ping'/>"), ""},
		{"results and errors nobody waits for", iq("result", "x", domain, "") + iq("error", "y", domain, "") +
			iq("result", "", domain, rosterQuery) + iq("error", "z", domain, "<error/>"), ""},
		{"id with line breaks", iq("get", "a&#10;b&#9;c&#13;d", domain, "<ping xmlns='urn:xmpp:ping'/>") + iq("get", "a&#10;b&#9;c&#13;d", "", rosterQuery), ""},
		{"empty id", iq("get", "", domain, "<ping xmlns='urn:xmpp:ping'/>") + iq("get", "", "", rosterQuery), ""},
		{"names in the XML namespace", message(xmlNames) + iq("get", "y", domain, xmlNames) + iq("get", "z", "", inQuery(xmlNames)) +
			iq("set", "x", "", inQuery(xmlNames)), "not-allowed"},
		{"names of the stream's own namespaces", message("<error xmlns='http://etherx.jabber.org/streams'/><stream:stream/><handshake xmlns='jabber:component:accept'/>") +
			iq("set", "x", domain, "<error xmlns='http://etherx.jabber.org/streams'/>"), "service-unavailable"},
		{"text where none belongs", message("a]]&gt;b<![CDATA[</message><stream:error/>]]>&#x10FFFF;\u0085\u2028\ufeff"), ""},
		{"other element in the roster's namespace", iq("get", "x", "", "<foo xmlns='jabber:iq:roster'/>"), "service-unavailable"},
		{"long id in a ping", longID("get", domain, "<ping xmlns='urn:xmpp:ping'/>"), ""},
		{"long id in a disco#info", longID("get", domain, "<query xmlns='http://jabber.org/protocol/disco#info'/>"), ""},
		{"long id in an unknown get", longID("get", domain, "<query xmlns='urn:unknown'/>"), ""},
		{"long id in a forged delegation", longID("set", domain, forged), ""},
		{"long id in a roster get", longID("get", "", rosterQuery), ""},
		{"long id in a roster set", longID("set", "", rosterQuery), ""},
		{"long id in a get of another's roster", longID("get", "juliet@example.org", rosterQuery), ""},
		{"long node in a disco#info", iq("get", "x", domain, "<query xmlns='http://jabber.org/protocol/disco#info' node=\""+quotes+"\"/>"), "service-unavailable"},
		{"long text", message(quotes) + iq("set", "x", "", inQuery(quotes)), "not-allowed"},
		{"deep message", message(deep(srv.depth)), ""},
		{"deep get", iq("get", "x", domain, deep(srv.depth)), "service-unavailable"},
		{"deep forged delegation", iq("set", "x", domain, "<delegation xmlns='urn:xmpp:delegation:2'>"+deep(srv.depth/3)+"</delegation>"), "service-unavailable"},
		{"deep roster set", iq("set", "x", "", inQuery(deep(srv.depth/6))), "not-allowed"},
		{"expansion in a get", iq("get", "x", domain, elements(2000)), "policy-violation"},
		{"expansion by attributes in a get", iq("get", "x", domain, attributes(400)), srv.expanded},
		{"expansion in a message", message(elements(400)) + message(attributes(400)), ""},
		{"expansion in a roster set", iq("set", "x", "", inQuery(elements(400))), ""},
		{"expansion by attributes in a roster get", iq("get", "x", "", inQuery(attributes(400))), ""},
		{"expansion in presence", "<presence to='" + domain + "'>" + elements(400) + "</presence>", ""},
	}
	w := start(t, setup{server: srv})
	w.backend.Set("juliet", contacts("Nurse"))
	w.backend.Set("romeo", contacts("Nurse"))
	ctx := bounded(t)
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	// The library must bear what comes back to its own session.
	romeo := w.login(ctx, t, slixmpp, "romeo@example.org/attack")
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			ctx := bounded(t)
			id := fmt.Sprint("x", i)
			send(t, romeo, strings.Replace(c.stanzas, "id='x'", "id='"+id+"'", 1))
			if c.answer != "" {
				wantError(t, answerTo(ctx, t, romeo, id), c.answer)
			}
			handled(ctx, t, romeo)
			wantRoster(ctx, t, juliet, item("Nurse"))
			wantRoster(ctx, t, romeo, item("Nurse"))
			wantOneStream(ctx, t, w)
		})
	}
}

// Floods of stanzas leave room for the queries of others.
func TestFloods(t *testing.T) { onServers(t, testFloods) }

func testFloods(t *testing.T, srv server) {
	w := start(t, setup{server: srv})
	w.backend.Set("juliet", contacts("Nurse"))
	w.backend.SetFault("romeo", harness.Fault{Hang: true})
	repeat := func(n int, one func(id string) string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(one(fmt.Sprint("f", i)))
		}
		return b.String()
	}
	for name, flood := range map[string]string{
		"pings":                        repeat(5000, func(id string) string { return iq("get", id, domain, "<ping xmlns='urn:xmpp:ping'/>") }),
		"results":                      repeat(5000, func(id string) string { return iq("result", id, domain, "") }),
		"presence":                     repeat(2000, func(string) string { return "<presence><show>away</show></presence><presence/>" }),
		"sets":                         repeat(2000, func(id string) string { return iq("set", id, "", rosterQuery) }),
		"queries of a hanging backend": repeat(1000, func(id string) string { return iq("get", id, "", rosterQuery) }),
	} {
		t.Run(name, func(t *testing.T) {
			ctx := bounded(t)
			juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
			romeo := w.login(ctx, t, gosrc, "romeo@example.org/street")
			send(t, romeo, flood)
			wantRoster(ctx, t, juliet, item("Nurse"))
			handled(ctx, t, romeo)
			wantRoster(ctx, t, juliet, item("Nurse"))
			wantOneStream(ctx, t, w)
		})
	}
}
