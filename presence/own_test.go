package presence

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rosterd/internal/bubble"
	"rosterd/jid"
	"rosterd/roster"
)

// keeperStub keeps every host's rosters, and says what it is told to.
type keeperStub struct {
	hub  *Hub
	says map[string][]string // by user; nil: nothing is known
	mute bool                // ready is never called
	lost bool                // no rosters are kept
}

func (k *keeperStub) Keeps(string) bool { return !k.lost }

func (k *keeperStub) Keep(user jid.JID, ready func(bool)) {
	lines, ok := k.says[name(user)]
	if ok {
		k.hub.InStep(user, contacts(lines...))
	}
	if !k.mute {
		ready(ok)
	}
}

// kept is a stage on which the server's own rosters are kept, past its settling.
func kept(t *testing.T, test func(s *stage, k *keeperStub)) {
	bubble.Test(t, func(t *testing.T) {
		s := newStage(t, Limits{})
		k := &keeperStub{hub: s.hub, says: make(map[string][]string)}
		s.hub.Keeper(k)
		s.stream()
		time.Sleep(s.hub.limits.Settle + time.Second)
		test(s, k)
		s.end()
	})
}

// inStep makes a user's roster known, and the server's own the same.
func (k *keeperStub) inStep(s *stage, user string, lines ...string) {
	k.says[user] = lines
	s.roster(user, lines...)
}

// written is that the server's own roster of a user has a contact otherwise, such as
// "y from>both", or "y >both" of one who is new there.
func (s *stage) written(user, line string, exchanges bool) {
	who, subscription, _ := strings.Cut(line, " ")
	before, after, _ := strings.Cut(subscription, ">")
	c := roster.SubscriptionChange{JID: address(who), Before: roster.Subscription(before), After: roster.Subscription(after)}
	s.hub.Written(address(user), c, exchanges)
	synctest.Wait()
}

// What the server does by itself is not relayed.
func TestOwnRosters(t *testing.T) {
	kept(t, func(s *stage, k *keeperStub) {
		k.inStep(s, "x", "y both")
		k.inStep(s, "y", "x both")
		s.on("x/1", "y/1", "x/1 away", "x/2", "y/2")
		s.off("x/1 bye", "y/1")
		s.on("y/1")
		s.off("y/1", "y/2", "x/2")
		time.Sleep(time.Hour)
		s.expect("all by the server")
	})
}

// Who is not asked by the server, as the other roster lacks them, is answered by the hub.
func TestOwnRosterOfOneAlone(t *testing.T) {
	kept(t, func(s *stage, k *keeperStub) {
		k.inStep(s, "x", "y from")
		k.inStep(s, "y")
		s.on("x/1", "y/1")
		s.expect("the answer", "x/1>y/1: hi")
		s.on("x/1 away")
		s.off("x/1")
		time.Sleep(time.Second)
		s.expect("the rest is the server's")
	})
}

// A contact who is added while both are online is relayed the last presence once, if the
// server does not exchange presence then, and nothing if it does.
func TestOwnRosterGap(t *testing.T) {
	for _, exchanges := range []bool{false, true} {
		kept(t, func(s *stage, k *keeperStub) {
			k.inStep(s, "x")
			k.inStep(s, "y")
			s.on("x/1", "y/1", "x/1 away")
			s.expect("strangers")
			s.roster("x", "y both")
			s.roster("y", "x both")
			s.expect("it is about to be written")
			s.written("x", "y >both", exchanges)
			s.written("y", "x >both", exchanges)
			if exchanges {
				s.expect("the server has sent it")
			} else {
				s.expect("the gap", "x/1>y: away", "y/1>x: hi")
			}
			s.on("x/1", "y/1 dnd")
			s.off("y/1")
			s.on("y/1")
			time.Sleep(time.Minute)
			s.expect("from then on it is the server's")

			s.roster("x")
			s.expect("removed", "x/1>y!")
			s.on("x/1 xa")
			s.expect("the server still sends it", "x/1>y!")
			s.written("x", "y both>", exchanges)
			s.on("x/1")
			s.expect("not any more")
		})
	}
}

// What the server goes on showing is taken back when it no longer does.
func TestOwnRosterStale(t *testing.T) {
	kept(t, func(s *stage, k *keeperStub) {
		k.says["y"] = []string{"x both"}
		s.roster("y", "x both")
		s.on("y/1")
		k.mute = true
		s.roster("x")
		s.on("x/1") // the server shows x/1 to y, which nobody knows
		s.written("x", "y both>", false)
		time.Sleep(s.hub.limits.Word + time.Second)
		s.expect("taken back", "x/1>y!", "y/1>x/1: hi") // x's roster there is not known to have y
	})
}

// If it cannot be known what the server does, presence is relayed, after a while.
func TestOwnRosterUnknown(t *testing.T) {
	kept(t, func(s *stage, k *keeperStub) {
		s.roster("x", "y both")
		s.on("y/1", "x/1")
		s.expect("not in step", "x/1>y: hi")
		k.mute = true
		s.off("x/1")
		time.Sleep(3 * time.Minute)
		s.take()
		s.on("x/1")
		s.expect("the word is waited for")
		time.Sleep(s.hub.limits.Word + time.Second)
		s.expect("for a while", "x/1>y: hi")
	})
}

// On a new stream what is in step is not repeated.
func TestOwnRostersOnANewStream(t *testing.T) {
	kept(t, func(s *stage, k *keeperStub) {
		k.inStep(s, "x", "y both", "away both")
		k.inStep(s, "y", "x both")
		s.on("x/1", "y/1")
		s.stream()
		s.on("x/1", "y/1 away")
		time.Sleep(time.Second)
		s.expect("nothing is known yet")
		time.Sleep(time.Minute)
		s.expect("all was the server's")
		s.on("x/1 away")
		s.expect("and is")
		k.lost = true
		s.hub.Lost("a.example")
		s.on("x/1")
		s.expect("it is not any more", "x/1>y: hi")
	})
}

// What a server has before it is written says who was shown what, and who nothing: nobody is
// told of a resource that they never were to see.
func TestOwnRosterBeforeItIsWritten(t *testing.T) {
	kept(t, func(s *stage, k *keeperStub) {
		k.mute = true
		s.roster("x", "w to", "y both", "v from")
		s.on("v/1", "w/1", "y/1", "z/1")
		k.says["x"] = []string{"v from", "z from"}
		s.on("x/1")
		s.expect("it is known who is not to see x, and sees them", "x/1>z!")
		s.written("x", "z from>", false)
		s.written("x", "w >to", false)
		s.expect("w never saw x")
		s.written("x", "y >both", true)
		s.on("x/1 away")
		time.Sleep(time.Minute)
		s.expect("the server has told y")
	})
}

// Whom a new stream tells that a contact is not to be seen, the next one does not tell which
// resources the contact has.
func TestOwnRosterNotToBeSeen(t *testing.T) {
	kept(t, func(s *stage, k *keeperStub) {
		k.inStep(s, "x")
		k.inStep(s, "y", "x to")
		for range 3 {
			s.on("x/1", "y/1")
			time.Sleep(time.Minute)
			s.stream()
			s.on("x/1", "y/1")
			time.Sleep(time.Minute)
			s.expect("the bare JID alone", "x>y!")
		}
	})
}

// What the server reports when a stream begins is in no order: nobody knows who came first,
// and was asked for, but by what the rosters had before.
func TestOwnRostersOfWhoWasThere(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s := newStage(t, Limits{})
		k := &keeperStub{hub: s.hub, says: make(map[string][]string)}
		s.hub.Keeper(k)
		s.stream()
		k.inStep(s, "y", "x both")
		s.roster("x", "y both")
		k.says["x"] = []string{}
		s.on("x/1", "y/1")
		time.Sleep(s.hub.limits.Settle + s.hub.limits.Word/2)
		s.written("x", "y >both", false)
		time.Sleep(time.Minute)
		s.expect("the server had nobody to ask for x/1, and did not send x/1", "y/1>x/1: hi", "x/1>y: hi")
		s.end()
	})
}

// Who was told that a user is not to be seen, and may see them again, is told so after a new
// stream: the server, which has them all the time, does not.
func TestOwnRosterSeenAgain(t *testing.T) {
	kept(t, func(s *stage, k *keeperStub) {
		k.inStep(s, "x", "y both")
		k.inStep(s, "y", "x both")
		s.on("y/1", "x/1")
		s.roster("x", "y to")
		s.expect("the server shows x", "x/1>y!")
		time.Sleep(time.Minute) // it has passed the server
		s.stream()
		s.on("y/1", "x/1")
		s.roster("x", "y both")
		time.Sleep(time.Minute)
		s.expect("the server goes on as before", "x/1>y: hi")
	})
}
