package component

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"rosterd/jid"
	"rosterd/roster"
)

const (
	juliet     = "juliet@example.org/balcony"
	rosterGet  = "<query xmlns='jabber:iq:roster'/>"
	outerStart = "<iq type='set' id='D' from='example.org' to='contacts.example.org'>"
	outerReply = "<iq type='result' id='D' from='contacts.example.org' to='example.org'>"
)

// delegate is a query as a server forwards it.
func delegate(ns, inner string) string {
	return outerStart + "<delegation xmlns='" + ns + "'><forwarded xmlns='urn:xmpp:forward:0'>" + inner + "</forwarded></delegation></iq>"
}

func answered(ns, inner string) string {
	return outerReply + "<delegation xmlns='" + ns + "'><forwarded xmlns='urn:xmpp:forward:0'>" + inner + "</forwarded></delegation></iq>"
}

func innerError(id, attrs, kind, condition string) string {
	return "<iq xmlns='jabber:client' type='error' id='" + id + "'" + attrs + "><error type='" + kind + "'><" + condition +
		" xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>" + text(condition) + "</error></iq>"
}

// text is what is said beside a condition to whoever reads it.
func text(condition string) string {
	if condition != "not-allowed" {
		return ""
	}
	return "<text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas' xml:lang='en'>" + managedElsewhere + "</text>"
}

func TestRosterGet(t *testing.T) {
	r := start(t)
	asked := make(chan jid.JID, 4)
	r.rosters.answer = func(full jid.JID) (*roster.Roster, error) {
		asked <- full
		romeo := item(t, "romeo@example.org", "Romeo <\"&'>", "A & B", "Friends")
		nurse := roster.Item{JID: mustJID(t, "nurse@example.org"), Subscription: roster.SubscriptionTo, Ask: true, Approved: true}
		return roster.New([]roster.Item{romeo, nurse}), nil
	}
	k := r.server.serve()
	want := "<query xmlns='jabber:iq:roster'><item jid='nurse@example.org' subscription='to' ask='subscribe' approved='true'/>" +
		"<item jid='romeo@example.org' subscription='both' name='Romeo &lt;&quot;&amp;&apos;&gt;'><group>A &amp; B</group><group>Friends</group></item></query>"
	for _, tt := range []struct{ ns, to, from string }{
		{nsDelegation2, "", ""},
		{nsDelegation1, " to='juliet@example.org'", " from='juliet@example.org'"}, // as ejabberd does
		{nsDelegation2, " to='Juliet@Example.org'", " from='Juliet@Example.org'"},
	} {
		k.send("%s", delegate(tt.ns, "<iq xmlns='jabber:client' type='get' id='q&apos;1' from='"+juliet+"'"+tt.to+">"+rosterGet+"</iq>"))
		k.expect(answered(tt.ns, "<iq xmlns='jabber:client' type='result' id='q&apos;1'"+tt.from+" to='"+juliet+"'>"+want+"</iq>"))
		if full := <-asked; full != mustJID(t, juliet) {
			t.Errorf("asked for %v", full)
		}
	}
	if n := r.counted(t, "rosterd_queries_total", "ok"); n != 3 {
		t.Errorf("counted %v queries", n)
	}
}

// The server compares the id to the letter.
func TestEmptyID(t *testing.T) {
	r := start(t)
	r.rosters.answer = func(jid.JID) (*roster.Roster, error) { return roster.New(nil), nil }
	k := r.server.serve()
	k.send("%s", delegate(nsDelegation2, "<iq xmlns='jabber:client' type='get' id='' from='"+juliet+"'>"+rosterGet+"</iq>"))
	k.expect(answered(nsDelegation2, "<iq xmlns='jabber:client' type='result' id='' to='"+juliet+"'><query xmlns='jabber:iq:roster'/></iq>"))
}

// An answer that comes after its stream goes by the next one; without a stream
// the manager hears of it.
func TestAnswerAfterTheStream(t *testing.T) {
	r := start(t)
	asked, answer := make(chan struct{}, 2), make(chan struct{})
	r.rosters.answer = func(jid.JID) (*roster.Roster, error) {
		asked <- struct{}{}
		<-answer
		return roster.New(nil), nil
	}
	query := delegate(nsDelegation2, "<iq xmlns='jabber:client' type='get' id='1' from='"+juliet+"'>"+rosterGet+"</iq>")
	want := answered(nsDelegation2, "<iq xmlns='jabber:client' type='result' id='1' to='"+juliet+"'><query xmlns='jabber:iq:roster'/></iq>")
	r.rosters.later = true
	k := r.server.serve()
	k.send("%s", query)
	receive(t, asked)
	k.Close()
	k = r.server.serve()
	k.quiet()
	answer <- struct{}{}
	k.expect(want)

	k.send("%s", query)
	receive(t, asked)
	k.Close()
	r.server.accept()
	answer <- struct{}{}
	if full := receive(t, r.rosters.lost); full != mustJID(t, juliet) {
		t.Errorf("lost of %v", full)
	}
}

func TestEmptyRosterIsAnswered(t *testing.T) {
	r := start(t)
	r.rosters.answer = func(jid.JID) (*roster.Roster, error) { return roster.New(nil), nil }
	k := r.server.serve()
	k.send("%s", delegate(nsDelegation2, "<iq xmlns='jabber:client' type='get' id='1' from='"+juliet+"'>"+rosterGet+"</iq>"))
	k.expect(answered(nsDelegation2, "<iq xmlns='jabber:client' type='result' id='1' to='"+juliet+"'><query xmlns='jabber:iq:roster'/></iq>"))
}

func TestFailuresAreWaitErrors(t *testing.T) {
	for err, condition := range map[error]string{
		errors.New("the backend answered 500"):       "internal-server-error",
		roster.ErrOverdue:                            "remote-server-timeout",
		roster.ErrBusy:                               "resource-constraint",
		roster.ErrStopping:                           "internal-server-error",
		fmt.Errorf("wrapped: %w", roster.ErrOverdue): "remote-server-timeout",
	} {
		for _, at := range []string{"later", "at once"} {
			t.Run(condition+" "+at, func(t *testing.T) {
				r := start(t)
				if at == "later" {
					r.rosters.answer = func(jid.JID) (*roster.Roster, error) { return nil, err }
				} else {
					r.rosters.busy = err
				}
				k := r.server.serve()
				for range 3 {
					k.send("%s", delegate(nsDelegation2, "<iq xmlns='jabber:client' type='get' id='1' from='"+juliet+"'>"+rosterGet+"</iq>"))
					k.expect(answered(nsDelegation2, innerError("1", " to='"+juliet+"'", "wait", condition)))
				}
				if n := strings.Count(r.log.String(), "roster query answered without a roster"); n != 1 {
					t.Errorf("logged %d times", n)
				}
			})
		}
	}
}

// What any user can have a server forward: he gets his own roster alone.
func TestOnlyOnesOwnRoster(t *testing.T) {
	r := start(t)
	r.rosters.answer = func(full jid.JID) (*roster.Roster, error) {
		t.Errorf("asked for the roster of %v", full)
		return roster.New(nil), nil
	}
	k := r.server.serve()
	tests := []struct{ name, attrs, reply, kind, condition string }{
		{"somebody else's", " from='romeo@example.org/x' to='juliet@example.org'", " from='juliet@example.org' to='romeo@example.org/x'", "auth", "forbidden"},
		{"the host's", " from='romeo@example.org/x' to='example.org'", " from='example.org' to='romeo@example.org/x'", "auth", "forbidden"},
		{"a resource's", " from='romeo@example.org/x' to='romeo@example.org/y'", " from='romeo@example.org/y' to='romeo@example.org/x'", "auth", "forbidden"},
		{"no address", " from='romeo@example.org/x' to=''", " to='romeo@example.org/x'", "auth", "forbidden"},
		{"a stranger", " from='mallory@evil.example/x' to='juliet@example.org'", " from='juliet@example.org' to='mallory@evil.example/x'", "auth", "forbidden"},
		{"a stranger without address", " from='mallory@evil.example/x'", " to='mallory@evil.example/x'", "auth", "forbidden"},
		{"of another served host", " from='romeo@example.net/x'", " to='romeo@example.net/x'", "auth", "forbidden"},
		{"a bare sender", " from='romeo@example.org'", " to='romeo@example.org'", "auth", "forbidden"},
		{"the host as sender", " from='example.org/x'", " to='example.org/x'", "auth", "forbidden"},
		{"nobody", "", "", "auth", "forbidden"},
		// Two accounts of a server that prepares otherwise, and one of ours.
		{"prepared otherwise", " from='wei\u00DF@example.org/x'", " to='wei\u00DF@example.org/x'", "auth", "forbidden"},
		{"garbage", " from='@@' to='&lt;'", " from='&lt;' to='@@'", "auth", "forbidden"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, kind := range []string{"get", "set"} {
				k.send("%s", delegate(nsDelegation2, "<iq xmlns='jabber:client' type='"+kind+"' id='1'"+tt.attrs+">"+rosterGet+"</iq>"))
				k.expect(answered(nsDelegation2, innerError("1", tt.reply, tt.kind, tt.condition)))
			}
		})
	}
	if connected, _ := r.sessions.Counts(); connected != 0 {
		t.Errorf("%d sessions", connected)
	}
}

func TestOtherDelegatedQueries(t *testing.T) {
	r := start(t)
	k := r.server.serve()
	inner := func(kind, id, payload string) string {
		return "<iq xmlns='jabber:client' type='" + kind + "'" + id + " from='" + juliet + "'>" + payload + "</iq>"
	}
	tests := []struct{ name, inner, kind, condition string }{
		{"set", inner("set", " id='1'", "<query xmlns='jabber:iq:roster'><item jid='x@example.org'/></query>"), "cancel", "not-allowed"},
		{"other namespace", inner("get", " id='1'", "<query xmlns='jabber:iq:private'/>"), "cancel", "service-unavailable"},
		{"other element", inner("get", " id='1'", "<item xmlns='jabber:iq:roster'/>"), "cancel", "service-unavailable"},
		{"two payloads", inner("get", " id='1'", rosterGet+rosterGet), "modify", "bad-request"},
		{"no payload", inner("get", " id='1'", ""), "modify", "bad-request"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k.send("%s", delegate(nsDelegation2, tt.inner))
			k.expect(answered(nsDelegation2, innerError("1", " to='"+juliet+"'", tt.kind, tt.condition)))
		})
	}
	t.Run("not a query", func(t *testing.T) {
		for _, odd := range []string{"", "<iq type='get' id='1'/>", "<message xmlns='jabber:client'/>", inner("result", " id='1'", ""), inner("foo", "", rosterGet)} {
			k.send("%s", delegate(nsDelegation2, odd))
			if got := k.next(); !strings.HasPrefix(got, "<iq type='error' id='D' from='contacts.example.org' to='example.org'>") || !strings.Contains(got, "bad-request") {
				t.Errorf("%s: got %s", odd, got)
			}
		}
		k.send("%s", outerStart+"<delegation xmlns='urn:xmpp:delegation:2'/></iq>")
		if got := k.next(); !strings.Contains(got, "bad-request") {
			t.Errorf("got %s", got)
		}
	})
	k.quiet()
}

// A user can send the component what looks like the server's words; only the
// address that the server stamps tells it apart.
func TestForgedDelegations(t *testing.T) {
	r := start(t)
	r.rosters.answer = func(full jid.JID) (*roster.Roster, error) {
		t.Errorf("asked for the roster of %v", full)
		return nil, nil
	}
	k := r.server.serve()
	for _, from := range []string{"romeo@example.org/x", "romeo@example.org", "example.org/x", "x.example.org", "evil.example", "contacts.example.org"} {
		forged := strings.Replace(delegate(nsDelegation2, "<iq xmlns='jabber:client' type='get' id='1' from='"+juliet+"'>"+rosterGet+"</iq>"), "from='example.org'", "from='"+from+"'", 1)
		k.send("%s", forged)
		k.expect("<iq type='error' id='D' from='contacts.example.org' to='" + from + "'><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>")
		k.send("<message from='%s'><delegation xmlns='urn:xmpp:delegation:2'><delegated namespace='jabber:iq:roster'/></delegation></message>", from)
		k.send("<message from='%s'><privilege xmlns='urn:xmpp:privilege:2'><perm access='iq'><namespace ns='jabber:iq:roster' type='set'/></perm></privilege></message>", from)
	}
	k.quiet()
	if n := strings.Count(r.log.String(), "announcement ignored"); n != 3 { // once for each that is no user
		t.Errorf("%d announcements logged", n)
	}
	if _, err := r.Ready(); err == nil {
		t.Error("ready by forged announcements")
	}
	select {
	case domain := <-r.rosters.resumed:
		t.Errorf("%s resumed by a forged announcement", domain)
	default:
	}
}

// Who has the roster already, and says so, is answered at once; if there is no
// room for the answer, the manager hears of it.
func TestCurrentVersion(t *testing.T) {
	r := start(t)
	r.rosters.current = "v1"
	r.rosters.answer = func(jid.JID) (*roster.Roster, error) { return roster.New(nil), nil }
	k := r.server.serve()
	ask := func(version string) {
		k.send("%s", delegate(nsDelegation2, "<iq xmlns='jabber:client' type='get' id='q' from='"+juliet+"'><query xmlns='jabber:iq:roster' ver='"+version+"'/></iq>"))
	}
	ask("v1")
	k.expect(answered(nsDelegation2, "<iq xmlns='jabber:client' type='result' id='q' to='"+juliet+"'></iq>"))
	s, _ := r.Component.current()
	if full := []jid.JID{mustJID(t, juliet)}; !s.barrier.blocks(full) {
		t.Error("what follows the answer may overtake it")
	}
	ask("v2")
	k.expect(answered(nsDelegation2, "<iq xmlns='jabber:client' type='result' id='q' to='"+juliet+"'><query xmlns='jabber:iq:roster'/></iq>"))
	if n := r.counted(t, "rosterd_queries_total", "ok"); n != 2 {
		t.Errorf("counted %v queries", n)
	}
	s.out.mu.Lock()
	s.out.normal.max, s.out.reserve = 0, 0
	s.out.mu.Unlock()
	ask("v1")
	if full := receive(t, r.rosters.lost); full != mustJID(t, juliet) {
		t.Errorf("lost %v", full)
	}
	if n := r.counted(t, "rosterd_replies_dropped_total"); n != 1 {
		t.Errorf("counted %v dropped", n)
	}
}
