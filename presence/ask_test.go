package presence

import (
	"fmt"
	"testing"
	"time"

	"rosterd/jid"
)

// A user whose roster is not known is asked for, and seen when it is told.
func TestUnknownRoster(t *testing.T) {
	play(t, Limits{}, func(t *testing.T, s *stage) {
		s.roster("y", "x both")
		s.on("y/1", "x/1")
		s.expect("x is not known", "y/1>x/1: hi")
		if time.Sleep(time.Minute); fmt.Sprint(s.wants()) != "[x]" {
			t.Errorf("wanted %v", s.wants())
		}
		s.on("x/1 away")
		time.Sleep(time.Minute)
		s.expect("still not known")
		s.roster("x", "y from")
		s.expect("known", "x/1>y: away")
		if fmt.Sprint(s.wants()) != "[x]" {
			t.Errorf("wanted %v", s.wants())
		}
	})
}

// Nobody looks for changes of the roster of a user who is away: he is not seen
// by who was his contact then.
func TestRosterFromBefore(t *testing.T) {
	play(t, Limits{}, func(t *testing.T, s *stage) {
		s.roster("x", "y from", "z from")
		s.roster("y")
		s.roster("z")
		s.on("y/1", "z/1", "x/1")
		s.off("x/1")
		s.take()
		s.forget("x")
		s.on("x/1")
		s.expect("x's roster may have changed")
		s.roster("x", "z from")
		s.expect("it has: y is told once more, which does no harm", "x/1>z: hi", "x/1>y!")
	})
}

// A client that asks for its roster itself is not fetched for once more.
func TestWantWaits(t *testing.T) {
	play(t, Limits{}, func(t *testing.T, s *stage) {
		s.on("x/1", "y/1")
		time.Sleep(s.hub.limits.WantAfter / 2)
		s.roster("x", "y from")
		s.off("y/1")
		time.Sleep(time.Minute)
		if len(s.wants()) > 0 {
			t.Errorf("wanted %v", s.wants())
		}
	})
}

func TestWantsAreRated(t *testing.T) {
	play(t, Limits{Wants: 5}, func(t *testing.T, s *stage) {
		for i := range 100 {
			s.on(fmt.Sprintf("u%d/1", i))
		}
		time.Sleep(s.hub.limits.WantAfter + 4*time.Second - time.Millisecond)
		if n := len(s.wants()); n != 20 {
			t.Errorf("%d wanted in 4 s", n)
		}
		time.Sleep(time.Minute)
		if n := len(s.wants()); n != 100 {
			t.Errorf("%d wanted", n)
		}
	})
}

// A user whose roster did not get known is asked for again on the next stream,
// and brought in line once it is known, but not before the server had its time.
func TestUnknownOnTheNextStream(t *testing.T) {
	play(t, Limits{}, func(t *testing.T, s *stage) {
		s.end()
		s.on("x/1")
		s.stream()
		time.Sleep(time.Minute)
		s.end()
		s.stream()
		time.Sleep(5 * time.Second)
		if fmt.Sprint(s.wants()) != "[x x]" {
			t.Errorf("wanted %v", s.wants())
		}
		s.roster("x", "away to", "z@c.example from")
		time.Sleep(4 * time.Second)
		s.expect("the server has time to report")
		time.Sleep(2 * time.Second)
		s.expect("the time is over", "away>x!", "x/1>z@c.example: hi")
	})
}

// What Known returns may be older than what is told meanwhile.
func TestToldWhileKnownIsAsked(t *testing.T) {
	play(t, Limits{}, func(t *testing.T, s *stage) {
		s.roster("x", "y from")
		s.roster("y")
		s.asked = func(user jid.JID) {
			if name(user) == "x" {
				s.roster("x", "z@c.example from")
			}
		}
		s.on("y/1", "x/1")
		s.expect("the newer counts", "x/1>z@c.example: hi")
	})
}

// What Known returns may be older than what was told while the user was away for a
// moment.
func TestAwayWhileKnownIsAsked(t *testing.T) {
	play(t, Limits{}, func(t *testing.T, s *stage) {
		s.roster("x", "y from")
		s.roster("y")
		once := true
		s.asked = func(user jid.JID) {
			if name(user) == "x" && once {
				once = false
				s.hub.Unavailable(address("x/1"), nil)
				s.roster("x", "z@c.example from")
				s.hub.Available(address("x/1"), []byte("back"))
			}
		}
		s.on("y/1", "x/1")
		s.expect("the newer counts", "x/1>z@c.example: back")
	})
}

// Nor does what was told, and not worked out yet, before the user was away for a moment.
func TestAwayWhileToldIsUnread(t *testing.T) {
	play(t, Limits{}, func(t *testing.T, s *stage) {
		s.roster("x", "y from")
		s.on("y/1", "x/1")
		s.take()
		block := make(chan struct{})
		s.set(false, block)
		s.on("x/1 away") // is on its way
		s.roster("x", "w@c.example from")
		s.hub.Unavailable(address("x/1"), []byte("secret"))
		s.mu.Lock()
		s.known[address("x")] = contacts("z@c.example from")
		s.mu.Unlock()
		s.hub.Available(address("x/1"), []byte("back"))
		s.set(false, nil)
		close(block)
		s.expect("what is known now counts", "x/1>y: away", "x/1>y!", "x/1>z@c.example: back")
	})
}

// While Known is busy, facts do not wait.
func TestKnownIsSlow(t *testing.T) {
	play(t, Limits{}, func(t *testing.T, s *stage) {
		s.roster("x", "y from")
		s.asked = func(user jid.JID) {
			if name(user) == "x" {
				time.Sleep(time.Minute)
			}
		}
		begin := time.Now()
		s.hub.Available(address("x/1"), []byte("hi"))
		time.Sleep(time.Second)
		for _, r := range []string{"y/1", "z/1"} {
			s.hub.Available(address(r), nil)
			s.hub.Told(address(r).Bare(), contacts("x both"))
			s.hub.Unheard(time.Now())
			s.hub.Unavailable(address(r), nil)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("took %v", took)
		}
		time.Sleep(2 * time.Minute)
	})
}
