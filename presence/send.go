package presence

import "slices"

// sendNews adds to batch what follows from the last facts. Users with much to be sent
// take turns.
func (h *Hub) sendNews(batch []Stanza) []Stanza {
	for n := 0; n < maxUsers && len(h.ready) > 0 && len(batch) < maxBatch; n++ {
		u := h.ready.pop()
		asked := h.askedByServer(u)
		h.mu.Lock()
		// What is in the mailbox may say that somebody is no subscriber any more.
		current := u.isCurrent()
		parked := current && h.parkForOwn(u, &h.ready)
		if current && !parked {
			if batch, parked = h.sendSubscribers(u, batch, maxBatch, &h.ready); !parked {
				batch = h.answerProbe(u, batch, asked)
			}
		}
		h.mu.Unlock()
		switch {
		case parked:
		case u.broadcast.on || u.probe.on:
			h.ready.push(u)
		default:
			u.queued = false
			h.release(u)
		}
	}
	return batch
}

// sendResync adds to batch, until it has limit stanzas, what brings users in line, and
// says how many block lists are asked for.
func (h *Hub) sendResync(batch []Stanza, limit int) (_ []Stanza, asked int) {
	for n := 0; n < maxUsers && len(h.resyncs) > 0 && asked < limit; n++ {
		u := h.resyncs[0]
		h.mu.Lock()
		if !u.isCurrent() { // see sendNews
			h.mu.Unlock()
			break
		}
		parked := h.parkForOwn(u, &h.resyncs)
		if !parked {
			batch, parked = h.sendSubscribers(u, batch, limit, &h.resyncs)
		}
		known := u.known
		h.mu.Unlock()
		more := u.broadcast.on
		switch {
		case parked:
			h.resyncs.pop()
			asked++
			continue
		case !more && known:
			batch, more = h.sendAbsent(u, batch, limit)
		}
		if more {
			break
		}
		h.resyncs.pop()
		u.resyncing, u.resyncsLater = false, !known
		h.release(u)
	}
	return batch, asked
}

// parkForOwn parks a user whose presence has to wait for the word on the server's own
// roster. mu is held.
func (h *Hub) parkForOwn(u *user, from *queue[*user]) bool {
	if h.knowsOwn(u) {
		return false
	}
	u.blocks.parked = append(u.blocks.parked, from)
	return true
}

// sendSubscribers goes a step on through those who can be sent a user's presence. If the
// block list has to be asked for before, the user is parked: put back into from once it is
// answered. mu is held.
func (h *Hub) sendSubscribers(u *user, batch []Stanza, limit int, from *queue[*user]) (_ []Stanza, parked bool) {
	if !u.broadcast.on {
		return batch, false
	}
	park := func() ([]Stanza, bool) {
		u.blocks.parked = append(u.blocks.parked, from)
		return batch, true
	}
	// What the server does by itself needs no list, if nobody was blocked.
	if (u.own == nil || len(u.blocks.list) > 0) && !h.knowsBlocks(u) {
		return park()
	}
	i, _ := u.subscriber(u.broadcast.next)
	for n := 0; i < len(u.subscribers); i, n = i+1, n+1 {
		if len(batch) >= limit || n == maxSubscribers {
			return batch, false
		}
		s := &u.subscribers[i]
		e := &h.entries[s.id]
		if u.own != nil && !h.silent(u, s) && !h.knowsBlocks(u) {
			return park()
		}
		u.broadcast.next = s.id + 1
		if !e.reachable() {
			continue
		}
		if h.probes(u, s) { // it is worked out there whom the server answers
			e.user.probe.start()
			h.enqueue(e.user)
			continue
		}
		batch = h.sync(u, s, false, batch)
	}
	if u.broadcast.through(); !u.broadcast.on && !u.news {
		for _, r := range u.resources {
			if r.end == untold {
				r.end = told
			}
		}
	}
	return batch, false
}

// silent reports whether a subscriber need be relayed nothing, for the server does it all.
// mu is held.
func (h *Hub) silent(u *user, s *subscriber) bool {
	return s.end == lasts && !s.relayed && !s.doubt && u.native(h.entries[s.id].jid, s)
}

// probes reports whether a subscriber has a resource that the server may have answered what
// a user said last. mu is held.
func (h *Hub) probes(u *user, s *subscriber) bool {
	e := &h.entries[s.id]
	if s.end != lasts || s.doubt || !u.native(e.jid, s) {
		return false
	}
	f := e.user.fresh(s.sent)
	return f.n > 0 && slices.ContainsFunc(u.resources, func(r *resource) bool { return !r.gone() && (r.changed < f.last || r.replayed) })
}

// answerProbe goes a step on through those whose presence a user may see (RFC 6121,
// section 4.3.2). mu is held.
func (h *Hub) answerProbe(u *user, batch []Stanza, byServer []bool) []Stanza {
	if !u.probe.on {
		return batch
	}
	subscribed := h.entries[u.id].subscribed
	i, _ := slices.BinarySearch(subscribed, u.probe.next)
	for n := 0; i < len(subscribed); i, n = i+1, n+1 {
		if len(batch) >= maxBatch || n == maxSubscribers {
			return batch
		}
		by := byServer != nil && byServer[n]
		u.probe.next = subscribed[i] + 1
		other := h.entries[subscribed[i]].user
		j, is := other.subscriber(u.id)
		switch {
		case !is:
		case !other.isCurrent() || !h.knowsOwn(other) ||
			!(by && h.silent(other, &other.subscribers[j])) && !h.knowsBlocks(other): // they are sent it once that is known
			h.broadcast(other)
		default:
			batch = h.sync(other, &other.subscribers[j], by, batch)
		}
	}
	u.probe.through()
	return batch
}

// sync adds to batch what a subscriber must be sent of a user, and takes it for sent. probe
// says whether the server asks the user by itself for the subscriber's new resources. mu is
// held.
func (h *Hub) sync(u *user, s *subscriber, probe bool, batch []Stanza) []Stanza {
	e := &h.entries[s.id]
	native := u.native(e.jid, s)
	if s.end > untold && !native {
		return batch
	}
	f := e.user.fresh(s.sent)
	available, incomplete, before := 0, false, len(batch)
	if e.user != nil {
		available = e.user.available
	}
	for _, r := range u.resources {
		p := Stanza{From: r.full, To: e.jid, Payload: r.payload}
		var by server
		by.native = native && (s.end != lasts || !(r.missed && r.gone()) && !(r.changed > s.sent && s.relayed && r.early))
		answered := native && probe && !s.relayed && e.user.own.asked(u.jid, &f, r)
		by.answered = f.n > 0 && (r.changed < f.first && answered || r.changed > f.last && !r.replayed && by.native || by.native && answered)
		certain := u.known && (h.settled || r.heard >= h.lost) && (u.own == nil || !u.own.awaits(e.jid, h.now()))
		switch decide(r, certain, s, available, f.n, by) {
		case nothing:
			continue
		case later:
			incomplete = true
			continue
		case toResource:
			p.To, r.shown = f.one.full, true
		case toBare:
			r.shown = true
		case unavailable:
			p.Unavailable = true
		case withdraw:
			p.Unavailable, p.Payload = true, nil
		}
		batch = append(batch, p)
	}
	if incomplete && u.own != nil && len(batch) == before {
		return batch // whom the server has answered is found out later
	}
	s.sent, s.lost, s.doubt = h.clock, incomplete, incomplete
	if s.end == untold {
		s.end = told
	}
	if len(batch) > before {
		s.relayed = true
		h.relayed(u)
	} else if s.relayed && u.relayed <= h.passed {
		s.relayed = false
	}
	return batch
}
