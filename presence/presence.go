// Package presence decides who is sent whose presence (RFC 6121, section 4) where
// only rosterd knows the rosters.
//
// # The rules
//
// The subscribers of a user are the contacts whom the user's own roster has with the
// subscription "from" or "both" (section 2.1.2.5) and whom the user has not blocked
// (XEP-0191). The subscriber's roster does not count. A subscriber on a served host is
// sent nothing while they are not available; one elsewhere is always sent presence, and
// their own server decides.
//
//	of a user comes            their subscribers are sent         their resources are sent
//	initial presence           it (4.2.2)                         what they are subscribed to (4.3.2)
//	later presence             it (4.4.2)                         -
//	unavailable presence       it (4.5.2)                         -
//	a roster, a block list     if new: presence (3.1.5);          -
//	                           if no more: unavailable (3.2.2)
//	a new stream               once the server has reported:      which contacts are not
//	                           all presence                       available, or not to be seen
//	the server's own roster    only what the server has not sent  only what it was not asked for
//
// [decide] is the rule for one resource and one subscriber.
//
// # The server's own rosters
//
// Where they are kept in step (serverroster.Keeper), the server sends presence by itself. Of
// a user and a contact who may see them:
//
//	the user's own roster there      the server by itself                 the hub relays
//	is not known yet, or Lost        nobody knows                         all, but waits for the word first
//	has the contact                  sends all that the user says         nothing
//	  the contact's has the user     asks the user for a new resource     nothing
//	  the contact's lacks the user   does not ask                         what the user said last, to the new resource
//	lacks the contact                nothing                              all, but waits for the write first
//	was Written, the contact told    has sent what the user said last     nothing
//	was Written, not told            sends what the user says next        what the user said last, once
//
// Of a user and a contact who may not see them, or no longer:
//
//	has the contact                  sends all that the user says         unavailable, each time
//	  the user unblocked them        sends what the user said last        unavailable
//	was Written without them         nothing any more                     unavailable, if the user has said something
//	                                                                      since that was relayed last
//
// What the server has done is worked out from what its rosters have now. That is right if
// nothing was pending when they changed: all that the user had said, and all the contact's
// resources that had come, were taken into account. Else the pair is in doubt, and so it is
// when something relayed may be lost with the stream, or was taken back and is to be seen
// again: then the contact is sent anew, once, all that they may see, and the end of the rest.
//
// Which came first, a presence or a write, the clock of facts says: both are reported in the
// order of the server. What is relayed may be overtaken by what the server sends: until a
// mark behind it has come back ([Sender].Passed) such news is relayed, too. What the server
// reports when a stream begins may have been so for long, and has no place in that order.
//
// What a server has is certain when [Hub.InStep] has said so on this stream. Until then a
// user's presence waits: on a new stream for Limits.Settle, as for the reports; of who comes
// later until the Keeper is ready, Limits.Word at most. So nobody is sent twice, after a
// restart of rosterd, what the server has sent. Then it is relayed as if the server did
// nothing: to be told twice is better than not at all.
//
// For each subscriber this takes two bits, in what was padding; for each user, 72 bytes, and
// maps of the contacts in whom the rosters differ, or whom the server asks only of late.
// Rosters are read without the lock. Without a Keeper none of it is used.
//
// # How it runs
//
// A [Hub] is told facts: a resource is available, or not; a roster changed. It keeps what
// is true, and up to which fact each subscriber was sent a user's presence; it keeps no
// stanzas. What to send is worked out when it is sent. So facts that come faster than the
// server reads coalesce, and a slow server costs no memory.
//
// A fact is noted under Hub.mu, and its user is put into the mailbox. One goroutine, the
// loop that [Hub.Start] returns, takes users from the mailbox and sends what follows; what
// is sent of one resource to one subscriber is in the order of the facts. The loop alone
// owns the index of who is subscribed to whom. It compares rosters without the lock, and
// walks through subscribers in steps of a few hundred, so that nobody who notes a fact
// waits for as long as a roster is long.
package presence

import (
	"cmp"
	"runtime"
	"slices"
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
	// Passed has reply called once the server has handled all that was relayed before, on
	// the goroutine that reports presences, or never. Passed may block as Relay does.
	Passed(reply func())
}

// Rosters knows the rosters. Its methods do not block; users are bare JIDs.
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
	Word      time.Duration // how long a user's presence waits for what the server's own roster has; 1 s
}

func (l Limits) withDefaults() Limits {
	l.Resources, l.Wants = cmp.Or(l.Resources, 128), cmp.Or(l.Wants, 20)
	l.Rate, l.Burst = cmp.Or(l.Rate, 2000), cmp.Or(l.Burst, 10)
	l.WantAfter, l.Settle = cmp.Or(l.WantAfter, time.Second), cmp.Or(l.Settle, 10*time.Second)
	l.Linger, l.BlockAge = cmp.Or(l.Linger, time.Minute), cmp.Or(l.BlockAge, time.Minute)
	l.Calm, l.Word = cmp.Or(l.Calm, 2*time.Second), cmp.Or(l.Word, time.Second)
	return l
}

// Hub keeps who is available and decides who is sent their presence. Its methods are
// safe for concurrent use and do not block.
type Hub struct {
	hosts   map[string]bool
	rosters Rosters
	limits  Limits
	born    time.Time     // times are kept as durations since then
	wake    chan struct{} // 1: there may be something to do for the loop
	barrier func()        // see Barrier; nil: nothing is waited for
	keeper  Keeper        // see Keeper; nil: the hub waits for no word

	mu       sync.Mutex // guards what follows and the first part of each user
	clock    uint64     // counts the facts; the first is 1
	users    map[jid.JID]*user
	mailbox  queue[*user]    // of whom something has changed, each once
	blocking map[string]bool // hosts whose block lists can be asked for, on this stream
	passed   uint64          // what was relayed up to this fact the server has handled
	absentAt uint64          // the last fact by which somebody was told who is absent
	marking  bool            // Sender.Passed was called, and has not replied
	running  bool            // a stream is up
	streams  uint64          // counts those that have ended
	settled  bool            // the server had the time to report who is there
	lost     time.Duration   // when the last stream was lost; 0: there was none

	loop
}

// Barrier has the hub call wait before it sends: it returns when a kill of the process cannot
// lose who is known to be available. Else nobody would take back what was told of them.
// Barrier is called before the first stream, or not at all.
func (h *Hub) Barrier(wait func()) { h.barrier = wait }

// New makes a hub for the users of hosts, prepared domains.
func New(hosts []string, rosters Rosters, limits Limits) *Hub {
	h := &Hub{
		hosts: make(map[string]bool, len(hosts)), rosters: rosters, limits: limits.withDefaults(),
		born: time.Now(), wake: make(chan struct{}, 1),
		users: make(map[jid.JID]*user), blocking: make(map[string]bool),
		loop: loop{
			index:  index{ids: make(map[jid.JID]uint32), entries: make([]entry, 1)},
			before: make(map[jid.JID]*before),
		},
	}
	for _, host := range hosts {
		h.hosts[host] = true
	}
	return h
}

// Available says that a resource has sent presence without a type: its first, or an
// update. payload is the presence's children; it is kept, and must not be modified.
func (h *Hub) Available(full jid.JID, payload []byte) {
	if !h.serves(full) {
		return
	}
	bare := full.Bare()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	u := h.users[bare]
	if u == nil {
		u = &user{jid: bare}
		h.users[bare] = u
	}
	r := u.find(full)
	if r == nil || r.gone() {
		if r = h.makeRoom(u, full); r == nil {
			return
		}
	}
	initial := r.gone() || r.again || r.heard < h.lost
	// What the server reports of a resource that was there before the stream was lost
	// is no news. The resource is brought in line with all others.
	replay := !h.settled && !r.gone() && r.heard < h.lost
	r.replayed = !h.settled && r.heard < max(h.lost, 1)
	r.payload, r.changed, r.heard, u.changed = payload, h.clock, h.now(), h.clock
	if initial {
		r.joined, r.again = h.clock, false
		switch {
		case !r.replayed:
			r.came = h.clock
		case r.gone():
			r.came = 0
		}
	}
	r.early = max(u.relayed, h.absentAt) > h.passed
	if replay {
		return
	}
	if r.gone() {
		if r.end = lasts; !r.shown {
			r.since = h.clock
		}
		r.shown = r.shown || h.keeps(u)
		// What an earlier rosterd has shown and what waits for a word may end unseen.
		if b := h.before[bare]; h.keeper != nil && b != nil && slices.Contains(b.shown, full) {
			r.since, r.shown = 0, true
		}
		if u.available++; u.available == 1 {
			u.cameAt = h.clock
		}
	}
	u.news, u.initial = true, u.initial || initial
	h.post(u)
}

// makeRoom finds or makes a resource that is about to become available, or returns nil if
// a user has so many that no more are kept. Of too many available ones the one that was
// seen first is given up: the server may have failed to report its end. mu is held.
func (h *Hub) makeRoom(u *user, full jid.JID) *resource {
	r := u.find(full)
	if r == nil && len(u.resources) >= 2*h.limits.Resources {
		i := slices.IndexFunc(u.resources, func(r *resource) bool { return r.gone() && r.end != untold })
		if i < 0 {
			return nil // a client that comes and goes faster than can be told
		}
		u.resources = slices.Delete(u.resources, i, i+1)
	}
	if u.available >= h.limits.Resources {
		i := slices.IndexFunc(u.resources, func(r *resource) bool { return !r.gone() })
		h.unavailable(u, u.resources[i], nil)
	}
	if r == nil {
		r = &resource{full: full, end: untold}
		u.resources = append(u.resources, r)
	}
	return r
}

// Unavailable says that a resource has sent unavailable presence, with these children, or
// that it was found to be gone. Nothing changes if it was not available.
func (h *Hub) Unavailable(full jid.JID, payload []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if u, r := h.available(full); r != nil {
		h.clock++
		h.unavailable(u, r, payload)
	}
}

// unavailable makes an available resource a gone one. mu is held.
func (h *Hub) unavailable(u *user, r *resource, payload []byte) {
	if u.available--; u.available == 0 {
		// Nobody may look for changes of the roster while its user is away.
		u.known, u.outdated, u.wanted = false, true, false
	}
	// What the loop has not seen yet the server may have shown by itself.
	if r.shown || h.keeps(u) || len(u.facts) > 0 {
		r.payload, r.changed, r.end, r.shown, u.changed = payload, h.clock, untold, true, h.clock
		r.early = max(u.relayed, h.absentAt) > h.passed
		r.missed = r.heard < h.lost
		u.news = true
	} else {
		u.resources = slices.DeleteFunc(u.resources, func(one *resource) bool { return one == r })
	}
	h.post(u)
}

// available is an available resource and its user; else the resource is nil. mu is held.
func (h *Hub) available(full jid.JID) (*user, *resource) {
	u := h.users[full.Bare()]
	if r := u.find(full); r != nil && !r.gone() {
		return u, r
	}
	return u, nil
}

// Login says that a resource does what a client does when a session begins: it asks for
// its roster. If it is taken for available, the end of an earlier session went unnoticed;
// its next presence counts as its first.
func (h *Hub) Login(full jid.JID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, r := h.available(full); r != nil {
		r.again = true
	}
}

// Alive says that a resource was found to be there still, by asking it or by another sign
// of it. Nothing changes if it is not available.
func (h *Hub) Alive(full jid.JID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, r := h.available(full); r != nil {
		r.heard = h.now()
	}
}

// Told says that a user's last known roster is this one from now on.
func (h *Hub) Told(bare jid.JID, now *roster.Roster) {
	h.mu.Lock()
	defer h.mu.Unlock()
	// Nobody looks for changes of the roster of a user who is away.
	if u := h.users[bare]; u != nil && u.available > 0 {
		u.tell(now)
		h.post(u)
	}
}

// Unheard are the resources that are taken for available and of which there was no sign
// since a time: some may be gone, though no server said so. Those found dead are to be
// reported with [Hub.Unavailable], the others with [Hub.Alive].
func (h *Hub) Unheard(since time.Time) (unheard []jid.JID) {
	limit := since.Sub(h.born)
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, u := range h.users {
		for _, r := range u.resources {
			if !r.gone() && r.heard < limit {
				unheard = append(unheard, r.full)
			}
		}
		if n++; n%maxUsers == 0 { // let others have the lock
			h.mu.Unlock()
			runtime.Gosched()
			h.mu.Lock()
		}
	}
	return unheard
}

// Align says that the clients of a user may show contacts online who are not: they were
// there before rosterd was, though they have been reported only now. They are brought in
// line as at the beginning of a stream. It is not needed for those who are reported
// within Limits.Settle, and done once for each stream.
func (h *Hub) Align(bare jid.JID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if u := h.users[bare]; u != nil && h.settled && !u.aligned {
		u.align, u.aligned = true, true
		h.post(u)
	}
}

// post puts a user into the mailbox. mu is held.
func (h *Hub) post(u *user) {
	if u.posted {
		return
	}
	u.posted = true
	h.mailbox.push(u)
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// serves reports whether a JID is that of a resource of a user of a served host.
func (h *Hub) serves(full jid.JID) bool {
	return h.hosts[full.Domain()] && full.Local() != "" && !full.IsBare()
}

func (h *Hub) now() time.Duration { return time.Since(h.born) }
