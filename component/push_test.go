package component

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"rosterd/jid"
	"rosterd/roster"
	"rosterd/xmlstream"
)

// push sends one changed item to juliet's resources.
func (r *rig) push(t *testing.T, resources ...string) chan roster.Outcome {
	var to []jid.JID
	for _, resource := range resources {
		full := mustJID(t, "juliet@example.org/"+resource)
		r.sessions.Interested(full)
		to = append(to, full)
	}
	outcome := make(chan roster.Outcome, 2)
	go func() {
		if err := r.Push(to, []roster.Change{{Action: roster.Changed, Item: item(t, "romeo@example.org", "R", "Friends")}},
			func(o roster.Outcome) { outcome <- o }); err != nil {
			outcome <- roster.Outcome{Err: err, Lost: errors.Is(err, roster.ErrNotConnected)}
		}
	}()
	return outcome
}

func receive[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

// announced waits until the component has read the announcements.
func (r *rig) announced(t *testing.T, k *link) {
	t.Helper()
	k.announce()
	if domain := receive(t, r.rosters.resumed); domain != "example.org" {
		t.Errorf("%s resumed", domain)
	}
	k.quiet() // and the probe that follows has come back
}

func TestPush(t *testing.T) {
	r := start(t)
	k := r.server.serve()
	r.announced(t, k)
	outcome := r.push(t, "balcony", "chamber & hall")
	for _, resource := range []string{"balcony", "chamber &amp; hall"} {
		got := k.next()
		e, _ := xmlstream.Decode([]byte(got))
		id := e.Get("id")
		want := "<iq type='set' id='" + id + "' from='contacts.example.org' to='juliet@example.org'><privileged_iq xmlns='urn:xmpp:privilege:2'>" +
			"<iq xmlns='jabber:client' type='set' id='" + id + "' to='juliet@example.org/" + resource + "'><query xmlns='jabber:iq:roster'>" +
			"<item jid='romeo@example.org' subscription='both' name='R'><group>Friends</group></item></query></iq></privileged_iq></iq>"
		if got != want {
			t.Errorf("got\n  %s\nwant\n  %s", got, want)
		}
		k.send("<iq type='result' id='%s' from='juliet@example.org' to='contacts.example.org'><privilege xmlns='urn:xmpp:privilege:2'><forwarded xmlns='urn:xmpp:forward:0'>"+
			"<iq xmlns='jabber:client' type='result' id='Q' from='juliet@example.org/%s' to='juliet@example.org'/></forwarded></privilege></iq>", id, resource)
	}
	if o := receive(t, outcome); o.Err != nil || len(o.Owed) != 0 {
		t.Errorf("outcome %+v", o)
	}
	if n := r.counted(t, "rosterd_pushes_total", "changed", "ok"); n != 2 {
		t.Errorf("%v pushes counted", n)
	}
}

func TestPushOfARemovedItem(t *testing.T) {
	r := start(t)
	k := r.server.serve()
	r.announced(t, k)
	go r.Push([]jid.JID{mustJID(t, juliet)}, []roster.Change{{Action: roster.Removed, Item: roster.Item{JID: mustJID(t, "romeo@example.org")}}}, func(roster.Outcome) {})
	if got := k.next(); !strings.Contains(got, "<query xmlns='jabber:iq:roster'><item jid='romeo@example.org' subscription='remove'/></query>") {
		t.Errorf("got %s", got)
	}
}

func TestPushAnswers(t *testing.T) {
	serverError := func(kind, condition string) string {
		return "<iq type='error' id='%s' from='juliet@example.org' to='contacts.example.org'><error type='" + kind + "'><" + condition + " xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
	}
	tests := []struct {
		name, answer string
		result       string
		err          bool
		sessions     int // juliet's afterwards
	}{
		{"confirmed", "<iq type='result' id='%s' from='juliet@example.org'/>", "ok", false, 1},
		{"the server has lost track", serverError("cancel", "internal-server-error"), "unanswered", false, 1},
		{"the user has blocked the component", serverError("cancel", "service-unavailable"), "refused", true, 1},
		{"the resource has gone, not wrapped", serverError("cancel", "item-not-found"), "gone", false, 0},
		{"the resource has gone", "<iq type='result' id='%s' from='juliet@example.org'><privilege xmlns='urn:xmpp:privilege:2'><forwarded xmlns='urn:xmpp:forward:0'>" +
			"<iq xmlns='jabber:client' type='error' from='juliet@example.org/balcony'><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq></forwarded></privilege></iq>", "gone", false, 0},
		{"not permitted", serverError("auth", "forbidden"), "refused", true, 1},
		{"an error without condition", "<iq type='error' id='%s' from='juliet@example.org'/>", "gone", false, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t)
			k := r.server.serve()
			r.announced(t, k)
			outcome := r.push(t, "balcony")
			k.send(tt.answer, k.nextElement().Get("id"))
			o := receive(t, outcome)
			if (o.Err != nil) != tt.err || (len(o.Owed) != 0) != tt.err || o.Lost || o.Refused != tt.err {
				t.Errorf("outcome %+v", o)
			}
			if n := r.counted(t, "rosterd_pushes_total", "changed", tt.result); n != 1 {
				t.Errorf("not counted as %s", tt.result)
			}
			if n, _ := r.sessions.Counts(); n != tt.sessions {
				t.Errorf("%d sessions, want %d", n, tt.sessions)
			}
		})
	}
}

// What one resource refuses and the other one may get in a moment is not refused.
func TestPushRefusedAndLost(t *testing.T) {
	r := start(t)
	k := r.server.serve()
	r.announced(t, k)
	outcome := r.push(t, "balcony", "garden")
	k.send("<iq type='error' id='%s' from='juliet@example.org'><error type='auth'><not-allowed xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>", k.nextElement().Get("id"))
	k.next()
	k.quiet()
	k.Close()
	if o := receive(t, outcome); o.Err == nil || o.Refused || len(o.Owed) != 1 {
		t.Errorf("outcome %+v", o)
	}
}

// Whoever guesses an id cannot answer for the one who was asked.
func TestForgedAnswers(t *testing.T) {
	r := start(t)
	k := r.server.serve()
	r.announced(t, k)
	outcome := r.push(t, "balcony")
	id := k.nextElement().Get("id")
	for _, from := range []string{"juliet@example.org/balcony", "romeo@example.org", "example.org", ""} {
		k.send("<iq type='error' id='%s' from='%s'/>", id, from)
		k.send("<iq type='result' id='%s' from='%s'/>", id, from)
		k.send("<iq type='get' id='%s' from='juliet@example.org'><x xmlns='y'/></iq>", id) // a get is no answer
		if got := k.next(); !strings.Contains(got, "service-unavailable") {
			t.Errorf("got %s", got)
		}
	}
	k.quiet()
	select {
	case o := <-outcome:
		t.Errorf("settled by a forged answer: %+v", o)
	default:
	}
	k.send("<iq type='result' id='%s' from='juliet@example.org'/>", id)
	k.send("<iq type='result' id='%s' from='juliet@example.org'/>", id) // again: nobody waits
	if o := receive(t, outcome); o.Err != nil {
		t.Errorf("outcome %+v", o)
	}
	k.quiet()
	if len(outcome) != 0 {
		t.Error("settled twice")
	}
}

// Between the handshake and the announcement nobody knows: not refused for
// good, but to be sent again.
func TestPushBeforeTheAnnouncement(t *testing.T) {
	r := start(t)
	k := r.server.serve()
	k.quiet()
	if o := receive(t, r.push(t, "balcony")); o.Err == nil || !o.Lost || o.Refused {
		t.Errorf("outcome %+v", o)
	}
}

func TestPushesAreLostWithTheStream(t *testing.T) {
	r := start(t)
	k := r.server.serve()
	r.announced(t, k)
	outcome := r.push(t, "balcony", "chamber")
	k.next()
	k.next()
	k.Close()
	if o := receive(t, outcome); o.Err == nil || !o.Lost || o.Refused || fmt.Sprint(o.Owed) != "[romeo@example.org]" {
		t.Errorf("outcome %+v", o)
	}
	r.server.accept() // it comes back, and does not get further
	if r.Connected() {
		t.Error("connected before the handshake")
	}
	if o := receive(t, r.push(t, "balcony")); o.Err == nil || !o.Lost || o.Refused {
		t.Errorf("outcome while down %+v", o)
	}
}

func TestUnansweredPushEnds(t *testing.T) {
	r := start(t, func(o *Options) { o.Timing.Answer = 20 * time.Millisecond; o.Timing.Ping = 40 * time.Millisecond })
	k := r.server.serve()
	r.announced(t, k)
	outcome := r.push(t, "balcony")
	k.next()
	if o := receive(t, outcome); o.Err != nil {
		t.Errorf("outcome %+v", o)
	}
	if n, _ := r.sessions.Counts(); n != 1 {
		t.Error("a client that sleeps counts as gone")
	}
	waitFor(t, "counted", func() bool { return r.counted(t, "rosterd_pushes_total", "changed", "unanswered") == 1 })
}
