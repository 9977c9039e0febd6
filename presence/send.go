package presence

import "slices"

// sendNews adds to batch what follows from the last facts. Users with much to be sent
// take turns.
func (h *Hub) sendNews(batch []Stanza) []Stanza {
	for n := 0; n < maxUsers && len(h.ready) > 0 && len(batch) < maxBatch; n++ {
		u := h.ready.pop()
		h.mu.Lock()
		// A roster in the mailbox may say that somebody is no subscriber any more.
		current := u.told == nil
		parked := false
		if current {
			if batch, parked = h.sendSubscribers(u, batch, maxBatch, &h.ready); !parked {
				batch = h.answerProbe(u, batch)
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
		if u.told != nil { // see sendNews
			h.mu.Unlock()
			break
		}
		var parked bool
		batch, parked = h.sendSubscribers(u, batch, limit, &h.resyncs)
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

// sendSubscribers goes a step on through those who can be sent a user's presence. If the
// block list has to be asked for before, the user is parked: put back into from once it is
// answered. mu is held.
func (h *Hub) sendSubscribers(u *user, batch []Stanza, limit int, from *queue[*user]) (_ []Stanza, parked bool) {
	if !u.broadcast.on {
		return batch, false
	}
	if !h.knowsBlocks(u) {
		u.blocks.parked = append(u.blocks.parked, from)
		return batch, true
	}
	i, _ := u.subscriber(u.broadcast.next)
	for n := 0; i < len(u.subscribers); i, n = i+1, n+1 {
		if len(batch) >= limit || n == maxSubscribers {
			return batch, false
		}
		s := &u.subscribers[i]
		u.broadcast.next = s.id + 1
		if h.entries[s.id].reachable() {
			batch = h.sync(u, s, batch)
		}
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

// answerProbe goes a step on through those whose presence a user may see (RFC 6121,
// section 4.3.2). mu is held.
func (h *Hub) answerProbe(u *user, batch []Stanza) []Stanza {
	if !u.probe.on {
		return batch
	}
	subscribed := h.entries[u.id].subscribed
	i, _ := slices.BinarySearch(subscribed, u.probe.next)
	for n := 0; i < len(subscribed); i, n = i+1, n+1 {
		if len(batch) >= maxBatch || n == maxSubscribers {
			return batch
		}
		u.probe.next = subscribed[i] + 1
		other := h.entries[subscribed[i]].user
		j, is := other.subscriber(u.id)
		switch {
		case !is:
		case other.told != nil || !h.knowsBlocks(other): // they are sent it once that is known
			h.broadcast(other)
		default:
			batch = h.sync(other, &other.subscribers[j], batch)
		}
	}
	u.probe.through()
	return batch
}

// sync adds to batch what a subscriber must be sent of a user, and takes it for sent. mu
// is held.
func (h *Hub) sync(u *user, s *subscriber, batch []Stanza) []Stanza {
	if s.end > untold {
		return batch
	}
	e := &h.entries[s.id]
	one, fresh := e.user.fresh(s.sent)
	available, incomplete := 0, false
	if e.user != nil {
		available = e.user.available
	}
	for _, r := range u.resources {
		p := Stanza{From: r.full, To: e.jid, Payload: r.payload}
		switch decide(r, u.known && (h.settled || r.heard >= h.lost), s, available, fresh) {
		case nothing:
			continue
		case later:
			incomplete = true
			continue
		case toResource:
			p.To, r.shown = one.full, true
		case toBare:
			r.shown = true
		case unavailable:
			p.Unavailable = true
		case withdraw:
			p.Unavailable, p.Payload = true, nil
		}
		batch = append(batch, p)
	}
	if s.sent, s.lost = h.clock, incomplete; s.end == untold {
		s.end = told
	}
	return batch
}
