package presence

import (
	"cmp"
	"slices"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// user is somebody who is available, or was until a moment ago.
type user struct {
	jid jid.JID // bare

	// What is true of them. Hub.mu guards it.
	resources []*resource    // in the order they were seen
	available int            // of the resources
	cameAt    uint64         // the fact that one became available while none was
	changed   uint64         // the last fact that must not be shown by an older block list
	told      *roster.Roster // to become the user's roster
	answer    *blockAnswer   // to become the user's block list
	relayed   uint64         // the last fact by which somebody was relayed something
	facts     []ownFact      // of the server's own roster, in their order, to become part of own
	news      bool           // subscribers are to be sent something
	initial   bool           // a resource has sent initial presence
	outdated  bool           // told is from before they were last away
	known     bool           // roster is the user's; else it is from before they were last away, or nil
	wanted    bool           // Rosters.Want was called, on this stream, while they were available
	align     bool           // to be brought in line, as Align says
	aligned   bool           // Align has said so, on this stream
	ready     bool           // Keeper.Keep has nothing more to wait for
	posted    bool           // in the mailbox

	// What follows from it. It is of the loop alone.
	id           uint32
	online       bool // available, as the index has it
	leftAt       time.Duration
	roster       *roster.Roster
	subscribers  []subscriber // those who can be sent something now, ascending by id
	blocks       blocks
	own          *own   // what is known of the server's own roster; nil: nothing, as a rule
	broadcast    cursor // over the subscribers, who are sent what they were not
	probe        cursor // over whom the user is subscribed to: the user is sent their presence
	queued       bool   // in ready or heldBack, or waits for a block list
	expiring     bool   // in expiries
	fetching     bool   // in wants
	holding      bool   // in holds
	unmarked     bool   // in relayers
	absentAt     uint64 // the last fact by which they were told who is absent
	resyncing    bool   // in resyncs, or waits for a block list
	resyncsLater bool   // once the roster is known
	burst        int    // how often they got into ready, each time less than Calm after the last
	readyAt      time.Duration
}

// resource is one of a user's resources that is available, or whose unavailable presence
// may not have reached everybody.
type resource struct {
	full     jid.JID
	payload  []byte
	since    uint64        // the fact that it became available; who was sent facts before was not sent it
	changed  uint64        // the last fact of it
	joined   uint64        // the fact of its initial presence, or that it was reported anew; it was sent nothing before
	came     uint64        // the fact of its initial presence; 0: it was there before it was reported
	heard    time.Duration // when the server, or the resource, last gave a sign of it
	again    bool          // its next presence counts as its initial one
	replayed bool          // its last presence was reported when a stream began, and may be older than changed says
	early    bool          // its last presence came when something relayed may not have passed the server
	missed   bool          // the server may not have said that it ended, or nobody knows when
	shown    bool          // somebody was sent that it is available
	end      end
}

func (r *resource) gone() bool { return r.end != lasts }

// subscriber is somebody who may be sent a user's presence, or no longer may. One who
// leaves is kept for a while: what is on its way to them is delivered if they come back,
// and must then be taken back if it is not true.
type subscriber struct {
	id      uint32
	lost    bool   // whatever sent says, nothing may have arrived: the stream was lost
	doubt   bool   // whatever the server has sent and sent says, nobody knows what they are shown
	relayed bool   // what was sent last may still be on its way to the server, or newcomers came before it asked for them
	end     end    // of the subscription
	sent    uint64 // they were sent all facts of the user up to this one; 0: none
}

// end is how far the news of an end has got, that of a resource or a subscription. They
// may still be lost with the stream until Limits.Linger has passed.
type end uint8

const (
	lasts   end = iota // no end
	untold             // some who must know may not have been told
	told               // since less than Linger
	expired            // since Linger, or longer: to be forgotten
)

// cursor walks through a list that is ascending by id, in steps between which the list
// may change.
type cursor struct {
	on    bool
	again bool   // from the start, once it is through
	next  uint32 // the id to go on with; 0: not begun
}

// start says that the whole list is to be walked through from now on.
func (c *cursor) start() { c.on, c.again = true, c.on && c.next > 0 }

// through says that the list is through.
func (c *cursor) through() { *c = cursor{on: c.again} }

// find is the resource with that JID, or nil. The nil user has none.
func (u *user) find(full jid.JID) *resource {
	if u != nil {
		for _, r := range u.resources {
			if r.full == full {
				return r
			}
		}
	}
	return nil
}

// fresh are resources that have become available of late.
type fresh struct {
	one         *resource // one of them
	n           int
	first, last uint64 // of joined
	came        uint64 // the first of those facts; 0: one was there before it was reported
}

// fresh are the available resources whose initial presence came after a fact. The nil user
// has none.
func (u *user) fresh(after uint64) (f fresh) {
	if u == nil {
		return f
	}
	for _, r := range u.resources {
		if r.gone() || r.joined <= after {
			continue
		}
		if f.n == 0 {
			f.first, f.came = r.joined, r.came
		}
		f.first, f.came = min(f.first, r.joined), min(f.came, r.came)
		f.one, f.n, f.last = r, f.n+1, max(f.last, r.joined)
	}
	return f
}

// tell notes the roster that is to become the user's.
func (u *user) tell(now *roster.Roster) {
	if u.told, u.outdated = now, false; now == nil {
		u.told = &roster.Roster{} // the nil Roster is empty, but here it is unknown
	}
}

// lacksRoster reports whether the roster of an available user is not known.
func (u *user) lacksRoster() bool {
	return u.available > 0 && !u.known && (u.told == nil || u.outdated)
}

// subscriber finds a subscriber, or where they belong.
func (u *user) subscriber(id uint32) (int, bool) {
	return slices.BinarySearchFunc(u.subscribers, id, func(s subscriber, id uint32) int { return cmp.Compare(s.id, id) })
}
