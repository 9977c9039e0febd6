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
// with "to" or "both", if their rosters there have the user with "from" or "both". The hub
// keeps since which fact that is so, and decide is told.

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
	at        uint64  // the fact
	contact   jid.JID // bare
	has       sight
	exchanged bool           // the server has sent the presences that follow
	now       *roster.Roster // not nil: the whole roster; else the contact alone
}

const maxOwnFacts = 1 << 13 // of a user that wait for the loop; beyond, nothing is known of the roster

// Written implements serverroster.Watcher. Nothing is kept of who is not available.
func (h *Hub) Written(user jid.JID, c roster.Change, exchanges bool) {
	has := sightOf(c.Item.Subscription)
	if c.Action == roster.Removed {
		has = 0
	}
	h.own(user, ownFact{contact: c.Item.JID, has: has, exchanged: exchanges})
}

// InStep implements serverroster.Watcher. What is in both rosters counts as having been so
// before the word came, as after a restart of rosterd; only what was Written on this stream
// is known to be so since then.
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
	f.at = h.clock
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
	known    bool                   // it is user.roster but for the contacts; else only they are known
	asked    bool                   // Keeper.Keep was called
	ready    bool                   // nobody waits for the word any more
	until    time.Duration          // nobody waits longer for what is to follow
	contacts map[jid.JID]ownContact // who differ, or were written of late
}

// ownContact is a contact in both rosters.
type ownContact struct {
	has, wants sight         // the server's own roster, and the user's
	seen, told uint64        // the facts since which the server does as it has, of each sight; 0: since ever
	since      time.Duration // when that was noted
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

// shows reports whether the server by itself shows the user to a contact, and since which
// fact. subscribed: the user's roster has them as a subscriber. The nil own shows nobody.
func (o *own) shows(contact jid.JID, subscribed bool) (is bool, since uint64) {
	if o == nil {
		return false, 0
	}
	if c, ok := o.contacts[contact]; ok {
		return c.has&isSeen != 0, c.seen
	}
	return o.known && subscribed, 0
}

// asks reports whether the server by itself asks a contact for presence when a resource of
// the user comes, and since which fact. in is the contact in the user's roster.
func (o *own) asks(contact jid.JID, in roster.Subscription) (is bool, since uint64) {
	if o == nil {
		return false, 0
	}
	if c, ok := o.contacts[contact]; ok {
		return c.has&isTold != 0, c.told
	}
	return o.known && sees(in), 0
}

// awaits reports whether the server's own roster of a user is about to get a subscriber.
func (o *own) awaits(contact jid.JID, now time.Duration) bool {
	if now >= o.until {
		return false
	}
	c, ok := o.contacts[contact]
	return ok && c.wants&^c.has&isSeen != 0
}

// owns makes what is known of a user's roster on the server.
func (h *Hub) owns(u *user) *own {
	if u.own == nil {
		u.own = &own{contacts: make(map[jid.JID]ownContact)}
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
	if o := h.owns(u); !o.asked {
		o.asked = true
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
		o.ready = o.ready || o.asked
		h.broadcast(u)
	}
	u.unpark()
	h.release(u)
}

// takeOwn takes over what is known of the server's own roster of a user, with their roster.
func (h *Hub) takeOwn(u *user) {
	h.mu.Lock()
	facts, ready, known := u.facts, u.ready, u.known
	u.facts, u.ready = nil, false
	h.mu.Unlock()
	if ready && u.own != nil {
		u.own.ready = true
		u.unpark()
	}
	if len(facts) == 0 {
		return
	}
	var contacts []jid.JID
	for i, f := range facts {
		// A whole roster is compared with the user's. Who came before the fact is in the
		// mailbox before it.
		unread := f.now == nil && h.unread(f.contact)
		if unread || f.now != nil && !known {
			h.mu.Lock()
			u.facts = append(facts[i:len(facts):len(facts)], u.facts...)
			if unread {
				h.post(u)
			}
			h.mu.Unlock()
			facts = facts[:i]
			break
		}
		contacts = append(contacts, f.contact)
	}
	items := u.roster.Lookup(contacts)
	for i, f := range facts {
		switch {
		case f.now != nil:
			h.takeWhole(u, f)
		case f.contact == jid.JID{}: // Lost
			u.own = nil
		default:
			h.takeContact(u, f, sightOf(items[i].Subscription))
		}
	}
	h.expire(u)
	u.unpark()
	h.broadcast(u)
}

// unread reports whether somebody has become available and the index does not have it yet.
func (h *Hub) unread(contact jid.JID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	u := h.users[contact]
	return u != nil && u.available > 0 && !u.online
}

// takeWhole takes over that the server's own roster is as given.
func (h *Hub) takeWhole(u *user, f ownFact) {
	o := h.owns(u)
	now, before := h.now(), o.contacts
	o.known, o.contacts = true, make(map[jid.JID]ownContact)
	for _, c := range roster.SubscriptionChanges(f.now, u.roster) {
		o.contacts[c.JID] = ownContact{has: sightOf(c.Before), wants: sightOf(c.After), since: now}
		h.hold(u)
	}
	for contact, was := range before {
		is, differs := o.contacts[contact]
		if !differs {
			is = was
			is.has = was.wants
		}
		if was.has != is.has { // when is not known
			o.contacts[contact] = was
			h.takeContact(u, ownFact{at: f.at, contact: contact, has: is.has}, is.wants)
		} else if was.seen+was.told > 0 {
			is.seen, is.told, is.since = was.seen, was.told, was.since
			o.contacts[contact] = is
		}
	}
}

// takeContact takes over that the server's own roster has a contact as given.
func (h *Hub) takeContact(u *user, f ownFact, wants sight) {
	o := h.owns(u)
	was, known := o.contacts[f.contact]
	if !known && o.known {
		was.has, known = wants, true
	}
	is := ownContact{has: f.has, wants: wants, seen: f.at, told: f.at, since: h.now()}
	if known && (was.has^is.has)&isSeen == 0 {
		is.seen = was.seen
	}
	if known && (was.has^is.has)&isTold == 0 {
		is.told = was.told
	}
	if f.exchanged {
		is.seen, is.told = 0, 0
	}
	o.contacts[f.contact] = is
	if is.has&isSeen != 0 || known && was.has&isSeen == 0 || f.contact == u.jid {
		return
	}
	// They may have been shown by the server what came before this fact.
	id := h.intern(f.contact)
	i, kept := u.subscriber(id)
	if !kept {
		if !h.entries[id].reachable() {
			h.tidy(id)
			return
		}
		h.insert(u, i, subscriber{id: id, end: untold})
	}
	s := &u.subscribers[i]
	h.mu.Lock()
	newcomers := h.entries[id].user.fresh(s.sent).n > 0
	for _, r := range u.resources {
		if r.since <= f.at && (r.changed > s.sent || newcomers || !known) {
			r.shown = true
			if s.end != lasts {
				s.end = untold
			}
		}
		// Did the server say so, and nothing that was relayed come later?
		said := known && r.changed > was.seen && !r.missed && !(r.early && s.relayed)
		switch {
		case said || r.changed <= s.sent:
		case r.gone():
			h.clock++
			r.changed, r.end, r.missed = h.clock, untold, true
		case s.end == lasts:
			s.lost, s.hidden = true, true
		}
	}
	h.mu.Unlock()
	s.sent, s.lost = max(s.sent, f.at), s.lost || newcomers && s.end == lasts
	h.expire(u)
}

// adaptOwn notes what of a user's roster the server's own lacks now. It is about to follow.
func (h *Hub) adaptOwn(u *user, changes []roster.SubscriptionChange) {
	o := u.own
	if o == nil {
		return
	}
	for _, change := range changes {
		c, ok := o.contacts[change.JID]
		if !ok {
			if !o.known {
				continue
			}
			c.has = sightOf(change.Before)
		}
		c.wants, c.since = sightOf(change.After), h.now()
		o.contacts[change.JID] = c
		if c.wants != c.has {
			h.hold(u)
		}
	}
	h.expire(u)
}

// unsure is what is left when a stream has ended: what was written of late or is to be, for
// what was relayed because of it may be lost with the stream.
func (o *own) unsure() *own {
	if o == nil {
		return nil
	}
	maps.DeleteFunc(o.contacts, func(_ jid.JID, c ownContact) bool { return c.seen+c.told == 0 && c.has == c.wants })
	if len(o.contacts) == 0 {
		return nil
	}
	return &own{contacts: o.contacts}
}

// forget forgets what was written Limits.Linger ago, and reports whether there is more.
func (o *own) forget(before time.Duration) (more bool) {
	if o == nil {
		return false
	}
	for contact, c := range o.contacts {
		if c.has != c.wants {
			continue
		}
		if more = more || c.since > before; c.since <= before && o.known {
			delete(o.contacts, contact)
		}
	}
	return more
}

// asked is a contact whom the server may ask when a resource of a user comes.
type asked struct {
	is    bool
	since uint64
}

// askedByServer says which of those in the next step of answerProbe, in their order, the
// server asks by itself. It looks at the roster, hence without the lock.
func (h *Hub) askedByServer(u *user) []asked {
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
	all := make([]asked, len(contacts))
	for n, item := range u.roster.Lookup(contacts) {
		all[n].is, all[n].since = u.own.asks(contacts[n], item.Subscription)
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
