package presence

import (
	"fmt"
	"testing"
	"time"

	"rosterd/internal/bubble"
)

// steps is a stage whose loop makes its steps when the test says so. x is available, and
// has more subscribers elsewhere than one step sends to.
func steps(t *testing.T, test func(s *stage, x *user)) {
	bubble.Test(t, func(t *testing.T) {
		s := newStage(t, Limits{})
		s.hub.settled = true
		s.hub.Available(address("x/1"), []byte("hi"))
		s.roster("x", everybody()...)
		s.drain()
		if n := len(s.take()); n != elsewhere {
			t.Fatalf("%d stanzas", n)
		}
		test(s, s.hub.users[address("x")])
	})
}

// drain makes steps until there is nothing to do.
func (s *stage) drain() {
	for wait, sent := s.step(); sent > 0 || wait <= 0; wait, sent = s.step() {
	}
}

const elsewhere = 100

func everybody() []string {
	all := []string{"y from"}
	for i := range elsewhere {
		all = append(all, fmt.Sprintf("w%d@c.example from", i))
	}
	return all
}

// What came after the mailbox was read, and takes somebody's subscription away, counts
// before anything is sent.
func TestRosterInTheMailbox(t *testing.T) {
	steps(t, func(s *stage, x *user) {
		s.hub.Available(address("x/1"), []byte("away"))
		s.hub.Available(address("y/1"), nil)
		s.hub.readMailbox(maxReading)
		s.hub.bringInLine(x)
		s.roster("x", "w1@c.example from")
		s.hub.Unavailable(address("x/1"), []byte("secret"))
		batch := s.hub.sendNews(nil)
		if batch, _ = s.hub.sendResync(batch, maxBatch); len(batch) > 0 {
			s.t.Errorf("sent %d stanzas", len(batch))
		}
		said := 0
		s.drain()
		for _, line := range s.take() {
			if line == "x/1>w1@c.example! secret" {
				said++
			} else if line[len(line)-1] != '!' {
				s.t.Errorf("sent %s", line)
			}
		}
		if said != 1 {
			s.t.Errorf("said %d times", said)
		}
	})
}

// What was written, and reported after the mailbox was read, counts before anything is sent.
func TestWrittenInTheMailbox(t *testing.T) {
	steps(t, func(s *stage, x *user) {
		s.hub.Keeper(&keeperStub{hub: s.hub})
		s.hub.InStep(x.jid, contacts(everybody()...))
		for range 3 { // what was relayed before has passed the server
			s.step()
			s.hub.setMark(s)
		}
		s.drain()
		s.hub.Available(address("x/1"), []byte("away"))
		s.hub.readMailbox(maxReading)
		s.written("x", "w1@c.example from>", false)
		s.hub.Available(address("x/1"), []byte("xa"))
		if batch := s.hub.sendNews(nil); len(batch) > 0 {
			s.t.Errorf("sent %d stanzas", len(batch))
		}
		s.drain()
		time.Sleep(s.hub.limits.Word + s.hub.limits.Calm) // it may be written again
		s.drain()
		s.expect("who is not sent it by the server", "x/1>w1@c.example: xa")
	})
}

// A resource is not forgotten before all were told of its end: neither if it ends while
// the walk through them is on its way, nor if the stream does.
func TestEndDuringTheWalk(t *testing.T) {
	for _, streamEnds := range []bool{false, true} {
		steps(t, func(s *stage, x *user) {
			s.hub.Available(address("x/1"), []byte("away"))
			if streamEnds {
				s.hub.Unavailable(address("x/1"), nil)
			}
			s.step()
			if streamEnds {
				s.hub.streamEnds()
			} else {
				s.hub.Unavailable(address("x/1"), nil)
			}
			s.hub.sendNews(nil)
			if r := x.find(address("x/1")); r.end != untold {
				s.t.Error("counts as told to all")
			}
		})
	}
}

// Who waits for a block list when the stream ends waits for nothing on the next one.
func TestStreamEndsWhileListsAreAskedFor(t *testing.T) {
	steps(t, func(s *stage, x *user) {
		s.unanswered = make(chan func(), 8)
		s.hub.Blocking("a.example", true)
		s.hub.Available(address("x/1"), []byte("away"))
		s.hub.readMailbox(maxReading)
		s.hub.bringInLine(x)
		s.step()
		if len(x.blocks.parked) != 2 || len(s.unanswered) != 1 {
			s.t.Fatalf("%+v", x.blocks)
		}
		s.hub.streamEnds()
		(<-s.unanswered)() // too late
		if h := s.hub; len(h.ready) != 1 || len(h.resyncs)+len(h.blockAsks)+len(h.mailbox) > 0 || x.resyncing || x.blocks.asking {
			s.t.Errorf("%d ready, %d to be brought in line", len(h.ready), len(h.resyncs))
		}
	})
}

// rostersKept is a stage whose loop makes its steps when the test says so, and where the
// server's own rosters are kept.
func rostersKept(t *testing.T, test func(s *stage, k *keeperStub)) {
	bubble.Test(t, func(t *testing.T) {
		s := newStage(t, Limits{})
		k := &keeperStub{hub: s.hub, says: make(map[string][]string)}
		s.hub.Keeper(k)
		s.hub.settled = true
		test(s, k)
	})
}

// Whether the server has asked a contact for who comes is what its rosters had when they came,
// in whatever order their users are looked at.
func TestWrittenBehindWhoComes(t *testing.T) {
	rostersKept(t, func(s *stage, k *keeperStub) {
		k.inStep(s, "x", "y from")
		k.inStep(s, "y", "x to")
		s.on("x/1", "y/1")
		s.drain()
		s.on("x/1 away") // x is looked at first
		s.roster("y", "x both")
		s.written("y", "x to>both", true)
		s.on("x/2")
		s.roster("x", "y both")
		s.written("x", "y from>both", true)
		s.drain()
		s.expect("the server did not ask for x/2", "y/1>x/2: hi")
	})
}

// It is the same on the next stream, if nothing was sent before this one ended.
func TestWrittenAtTheEnd(t *testing.T) {
	rostersKept(t, func(s *stage, k *keeperStub) {
		k.inStep(s, "x", "y from")
		k.inStep(s, "y", "x both")
		s.on("x/1", "y/1")
		s.drain()
		s.on("x/2")
		k.inStep(s, "x", "y both")
		s.written("x", "y from>both", false)
		s.hub.readMailbox(maxReading)
		s.hub.streamEnds()
		s.take()
		s.on("x/1", "x/2", "y/1")
		s.hub.settled = true
		k.hub.InStep(address("x"), contacts("y both"))
		k.hub.InStep(address("y"), contacts("x both"))
		s.drain()
		s.expect("the server did not ask for x/2", "y/1>x: hi")
	})
}
