package presence

import (
	"cmp"
	"slices"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// node is what a number stands for: a user, or somebody in a user's roster.
type node struct {
	jid     jid.JID  // bare
	served  bool     // on one of our hosts; others are told always, and tell nothing
	user    *user    // nil: not in the table, hence not available
	listers []uint32 // the users in the table whose rosters let this one see them, ascending; kept for served ones
	pairs   int      // that lead here
}

// reachable reports whether presence can be sent there.
func (n *node) reachable() bool { return !n.served || n.user != nil && n.user.available > 0 }

// user is somebody who is available, or was until a moment ago.
type user struct {
	id        uint32
	roster    *roster.Roster // nil: never known
	known     bool           // roster is the user's; else it is from before he was last away, or nil
	resources []resource     // in the order they were seen
	available int            // of the resources
	pairs     []pair         // with those who can be told this user's presence now, ascending by to

	source walk // over pairs: others are told of this user
	viewer walk // over the node's listers: this user is told of others
	review walk // over pairs, on a new stream
	swept  int  // items of the roster that the sweep after the review is done with

	holds    int    // queues that the user is in
	queued   bool   // in live or later
	aligning bool   // in align
	aligned  bool   // by Align, on this stream
	owed     bool   // to be put there when the roster is known
	asking   bool   // in asks or wants
	wanted   bool   // Want was called, on this stream
	askedAt  uint64 // the fact before which Known was asked
	leftAt   uint64 // the fact that nobody was available any more
	fading   bool   // in fades

	blocks blocks

	turns int           // how often the user got into live, each time less than Calm after the last
	turn  time.Duration // when that was
}

// resource is one of a user's resources that is available, or whose
// unavailable presence may not have reached everybody.
type resource struct {
	full    jid.JID
	payload []byte
	since   uint64        // the fact that it became available; who was told before was not told of it
	changed uint64        // the last fact of it
	joined  uint64        // the fact of its first presence; it was told nothing before
	heard   time.Duration // when the server, or the resource, last gave a sign of it
	fresh   bool          // its next presence counts as its first
	gone    bool          // unavailable
	shown   bool          // somebody was told that it is available
	fade    fade          // if gone
}

// pair says that the user who has it may be told to another, or no longer may.
// It is kept for a while when the other leaves: what is on its way to him is
// delivered if he comes back, and must then be taken back if it is not true.
type pair struct {
	to   uint32
	all  bool   // whatever at says, nothing may have arrived: the stream was lost
	gone bool   // may no longer: what was shown is to be taken back
	fade fade   // if gone
	away uint8  // 1: the other is not available; 2: since Limits.Linger, or longer
	at   uint64 // the other was told all facts of the user up to this; 0: none
}

// fade is how far something gone is on its way to being forgotten. That it is
// gone was told to those who must know, but until Limits.Linger has passed it
// may still be lost with the stream.
type fade uint8

const (
	untold fade = iota
	told        // since less than Linger
	faded       // since Linger, or longer
)

// walk is a way through a list in steps, while the list may change.
type walk struct {
	on    bool
	again bool   // from the start, once it is through
	pos   uint32 // the number to go on with; 0: not begun
	began uint64 // the clock then
}

// mark says that the walk is to be made from now on.
func (w *walk) mark() {
	if w.on && w.pos > 0 {
		w.again = true
		return
	}
	w.on, w.pos = true, 0
}

// end says that the walk is through.
func (w *walk) end() { *w = walk{on: w.again} }

// find is the resource with that JID, or nil.
func (u *user) find(full jid.JID) *resource {
	for i := range u.resources {
		if u.resources[i].full == full {
			return &u.resources[i]
		}
	}
	return nil
}

// isAvailable reports whether a resource is available. None is of the nil user.
func (u *user) isAvailable(full jid.JID) bool {
	if u == nil {
		return false
	}
	r := u.find(full)
	return r != nil && !r.gone
}

// pair finds the pair with the other, or where it belongs.
func (u *user) pair(to uint32) (int, bool) {
	return slices.BinarySearchFunc(u.pairs, to, func(p pair, to uint32) int { return cmp.Compare(p.to, to) })
}

// late counts the available resources that became so after at; one is the last
// of them. There are none of the nil user, who is not in the table.
func (u *user) late(at uint64) (one *resource, n int) {
	if u == nil {
		return nil, 0
	}
	for i := range u.resources {
		if r := &u.resources[i]; !r.gone && r.joined > at {
			one = r
			n++
		}
	}
	return one, n
}

// markTold notes that all who must know were told of everything up to a fact.
func (u *user) markTold(upTo uint64) {
	for i := range u.resources {
		if r := &u.resources[i]; r.gone && r.fade == untold && r.changed <= upTo {
			r.fade = told
		}
	}
}

// opens reports whether a roster item lets the contact see the user's presence
// (RFC 6121, section 2.1.2.5).
func opens(i roster.Item) bool {
	return i.Subscription == roster.SubscriptionFrom || i.Subscription == roster.SubscriptionBoth
}

// sees reports whether a roster item says that the user sees the contact's
// presence.
func sees(i roster.Item) bool {
	return i.Subscription == roster.SubscriptionTo || i.Subscription == roster.SubscriptionBoth
}

// insert and remove keep an ascending list of numbers.
func insert(list []uint32, n uint32) []uint32 {
	if i, ok := slices.BinarySearch(list, n); !ok {
		list = slices.Insert(list, i, n)
	}
	return list
}

func remove(list []uint32, n uint32) []uint32 {
	if i, ok := slices.BinarySearch(list, n); ok {
		list = slices.Delete(list, i, i+1)
	}
	if len(list) == 0 {
		return nil
	}
	return list
}
