package component

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"rosterd/internal/bubble"
	"rosterd/jid"
	"rosterd/presence"
	"rosterd/session"
	"rosterd/xmlstream"
)

const (
	// What servers answer for a resource that is not there, or not to be reached.
	bareError   = "<iq type='error' id='%s' from='%s'><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
	clientError = "<iq type='error' id='%s' from='%s' xml:lang='en'><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
	aResult     = "<iq type='result' id='%s' from='%s'/>"

	wrappedGone   = "<iq type='result' id='%s' from='%s'><privilege xmlns='urn:xmpp:privilege:2'><forwarded xmlns='urn:xmpp:forward:0'><iq xmlns='jabber:client' type='error' id='Q' from='juliet@example.org/balcony' to='juliet@example.org'><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq></forwarded></privilege></iq>"
	wrappedResult = "<iq type='result' id='%s' from='%s'><privilege xmlns='urn:xmpp:privilege:2'><forwarded xmlns='urn:xmpp:forward:0'><iq xmlns='jabber:client' xml:lang='en' type='result' id='Q' from='juliet@example.org/balcony'/></forwarded></privilege></iq>"
	wrappedError  = "<iq type='result' id='%s' from='%s'><privilege xmlns='urn:xmpp:privilege:2'><forwarded xmlns='urn:xmpp:forward:0'><iq xmlns='jabber:client' xml:lang='en' type='error' id='Q' from='juliet@example.org/balcony'><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq></forwarded></privilege></iq>"
	lostTrack     = "<iq type='error' id='%s' from='%s'><error type='cancel'><internal-server-error xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"

	gone, alive, unknown = "gone", "alive", "unknown"
)

// restored starts a component that knows a session of juliet's from before the
// stream, which begins with what the server announces, and gives the server's
// answer for a resource that is not there.
func restored(t *testing.T, announced, learnt string, change ...func(*Options)) (*rig, *link) {
	t.Helper()
	return restoredAs((*session.Table).Interested, t, announced, learnt, change...)
}

// restoredAs is restored with a session of which something else is known.
func restoredAs(known func(*session.Table, jid.JID), t *testing.T, announced, learnt string, change ...func(*Options)) (*rig, *link) {
	t.Helper()
	quick := func(o *Options) { o.Timing.Ask, o.Timing.Report = 5*time.Millisecond, time.Millisecond }
	r := fault(t, append([]func(*Options){only, quick}, change...)...)
	first := r.server.serve()
	first.quiet()
	known(r.sessions, mustJID(t, juliet))
	first.Close()
	k := r.server.serve()
	k.all = true
	k.send("%s", announced)
	e := k.nextElement()
	for e.Get("to") == "example.org" {
		e = k.nextElement() // on a slow machine the host is asked for a sign of life first
	}
	if !strings.HasPrefix(e.Get("to"), "Rosterd-Asks-For-Nobody-") {
		t.Fatalf("got %+v", e)
	}
	k.send(learnt, e.Get("id"), e.Get("to"))
	return r, k
}

// A session of which it is not known that it asked may have done so while nobody could note
// it: if it is still there, it is told everything.
func TestSessionThatMayHaveAsked(t *testing.T) {
	connected := func(table *session.Table, full jid.JID) { table.Connected(full) }
	r, k := restoredAs(connected, t, delegationOnly+mayPush, bareError)
	e := k.nextElement()
	k.send(aResult, e.Get("id"), juliet)
	if got := receive(t, r.rosters.unasked); got.String() != juliet {
		t.Errorf("told %s", got)
	}
}

// A session that is gone leaves the table where the server's error says nothing
// for sure, and one that is there stays.
func TestSessionsFromBefore(t *testing.T) {
	direct := func(o *Options) { o.Unrestricted = true }
	const exchange = delegationOnly + presenceToo
	for name, tt := range map[string]struct {
		announced string
		change    func(*Options)
		ping      string // the answer to the question
		second    string // what the second question holds; "": there is none
		answer    string // to that
		want      string
	}{
		"there":                           {delegationOnly + mayPush, only, aResult, "", "", alive},
		"does not know pings":             {delegationOnly + mayPush, only, clientError, "", "", alive},
		"another error":                   {delegationOnly + mayPush, only, strings.ReplaceAll(bareError, "service-unavailable", "feature-not-implemented"), "", "", alive},
		"gone":                            {delegationOnly + mayPush, only, bareError, "<privileged_iq ", wrappedGone, gone},
		"there after all":                 {delegationOnly + mayPush, only, bareError, "<privileged_iq ", wrappedResult, alive},
		"has blocked the component":       {delegationOnly + mayPush, only, bareError, "<privileged_iq ", bareError, gone},
		"answers pushes with errors":      {delegationOnly + mayPush, only, bareError, "<privileged_iq ", wrappedError, unknown},
		"the server has lost track of it": {delegationOnly + mayPush, only, bareError, "<privileged_iq ", lostTrack, unknown},
		"gone, direct":                    {exchange, direct, bareError, " from='juliet@example.org' to='juliet@example.org/balcony'><ping ", bareError, gone},
		"client's error, direct":          {exchange, direct, bareError, " from='juliet@example.org' to='juliet@example.org/balcony'><ping ", clientError, unknown},
		"not to be reached, exchange":     {exchange, only, bareError, "", "", gone},
		"there, exchange":                 {exchange, only, clientError, "", "", alive},
	} {
		t.Run(name, func(t *testing.T) {
			r, k := restored(t, tt.announced, bareError, tt.change)
			e := k.nextElement()
			if e.Get("to") != juliet || e.Get("from") != "contacts.example.org" || e.Child(nsPing, "ping") == nil {
				t.Fatalf("asked %+v", e)
			}
			k.send(tt.ping, e.Get("id"), juliet)
			if tt.second != "" {
				got := k.next()
				if !strings.Contains(got, tt.second) {
					t.Fatalf("got %s", got)
				}
				if strings.Contains(got, "jabber:iq:roster") && !strings.Contains(got, "@contacts.example.org' subscription='remove'/></query></iq>") {
					t.Errorf("the push changes something: %s", got)
				}
				e, _ := xmlstream.Decode([]byte(got))
				k.send(tt.answer, e.Get("id"), e.Get("to"))
			}
			k.quiet()
			if n, _ := r.sessions.Counts(); (n == 0) != (tt.want == gone) {
				t.Errorf("%d sessions, want it %s", n, tt.want)
			}
			s, _ := r.current()
			if n := len(slices.Collect(r.sessions.Unheard(s.began))); (n == 0) == (tt.want == unknown) {
				t.Errorf("%d unheard, want it %s", n, tt.want)
			}
		})
	}
}

// Who has blocked the component is there as long as the server reports so.
func TestBlockedButReported(t *testing.T) {
	r, k := restored(t, delegationOnly+mayPush+"<presence from='juliet@example.org/balcony'/>", bareError)
	k.quiet()
	s, _ := r.current()
	r.makeSure(s, mustJID(t, juliet))
	e := k.nextElement()
	k.send(bareError, e.Get("id"), e.Get("to"))
	k.quiet()
	if n, _ := r.sessions.Counts(); n != 1 || e.Child(nsPrivilege2, "privileged_iq") == nil {
		t.Errorf("%d sessions after %+v", n, e)
	}
}

// A server that is merely slow, or says nothing at all, ends no session.
func TestSessionsOfASilentServer(t *testing.T) {
	r, k := restored(t, delegationOnly+mayPush, bareError, func(o *Options) { o.Timing.Answer, o.Timing.Ping = 10*time.Millisecond, 20*time.Millisecond })
	e := k.nextElement()
	for e.Get("to") != juliet {
		e = k.nextElement() // on a slow machine others are asked again first
	}
	s, _ := r.current()
	waitFor(t, "it is not waited for any more", func() bool {
		s.iqs.mu.Lock()
		defer s.iqs.mu.Unlock()
		return s.iqs.pending[e.Get("id")] == nil
	})
	k.send(bareError, e.Get("id"), juliet) // too late
	k.send("<iq type='get' id='quiet' from='example.org'><ping xmlns='urn:xmpp:ping'/></iq>")
	for k.nextElement().Get("id") != "quiet" {
	}
	if n, _ := r.sessions.Counts(); n != 1 {
		t.Error("it counts as gone")
	}
}

// Before it is known what the server lets be done, nothing is concluded.
func TestSessionsBeforeTheAnnouncements(t *testing.T) {
	r, k := restored(t, "<message from='example.org'><privilege xmlns='urn:xmpp:privilege:2'><perm access='presence' type='managed_entity'/></privilege></message>"+
		"<message from='example.org'/>", bareError)
	s, _ := r.current()
	s.grants.change("example.org", func(g *grant) { g.privilege = "" })
	e := k.nextElement()
	k.send(bareError, e.Get("id"), e.Get("to"))
	k.quiet()
	if n, _ := r.sessions.Counts(); n != 1 {
		t.Error("it counts as gone")
	}
}

// Many sessions are asked one after the other, and not each time again.
func TestAskingIsBounded(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := &rig{rosters: &rosters{}}
		r.Component = New(Options{Domain: "contacts.example.org", Hosts: []string{"example.org"}}, tableOf(t, 3000))
		time.Sleep(time.Minute)
		s := &stream{out: newWriter(64<<20, 0, 0), iqs: newTracker(time.Minute, "t-"), grants: newGrants([]string{"example.org"}, nil), began: time.Now()}
		s.grants.change("example.org", func(g *grant) { g.absent = absenceAmbiguous })
		defer s.iqs.close()
		done := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { defer close(done); r.tendSessions(ctx, s) }()
		defer func() { cancel(); <-done }()
		asked := func() (n int) {
			s.out.mu.Lock()
			defer s.out.mu.Unlock()
			return len(s.out.stanzas)
		}
		time.Sleep(r.opts.Timing.Report)
		if n := asked(); n != 0 {
			t.Errorf("%d asked before those who are there could be reported", n)
		}
		time.Sleep(4 * time.Second)
		if n := asked(); n == 0 || n > 4*askRate {
			t.Errorf("%d asked in 4 s", n)
		}
		time.Sleep(26 * time.Second)
		if n := asked(); n != 3000 {
			t.Errorf("%d asked in 30 s", n)
		}
		time.Sleep(r.opts.Timing.Silent) // nobody has answered
		if n := asked(); n != 3000 {
			t.Errorf("%d asked, some again too soon", n)
		}
		time.Sleep(3 * r.opts.Timing.Silent)
		if n := asked(); n != 6000 {
			t.Errorf("%d asked, want each twice", n)
		}
	})
}

func tableOf(t *testing.T, users int) *session.Table {
	table := session.NewTable()
	for _, full := range resources(t, users) {
		table.Interested(full)
	}
	return table
}

// Where the server reports the end of a session, its resources are left alone
// for longer.
func TestAskedRarely(t *testing.T) {
	r := start(t, only)
	r.server.serve().quiet()
	s, _ := r.current()
	present, absent := mustJID(t, juliet), mustJID(t, "romeo@example.org/x")
	r.sessions.Connected(present)
	r.sessions.Interested(absent)
	for _, step := range []struct {
		how             absence
		reports         bool
		present, absent time.Duration
	}{{absenceCertain, true, 1, 1}, {absenceAmbiguous, true, 10, 3}, {absenceAmbiguous, false, 3, 3}} {
		s.grants.change("example.org", func(g *grant) { g.absent, g.presence = step.how, step.reports })
		if a, b := r.askPause(s, present), r.askPause(s, absent); a != step.present*r.opts.Timing.Silent || b != step.absent*r.opts.Timing.Silent {
			t.Errorf("%+v: %v and %v", step, a, b)
		}
	}
}

// Contacts do not go on seeing who has left meanwhile, on a server that reports
// who is there; and not before it can have done so.
func TestUnreportedSessionsEnd(t *testing.T) {
	r := &rig{rosters: &rosters{}}
	r.Component = New(Options{Domain: "contacts.example.org", Hosts: []string{"example.org", "example.net"}, Timing: Timing{Report: time.Millisecond}}, session.NewTable())
	hub := presence.New([]string{"example.org", "example.net"}, nobodys{}, presence.Limits{})
	r.Relay(hub)
	for _, full := range []string{juliet, "romeo@example.net/x"} {
		hub.Available(mustJID(t, full), nil)
	}
	time.Sleep(time.Millisecond)
	s := &stream{out: newWriter(1<<20, 1<<20, 0), iqs: newTracker(time.Minute, "t-"), grants: newGrants(r.opts.Hosts, nil), began: time.Now()}
	for _, host := range r.opts.Hosts {
		s.grants.change(host, func(g *grant) { g.presence = true })
	}
	left := func() string { return fmt.Sprint(hub.Unheard(time.Now().Add(time.Hour))) }
	r.endUnreported(s, time.Now().Add(time.Hour))
	if got := left(); !strings.Contains(got, "juliet") || !strings.Contains(got, "romeo") {
		t.Errorf("left %s before the hosts have answered", got)
	}
	s.grants.change("example.org", func(g *grant) { g.reported, g.absent = time.Now(), absenceAmbiguous })
	s.grants.change("example.net", func(g *grant) { g.reported, g.absent = time.Now(), absenceCertain }) // it reports nobody
	r.endUnreported(s, time.Now())
	if got := left(); !strings.Contains(got, "juliet") {
		t.Errorf("left %s too soon", got)
	}
	r.endUnreported(s, time.Now().Add(time.Second))
	if got := left(); got != "[romeo@example.net/x]" {
		t.Errorf("left %s", got)
	}
}

// nobodys knows no roster.
type nobodys struct{ presence.Rosters }

// A client that answers a push with an error is there.
func TestPushAnsweredWithAnError(t *testing.T) {
	r := fault(t, only)
	k := r.server.serve()
	r.announced(t, k)
	outcome := r.push(t, "balcony")
	k.send(wrappedError, k.nextElement().Get("id"), "juliet@example.org")
	if o := receive(t, outcome); o.Err != nil {
		t.Errorf("outcome %+v", o)
	}
	if n, _ := r.sessions.Counts(); n != 1 {
		t.Error("it counts as gone")
	}
}
