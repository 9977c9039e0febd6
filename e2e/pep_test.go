package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"rosterd/e2e/harness"
)

// The nodes that clients use between contacts.
const (
	nodeNick     = "http://jabber.org/protocol/nick"                    // XEP-0172
	nodeAvatar   = "urn:xmpp:avatar:data"                               // XEP-0084
	nodeMetadata = "urn:xmpp:avatar:metadata"                           // XEP-0084
	nodeDevices  = "eu.siacs.conversations.axolotl.devicelist"          // XEP-0384, version 0.3
	pubsub       = "<pubsub xmlns='http://jabber.org/protocol/pubsub'>" // XEP-0060
)

var nodes = []string{nodeNick, nodeMetadata, nodeDevices}

// loginPEP logs in a client that wants the events of nodes. With slixmpp it does as
// real ones do: asks for the roster, then sends presence.
func (w *world) loginPEP(ctx context.Context, t *testing.T, lib library, jid string) harness.Client {
	t.Helper()
	client := w.loginAs(ctx, t, lib, harness.ClientOptions{JID: jid, Notify: nodes, Invisible: lib.name == slixmpp.name})
	if w.rosterd != nil {
		roster(ctx, t, client)
	}
	show(t, client, "")
	return client
}

// publish publishes what a contact is to get an event of; the text is in each.
func publish(ctx context.Context, t *testing.T, client harness.Client, text string) {
	t.Helper()
	for node, payload := range map[string]string{
		nodeNick:     "<nick xmlns='" + nodeNick + "'>" + text + "</nick>",
		nodeAvatar:   "<data xmlns='" + nodeAvatar + "'>" + text + "</data>",
		nodeMetadata: "<metadata xmlns='" + nodeMetadata + "'><info id='" + text + "' bytes='4' type='image/png'/></metadata>",
		nodeDevices:  "<list xmlns='eu.siacs.conversations.axolotl'><device id='1' label='" + text + "'/></list>",
	} {
		id := "publish-" + text + node
		answer := request(ctx, t, client, id, iq("set", id, "", pubsub+"<publish node='"+node+"'><item id='current'>"+payload+"</item></publish></pubsub>"))
		if answer.Type != "result" {
			t.Fatalf("publishing: %s", answer.XML)
		}
	}
}

// hasEvent says whether a client was told what a user has published at a node.
func hasEvent(client harness.Client, from, node, text string) bool {
	for _, s := range client.Stanzas() {
		if s.Name == "message" && s.From == from && strings.Contains(s.XML, node) && strings.Contains(s.XML, text) {
			return true
		}
	}
	return false
}

// waitEvents waits until a client was told of each node.
func waitEvents(ctx context.Context, t *testing.T, client harness.Client, from, text string) {
	t.Helper()
	for _, node := range nodes {
		poll(ctx, t, func() bool { return hasEvent(client, from, node, text) },
			func() string { return fmt.Sprintf("no event %q of %s from %s", text, node, from) })
	}
}

// fetch asks for what a user has published at a node.
func fetch(ctx context.Context, t *testing.T, client harness.Client, of, node, id string) harness.Stanza {
	t.Helper()
	return request(ctx, t, client, id, iq("get", id, of, pubsub+"<items node='"+node+"'/></pubsub>"))
}

// wantFetched wants that a client may fetch what a user has published.
func wantFetched(ctx context.Context, t *testing.T, client harness.Client, of, text string) {
	t.Helper()
	for _, node := range []string{nodeAvatar, nodeDevices} {
		if answer := fetch(ctx, t, client, of, node, "fetch-"+text+node); answer.Type != "result" || !strings.Contains(answer.XML, text) {
			t.Errorf("fetching %s of %s: %s", node, of, answer.XML)
		}
	}
}

// wantForbidden wants that a client may not.
func wantForbidden(ctx context.Context, t *testing.T, client harness.Client, of, text string) {
	t.Helper()
	for _, node := range []string{nodeAvatar, nodeDevices} {
		answer := fetch(ctx, t, client, of, node, "fetch-"+text+node)
		if answer.Type != "error" || !strings.Contains(answer.XML, "forbidden") && !strings.Contains(answer.XML, "presence-subscription-required") {
			t.Errorf("fetching %s of %s: %s", node, of, answer.XML)
		}
	}
}

// own is an item of the server's own roster.
func own(name string) harness.Item {
	return harness.Item{JID: strings.ToLower(name) + "@example.org", Name: name, Subscription: "both"}
}

// setOwn lists two users in each other's roster of the server, or takes them off.
func (w *world) setOwn(ctx context.Context, t *testing.T, subscription string, names ...string) {
	t.Helper()
	for i, name := range names {
		item := own(names[1-i])
		item.Subscription = subscription
		if err := w.server.SetOwnItems(ctx, own(name).JID, item); err != nil {
			t.Fatal(err)
		}
	}
}

// What the tests of the server's own rosters wait for is there if these rosters are as
// they should be, and is not if they are not: rosterd does not run here.
func TestOwnRostersByHand(t *testing.T) { onServers(t, testOwnRostersByHand) }

func testOwnRostersByHand(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: stock(srv), later: true, options: keeping(harness.ServerOptions{Grants: harness.Grants{NoDelegation: true}, Edits: true})})
	const julietFull, romeoFull = "juliet@example.org/balcony", "romeo@example.org/street"
	begin := func(lib library) (juliet, romeo harness.Client) {
		return w.loginPEP(ctx, t, gosrc, julietFull), w.loginPEP(ctx, t, lib, romeoFull)
	}
	juliet, romeo := begin(slixmpp)
	publish(ctx, t, juliet, "strange")
	wantForbidden(ctx, t, romeo, "juliet@example.org", "strange")
	say(ctx, t, romeo, juliet, "strange")
	wantNothing(ctx, t, juliet, romeo, "strange")
	juliet.Close()
	romeo.Close()

	w.setOwn(ctx, t, "both", "Juliet", "Romeo")
	for _, user := range []string{"juliet", "romeo"} {
		if items, err := w.server.OwnRoster(ctx, user+"@example.org"); err != nil || len(items) != 1 || items[0].Subscription != "both" {
			t.Fatalf("%s has %+v, %v", user, items, err)
		}
	}
	juliet, romeo = begin(slixmpp)
	wantContacts(ctx, t, juliet, romeo, "both")
	juliet.Close()
	romeo.Close()

	w.setOwn(ctx, t, "remove", "Juliet", "Romeo")
	juliet, romeo = begin(slixmpp)
	wantStrangers(ctx, t, juliet, romeo, "none")
}

// keeping are options of a server that shows what its rosters are good for.
func keeping(o harness.ServerOptions) harness.ServerOptions {
	o.OwnRosters, o.PEP, o.BlockStrangers = true, true, true
	return o
}

// say sends a message to somebody.
func say(ctx context.Context, t *testing.T, from, to harness.Client, text string) {
	t.Helper()
	send(t, from, "<message type='chat' to='"+bareOf(to)+"'><body>"+text+"</body></message>")
	if err := from.Ping(ctx, "example.org"); err != nil {
		t.Fatal(err)
	}
}

func bareOf(client harness.Client) string {
	bare, _, _ := strings.Cut(client.JID(), "/")
	return bare
}

// heard says whether a client has a message from a user.
func heard(client harness.Client, from, text string) bool {
	for _, s := range client.Stanzas() {
		if s.Name == "message" && strings.HasPrefix(s.From, from+"/") && strings.Contains(s.XML, "<body>"+text) {
			return true
		}
	}
	return false
}

// wantContacts wants that two users who are connected are contacts to their server,
// in all that it decides by its rosters.
func wantContacts(ctx context.Context, t *testing.T, a, b harness.Client, text string) {
	t.Helper()
	for _, side := range [][2]harness.Client{{a, b}, {b, a}} {
		from, to := side[0], side[1]
		waitSeen(ctx, t, to, from.JID(), "available")
		publish(ctx, t, from, text+bareOf(from))
		waitEvents(ctx, t, to, bareOf(from), text+bareOf(from))
		wantFetched(ctx, t, to, bareOf(from), text+bareOf(from))
		say(ctx, t, from, to, text)
		poll(ctx, t, func() bool { return heard(to, bareOf(from), text) }, func() string { return "no message from " + bareOf(from) })
		for _, state := range []string{"away", "unavailable", "dnd"} {
			show(t, from, state)
			waitSeen(ctx, t, to, from.JID(), state)
		}
		show(t, from, "")
		waitSeen(ctx, t, to, from.JID(), "available")
	}
}

// wantStrangers wants that two users who have just logged in are none.
func wantStrangers(ctx context.Context, t *testing.T, a, b harness.Client, text string) {
	t.Helper()
	for _, side := range [][2]harness.Client{{a, b}, {b, a}} {
		from, to := side[0], side[1]
		publish(ctx, t, from, text+bareOf(from))
		wantForbidden(ctx, t, to, bareOf(from), text+bareOf(from))
		say(ctx, t, from, to, text)
	}
	wantNothing(ctx, t, a, b, text)
	wantNothing(ctx, t, b, a, text)
	wantUnseen(t, a, bareOf(b))
	wantUnseen(t, b, bareOf(a))
}

// wantNothing wants that a client got neither an event nor a message from another
// that had this text.
func wantNothing(ctx context.Context, t *testing.T, client, from harness.Client, text string) {
	t.Helper()
	for _, c := range []harness.Client{from, client} {
		if err := c.Ping(ctx, "example.org"); err != nil {
			t.Fatal(err)
		}
	}
	for _, node := range nodes {
		if hasEvent(client, bareOf(from), node, text) {
			t.Errorf("%s was told what %s has published at %s", client.JID(), from.JID(), node)
		}
	}
	if heard(client, bareOf(from), text) {
		t.Errorf("%s got a message of %s", client.JID(), from.JID())
	}
}
