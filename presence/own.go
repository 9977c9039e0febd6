package presence

import (
	"maps"
	"slices"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// What a server knows of its own rosters ([rosterd/serverroster]) it does by itself: it
// broadcasts a user's presence to whom the user's roster there has with "from" or "both",
// and a resource's initial presence is answered by those whom its user's roster there has
// with "to" or "both", if their rosters there have the user with "from" or "both". The
// package comment says in a table what is left for the hub.

// Keeper brings the server's own rosters in step (serverroster.Keeper). Its methods do not
// block.
type Keeper interface {
	// Keeps reports whether those of a host's users are kept, as far as is known.
	Keeps(host string) bool
	// Keep has a user, a bare JID, brought in step. [Hub.InStep] is called when they are;
	// ready once nobody need wait for that any longer, from any goroutine or before Keep
	// returns.
	Keep(user jid.JID, ready func(inStep bool))
}

// Keeper says who keeps the server's own rosters, and is asked for the word on users who
// come. It is called before the first stream, or not at all.
func (h *Hub) Keeper(k Keeper) { h.keeper = k }

// keeps reports whether the server's own roster of a user is kept.
func (h *Hub) keeps(u *user) bool { return h.keeper != nil && h.keeper.Keeps(u.jid.Domain()) }

// ownFact is something of the server's own roster of a user.
type ownFact struct {
	at      uint64  // the fact
	contact jid.JID // bare
	was     sight   // of the contact, before
	has     sight
	told    bool           // the server has sent the contact what follows
	passed  uint64         // what was relayed up to this fact the server had handled then
	now     *roster.Roster // not nil: the whole roster; else the contact alone
}

const maxOwnFacts = 1 << 13 // of a user that wait for the loop; beyond, nothing is known of the roster

// Written implements serverroster.Watcher. Nothing is kept of who is not available.
func (h *Hub) Written(user jid.JID, c roster.SubscriptionChange, told bool) {
	h.own(user, ownFact{contact: c.JID, was: sightOf(c.Before), has: sightOf(c.After), told: told})
}

// InStep implements serverroster.Watcher. What is in the roster counts as having been so
// before the word came, as after a restart of rosterd, unless it was Written.
func (h *Hub) InStep(user jid.JID, now *roster.Roster) {
	if now == nil {
		now = &roster.Roster{}
	}
	h.own(user, ownFact{now: now})
}

func (h *Hub) own(user jid.JID, f ownFact) {
	h.mu.Lock()
	defer h.mu.Unlock()
	u := h.users[user]
	if u == nil {
		return
	}
	h.clock++
	f.at, f.passed = h.clock, h.passed
	if len(u.facts) >= maxOwnFacts {
		u.facts, f = u.facts[:0], ownFact{}
	}
	u.facts = append(u.facts, f)
	h.post(u)
}

// Lost implements serverroster.Watcher.
func (h *Hub) Lost(host string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	for _, u := range h.users {
		if u.jid.Domain() == host {
			u.facts = append(u.facts[:0], ownFact{at: h.clock})
			h.post(u)
		}
	}
}

// own is what is known of the server's own roster of a user. It is of the loop alone.
type own struct {
	known    bool              // it is user.roster but for the contacts; else only they are known
	wanted   bool              // Keeper.Keep was called
	ready    bool              // nobody waits for the word any more
	until    time.Duration     // nobody waits longer for what is to follow
	contacts map[jid.JID]sight // as the server's own roster has them
	// askedFrom has the facts from which on the server asks some contacts. All others whom it
	// asks it has asked for each resource that is available.
	askedFrom map[jid.JID]uint64
}

// sight is what a subscription lets see.
type sight uint8

const (
	isSeen sight = 1 << iota // opens
	isTold                   // sees
)

func sightOf(s roster.Subscription) (is sight) {
	if opens(s) {
		is |= isSeen
	}
	if sees(s) {
		is |= isTold
	}
	return is
}

// native reports whether the server by itself sends a contact what a user says.
func (u *user) native(contact jid.JID, s *subscriber) bool {
	if u.own == nil {
		return false
	}
	if has, ok := u.own.contacts[contact]; ok {
		return has&isSeen != 0 && !listed(u.blocks.list, contact)
	}
	return u.own.known && s.end == lasts
}

// asks reports whether the server by itself asks a contact for presence when a resource of
// the user comes. in is the contact in the user's roster.
func (o *own) asks(contact jid.JID, in roster.Subscription) bool {
	if o == nil {
		return false
	}
	if has, ok := o.contacts[contact]; ok {
		return has&isTold != 0
	}
	return o.known && sees(in)
}

// asked reports whether the server, which asks a contact by itself, has done so for the fresh
// resources, or has sent them what the contact's resource said since.
func (o *own) asked(contact jid.JID, f *fresh, r *resource) bool {
	from, late := o.askedFrom[contact]
	return !late || f.came > from || r.changed > from && !r.replayed
}

// awaits reports whether the server's own roster is about to get a contact as a subscriber.
func (o *own) awaits(contact jid.JID, now time.Duration) bool {
	if now >= o.until {
		return false
	}
	has, ok := o.contacts[contact]
	return ok && has&isSeen == 0
}

// owns makes what is known of a user's roster on the server.
func (h *Hub) owns(u *user) *own {
	if u.own == nil {
		u.own = &own{contacts: make(map[jid.JID]sight)}
		u.unmarked = true // what was relayed before may be on its way
		h.relayers = append(h.relayers, u)
	}
	return u.own
}

// knowsOwn reports whether a user's presence need not wait for the word on the server's own
// roster: on a new stream for as long as the server may take to report, later until the
// Keeper is ready, and no longer than Limits.Word. mu is held.
func (h *Hub) knowsOwn(u *user) bool {
	if !h.keeps(u) || u.own != nil && (u.own.known || u.own.ready) {
		return true
	}
	if !h.settled {
		return false
	}
	if o := h.owns(u); !o.wanted {
		o.wanted = true
		h.keepAsks.push(u)
		h.hold(u)
	}
	return false
}

// askKeeper asks for the word on a user.
func (h *Hub) askKeeper(u *user) {
	stream := h.streams
	h.keeper.Keep(u.jid, func(bool) {
		h.mu.Lock()
		defer h.mu.Unlock()
		if stream == h.streams && h.users[u.jid] == u {
			u.ready = true
			h.post(u)
		}
	})
}

// hold sees to it that nothing of a user waits longer than Limits.Word for what is to follow.
func (h *Hub) hold(u *user) {
	u.own.until = h.now() + h.limits.Word
	if !u.holding {
		u.holding = true
		h.holds.push(deadline{u, u.own.until})
	}
}

// held goes on with a user of whom something has waited long enough.
func (h *Hub) held(u *user) {
	u.holding = false
	switch o := u.own; {
	case o == nil:
	case h.now() < o.until:
		u.holding = true
		h.holds.push(deadline{u, o.until})
		return
	default:
		o.ready = o.ready || o.wanted
		h.broadcast(u)
	}
	u.unpark()
	h.release(u)
}

// isCurrent reports whether all that was told of the rosters of a user, before whatever has
// happened to them by now, is taken over. mu is held.
func (u *user) isCurrent() bool { return u.told == nil && len(u.facts) == 0 }

// takeOwn takes over what is known of the server's own roster of a user.
func (h *Hub) takeOwn(u *user) {
	h.mu.Lock()
	facts, ready := u.facts, u.ready
	u.facts, u.ready = nil, false
	var came []*user // whom the index lacks
	for _, f := range facts {
		if c := h.users[f.contact]; c != nil && c.available > 0 && !c.online {
			came = append(came, c)
		}
	}
	h.mu.Unlock()
	for _, c := range came {
		h.arrived(c)
	}
	if ready && u.own != nil {
		u.own.ready = true
		u.unpark()
	}
	if len(facts) == 0 {
		return
	}
	contacts := make([]jid.JID, len(facts))
	for i, f := range facts {
		contacts[i] = f.contact
	}
	items := u.roster.Lookup(contacts)
	for i, f := range facts {
		switch {
		case f.now != nil:
			h.takeWhole(u, f)
		case f.contact == jid.JID{}:
			h.takeLost(u)
		default:
			h.takeContact(u, f, sightOf(items[i].Subscription))
		}
	}
	u.unpark()
	h.broadcast(u)
}

// takeWhole takes over that the server's own roster is as given.
func (h *Hub) takeWhole(u *user, f ownFact) {
	o := h.owns(u)
	before, knew := o.contacts, o.known
	o.known, o.contacts = true, make(map[jid.JID]sight)
	for _, c := range roster.SubscriptionChanges(f.now, u.roster) {
		h.note(u, c.JID, sightOf(c.Before), sightOf(c.After))
	}
	contacts := slices.Collect(maps.Keys(before))
	for contact, has := range o.contacts {
		if _, ok := before[contact]; !ok && (knew || has&isSeen != 0) {
			contacts = append(contacts, contact)
		}
	}
	for i, item := range u.roster.Lookup(contacts) {
		f.contact, f.has = contacts[i], sightOf(item.Subscription)
		was, ok := before[f.contact]
		if !ok {
			was = f.has
		}
		if is, ok := o.contacts[f.contact]; ok {
			f.has = is
		}
		// What the server has shown to who may not see the user, nobody knows at first.
		h.changed(u, f, was^f.has, ok || knew)
	}
}

// takeContact takes over that the server's own roster has a contact as given.
func (h *Hub) takeContact(u *user, f ownFact, wants sight) {
	h.owns(u)
	h.note(u, f.contact, f.has, wants)
	h.changed(u, f, f.was^f.has, true)
}

// takeLost takes over that nothing is known any more.
func (h *Hub) takeLost(u *user) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range u.subscribers {
		if s := &u.subscribers[i]; h.isPending(u, s) {
			s.doubted()
		}
	}
	u.own = nil
}

// note keeps how the server's own roster of a user has a contact. It is about to follow the
// user's.
func (h *Hub) note(u *user, contact jid.JID, has, wants sight) {
	if has != wants {
		h.hold(u)
	}
	if u.own.known && has == wants {
		delete(u.own.contacts, contact)
	} else {
		u.own.contacts[contact] = has
	}
}

// adaptOwn notes what of a user's roster the server's own lacks now.
func (h *Hub) adaptOwn(u *user, changes []roster.SubscriptionChange) {
	if u.own == nil {
		return
	}
	for _, c := range changes {
		has, ok := u.own.contacts[c.JID]
		if !ok && u.own.known {
			has, ok = sightOf(c.Before), true
		}
		if ok {
			h.note(u, c.JID, has, sightOf(c.After))
		}
	}
}

// changed works out whether a user and a contact are in doubt, now that the server's own
// roster has the contact in another way. what has changed; known: it is certain that nothing
// else has.
func (h *Hub) changed(u *user, f ownFact, what sight, known bool) {
	if what == 0 || f.contact == u.jid {
		return
	}
	id := h.intern(f.contact)
	defer h.tidy(id)
	h.mu.Lock()
	defer h.mu.Unlock()
	e := &h.entries[id]
	if what&f.has&isTold != 0 {
		if u.own.askedFrom == nil {
			u.own.askedFrom = make(map[jid.JID]uint64)
		}
		u.own.askedFrom[f.contact] = f.at
		if e.user != nil { // who has just come was not answered
			if i, is := e.user.subscriber(u.id); is && u.fresh(e.user.subscribers[i].sent).n > 0 {
				h.broadcast(e.user)
			}
		}
	}
	if what&isSeen == 0 {
		return
	}
	shows := f.has&isSeen != 0
	i, kept := u.subscriber(id)
	if !kept {
		if !e.reachable() {
			return
		}
		s := subscriber{id: id, end: told}
		if shows && known { // nothing was shown before
			s.sent = f.at
		}
		h.insert(u, i, s)
		h.expire(u)
	}
	s := &u.subscribers[i]
	overtook := s.relayed && u.relayed > f.passed || e.user != nil && e.user.absentAt > f.passed
	unended := func(r *resource) bool { return r.gone() && r.changed > s.sent && r.since <= s.sent }
	switch {
	case known && f.told && shows && s.end == lasts && !s.doubt && !overtook && !slices.ContainsFunc(u.resources, unended):
		s.sent, s.lost = max(s.sent, f.at), false
	case f.told && shows != (s.end == lasts), !known, h.isPending(u, s):
		s.doubted()
	}
}

// unblocked has those taken back whom the server's own roster still has, who were shown the
// user when they were unblocked.
func (h *Hub) unblocked(u *user, blocked map[string]struct{}) {
	if u.own == nil {
		return
	}
	for contact, has := range u.own.contacts {
		if listed(blocked, contact) && !listed(u.blocks.list, contact) {
			h.changed(u, ownFact{contact: contact, has: has}, has&isSeen, false)
		}
	}
}

// isPending reports whether a subscriber may have been sent by the server what is not taken
// for sent yet. mu is held.
func (h *Hub) isPending(u *user, s *subscriber) bool {
	return s.lost || h.entries[s.id].user.fresh(s.sent).n > 0 ||
		slices.ContainsFunc(u.resources, func(r *resource) bool { return r.changed > s.sent })
}

// doubted notes that it is not known what a subscriber is shown.
func (s *subscriber) doubted() {
	if s.doubt = true; s.end != lasts {
		s.end = untold
	}
}

// unsure is what is left when a stream has ended: how the server's own roster differed. What
// was written at the end of the stream, and not reported, is found by it.
func (o *own) unsure() *own {
	if o == nil || len(o.contacts)+len(o.askedFrom) == 0 {
		return nil
	}
	return &own{contacts: o.contacts, askedFrom: o.askedFrom}
}

// askedByServer says which of those in the next step of answerProbe, in their order, the
// server asks by itself. It looks at the roster, hence without the lock.
func (h *Hub) askedByServer(u *user) []bool {
	if !u.probe.on || u.own == nil {
		return nil
	}
	subscribed := h.entries[u.id].subscribed
	i, _ := slices.BinarySearch(subscribed, u.probe.next)
	subscribed = subscribed[i:min(len(subscribed), i+maxSubscribers)]
	contacts := make([]jid.JID, len(subscribed))
	for n, id := range subscribed {
		contacts[n] = h.entries[id].jid
	}
	all := make([]bool, len(contacts))
	for n, item := range u.roster.Lookup(contacts) {
		all[n] = u.own.asks(contacts[n], item.Subscription)
	}
	return all
}

// setMark finds out when the server has handled what was relayed: presence that it sends by
// itself may overtake that.
func (h *Hub) setMark(s Sender) {
	h.mu.Lock()
	stream, clock, marking := h.streams, h.clock, h.marking
	h.handled = h.passed
	if marking || len(h.relayers)+len(h.marked) == 0 {
		h.mu.Unlock()
		return
	}
	h.marking = len(h.relayers) > 0
	h.clock++ // what is relayed from now on comes after
	h.mu.Unlock()
	for _, u := range h.marked {
		if h.entries[u.id].user == u {
			h.broadcast(u) // each subscriber is looked at
		}
	}
	if h.marked, h.relayers = h.relayers, nil; len(h.marked) == 0 {
		return
	}
	for _, u := range h.marked {
		u.unmarked = false
	}
	s.Passed(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if stream == h.streams {
			h.passed, h.marking = clock, false
			select {
			case h.wake <- struct{}{}:
			default:
			}
		}
	})
}

// relayed notes that something was relayed of a user. mu is held.
func (h *Hub) relayed(u *user) {
	if u.relayed = h.clock; u.own != nil && !u.unmarked {
		u.unmarked = true
		h.relayers = append(h.relayers, u)
	}
}
