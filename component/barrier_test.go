package component

import (
	"fmt"
	"strings"
	"testing"

	"rosterd/jid"
	"rosterd/roster"
)

// Many answers are asked for at once, so that few are ever in doubt; where there is
// no room to ask, it is asked again later.
func TestUnacknowledgedIsBounded(t *testing.T) {
	r := start(t)
	r.rosters.answer = func(jid.JID) (*roster.Roster, error) { return roster.New(nil), nil }
	k := r.server.serve()
	k.quiet()
	s, _ := r.Component.current()
	waiting := func() int {
		s.unacknowledged.mu.Lock()
		defer s.unacknowledged.mu.Unlock()
		return len(s.unacknowledged.answers)
	}
	ask := func(n int) {
		for i := range n {
			k.send("%s", queryOf("juliet@example.org/balcony", fmt.Sprint(i)))
			k.next()
		}
	}
	ask(manyAnswers - 1)
	k.quiet()
	k.send("%s", queryOf("juliet@example.org/balcony", "last"))
	k.next()
	ping := k.nextElement()
	if ping.Child(nsPing, "ping") == nil {
		t.Fatalf("got %+v", ping)
	}
	ask(10)
	k.quiet() // one request at a time
	k.send("<iq type='result' id='%s' from='%s'/>", ping.Get("id"), ping.Get("to"))
	k.quiet()
	if n := waiting(); n != 10 {
		t.Errorf("%d answers are in doubt", n)
	}

	s.out.mu.Lock()
	max, reserve := s.out.normal.max, s.out.reserve
	s.out.normal.max, s.out.reserve = 0, 0
	s.out.mu.Unlock()
	r.requestAcknowledgement(s)
	s.out.mu.Lock()
	s.out.normal.max, s.out.reserve = max, reserve
	s.out.mu.Unlock()
	r.requestAcknowledgement(s)
	if got := k.next(); !strings.Contains(got, nsPing) {
		t.Errorf("got %s", got)
	}
}

// The request for a sign that answers were read is given up for newer ones, when the
// stream has just ended: that the answers are in doubt was said by then.
func TestAcknowledgementGivenUpBehindTheEndOfTheStream(t *testing.T) {
	r := start(t)
	r.server.serve().quiet()
	s, _ := r.Component.current()
	full, _ := jid.Parse("nurse@example.org/hall")
	for range 3 {
		r.answerQueued(s, full)
	}
	r.requestAcknowledgement(s)
	if doubtful := s.unacknowledged.close(); len(doubtful) != 1 {
		t.Errorf("in doubt: %v", doubtful)
	}
	for range maxPending + 1 {
		if _, err := s.iqs.register(request{to: "example.org"}, func(answer) {}); err != nil {
			t.Fatal(err)
		}
	}
	if r.answerQueued(s, full) == nil || s.unacknowledged.request() != 0 {
		t.Error("an answer is noted on a stream that has ended")
	}
}
