package presence

import (
	"slices"

	"rosterd/jid"
)

// What this file does is done with h.mu held. It decides what is sent, and
// takes it for sent.

// maxBatch is how many stanzas are decided on at a time, or a few more.
const maxBatch = 64

// sync adds to batch what the other of a pair must be sent of a user.
func (h *Hub) sync(u *user, p *pair, batch []Stanza) []Stanza {
	to := &h.nodes[p.to]
	if p.gone {
		return h.takeBack(u, p, batch)
	}
	one, late := to.user.late(p.at)
	withheld := false
	for i := range u.resources {
		r := &u.resources[i]
		s := Stanza{From: r.full, To: to.jid, Payload: r.payload}
		switch {
		case r.gone:
			if r.since > p.at || r.changed <= p.at {
				continue // was not shown, or was taken back
			}
			s.Unavailable = true
		case !u.known || !h.settled && r.heard < h.lost:
			withheld = true // perhaps the other may no longer see it, or it is no longer there
			continue
		case late == 1 && !p.all && (r.changed <= p.at || p.at > 0 && to.user.available == 1):
			s.To, r.shown = one.full, true // RFC 6121, section 4.3.2: the answer is for who asks
		case p.all || r.changed > p.at || late > 1:
			r.shown = true
		default:
			continue
		}
		batch = append(batch, s)
	}
	p.at, p.all = h.clock, withheld
	return batch
}

// takeBack adds to batch unavailable presence of what the other of a pair may
// have been shown and must not see any more, without what the user said when he
// left.
func (h *Hub) takeBack(u *user, p *pair, batch []Stanza) []Stanza {
	if p.fade != untold {
		return batch
	}
	for i := range u.resources {
		if r := &u.resources[i]; r.since <= p.at && r.shown && (!r.gone || r.changed > p.at) {
			batch = append(batch, Stanza{From: r.full, To: h.nodes[p.to].jid, Unavailable: true})
		}
	}
	p.at, p.fade = h.clock, told
	return batch
}

// tellOthers goes on with a walk over those who can be told of a user.
func (h *Hub) tellOthers(u *user, w *walk, batch []Stanza, limit int) []Stanza {
	if w.pos == 0 {
		w.began = h.clock
	}
	for i, _ := u.pair(w.pos); i < len(u.pairs); i++ {
		if len(batch) >= limit {
			return batch
		}
		p := &u.pairs[i]
		w.pos = p.to + 1
		if h.nodes[p.to].reachable() {
			batch = h.sync(u, p, batch)
		}
	}
	u.markTold(w.began)
	w.end()
	return batch
}

// tellUser goes on with the walk over those of whom a user can be told.
func (h *Hub) tellUser(u *user, batch []Stanza, limit int) []Stanza {
	w := &u.viewer
	listers := h.nodes[u.id].listers
	for i, _ := slices.BinarySearch(listers, w.pos); i < len(listers); i++ {
		if len(batch) >= limit {
			return batch
		}
		w.pos = listers[i] + 1
		other := h.nodes[listers[i]].user
		if j, ok := other.pair(u.id); ok {
			if !h.knowsBlocks(other) { // it is for other's walk, then
				other.source.mark()
				h.enqueue(other)
				continue
			}
			batch = h.sync(other, &other.pairs[j], batch)
		}
	}
	w.end()
	return batch
}

// sweep goes on telling a user that contacts are not available who are not, or
// may not be seen by him. It is through when batch has less than limit.
func (h *Hub) sweep(u *user, batch []Stanza, limit int) []Stanza {
	if u.available == 0 {
		return batch
	}
	to := h.nodes[u.id].jid
	for items := u.roster.Items(); u.swept < len(items) && len(batch) < limit; u.swept++ {
		item := items[u.swept]
		if sees(item) && h.hosts[item.JID.Domain()] && item.JID != to {
			batch = h.sweepContact(item.JID, to, h.mayShow(item.JID, u.id), batch)
		}
	}
	return batch
}

// mayShow reports whether somebody is available and can be told to a user, for
// all that is known.
func (h *Hub) mayShow(bare jid.JID, to uint32) bool {
	u := h.lookup(bare)
	if u == nil || u.available == 0 {
		return false
	}
	_, listed := slices.BinarySearch(h.nodes[to].listers, u.id)
	return listed || !u.known
}
