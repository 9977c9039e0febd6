package presence

import (
	"slices"
	"testing"
	"time"

	"rosterd/internal/bubble"
	"rosterd/jid"
)

// What an earlier rosterd has shown and is not there any more is taken back from its
// full JIDs, for there are clients that know no other. Who could not see a user is
// not told his resources, nor is somebody who has come since.
func TestRecall(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s := newStage(t, Limits{})
		var shown []jid.JID
		for _, full := range []string{"x/1", "x/2", "y/1", "z/1", "w/1", "v/1", "w@c.example/1"} {
			shown = append(shown, address(full))
		}
		s.hub.Recall(shown)
		s.roster("x", "y both", "w both", "late both")
		s.roster("y", "x both", "z both", "v both", "x@b.example to")
		s.roster("z", "y to") // who does not show himself to y
		s.roster("w", "x to", "y both")
		s.roster("late", "x both")
		s.stream()
		s.on("y/1", "x/2", "late/1")
		s.take()
		s.roster("x", "w both", "late both") // y may no longer see x
		time.Sleep(s.hub.limits.Settle + time.Second)
		var got []string
		for _, line := range s.take() {
			if line[len(line)-1] == '!' {
				got = append(got, line)
			}
		}
		want := map[string]bool{
			"x/1>y!": true, "x/2>y!": true, // as y saw them
			"z>y!":           true, // whose resources are no affair of his
			"w>x!":           true, // nor of w's
			"v/1>y!":         true, // who may have seen that is not known
			"x@b.example>y!": true, // who was never there
		}
		slices.Sort(got)
		for _, line := range slices.Compact(got) { // what was taken back may be told twice
			if !want[line] {
				t.Errorf("sent %s", line)
			}
			delete(want, line)
		}
		for line := range want {
			t.Errorf("not sent: %s", line)
		}
		// On a later stream, too, and for one who is reported late.
		s.end()
		s.end = nil
		s.stream()
		s.on("y/1", "x/2", "late/1")
		time.Sleep(s.hub.limits.Settle + time.Second)
		s.take()
		s.on("w/1")
		s.hub.Align(address("w"))
		time.Sleep(time.Second)
		s.expect("w sees x/2, and has seen x/1", "w/1>y: hi", "x/2>w/1: hi", "x/1>w!", "y>w!")
		s.end()
	})
}

// What a new stream takes back of somebody whom the server shows is relayed if it is to be
// seen again.
func TestRecalledTooEarly(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s := newStage(t, Limits{})
		k := &keeperStub{hub: s.hub, says: map[string][]string{"x": {"y both"}, "y": {"x both"}}}
		s.hub.Keeper(k)
		s.hub.Recall([]jid.JID{address("x/1"), address("y/1")})
		s.roster("x")
		s.roster("y", "x both")
		s.stream()
		s.on("x/1", "y/1")
		time.Sleep(s.hub.limits.Settle + time.Second)
		s.take()
		s.roster("x", "y both")
		time.Sleep(time.Second)
		s.expect("the server has nothing to send", "x/1>y: hi")
		s.end()
	})
}

// Who may not see a contact any more is told that the contact is not there, if rosterd was
// killed before it took that back: the server does not.
func TestRecallAfterARemoval(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s := newStage(t, Limits{})
		s.hub.Keeper(&keeperStub{hub: s.hub, says: map[string][]string{"y": {"x to", "z to"}}})
		s.hub.Recall([]jid.JID{address("x/1"), address("y/1")})
		s.roster("x")
		s.roster("y", "x to", "z to")
		s.stream()
		s.on("y/1")
		time.Sleep(s.hub.limits.Settle + time.Minute)
		s.expect("but not of z, whom no rosterd has shown", "x>y!")
		s.end()
	})
}
