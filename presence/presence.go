// Package presence decides who must see whose presence (RFC 6121, section 4)
// where only rosterd knows who is whose contact.
//
// The presence of X goes to Y if X's own roster has Y with the subscription
// "from" or "both"; Y's roster does not open X's presence. What the section
// asks of a user's server follows from that: initial presence goes to the
// contacts, and the new resource gets theirs (4.2.2, 4.3.2), later presence
// (4.4.2) and unavailable presence (4.5.2) go the same way.
//
// A [Hub] is told facts: a resource is available, or not; a roster changed.
// It is no queue of stanzas. It keeps what is true and, for each two users who
// are online, up to which fact the one has been sent the other's presence; what
// is to be sent is the difference, worked out when it is sent. So facts that
// come faster than the server reads coalesce, and a slow server costs no memory.
//
// [Hub.Run] is the one goroutine that sends; hence what one user is sent of one
// resource is in the order of the facts. Hub.mu guards all state; nothing is
// called while it is held.
package presence

import (
	"sync"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// Stanza is a presence stanza to send.
type Stanza struct {
	From        jid.JID // a full JID, or with Unavailable a bare one: no resource of that user is there
	To          jid.JID // bare, or full for a resource that has just become available
	Unavailable bool    // type='unavailable'; else the stanza has no type
	Payload     []byte  // the children, as XML; shared, never to be modified
}

// Sender is a stream to the server. Relay sends one stanza. It is called by one
// goroutine at a time and may block while the server reads slowly, but not when
// the stream is gone: then it returns an error.
type Sender interface {
	Relay(Stanza) error
	// Blocked asks a user's server, which can be asked, whom the user has blocked
	// (XEP-0191). reply is called once, from any goroutine: with what was answered,
	// or not ok if that was nothing of use. Blocked may block as Relay does.
	Blocked(user jid.JID, reply func(list []jid.JID, ok bool))
}

// Rosters is who knows the rosters. Its methods do not block; users are bare
// JIDs.
type Rosters interface {
	// Known is the user's last known roster, if there is one. What it returns
	// may be older than what Told says while Known is being called, but not than
	// what Told said before.
	Known(user jid.JID) (*roster.Roster, bool)
	// Want asks for a fetch. Told follows, or never does.
	Want(user jid.JID)
}

// Limits of a [Hub]. The zero value of a field means its default.
type Limits struct {
	Resources int           // available resources of one user; 128
	Wants     int           // calls of Rosters.Want per second; 20
	WantAfter time.Duration // how long a roster is waited for, which the client may be asking for itself, before Want; 1 s
	Rate      int           // stanzas per second that bring clients in line on a new stream; 2,000
	Settle    time.Duration // how long the server may take to report, on a new stream, who is there; 10 s
	Linger    time.Duration // how long unavailable presence may still be lost with the stream; 60 s
	BlockAge  time.Duration // how old a block list may be by which a user is shown to who comes online; 1 min
	Burst     int           // how often a user's presence is sent at once, each time less than Calm after the last; 10
	Calm      time.Duration // how long a user's presence is held back after that; 2 s
}

func (l Limits) withDefaults() Limits {
	for _, n := range []struct {
		field *int
		value int
	}{{&l.Resources, 128}, {&l.Wants, 20}, {&l.Rate, 2000}, {&l.Burst, 10}} {
		if *n.field == 0 {
			*n.field = n.value
		}
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&l.WantAfter, time.Second}, {&l.Settle, 10 * time.Second}, {&l.Linger, time.Minute}, {&l.Calm, 2 * time.Second}, {&l.BlockAge, time.Minute}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	return l
}

// Hub keeps who is available and decides who is told. Its methods are safe for
// concurrent use; but for [Hub.Run] none blocks.
type Hub struct {
	hosts   map[string]bool
	rosters Rosters
	limits  Limits
	born    time.Time     // times are kept as durations since then
	wake    chan struct{} // 1: there may be something to do for Run

	mu    sync.Mutex // guards all below, and all users
	clock uint64     // counts the facts; the first is 1

	ids   map[jid.JID]uint32 // bare JIDs of users and of their contacts -> index of nodes
	nodes []node
	free  []uint32 // of nodes

	// A user is in each queue once at most.
	live  fifo[*user] // something is to be sent
	later fifo[dated] // the same, after a pause: it happens too often
	align fifo[*user] // to be brought in line on a new stream
	asks  fifo[*user] // to ask Rosters.Known for
	wants fifo[dated] // to ask Rosters.Want for
	fades fifo[dated] // has what is forgotten after Linger

	before  map[jid.JID]*before // of users that an earlier rosterd may have shown, by bare JID; since Recall
	recalls fifo[jid.JID]       // those of them of whom it is not known yet who saw them

	blocking  map[string]bool // hosts whose block lists can be asked for, on this stream
	blockAsks fifo[*user]     // to ask Sender.Blocked for
	streams   uint64          // counts them

	running  bool
	settled  bool          // the server had the time to report who is there
	settleAt time.Duration // when it will have had
	lost     time.Duration // when the last stream was lost; 0: there was none
	alignAt  time.Duration // Limits.Rate is kept by waiting until then
	wantAt   time.Duration // as is Limits.Wants
}

// New makes a hub for the users of hosts, prepared domains.
func New(hosts []string, rosters Rosters, limits Limits) *Hub {
	h := &Hub{
		hosts: make(map[string]bool, len(hosts)), rosters: rosters, limits: limits.withDefaults(),
		born: time.Now(), wake: make(chan struct{}, 1), ids: make(map[jid.JID]uint32), before: make(map[jid.JID]*before),
		blocking: make(map[string]bool),
	}
	for _, host := range hosts {
		h.hosts[host] = true
	}
	return h
}

func (h *Hub) now() time.Duration { return time.Since(h.born) }

// signal makes Run look.
func (h *Hub) signal() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}
