package component

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"rosterd/internal/bubble"
	"rosterd/jid"
	"rosterd/roster"
)

const (
	delegationOnly = "<message from='example.org'><delegation xmlns='urn:xmpp:delegation:1'><delegated namespace='jabber:iq:roster'/></delegation></message>"
	noPrivilege    = "<message from='example.org'><privilege xmlns='urn:xmpp:privilege:1'><perm access='roster' type='both'/></privilege></message>"
	getAlone       = "<message from='example.org'><privilege xmlns='urn:xmpp:privilege:2'><perm access='iq'><namespace ns='jabber:iq:roster' type='get'/></perm></privilege></message>"
	presenceToo    = "<message from='example.org'><privilege xmlns='urn:xmpp:privilege:1'><perm access='presence' type='managed_entity'/></privilege></message>"
	mayPush        = "<message from='example.org'><privilege xmlns='urn:xmpp:privilege:2'><perm access='presence' type='managed_entity'/><perm access='iq'><namespace ns='jabber:iq:roster' type='both'/></perm></privilege></message>"
)

func only(o *Options) { o.Hosts = []string{"example.org"} }

func TestRoutes(t *testing.T) {
	early := func(o *Options) { o.Timing.Announce = time.Hour }
	late := func(o *Options) { o.Timing.Announce = time.Nanosecond }
	free := func(o *Options) { o.Unrestricted = true }
	off := func(o *Options) { o.Presence, o.ServerRoster = "off", "off" }
	alone := func(o *Options) { o.ServerRoster = "off" }
	tests := []struct {
		name      string
		options   []func(*Options)
		announced string
		want      Routes // without Missing
		missing   int
	}{
		{"all", []func(*Options){early, free, alone}, delegationOnly + mayPush, Routes{Query: QueryDelegated, Push: PushPrivileged, Presence: PresenceRelayed}, 0},
		{"restricted", []func(*Options){early, alone}, delegationOnly + mayPush, Routes{Query: QueryDelegated, Push: PushPrivileged, Presence: PresenceServer}, 1},
		{"all, no own rosters", []func(*Options){early, free}, delegationOnly + mayPush, Routes{Query: QueryDelegated, Push: PushPrivileged, Presence: PresenceRelayed}, 1},
		{"restricted, no own rosters", []func(*Options){early}, delegationOnly + mayPush, Routes{Query: QueryDelegated, Push: PushPrivileged, Presence: PresenceServer}, 1},
		{"no presence wanted", []func(*Options){early, free, off}, delegationOnly + mayPush, Routes{Query: QueryDelegated, Push: PushPrivileged, Presence: PresenceServer}, 0},
		{"unrestricted", []func(*Options){early, free, alone}, delegationOnly + presenceToo, Routes{Query: QueryDelegated, Push: PushDirect, Presence: PresenceRelayed}, 0},
		{"unrestricted, no presence", []func(*Options){early, free, alone}, delegationOnly + noPrivilege, Routes{Query: QueryDelegated, Push: PushDirect, Presence: PresenceServer}, 1},
		{"delegation alone", []func(*Options){early, off}, delegationOnly + noPrivilege, Routes{Query: QueryDelegated, Push: PushExchange, Presence: PresenceServer}, 1},
		{"get alone", []func(*Options){early, off}, delegationOnly + getAlone, Routes{Query: QueryDelegated, Push: PushExchange, Presence: PresenceServer}, 1},
		{"nothing yet", []func(*Options){early, off}, "", Routes{Query: QueryUnknown, Push: PushExchange, Presence: PresenceServer}, 0},
		{"nothing", []func(*Options){late, off}, "", Routes{Query: QueryPlain, Push: PushExchange, Presence: PresenceServer}, 1},
		{"nothing, unrestricted", []func(*Options){late, free}, "", Routes{Query: QueryPlain, Push: PushExchange, Presence: PresenceServer}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, append(tt.options, only)...)
			k := r.server.serve()
			k.send("%s", tt.announced)
			k.quiet()
			status := r.Status()
			if !status.Connected || status.Domain != "contacts.example.org" || len(status.Hosts) != 1 {
				t.Fatalf("status %+v", status)
			}
			got := status.Hosts[0]
			if got.Query != tt.want.Query || got.Push != tt.want.Push || got.Presence != tt.want.Presence || len(got.Missing) != tt.missing {
				t.Errorf("got %+v", got)
			}
			if notes, err := r.Ready(); (err != nil) != (tt.want.Query == QueryUnknown) || err == nil && len(notes) != tt.missing {
				t.Errorf("ready: %v, %v", notes, err)
			}
		})
	}
}

func TestMissingIsSaidOnce(t *testing.T) {
	t.Parallel()
	r := start(t, func(o *Options) { o.Timing.Announce = time.Second })
	k := r.server.serve()
	k.announce() // of example.org
	k.all = true
	for _, host := range []string{"example.org", "example.net"} { // then it finds out how the server answers for nobody
		if to := k.nextElement().Get("to"); !strings.HasSuffix(to, "@"+host+"/nowhere") {
			t.Errorf("asked %s", to)
		}
	}
	k.quiet()
	k.Close() // and not again on the next stream
	k = r.server.serve()
	k.announce()
	waitFor(t, "the ways are logged again", func() bool { return strings.Count(r.log.String(), "msg=ways") == 4 })
	if n := strings.Count(r.log.String(), "a better way is missing"); n != 2 { // example.org: presence
		t.Errorf("%d lines:\n%s", n, r.log.String())
	}
}

// An instance of several may never see an announcement.
func TestDelegatedQueryProvesDelegation(t *testing.T) {
	r := start(t, only)
	r.rosters.answer = func(jid.JID) (*roster.Roster, error) { return roster.New(nil), nil }
	k := r.server.serve()
	k.quiet()
	if _, err := r.Ready(); err == nil {
		t.Error("ready before")
	}
	k.send("%s", delegate(nsDelegation1, "<iq xmlns='jabber:client' type='get' id='1' from='"+juliet+"'>"+rosterGet+"</iq>"))
	k.next()
	if _, err := r.Ready(); err != nil {
		t.Error(err)
	}
	if got := r.Status().Hosts[0].Query; got != QueryDelegated {
		t.Errorf("query %s", got)
	}
}

func TestPlainQuery(t *testing.T) {
	r := start(t)
	asked := make(chan jid.JID, 1)
	r.rosters.answer = func(full jid.JID) (*roster.Roster, error) {
		asked <- full
		return roster.New([]roster.Item{item(t, "romeo@example.org", "R")}), nil
	}
	k := r.server.serve()
	k.send("<iq type='get' id='1' from='juliet@example.org/balcony' to='contacts.example.org'><query xmlns='jabber:iq:roster'/></iq>")
	k.expect("<iq type='result' id='1' from='contacts.example.org' to='juliet@example.org/balcony'><query xmlns='jabber:iq:roster'><item jid='romeo@example.org' subscription='both' name='R'/></query></iq>")
	if full := receive(t, asked); full != mustJID(t, juliet) {
		t.Errorf("asked for %v", full)
	}
	refused := func(kind, from, to, condition string) {
		t.Helper()
		k.send("<iq type='%s' id='1' from='%s' to='%s'><query xmlns='jabber:iq:roster'/></iq>", kind, from, to)
		if got := k.next(); !strings.Contains(got, "type='error'") || !strings.Contains(got, condition) {
			t.Errorf("%s from %s to %s: got %s", kind, from, to, got)
		}
	}
	refused("set", juliet, "contacts.example.org", "not-allowed")
	refused("get", juliet, "romeo@contacts.example.org", "service-unavailable")
	refused("get", "mallory@evil.example/x", "contacts.example.org", "service-unavailable")
	refused("get", "juliet@example.org", "contacts.example.org", "service-unavailable")
	refused("get", "example.org", "contacts.example.org", "service-unavailable")
}

func TestDirectPush(t *testing.T) {
	r := start(t, only, func(o *Options) { o.Unrestricted = true })
	k := r.server.serve()
	k.send("%s", delegationOnly+noPrivilege)
	k.quiet()
	outcome := r.push(t, "balcony")
	e := k.nextElement()
	if e.Get("from") != "juliet@example.org" || e.Get("to") != "juliet@example.org/balcony" || e.Get("type") != "set" || e.Get("id") == "" || e.Child(nsRoster, "query") == nil {
		t.Errorf("got %+v", e)
	}
	k.answerPing() // it has read the push
	if o := receive(t, outcome); o.Err != nil {
		t.Errorf("outcome %+v", o)
	}
	if n := r.counted(t, "rosterd_pushes_total", "changed", "sent"); n != 1 {
		t.Error("not counted as sent")
	}
}

func TestExchange(t *testing.T) {
	r := start(t, only)
	k := r.server.serve()
	k.send("%s", delegationOnly+noPrivilege)
	k.quiet()
	changes := []roster.Change{
		{Action: roster.Added, Item: item(t, "romeo@example.org", "R & J", "Friends")},
		{Action: roster.Changed, Item: item(t, "nurse@example.org", "")},
		{Action: roster.Removed, Item: roster.Item{JID: mustJID(t, "tybalt@example.org")}},
	}
	outcome := make(chan roster.Outcome, 1)
	go r.Push([]jid.JID{mustJID(t, juliet)}, changes, func(o roster.Outcome) { outcome <- o })
	k.expect("<message type='headline' from='contacts.example.org' to='juliet@example.org/balcony'><x xmlns='http://jabber.org/protocol/rosterx'>" +
		"<item action='add' jid='romeo@example.org' name='R &amp; J'><group>Friends</group></item><item action='modify' jid='nurse@example.org'></item>" +
		"<item action='delete' jid='tybalt@example.org'></item></x></message>")
	k.answerPing()
	if o := receive(t, outcome); o.Err != nil {
		t.Errorf("outcome %+v", o)
	}
	// It comes back: nobody is there.
	r.sessions.Interested(mustJID(t, juliet))
	k.send("<message type='error' from='romeo@example.org/balcony'/><message type='error' from='juliet@example.org/balcony'/>")
	k.quiet()
	if n, _ := r.sessions.Counts(); n != 0 {
		t.Errorf("%d sessions", n)
	}
}

func TestLongExchangeIsSplit(t *testing.T) {
	var changes []roster.Change
	for range 5 {
		changes = append(changes, roster.Change{Action: roster.Added, Item: item(t, "romeo@example.org", strings.Repeat("x", 100))})
	}
	for len(changes) > 0 {
		b, n := appendExchange(nil, changes, 400)
		if n < 1 || n > 2 || len(b) > 450 || !strings.HasSuffix(string(b), "</item></x>") {
			t.Fatalf("%d in %s", n, b)
		}
		changes = changes[n:]
	}
}

// On some servers what follows an answer would overtake it.
func TestPushWaitsForTheAnswer(t *testing.T) {
	r := start(t, only)
	r.rosters.answer = func(jid.JID) (*roster.Roster, error) { return roster.New(nil), nil }
	k := r.server.serve()
	r.announced(t, k)
	k.send("%s", delegate(nsDelegation2, "<iq xmlns='jabber:client' type='get' id='1' from='"+juliet+"'>"+rosterGet+"</iq>"))
	k.next()
	k.showProbes = true
	r.push(t, "balcony")
	fence := k.nextElement()
	if !strings.HasSuffix(fence.Get("to"), "@example.org") || fence.Get("from") != "contacts.example.org/rosterd" || fence.Child(nsRoster, "query") == nil {
		t.Fatalf("got %+v", fence)
	}
	// It comes back as any query, and has an answer, but no roster.
	k.send("%s", delegate(nsDelegation2, "<iq xmlns='jabber:client' type='get' id='"+fence.Get("id")+"' from='contacts.example.org/rosterd' to='example.org'>"+rosterGet+"</iq>"))
	if got := k.next(); !strings.Contains(got, "not-allowed") {
		t.Errorf("got %s", got)
	}
	k.quiet() // the push waits
	k.send("<iq type='error' id='%s' from='%s'/>", fence.Get("id"), fence.Get("to"))
	if got := k.next(); !strings.Contains(got, "privileged_iq") {
		t.Errorf("got %s", got)
	}
	r.push(t, "balcony") // the answer has arrived: no need to wait again
	if got := k.next(); !strings.Contains(got, "privileged_iq") {
		t.Errorf("got %s", got)
	}
}

func TestBarrierForgets(t *testing.T) {
	var f barrier
	a := mustJID(t, juliet)
	f.answered(a)
	f.answered(a)
	if !f.blocks([]jid.JID{a}) || f.blocks([]jid.JID{mustJID(t, "romeo@example.org/x")}) {
		t.Error("waits")
	}
	f.pass([]jid.JID{a}, time.Now().Add(-time.Second))
	if !f.blocks([]jid.JID{a}) {
		t.Error("an answer that came later is forgotten")
	}
	f.pass([]jid.JID{a}, time.Now())
	if f.blocks([]jid.JID{a}) {
		t.Error("still waits")
	}
	if n := len(f.recent[0]) + len(f.recent[1]); n != 0 {
		t.Errorf("%d kept", n)
	}
}

func TestBarrierIsBounded(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var f barrier
		for i := range 1000 {
			f.answered(mustJID(t, juliet)) // asks again and again
			f.answered(mustJID(t, fmt.Sprintf("user%d@example.org/x", i)))
			time.Sleep(time.Second)
		}
		if n := len(f.recent[0]) + len(f.recent[1]); n > 2*33 {
			t.Errorf("%d kept", n)
		}
	})
}

// Whether a server takes users' addresses is tried before anything else is sent. One
// that does not ends the stream once, not for ever; whether it was mended is seen
// when it comes back.
func TestServerThatTakesNoUsersAddresses(t *testing.T) {
	r := start(t, only, func(o *Options) { o.Unrestricted = true })
	stream := func(tries bool) *link {
		t.Helper()
		k := r.server.serve()
		if triesAddress(k.first) != tries || tries && !strings.Contains(k.first, " from='example.org' ") {
			t.Errorf("sent first: %s", k.first)
		}
		k.send("%s", delegationOnly+presenceToo)
		return k
	}
	is := func(k *link, any, push, presence string) {
		t.Helper()
		k.quiet()
		if got := r.Status(); got.Any != any || got.Hosts[0].Push != push || got.Hosts[0].Presence != presence {
			t.Errorf("got %+v, want %s, %s, %s", got, any, push, presence)
		}
	}
	if got := r.Status().Any; got != AnyUnproven {
		t.Errorf("before the first stream: %s", got)
	}
	k := stream(true)
	k.send("<stream:error><invalid-from xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>")
	k.ended()
	k = stream(false)
	is(k, AnyRefused, PushExchange, PresenceServer)
	r.push(t, "balcony")
	if got := k.next(); !strings.HasPrefix(got, "<message ") {
		t.Errorf("got %s", got)
	}
	if !strings.Contains(r.log.String(), "as if xmpp.unrestricted were false") {
		t.Error(r.log.String())
	}
	k.send("<stream:error><system-shutdown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>")
	k.ended()
	is(stream(true), AnyTaken, PushDirect, PresenceRelayed)
}

// Nothing is tried where nobody says that the server takes every address.
func TestNothingIsTriedByItself(t *testing.T) {
	r := start(t, only)
	k := r.server.serve()
	k.quiet()
	if got := r.Status().Any; got != "" || triesAddress(k.first) {
		t.Errorf("got %q, and first %s", got, k.first)
	}
}

// Whatever the way is, what could not be sent is sent when the way is known.
func TestResumedInEveryWay(t *testing.T) {
	for name, announced := range map[string]string{"privileges without push": noPrivilege, "nothing": ""} {
		t.Run(name, func(t *testing.T) {
			r := start(t, only, func(o *Options) { o.Timing.Announce = 50 * time.Millisecond })
			k := r.server.serve()
			k.send("<message from='example.org'/>%s", announced)
			if domain := receive(t, r.rosters.resumed); domain != "example.org" {
				t.Errorf("%s resumed", domain)
			}
			r.push(t, "balcony")
			if got := k.next(); !strings.HasPrefix(got, "<message ") {
				t.Errorf("got %s", got)
			}
		})
	}
}

// A server asks what it shall announce only where its users are served.
func TestDiscoOfAServerThatIsNotServed(t *testing.T) {
	r := start(t, only)
	k := r.server.serve()
	for from, want := range map[string]string{"example.org": "type='result'", "example.com": "service-unavailable"} {
		k.send("<iq type='get' id='1' from='%s' to='contacts.example.org'><query xmlns='http://jabber.org/protocol/disco#info' node='urn:xmpp:delegation:1::jabber:iq:roster'/></iq>", from)
		if got := k.next(); !strings.Contains(got, want) {
			t.Errorf("%s: got %s", from, got)
		}
	}
}
