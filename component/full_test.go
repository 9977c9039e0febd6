package component

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"rosterd/internal/leak"
	"rosterd/jid"
	"rosterd/roster"
)

// full makes the queue of a stream one that has no room and does not wait.
func full(s *stream) {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	s.out.normal.max, s.out.reserve, s.out.normal.wait = 0, 1<<20, time.Millisecond
}

// What does not fit into the queue is owed; the pushes after the first that does
// not fit do not wait.
func TestPushesThatDoNotFit(t *testing.T) {
	leak.Check(t)
	for _, way := range []string{PushPrivileged, PushDirect, PushExchange} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			r := faulty(t, only, func(o *Options) { o.Unrestricted = way == PushDirect })
			k := r.server.serve()
			r.goes(t, k, way)
			s, _ := r.current()
			full(s)
			s.out.normal.wait = 100 * time.Millisecond
			var changes []roster.Change
			for i := range 1000 {
				changes = append(changes, roster.Change{Action: roster.Added, Item: item(t, fmt.Sprintf("c%d@example.org", i), "")})
			}
			outcome := make(chan roster.Outcome, 2)
			began := time.Now()
			if err := r.Push([]jid.JID{mustJID(t, juliet)}, changes, func(o roster.Outcome) { outcome <- o }); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > 50*time.Second { // 100 s if each waited
				t.Errorf("it took %v", took)
			}
			if o := receive(t, outcome); len(o.Owed) != 1000 || o.Err == nil || o.Lost || o.Refused {
				t.Errorf("%d owed, lost %v, %v", len(o.Owed), o.Lost, o.Err)
			}
			if n := r.counted(t, "rosterd_pushes_total", "added", "lost"); n != 1000 {
				t.Errorf("%v counted", n)
			}
		})
	}
}

// Who asks when the queue has no room is told to try again, and what he has is
// in doubt.
func TestAnswerThatDoesNotFit(t *testing.T) {
	r := fault(t, only)
	r.rosters.later = true
	k := r.server.serve()
	k.quiet()
	s, _ := r.current()
	full(s)
	k.send("%s", queryOf(juliet, "1"))
	if got := k.next(); !strings.Contains(got, "<error type='wait'><resource-constraint ") {
		t.Errorf("got %s", got)
	}
	if lost := receive(t, r.rosters.lost); lost.String() != juliet {
		t.Errorf("%v lost", lost)
	}
	if len(r.rosters.lost) != 0 {
		t.Error("lost twice")
	}
}
