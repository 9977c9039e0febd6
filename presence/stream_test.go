package presence

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rosterd/internal/bubble"
)

// A resource that comes and goes, or changes, a thousand times a minute.
func TestFlapping(t *testing.T) {
	for _, last := range []string{"x/1! bye", "x/1: away"} {
		play(t, Limits{}, func(t *testing.T, s *stage) {
			s.roster("x", "y both")
			s.roster("y", "x both")
			s.on("y/1", "x/1")
			s.take()
			for range 500 {
				s.off("x/1 bye")
				time.Sleep(60 * time.Millisecond)
				s.on("x/1 away")
				time.Sleep(60 * time.Millisecond)
				s.roster("x", "y both")
			}
			if last == "x/1! bye" {
				s.off("x/1 bye")
			}
			time.Sleep(time.Minute)
			sent := s.take()
			if n := len(sent); n > 120 {
				t.Errorf("%d stanzas", n)
			}
			sent = slices.DeleteFunc(sent, func(s string) bool { return !strings.HasPrefix(s, "x/1>y") })
			if got := strings.Replace(sent[len(sent)-1], ">y", "", 1); got != last {
				t.Errorf("the last is %q and not %q", got, last)
			}
		})
	}
}

// While the server reads nothing, events do not wait, nothing piles up, and
// others are served when it reads again; the states between are not sent.
func TestBlockedSender(t *testing.T) {
	play(t, Limits{}, func(t *testing.T, s *stage) {
		const users = 40
		var all []string
		for i := range users {
			all = append(all, fmt.Sprintf("u%d both", i))
		}
		for i := range users {
			s.roster(fmt.Sprintf("u%d", i), all...)
		}
		block := make(chan struct{})
		s.set(false, block)
		for round := range 1000 {
			who := fmt.Sprintf("u%d", round%users)
			s.on(who+"/1 "+fmt.Sprint(round), who+fmt.Sprintf("/r%d", round))
			s.roster(who, all...)
			if round < 1000-users {
				s.off(who+"/1", who+fmt.Sprintf("/r%d", round))
			}
		}
		queued, resources, _ := s.counts()
		if queued > 3*users || resources > 4*users {
			t.Errorf("%d in queues, %d resources", queued, resources)
		}
		s.set(false, nil)
		close(block)
		time.Sleep(time.Minute)
		if n := len(s.take()); n < 2*users*(users-1) || n > 3*2*users*(users-1) {
			t.Errorf("%d stanzas", n)
		}
	})
}

// Who may no longer see somebody does not see what he says when he leaves.
func TestGoneAfterTakenAway(t *testing.T) {
	play(t, Limits{}, func(t *testing.T, s *stage) {
		s.roster("x", "y from", "z from")
		s.on("y/1", "z/1", "x/1")
		block := make(chan struct{})
		s.set(false, block)
		s.on("x/1 away") // is on its way
		s.roster("x", "z from")
		s.off("x/1 bye")
		s.set(false, nil)
		close(block)
		s.expect("y is told, too", "x/1>y: hi", "x/1>z: hi", "x/1>y: away", "x/1>z: away", "x/1>y!", "x/1>z! bye")
	})
}

// Nobody is told that somebody goes who was not told that he came.
func TestGoneBeforeShown(t *testing.T) {
	play(t, Limits{}, func(t *testing.T, s *stage) {
		s.roster("x", "y from")
		s.on("y/1", "x/1", "z/1")
		block := make(chan struct{})
		s.set(false, block)
		s.on("x/1 away") // is on its way
		s.roster("x", "y from", "z from")
		s.on("x/2")
		s.off("x/1", "x/2")
		s.set(false, nil)
		close(block)
		s.expect("only y knows x, and x/1 alone", "x/1>y: hi", "x/1>y: away", "x/1>y!")
	})
}

// Where everybody lists everybody, each is told of each other once.
func TestEverybody(t *testing.T) {
	play(t, Limits{}, func(t *testing.T, s *stage) {
		const users = 150
		var all []string
		for i := range users {
			all = append(all, fmt.Sprintf("u%d both", i))
		}
		everybody := contacts(all...)
		for i := range users {
			s.known[address(fmt.Sprintf("u%d", i))] = everybody
		}
		for i := range users {
			s.on(fmt.Sprintf("u%d/1", i))
		}
		if n := len(s.take()); n != users*(users-1) {
			t.Errorf("%d stanzas when all came", n)
		}
		s.on("u7/1 away")
		if n := len(s.take()); n != users-1 {
			t.Errorf("%d stanzas for an update", n)
		}
	})
}

// The order of what one user is told of one resource is that of the facts.
func TestOrder(t *testing.T) {
	play(t, Limits{Burst: 1 << 30}, func(t *testing.T, s *stage) {
		s.roster("x", "y both", "z both")
		s.roster("y", "x both")
		s.roster("z", "x both")
		s.on("y/1", "z/1")
		s.take()
		var work sync.WaitGroup
		for _, r := range []string{"x/1", "x/2"} {
			work.Go(func() {
				for i := range 300 {
					s.hub.Available(address(r), fmt.Appendf(nil, "%03d", i))
				}
				s.hub.Unavailable(address(r), []byte("300"))
			})
		}
		work.Wait()
		last := make(map[string]string)
		for _, line := range s.take() {
			way, payload := line[:5], line[len(line)-3:]
			if way[0] != 'x' {
				continue
			}
			if payload < last[way] {
				t.Errorf("%s after %s", line, last[way])
			}
			last[way] = payload
		}
		for way, payload := range last {
			if payload != "300" {
				t.Errorf("%s ends with %s", way, payload)
			}
		}
	})
}

func TestResourcesAreBounded(t *testing.T) {
	play(t, Limits{Resources: 4}, func(t *testing.T, s *stage) {
		s.roster("x", "y from")
		s.roster("y")
		s.on("y/1")
		for i := range 6 {
			s.on(fmt.Sprintf("x/%d", i))
		}
		time.Sleep(time.Minute)
		s.expect("two are given up", "x/0>y: hi", "x/1>y: hi", "x/2>y: hi", "x/3>y: hi", "x/4>y: hi", "x/5>y: hi", "x/0>y!", "x/1>y!")
		for i := range 1000 {
			s.on(fmt.Sprintf("x/%d", i))
			if _, n, _ := s.counts(); n > 8+1 { // with y's
				t.Fatalf("%d resources", n)
			}
		}
		time.Sleep(time.Minute)
		shown := make(map[string]bool)
		for _, line := range s.take() {
			if from, _, _ := strings.Cut(line, ">"); strings.Contains(line, "!") {
				delete(shown, from)
			} else {
				shown[from] = true
			}
		}
		if len(shown) != 4 {
			t.Errorf("%d shown", len(shown))
		}
	})
}

func TestOneStreamAtATime(t *testing.T) {
	play(t, Limits{}, func(t *testing.T, s *stage) {
		if err := run(t.Context(), s.hub, s); err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("a second stream: %v", err)
		}
	})
}

func TestRunEndsWithTheStream(t *testing.T) {
	play(t, Limits{}, func(t *testing.T, s *stage) {
		s.end()
		s.roster("x", "z@c.example from")
		s.set(true, nil)
		s.on("x/1")
		if err := run(t.Context(), s.hub, s); !errors.Is(err, errGone) {
			t.Errorf("Run: %v", err)
		}
		s.set(false, nil)
		s.stream()
		time.Sleep(time.Minute)
		s.expect("sent again", "x/1>z@c.example: hi")
	})
}

// What was shown over a stream that was lost is brought in line on the next.
func TestReconnect(t *testing.T) {
	both := []string{"x both", "y both", "z both", "away both", "el@c.example both"}
	begin := func(s *stage) {
		for _, u := range []string{"x", "y", "z"} {
			s.roster(u, both...)
		}
		s.on("x/1", "y/1", "z/1")
		s.take()
		time.Sleep(time.Second)
		s.end()
		time.Sleep(time.Second)
	}
	everything := []string{"x/1>y: hi", "x/1>z: hi", "y/1>x: hi", "y/1>z: hi", "z/1>x: hi", "z/1>y: hi",
		"x/1>el@c.example: hi", "y/1>el@c.example: hi", "z/1>el@c.example: hi", "away>x!", "away>y!", "away>z!"}
	without := func(all []string, prefix string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return strings.Contains(s, prefix) })
	}
	settle := func(s *stage) { time.Sleep(s.hub.limits.Settle + time.Second) }
	t.Run("nothing is reported", func(t *testing.T) {
		play(t, Limits{}, func(t *testing.T, s *stage) {
			begin(s)
			s.stream()
			time.Sleep(s.hub.limits.Settle - time.Second)
			s.expect("the server has time to report")
			time.Sleep(2 * time.Second)
			s.expect("everything", everything...)
			time.Sleep(time.Hour)
			s.expect("an hour later")
		})
	})
	t.Run("all are reported", func(t *testing.T) {
		play(t, Limits{}, func(t *testing.T, s *stage) {
			begin(s)
			s.stream()
			s.on("x/1", "y/1", "z/1")
			s.expect("the reports are no news")
			settle(s)
			s.expect("everything", everything...)
		})
	})
	t.Run("one is found gone", func(t *testing.T) {
		play(t, Limits{}, func(t *testing.T, s *stage) {
			begin(s)
			since := time.Now()
			s.stream()
			time.Sleep(time.Second)
			s.on("x/1")
			s.hub.Alive(address("y/1"))
			if got := s.hub.Unheard(since); len(got) != 1 || name(got[0]) != "z/1" {
				t.Errorf("unheard are %v", got)
			}
			s.off("z/1")
			s.expect("at once", "z/1>x!", "z/1>y!", "z/1>el@c.example!")
			settle(s)
			s.expect("everything", append(without(everything, "z"), "z>x!", "z>y!")...)
		})
	})
	t.Run("unavailable presence was lost with the stream", func(t *testing.T) {
		play(t, Limits{}, func(t *testing.T, s *stage) {
			begin(s)
			s.stream()
			settle(s)
			s.on("x/2")
			s.off("x/2 bye", "z/1 bye")
			s.roster("y", both[0], both[1], both[3]) // neither z nor the one elsewhere
			s.take()
			time.Sleep(s.hub.limits.Linger - time.Second)
			s.end()
			time.Sleep(time.Hour)
			s.stream()
			settle(s)
			s.expect("everything, and once more who left", append(without(without(everything, "z"), "y/1>el"), "z>x!",
				"x/2>y! bye", "x/2>el@c.example! bye", "z/1>x! bye", "z/1>y! bye", "z/1>el@c.example! bye", "y/1>el@c.example!")...)
			time.Sleep(2 * s.hub.limits.Linger)
			s.end()
			s.stream()
			settle(s)
			s.expect("who left long ago is forgotten", append(without(without(everything, "z"), "y/1>el"), "z>x!")...)
		})
	})
	t.Run("who comes first is not shown who may be gone", func(t *testing.T) {
		play(t, Limits{}, func(t *testing.T, s *stage) {
			begin(s)
			s.stream()
			s.on("x/1", "x/2")
			s.expect("x/2 is new", "x/2>y: hi", "x/2>z: hi", "x/2>el@c.example: hi", "x/1>y: hi", "x/1>z: hi", "x/1>el@c.example: hi")
			s.on("z/1")
			s.off("y/1")
			settle(s)
			s.expect("everything", "y/1>x!", "y/1>z!", "y/1>el@c.example!", "y>x!", "y>z!", "away>x!", "away>z!", "z/1>x: hi", "z/1>el@c.example: hi",
				"x/1>z/1: hi", "x/2>z/1: hi") // for z/1 may be of a new session
		})
	})
	t.Run("rated", func(t *testing.T) {
		play(t, Limits{Rate: 2}, func(t *testing.T, s *stage) {
			begin(s)
			s.stream()
			time.Sleep(s.hub.limits.Settle + 3*time.Second - time.Millisecond)
			if n := len(s.take()); n < 5 || n > 7 {
				t.Errorf("%d stanzas in 3 s", n)
			}
			s.hub.Alive(address("x/1"))
			s.on("x/1 away")
			s.expect("news do not wait", "x/1>y: away", "x/1>z: away", "x/1>el@c.example: away")
			time.Sleep(10 * time.Second)
			s.take()
			time.Sleep(time.Hour)
			s.expect("an hour later")
		})
	})
}

// After a restart of rosterd contacts may be shown who left meanwhile.
func TestRestart(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s := newStage(t, Limits{})
		s.roster("x", "y both", "away to", "z both", "late both", "el@c.example both", "x both")
		s.stream()
		s.on("x/1", "y/1", "z/1", "late/1")
		s.expect("only x's roster is known", "x/1>el@c.example: hi", "x/1>y/1: hi", "x/1>z/1: hi", "x/1>late/1: hi")
		s.roster("z", "x to")
		s.roster("y", "x both", "away from")
		s.expect("y's roster is known", "y/1>x: hi")
		time.Sleep(s.hub.limits.Settle + time.Second)
		s.expect("contacts who are not there, or not to be seen", "away>x!", "z>x!")
		s.roster("late", "x from", "away to")
		s.expect("late is known", "late/1>x: hi", "away>late!")
		s.on("w/1")
		s.roster("w", "away both")
		s.expect("w has come anew")
		time.Sleep(time.Second)
		s.hub.Align(address("w"))
		s.expect("w has not", "away>w!")
		s.end()
	})
}

// Nothing is sent before it is kept who is available.
func TestBarrier(t *testing.T) {
	play(t, Limits{}, func(t *testing.T, s *stage) {
		s.end()
		kept := make(chan struct{})
		s.hub.Barrier(func() { <-kept })
		s.stream()
		s.roster("x", "y both")
		s.roster("y", "x both")
		s.on("x/1", "y/1")
		s.expect("it is not kept")
		close(kept)
		s.expect("it is", "x/1>y/1: hi", "y/1>x: hi")
	})
}
