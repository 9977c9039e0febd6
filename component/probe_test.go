package component

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"gosrc.io/xmpp/stanza"

	"rosterd/internal/bubble"
	"rosterd/jid"
	"rosterd/roster"
	"rosterd/xmlstream"
)

const notHere = "<iq type='error' id='%s' from='%s'><error type='cancel'><service-unavailable xmlns='" + nsStanzas + "'/></error></iq>"

// delegatedProbe is a probe as it comes back.
func delegatedProbe(id string) string {
	return delegate(nsDelegation2, "<iq xmlns='jabber:client' type='get' id='"+id+"' from='contacts.example.org/rosterd' to='example.org'>"+rosterGet+"</iq>")
}

// nextProbe is the next probe, where next shows them.
func (k *link) nextProbe() *xmlstream.Element {
	k.t.Helper()
	for {
		e := k.nextElement()
		if probes.Match(e.Raw) { // and no query that is to prove the server's own rosters
			return e
		}
	}
}

// missProbes answers n probes as a server that does not delegate them.
func (k *link) missProbes(n int) {
	k.t.Helper()
	k.showProbes = true
	for n > 0 {
		if p := probes.FindStringSubmatch(k.next()); p != nil {
			k.send(notHere, p[1], p[2])
			n--
		}
	}
	k.showProbes = false
	k.quiet()
}

// An announcement alone is no proof.
func TestAnnouncementIsNoProof(t *testing.T) {
	r := start(t, only)
	k := r.server.serve()
	k.showProbes = true
	k.send("%s", delegationOnly+mayPush)
	probe := k.nextProbe()
	if probe.Get("from") != "contacts.example.org/rosterd" || !strings.HasSuffix(probe.Get("to"), "@example.org") || probe.Child(nsRoster, "query") == nil {
		t.Fatalf("got %+v", probe)
	}
	if got := r.Status().Hosts[0]; got.Query != QueryUnknown || got.Delegation {
		t.Errorf("before the probe is back: %+v", got)
	}
	if _, err := r.Ready(); err == nil {
		t.Error("ready before the probe is back")
	}
	k.send("%s", delegatedProbe(probe.Get("id")))
	for !strings.Contains(k.next(), "<not-allowed ") { // what stands behind the probe comes before
	}
	k.quiet()
	if got := r.Status().Hosts[0]; got.Query != QueryDelegated || !got.Delegation {
		t.Errorf("when it is back: %+v", got)
	}
	if _, err := r.Ready(); err != nil {
		t.Error(err)
	}
}

// A delegation that is gone is noticed, and a new stream is made.
func TestDelegationThatIsGone(t *testing.T) {
	r := start(t, only, func(o *Options) { o.Timing.Prove = 50 * time.Millisecond })
	k := r.server.serve()
	r.announced(t, k)
	k.delegates["example.org"] = false
	for missed := false; ; {
		data, _, err := k.f.Next()
		if err != nil {
			break
		}
		missed = missed || probes.Match(data) && k.probed(string(data))
	}
	r.server.serve()
	if !strings.Contains(r.log.String(), "roster queries of example.org have ceased to be delegated") {
		t.Errorf("log:\n%s", r.log.String())
	}
}

// Where a delegation is announced and the server answers all the same, once may
// be a matter of order. A second time it is not.
func TestDelegationThatNeverWorks(t *testing.T) {
	r := start(t, only, func(o *Options) { o.Timing.Prove = 50 * time.Millisecond; o.Timing.Announce = time.Nanosecond })
	k := r.server.serve()
	k.showProbes = true
	k.send("%s", delegationOnly)
	for !strings.Contains(r.log.String(), "have ceased to be delegated") {
		data, _, err := k.f.Next()
		if err != nil {
			break
		}
		if p := probes.FindStringSubmatch(string(data)); p != nil {
			k.send(notHere, p[1], p[2])
			if got := r.Status(); got.Connected && got.Hosts[0].Query == QueryDelegated {
				t.Errorf("got %+v", got.Hosts[0])
			}
		}
	}
	r.server.serve()
}

// A host that delegates nothing is probed, and the stream stays.
func TestPlainHostIsProbed(t *testing.T) {
	r := start(t, only, func(o *Options) { o.Timing.Prove = 5 * time.Millisecond; o.Timing.Announce = time.Nanosecond })
	k := r.server.serve()
	k.missProbes(5)
	if got := r.Status().Hosts[0]; got.Query != QueryPlain {
		t.Errorf("got %+v", got)
	}
	if n := r.counted(t, "rosterd_reconnects_total"); n != 0 {
		t.Errorf("%v reconnects", n)
	}
}

// A server that answers no probe is believed what it announces, and that is said.
func TestProbesWithoutAnswer(t *testing.T) {
	r := start(t, only, func(o *Options) {
		o.Timing.Ping, o.Timing.Dead = 20*time.Millisecond, time.Hour
		o.Timing.Answer = 10 * time.Millisecond
	})
	k := r.server.serve()
	k.showProbes = true
	k.send("%s", delegationOnly+mayPush)
	waitFor(t, "nobody answers", func() bool { return r.Status().Hosts[0].Query == QueryDelegated })
	notes, err := r.Ready()
	if err != nil || len(notes) == 0 || !strings.Contains(notes[0], "it cannot be proven that example.org delegates") {
		t.Errorf("ready: %q, %v", notes, err)
	}
}

// Where only some queries are delegated, a probe need not be one of them.
func TestFilteredDelegation(t *testing.T) {
	r := start(t, only, func(o *Options) { o.Timing.Prove = 5 * time.Millisecond })
	k := r.server.serve()
	k.send("<message from='example.org'><delegation xmlns='urn:xmpp:delegation:2'><delegated namespace='jabber:iq:roster'><attribute name='ver'/></delegated></delegation></message>")
	k.missProbes(5)
	if got := r.Status().Hosts[0]; got.Query != QueryDelegated {
		t.Errorf("got %+v", got)
	}
}

// idOf is the id of a probe of a rosterd that was made at a time.
func idOf(born int64) string { return strconv.FormatInt(born, 36) + "-AAAAAAAAAAAAA-1" }

// meet has a rosterd be asked for the probe of another one, which was started that much
// later. The other is told of it.
func meet(t *testing.T, later int64, change func(*Options)) (*rig, *link) {
	t.Helper()
	r := start(t, only, change)
	k := r.server.serve()
	r.announced(t, k)
	k.send("%s", delegatedProbe(idOf(r.born+later)))
	if got := k.next(); !strings.Contains(got, "<conflict ") {
		t.Errorf("got %s", got)
	}
	return r, k
}

// Of two rosterds that share a component the younger goes, for long, and tells
// the older of itself; the older stays, and looks whether it is asked still.
func TestTwoRosterds(t *testing.T) {
	t.Run("younger", func(t *testing.T) {
		r, k := meet(t, -1, func(o *Options) { o.Timing.MaxRetry = time.Hour })
		k.ended()
		waitFor(t, "it says so", func() bool {
			return strings.Contains(r.log.String(), "another rosterd is connected as contacts.example.org") && strings.Contains(r.log.String(), "retry_in=1h0m0s")
		})
		if _, err := r.Ready(); err == nil || !strings.Contains(err.Error(), "another rosterd is connected") {
			t.Errorf("ready: %v", err)
		}
	})
	t.Run("older", func(t *testing.T) {
		r, k := meet(t, 1, func(o *Options) { o.Timing.ProveSoon = time.Millisecond })
		k.showProbes = true
		// It looks: the first of its probes the other has, the next nobody.
		probe := k.nextProbe()
		k.send("<iq type='error' id='%s' from='%s'><error type='cancel'><conflict xmlns='%s'/></error></iq>", probe.Get("id"), probe.Get("to"), nsStanzas)
		probe = k.nextProbe()
		if !r.Connected() {
			t.Fatal("the older has gone")
		}
		k.send(notHere, probe.Get("id"), probe.Get("to"))
		k.ended()
		r.server.serve()
	})
	t.Run("what is no id of rosterd's", func(t *testing.T) {
		r := start(t, only)
		k := r.server.serve()
		r.announced(t, k)
		for _, id := range []string{"", "1", "-", "1-2-3", "-AAAAAAAAAAAAA-1", "0-AAAAAAAAAAAAA-1", "!-AAAAAAAAAAAAA-1", strings.Repeat("z", 99) + "-AAAAAAAAAAAAA-1"} {
			k.send("%s", delegatedProbe(id))
			k.next()
		}
		k.quiet()
		if !r.Connected() {
			t.Error("it has gone")
		}
	})
}

// An instance of a pair does not give way: who is active is decided elsewhere.
func TestOfAPairTheYoungerStays(t *testing.T) {
	r, k := meet(t, -1, func(o *Options) { o.Pair = true })
	k.quiet()
	if !r.Connected() {
		t.Error("it has gone")
	}
}

// The delegation is taken from an instance of a pair that has just come, when the server
// learns that the one before has gone: it connects anew. A host that does not delegate at all
// has it do so a few times only.
func TestQueriesHaveToReachAPair(t *testing.T) {
	r := start(t, only, func(o *Options) {
		o.Pair = true
		o.Timing.Reach, o.Timing.MinRetry = time.Second, time.Millisecond
	})
	// serve answers all probes as who does not delegate, until the stream ends.
	serve := func(k *link, until func() bool) {
		for !until() {
			data, _, err := k.f.Next()
			if err != nil {
				return
			}
			if p := probes.FindStringSubmatch(string(data)); p != nil {
				k.send(notHere, p[1], p[2])
			}
		}
	}
	for range maxReach {
		serve(r.server.serve(), func() bool { return false })
	}
	k := r.server.serve()
	connected := time.Now()
	serve(k, func() bool { return time.Since(connected) > 2*time.Second }) // it is probed each second
	if !r.Connected() {
		t.Error("it connects anew for ever")
	}
	if !strings.Contains(r.log.String(), "roster queries of example.org do not arrive") {
		t.Errorf("it does not say why:\n%s", r.log.String())
	}
}

// A query that came is no proof for an instance of a pair, as long as no probe did: the server
// takes the delegation away a moment later. COMPAT ejabberd 26.07, which drops the probes then.
func TestQueryIsNoProofToAPair(t *testing.T) {
	r := start(t, only, func(o *Options) {
		o.Pair = true
		o.Timing.Reach, o.Timing.MinRetry = time.Second, time.Millisecond
	})
	k := r.server.serve()
	k.send("<iq type='set' id='D' from='example.org' to='contacts.example.org'><delegation xmlns='%s'><forwarded xmlns='urn:xmpp:forward:0'>"+
		"<iq xmlns='jabber:client' type='get' id='q' from='%s' to='juliet@example.org'><query xmlns='jabber:iq:roster'/></iq></forwarded></delegation></iq>", nsDelegation2, juliet)
	for connected := time.Now(); ; { // no probe is answered
		if _, _, err := k.f.Next(); err != nil {
			break
		}
		if time.Since(connected) > 4*time.Second { // it is probed each second
			t.Fatal("it stays connected")
		}
	}
	r.server.serve()
	if log := r.log.String(); !strings.Contains(log, "roster queries arrive") || !strings.Contains(log, "roster queries of example.org do not arrive") {
		t.Error(log)
	}
}

// Nothing is written any more once a component is to cease.
func TestCease(t *testing.T) {
	r := start(t, only)
	k := r.server.serve()
	r.announced(t, k)
	r.Cease()
	k.ended()
}

func TestPauses(t *testing.T) {
	conflict := &StreamError{Condition: "conflict", Handshake: true}
	for _, tt := range []struct {
		name, address string
		err           error
		want          []time.Duration // at most; at least three quarters of it
	}{
		{"elsewhere", "xmpp.example.org:5347", errClosed, []time.Duration{time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 20 * time.Second, 40 * time.Second, time.Minute, time.Minute}},
		{"here", "127.0.0.1:5347", errClosed, []time.Duration{time.Second, 2 * time.Second, 2 * time.Second, 2 * time.Second}},
		{"here, by name", "localhost:5347", errClosed, []time.Duration{time.Second, 2 * time.Second, 2 * time.Second}},
		{"here, IPv6", "[::1]:5347", errClosed, []time.Duration{time.Second, 2 * time.Second, 2 * time.Second}},
		{"another has the name", "192.0.2.1:5347", conflict, []time.Duration{time.Second, time.Second, time.Second, time.Second}},
		{"another shares it", "127.0.0.1:5347", &rival{"contacts.example.org"}, []time.Duration{time.Minute, time.Minute}},
	} {
		c := New(Options{Address: tt.address}, nil)
		retry := c.newBackoff()
		for i, want := range tt.want {
			if got := c.pauseAfter(fmt.Errorf("because: %w", tt.err), retry); got > want*5/4 || got > time.Minute || got < want/2 {
				t.Errorf("%s: pause %d is %v, want %v", tt.name, i, got, want)
			}
		}
	}
}

// COMPAT ejabberd from 24.10 on, see replyTo.
func TestAnswersToEjabberd(t *testing.T) {
	const id = "rr-1790000000000-3984573498-o7bYZ8y9mGqcHWlJH8dxqaeV1xU=-55238004"
	r := start(t, only)
	r.rosters.answer = nil
	k := r.server.serve()
	k.send("<iq type='get' id='%s' from='example.org' to='contacts.example.org'><query xmlns='http://jabber.org/protocol/disco#info' node='urn:xmpp:delegation:2::jabber:iq:roster'/></iq>", id)
	if got := k.next(); !strings.HasPrefix(got, "<iq type='result' id='"+id+"' from='contacts.example.org' to='example.org/rosterd'>") {
		t.Errorf("got %s", got)
	}
	k.send("<iq type='set' id='%s' from='example.org' to='contacts.example.org'><delegation xmlns='urn:xmpp:delegation:2'><forwarded xmlns='urn:xmpp:forward:0'>"+
		"<iq xmlns='jabber:client' type='set' id='rr-1790000000000-1' from='juliet@example.org/x' to='juliet@example.org'>%s</iq></forwarded></delegation></iq>", id, rosterGet)
	if got := k.next(); !strings.Contains(got, " to='example.org/rosterd'><delegation ") || !strings.Contains(got, " to='juliet@example.org/x'>") {
		t.Errorf("got %s", got)
	}
	for _, request := range []string{
		" id='rr-1790000000000-1' from='juliet@example.org/x'",
		" id='rr-1790000000000-1' from='juliet@example.org'",
		" id='rr-179-1' from='example.org'",
		" id='rr-1790000000000' from='example.org'",
		" id='rr-' from='example.org'",
		" id='1790000000000-1' from='example.org'",
	} {
		k.send("<iq type='get'%s to='contacts.example.org'><ping xmlns='urn:xmpp:ping'/></iq>", request)
		if got := k.next(); strings.Contains(got, "/rosterd'") {
			t.Errorf("%s: got %s", request, got)
		}
	}
}

// COMPAT ejabberd, where no client's answer to a privileged push comes back: the answer to
// one to nobody behind them settles them, unless the server itself has said something.
func TestPushesThatNobodyConfirms(t *testing.T) {
	r := start(t, only)
	k := r.server.serve()
	k.beEjabberd()
	r.announced(t, k)
	r.sessions.Interested(mustJID(t, "juliet@example.org/gone"))
	outcome := r.push(t, "balcony", "gone")
	k.nextElement()
	gone := k.nextElement()
	last, ping := k.behindPushes()
	k.send("<iq type='error' id='%s' from='juliet@example.org'><error type='cancel'><item-not-found xmlns='%s'/></error></iq>", gone.Get("id"), nsStanzas)
	k.quiet()
	select {
	case o := <-outcome:
		t.Fatalf("settled too early: %+v", o)
	default:
	}
	k.send(privilegedError, last.Get("id"), last.Get("to"))
	k.send("<iq type='error' id='%s' from='%s'/>", ping.Get("id"), ping.Get("to"))
	if o := receive(t, outcome); o.Err != nil {
		t.Errorf("outcome %+v", o)
	}
	if sent, gone := r.counted(t, "rosterd_pushes_total", "changed", "sent"), r.counted(t, "rosterd_pushes_total", "changed", "gone"); sent != 1 || gone != 1 {
		t.Errorf("%v sent, %v gone", sent, gone)
	}

	// With the stream the answer is lost, and so are they.
	outcome = r.push(t, "balcony")
	k.nextElement()
	k.Close()
	if o := receive(t, outcome); o.Err == nil || !o.Lost {
		t.Errorf("outcome %+v", o)
	}
}

const privilegedError = "<iq type='error' id='%s' from='%s' to='contacts.example.org'><privilege xmlns='urn:xmpp:privilege:2'><forwarded xmlns='urn:xmpp:forward:0'>" +
	"<iq xmlns='jabber:client' type='error' id='Q'><error type='cancel'><service-unavailable xmlns='" + nsStanzas + "'/></error></iq></forwarded></privilege></iq>"

// beEjabberd sends what ejabberd asks first.
func (k *link) beEjabberd() {
	k.t.Helper()
	k.send("<iq type='get' id='rr-1790000000000-1' from='example.org' to='contacts.example.org'><query xmlns='http://jabber.org/protocol/disco#info' node='urn:xmpp:delegation:2::jabber:iq:roster'/></iq>")
	k.next()
}

// behindPushes returns what is sent behind pushes that nobody confirms.
func (k *link) behindPushes() (last, ping *xmlstream.Element) {
	k.t.Helper()
	last, ping = k.nextElement(), k.nextElement()
	if inner := last.Child(nsPrivilege2, "privileged_iq").Child(stanza.NSClient, "iq"); inner == nil ||
		!strings.HasSuffix(inner.Get("to"), "@example.org/nowhere") || inner.Child(nsRoster, "query") == nil || len(inner.Child(nsRoster, "query").Children) > 0 {
		k.t.Fatalf("got %s", last.Raw)
	}
	if !strings.HasSuffix(ping.Get("to"), "@example.org/nowhere") || ping.Child(nsPing, "ping") == nil {
		k.t.Fatalf("got %s", ping.Raw)
	}
	return last, ping
}

// COMPAT ejabberd from 24.10 on, which drops pushes in silence once another connection of the
// component has ended: they count as lost, and the stream is ended for it, which brings the
// privileges back. If that does not help, they count as refused.
func TestPushesThatAreDropped(t *testing.T) {
	r := start(t, only, func(o *Options) { o.Timing.Arrive = time.Millisecond })
	for n := range maxReach + 1 {
		k := r.server.serve()
		k.beEjabberd()
		r.announced(t, k)
		if n < maxReach { // however many there are
			var outcomes []chan roster.Outcome
			var pings string
			for range maxReach + 1 {
				outcomes = append(outcomes, r.push(t, "balcony"))
				k.nextElement()
				_, ping := k.behindPushes()
				pings += fmt.Sprintf("<iq type='error' id='%s' from='%s'/>", ping.Get("id"), ping.Get("to"))
			}
			k.send("%s", pings)
			for _, outcome := range outcomes {
				if o := receive(t, outcome); o.Err == nil || !o.Lost || o.Refused || len(o.Owed) != 1 {
					t.Errorf("outcome %+v", o)
				}
			}
			k.ended()
			continue
		}
		outcome := r.push(t, "balcony")
		k.nextElement()
		_, ping := k.behindPushes()
		k.send("<iq type='error' id='%s' from='%s'/>", ping.Get("id"), ping.Get("to"))
		o := receive(t, outcome)
		if o.Err != errDropped || o.Lost || !o.Refused || len(o.Owed) != 1 {
			t.Errorf("outcome %+v", o)
		}
		outcome = r.push(t, "balcony") // and may work again
		k.nextElement()
		last, _ := k.behindPushes()
		k.send(privilegedError, last.Get("id"), last.Get("to"))
		if o := receive(t, outcome); o.Err != nil {
			t.Errorf("outcome %+v", o)
		}
	}
	if lost, refused, sent := r.counted(t, "rosterd_pushes_total", "changed", "lost"), r.counted(t, "rosterd_pushes_total", "changed", "refused"),
		r.counted(t, "rosterd_pushes_total", "changed", "sent"); lost != maxReach*(maxReach+1) || refused != 1 || sent != 1 {
		t.Errorf("%v lost, %v refused, %v sent", lost, refused, sent)
	}
	waitFor(t, "logged", func() bool { return strings.Contains(r.log.String(), "example.org drops roster pushes") })
}

// A server that starts within less than the pause before the next attempt is seen to have
// been down: its port is looked at as soon as the stream has ended.
func TestFastRestart(t *testing.T) {
	for _, down := range []bool{false, true} {
		t.Run(fmt.Sprint("down ", down), func(t *testing.T) {
			t.Parallel()
			r := start(t, only, func(o *Options) { o.Timing.MinRetry = 2 * time.Second })
			k := r.server.serve()
			k.quiet()
			address := r.server.l.Addr().String()
			if down {
				r.server.l.Close()
			}
			k.Close()
			if down {
				waitFor(t, "the stream has ended", func() bool { return strings.Contains(r.log.String(), "no stream to the XMPP server") })
				l, err := net.Listen("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { l.Close() })
				r.server.l = l
			}
			r.server.serve().quiet()
			if s, _ := r.current(); s.unasked.restarted != down {
				t.Errorf("restarted %t", s.unasked.restarted)
			}
		})
	}
}

// Who is there and has not asked here is told everything, after a while.
func TestUnasked(t *testing.T) {
	full := func(resource string) jid.JID { return mustJID(t, "juliet@example.org/"+resource) }
	due := func(n *unasked) (list []string) {
		for _, full := range n.due(time.Now()) {
			list = append(list, full.Resource())
		}
		return list
	}
	check := func(t *testing.T, n *unasked, want string) {
		t.Helper()
		if got := strings.Join(due(n), " "); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for _, restarted := range []bool{false, true} {
		t.Run(fmt.Sprint("restarted ", restarted), func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				n := &unasked{restarted: restarted, met: make(map[jid.JID]bool)}
				n.reported(full("a"), true)
				n.reported(full("b"), false) // known from before
				n.reported(full("c"), true)
				n.asked(full("c"))
				check(t, n, "")
				time.Sleep(askWithin)
				if restarted {
					check(t, n, "a b")
				} else {
					check(t, n, "a c") // the table of sessions knows of c
				}
				check(t, n, "")
				n.reported(full("b"), false) // once
				time.Sleep(askWithin)
				check(t, n, "")
				n.gone(full("b"))
				n.reported(full("b"), true) // another session
				time.Sleep(askWithin)
				check(t, n, "b")
				n.reported(full("d"), true)
				n.gone(full("d"))
				time.Sleep(askWithin)
				if restarted {
					check(t, n, "")
				} else {
					check(t, n, "d") // the table of sessions knows of d
				}
				for i := range maxUnasked + 10 {
					n.reported(full(strconv.Itoa(i)), true)
				}
				if len(n.waiting) != maxUnasked {
					t.Errorf("%d wait", len(n.waiting))
				}
			})
		})
	}
}

func TestUnaskedAreTold(t *testing.T) {
	r := start(t, only, func(o *Options) { o.Timing.Ask = 5 * time.Millisecond })
	first := r.server.serve()
	first.quiet()
	r.sessions.Connected(mustJID(t, "juliet@example.org/known")) // before the stream that counts
	first.Close()
	k := r.server.serve()
	k.send("<presence from='juliet@example.org/plain' to='contacts.example.org'/>") // when nothing is delegated
	k.quiet()
	s, _ := r.current()
	r.tellUnasked(s, time.Now().Add(time.Hour))
	r.announced(t, k)
	for _, resource := range []string{"asks", "asks-not"} {
		k.send("<presence from='juliet@example.org/%s' to='contacts.example.org'><delay xmlns='urn:xmpp:delay' stamp='2026-11-01T00:00:00Z'/></presence>", resource)
	}
	k.send("<presence from='juliet@example.org/new' to='contacts.example.org'/>")
	r.sessions.Interested(mustJID(t, "juliet@example.org/asks"))
	if got := receive(t, r.rosters.unasked); got.Resource() != "asks-not" {
		t.Errorf("told %s", got)
	}
	k.send("<presence from='juliet@example.org/asks-not' to='contacts.example.org'><show>away</show></presence>")
	k.quiet()
	r.tellUnasked(s, time.Now().Add(time.Hour))
	if n := len(r.rosters.unasked); n != 0 {
		t.Errorf("%d more are told", n)
	}
	// Who was known before, but not to have asked, may have done so while nobody could note it:
	// that is looked into once.
	k.send("<presence from='juliet@example.org/known' to='contacts.example.org'><delay xmlns='urn:xmpp:delay' stamp='2026-11-01T00:00:00Z'/></presence>")
	if got := receive(t, r.rosters.unasked); got.Resource() != "known" {
		t.Errorf("told %s", got)
	}
	// ejabberd does not say who was there before.
	s.grants.change("example.org", func(g *grant) { g.unconfirmed = true })
	k.send("<presence from='juliet@example.org/ejabberd' to='contacts.example.org'/>")
	if got := receive(t, r.rosters.unasked); got.Resource() != "ejabberd" {
		t.Errorf("told %s", got)
	}
	// Nobody is who has gone meanwhile, or else there would be a session again.
	k.send("<presence from='juliet@example.org/left' to='contacts.example.org'/><presence type='unavailable' from='juliet@example.org/left' to='contacts.example.org'/>")
	k.quiet()
	r.tellUnasked(s, time.Now().Add(time.Hour))
	if n := len(r.rosters.unasked); n != 0 {
		t.Errorf("%s is told", receive(t, r.rosters.unasked))
	}
}

// On ejabberd the end of a session may be reported after the query of the next one of its
// name, which is there still.
func TestEndOfAnEarlierSession(t *testing.T) {
	r := start(t, only)
	k := r.server.serve()
	k.send("%s", delegationOnly+presenceToo)
	k.quiet()
	s, _ := r.current()
	s.grants.change("example.org", func(g *grant) { g.queries = queriesArrive })
	k.send("<presence from='juliet@example.org/one' to='contacts.example.org'/>")
	r.sessions.Interested(mustJID(t, "juliet@example.org/one")) // which is the only one
	k.send("<presence type='unavailable' from='juliet@example.org/one' to='contacts.example.org'/>")
	k.quiet()
	for _, test := range []struct {
		resource, answer string
		told             bool
	}{
		{"there", "<iq type='result' id='%s' from='%s'/>", true},
		{"gone", "<iq type='error' id='%s' from='%s'><error type='cancel'><service-unavailable xmlns='" + nsStanzas + "'/><text xmlns='" + nsStanzas + "'>User session not found</text></error></iq>", false},
	} {
		full := mustJID(t, "juliet@example.org/"+test.resource)
		r.sessions.Interested(full)
		r.sessions.Interested(full)
		k.send("<presence from='%s' to='contacts.example.org'/><presence type='unavailable' from='%s' to='contacts.example.org'/>", full, full)
		ping := k.nextElement()
		if ping.Get("to") != full.String() {
			t.Fatalf("%s", ping.Raw)
		}
		k.send(test.answer, ping.Get("id"), full)
		k.quiet()
		if told := len(r.rosters.unasked) > 0; told != test.told {
			t.Errorf("%s: told %v", test.resource, told)
		} else if told && receive(t, r.rosters.unasked) != full {
			t.Error("somebody else is told")
		}
	}
}

// When the server has been down, the sessions that bear known names are others.
func TestServerThatWasDown(t *testing.T) {
	r := start(t, only, func(o *Options) { o.Timing.Ask = 5 * time.Millisecond })
	k := r.server.serve()
	r.announced(t, k)
	r.sessions.Interested(mustJID(t, juliet))
	k.send("<stream:error><system-shutdown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>")
	k.ended()
	k = r.server.serve()
	r.announced(t, k)
	k.send("<presence from='%s' to='contacts.example.org'/>", juliet)
	if got := receive(t, r.rosters.unasked); got.String() != juliet {
		t.Errorf("told %s", got)
	}
	k.Close() // a link that breaks says nothing of the sessions
	k = r.server.serve()
	r.announced(t, k)
	k.send("<presence from='%s' to='contacts.example.org'/>", juliet)
	k.quiet()
	s, _ := r.current()
	r.tellUnasked(s, time.Now().Add(time.Hour))
	if n := len(r.rosters.unasked); n != 0 {
		t.Errorf("%d are told", n)
	}
}

// COMPAT jabberd2: no roster query can come here, and rosterd does not say that
// one could.
func TestServerThatKeepsTheQueries(t *testing.T) {
	for name, cannot := range map[string]bool{"jabberd2": true, "Jabberd 2s": true, "Prosody": false, "": false} {
		t.Run(name, func(t *testing.T) {
			r := start(t, only, func(o *Options) { o.Timing.Announce = time.Nanosecond })
			k := r.server.serve()
			k.showProbes = true
			for {
				e := k.nextElement()
				if e.Child(nsVersion, "query") == nil {
					continue
				}
				k.send("<iq xmlns='jabber:client' type='result' to='contacts.example.org' from='example.org' id='%s'>"+
					"<query xmlns='jabber:iq:version'><os>Linux</os><version>2.7.0</version><name>%s</name></query></iq>", e.Get("id"), name)
				break
			}
			k.showProbes = false
			k.quiet()
			w := r.Status().Hosts[0]
			notes, err := r.Ready()
			if cannot != (w.Query == QueryNone) || cannot != (err != nil) || w.Software != "" != (name != "") || cannot && !strings.Contains(err.Error(), name+" 2.7.0") || !cannot && w.Query != QueryPlain {
				t.Errorf("%+v, %q, %v", w, notes, err)
			}
		})
	}
}

// A server may drop probes, COMPAT ejabberd where the component has no privilege
// (any more): what is behind a probe tells that it does not come.
func TestProbesThatAreDropped(t *testing.T) {
	for _, proven := range []bool{false, true} {
		t.Run(fmt.Sprint("proven before ", proven), func(t *testing.T) {
			r := start(t, only, func(o *Options) { o.Timing.Arrive = time.Millisecond; o.Timing.Prove = 50 * time.Millisecond })
			k := r.server.serve()
			if proven {
				r.announced(t, k)
			} else {
				k.send("%s", delegationOnly+noPrivilege)
			}
			k.showProbes = true
			for !strings.Contains(r.log.String(), "have ceased to be delegated") && r.Status().Hosts[0].Query != QueryDelegated || proven && r.Connected() {
				data, _, err := k.f.Next()
				if err != nil {
					break
				}
				if e, err := xmlstream.Decode(data); err == nil && strings.HasPrefix(e.Get("to"), "behind-nobody-") {
					k.send("<iq type='error' id='%s' from='%s'><error type='cancel'><service-unavailable xmlns='%s'/></error></iq>", e.Get("id"), e.Get("to"), nsStanzas)
				}
			}
			if !proven && r.counted(t, "rosterd_reconnects_total") != 0 {
				t.Error("the stream has ended")
			}
			if proven {
				r.server.serve()
			}
		})
	}
}

// Users' queries that arrive say nothing of probes: where none ever did, a probe that
// is answered by the server, or lost, ends no stream.
func TestQueriesThatArriveWithoutProbes(t *testing.T) {
	const (
		filtered = "<message from='example.org'><delegation xmlns='urn:xmpp:delegation:2'><delegated namespace='jabber:iq:roster'><attribute name='ver'/></delegated></delegation></message>"
		answered = true
	)
	for name, test := range map[string]struct {
		announced string
		probes    bool // are answered by the server, or else lost
	}{
		"filtered":             {filtered, answered},
		"filtered and lost":    {filtered, !answered},
		"announced":            {delegationOnly, answered},
		"no privilege":         {delegationOnly + noPrivilege, !answered}, // COMPAT ejabberd from 24.10 on
		"nothing is announced": {"", answered},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, only, func(o *Options) { o.Timing.Arrive = time.Millisecond; o.Timing.Prove = 20 * time.Millisecond })
			k := r.server.serve()
			k.showProbes = true
			k.send("%s", test.announced+delegate(nsDelegation2, "<iq xmlns='jabber:client' type='get' id='q' from='nurse@example.org/hall'><query xmlns='jabber:iq:roster' ver=''/></iq>"))
			for n := 0; n < 8; {
				data := k.next()
				e, err := xmlstream.Decode([]byte(data))
				if err != nil {
					t.Fatal(err)
				}
				switch p := probes.FindStringSubmatch(data); {
				case p != nil && test.probes:
					k.send(notHere, p[1], p[2])
					n++
				case strings.HasPrefix(e.Get("to"), "behind-nobody-"):
					k.send("<iq type='error' id='%s' from='%s'><error type='cancel'><service-unavailable xmlns='%s'/></error></iq>", e.Get("id"), e.Get("to"), nsStanzas)
					if !test.probes {
						n++
					}
				}
			}
			k.showProbes = false
			k.quiet()
			if got := r.Status().Hosts[0]; got.Query != QueryDelegated {
				t.Errorf("got %+v", got)
			}
			if n := r.counted(t, "rosterd_reconnects_total"); n != 0 || strings.Contains(r.log.String(), "have ceased to be delegated") {
				t.Errorf("%v reconnects, log:\n%s", n, r.log.String())
			}
		})
	}
}
