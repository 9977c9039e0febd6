package presence

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"rosterd/jid"
)

// blocks makes the block list of a user.
func (s *stage) blocks(user string, whom ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blocked == nil {
		s.blocked = make(map[string][]jid.JID)
	}
	s.blocked[user] = nil
	for _, w := range whom {
		if w == "b.example" {
			s.blocked[user] = append(s.blocked[user], domainJID(w))
		} else {
			s.blocked[user] = append(s.blocked[user], address(w))
		}
	}
}

// asked are those whose block lists were asked for since the last call.
func (s *stage) askedLists() []string {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	lists := s.lists
	s.lists = nil
	slices.Sort(lists)
	return lists
}

// Who is blocked is told nothing new of a user, and that he is gone; who is not any
// more, sees him.
func TestBlocked(t *testing.T) {
	play(t, Limits{}, func(t *testing.T, s *stage) {
		s.roster("x", "y both", "z from", "v@b.example both")
		s.roster("y", "x both")
		s.roster("v@b.example", "x both")
		s.hub.Blocking("a.example", true)
		s.on("x/1", "y/1", "z/1", "v@b.example/1")
		s.take()
		s.blocks("x", "y")
		s.on("x/1 secret")
		s.expect("y is blocked", "x/1>y!", "x/1>z: secret", "x/1>v@b.example: secret")
		s.blocks("x", "y/mobile", "b.example")
		s.on("x/1 hidden")
		s.expect("a resource, and a domain", "x/1>z: hidden", "x/1>v@b.example!")
		s.on("y/2")
		s.expect("y is not told when he comes", "y/2>x: hi")
		s.blocks("x", "z")
		s.hub.BlocksChanged(address("x"))
		s.expect("as the server says so", "x/1>z!", "x/1>y: hidden", "x/1>v@b.example: hidden")
		s.blocks("x", "z", "y")
		s.off("x/1 good-bye")
		s.expect("nor why x leaves", "x/1>v@b.example! good-bye", "x/1>y!")
	})
}

// What is shown to who comes online is by a list that is young.
func TestBlockListIsYoung(t *testing.T) {
	play(t, Limits{}, func(t *testing.T, s *stage) {
		s.roster("x", "y from")
		s.roster("y")
		s.hub.Blocking("a.example", true)
		s.on("x/1")
		s.take()
		s.askedLists()
		time.Sleep(s.hub.limits.BlockAge - time.Second)
		s.on("y/1")
		s.expect("x is shown", "x/1>y/1: hi")
		if got := s.askedLists(); !slices.Equal(got, []string{"y"}) {
			t.Errorf("asked for %v", got)
		}
		s.off("y/1")
		s.blocks("x", "y")
		time.Sleep(2 * time.Second)
		s.on("y/1")
		s.expect("x has blocked y meanwhile", "x/1>y!")
	})
}

// Presence waits for the answer, however many come meanwhile, and there is one
// question at a time. A lost stream is no answer, nor is one that comes too late.
func TestBlockListIsWaitedFor(t *testing.T) {
	play(t, Limits{}, func(t *testing.T, s *stage) {
		s.roster("x", "y from")
		s.on("y/1", "x/1")
		s.take()
		s.hub.Blocking("a.example", true)
		s.unanswered = make(chan func(), 8)
		s.blocks("x", "y")
		for i := range 5 {
			s.on(fmt.Sprint("x/1 ", i))
		}
		s.expect("nothing is known")
		if got := s.askedLists(); !slices.Equal(got, []string{"x"}) {
			t.Errorf("asked for %v", got)
		}
		late := <-s.unanswered
		s.stream()
		s.take() // nothing is relayed before the host has announced what may be done
		s.hub.Blocking("a.example", true)
		s.on("x/1 again")
		time.Sleep(s.hub.limits.Settle + time.Second)
		late()
		s.expect("the question was lost")
		(<-s.unanswered)()
		time.Sleep(time.Second)
		if queued, _, _ := s.counts(); queued != 0 && len(s.unanswered) == 0 {
			t.Errorf("%d queued", queued)
		}
		for len(s.unanswered) > 0 {
			(<-s.unanswered)()
		}
		for _, line := range s.take() {
			if line != "x/1>y!" && line != "x>y!" {
				t.Errorf("sent %s", line)
			}
		}
	})
}

// A host that cannot be asked is not.
func TestNoBlockLists(t *testing.T) {
	play(t, Limits{}, func(t *testing.T, s *stage) {
		s.roster("x", "y from")
		s.blocks("x", "y")
		s.on("y/1", "x/1")
		s.expect("nobody knows", "x/1>y: hi")
		if got := s.askedLists(); len(got) > 0 {
			t.Errorf("asked for %v", got)
		}
	})
}

// Who is brought in line is, at Limits.Rate, when the answer has come, too.
func TestBlockListsAreRated(t *testing.T) {
	play(t, Limits{Rate: 2}, func(t *testing.T, s *stage) {
		for i := range 5 {
			s.roster(fmt.Sprintf("u%d", i), "z@c.example from", "w@c.example from")
			s.on(fmt.Sprintf("u%d/1", i))
		}
		s.take()
		s.stream()
		s.hub.Blocking("a.example", true)
		time.Sleep(s.hub.limits.Settle + 4*time.Second - time.Millisecond)
		if n := len(s.take()); n < 1 || n > 8 {
			t.Errorf("%d stanzas in 4 s", n)
		}
		time.Sleep(time.Hour)
		s.take()
		if got := s.askedLists(); len(got) != 5 {
			t.Errorf("asked for %v", got)
		}
	})
}
