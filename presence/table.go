package presence

import (
	"iter"
	"slices"

	"rosterd/jid"
	"rosterd/roster"
)

// What this file does is done with h.mu held.

// intern is the number of a bare JID.
func (h *Hub) intern(bare jid.JID) uint32 {
	id, ok := h.ids[bare]
	if ok {
		return id
	}
	if n := len(h.free); n > 0 {
		id, h.free = h.free[n-1], h.free[:n-1]
	} else {
		id = uint32(len(h.nodes))
		h.nodes = append(h.nodes, node{})
	}
	h.nodes[id] = node{jid: bare, served: h.hosts[bare.Domain()]}
	h.ids[bare] = id
	return id
}

// tidy gives a number back that stands for nobody any more.
func (h *Hub) tidy(id uint32) {
	if n := &h.nodes[id]; n.user == nil && n.listers == nil && n.pairs == 0 {
		delete(h.ids, n.jid)
		*n = node{}
		h.free = append(h.free, id)
	}
}

// user finds or makes a user.
func (h *Hub) user(bare jid.JID) *user {
	id := h.intern(bare)
	if h.nodes[id].user == nil {
		h.nodes[id].user = &user{id: id}
	}
	return h.nodes[id].user
}

// lookup is the user, or nil if he is not in the table.
func (h *Hub) lookup(bare jid.JID) *user {
	if id, ok := h.ids[bare]; ok {
		return h.nodes[id].user
	}
	return nil
}

// users are all users in the table.
func (h *Hub) users() iter.Seq[*user] {
	return func(yield func(*user) bool) {
		for i := range h.nodes {
			if u := h.nodes[i].user; u != nil && !yield(u) {
				return
			}
		}
	}
}

// letGo notes that a user is in one queue less.
func (h *Hub) letGo(u *user) {
	u.holds--
	h.release(u)
}

// release takes a user out of the table for whom there is nothing to do or to
// remember.
func (h *Hub) release(u *user) {
	if u.holds > 0 || len(u.resources) > 0 {
		return
	}
	for i := len(u.pairs) - 1; i >= 0; i-- {
		h.removePair(u, i)
	}
	for _, item := range u.roster.Items() {
		if opens(item) {
			h.unlist(u, item.JID)
		}
	}
	h.nodes[u.id].user = nil
	h.tidy(u.id)
}

// setRoster makes now the roster of a user and adapts who may be told of him.
func (h *Hub) setRoster(u *user, now *roster.Roster) {
	if now == nil {
		now = &roster.Roster{} // the nil Roster is empty, ours is unknown
	}
	old := u.roster
	u.roster, u.known, u.swept = now, true, 0
	if old == now {
		return
	}
	if old == nil {
		for _, item := range now.Items() {
			if u.mayOpen(item) {
				h.allow(u, item.JID)
			}
		}
		u.pairs = slices.Clip(u.pairs)
		return
	}
	for _, change := range roster.Diff(old, now) {
		before, _ := old.Item(change.Item.JID)
		may, might := change.Action != roster.Removed && u.mayOpen(change.Item), u.mayOpen(before)
		switch {
		case may && !might:
			h.allow(u, change.Item.JID)
		case might && !may:
			h.forbid(u, change.Item.JID)
		}
	}
}

// allow notes that a contact may be told of a user. Nobody is his own contact.
func (h *Hub) allow(u *user, contact jid.JID) {
	id := h.intern(contact)
	if id == u.id {
		return
	}
	n := &h.nodes[id]
	if n.served {
		n.listers = insert(n.listers, u.id)
	}
	if i, ok := u.pair(id); ok {
		p := &u.pairs[i]
		p.gone, p.all = false, true
	} else if n.reachable() {
		h.addPair(u, i, pair{to: id})
	}
}

// forbid notes that a contact may no longer be told of a user.
func (h *Hub) forbid(u *user, contact jid.JID) {
	id, ok := h.ids[contact]
	if !ok || id == u.id {
		return
	}
	h.unlist(u, contact)
	i, ok := u.pair(id)
	if !ok {
		return
	}
	if u.pairs[i].at == 0 {
		h.removePair(u, i)
		return
	}
	p := &u.pairs[i]
	p.gone, p.fade = true, untold
	h.fade(u)
}

// unlist takes a user out of the listers of a contact.
func (h *Hub) unlist(u *user, contact jid.JID) {
	id, ok := h.ids[contact]
	if !ok || id == u.id {
		return
	}
	n := &h.nodes[id]
	n.listers = remove(n.listers, u.id)
	h.tidy(id)
}

// addPair puts a pair where user.pair found that it belongs.
func (h *Hub) addPair(u *user, i int, p pair) {
	h.nodes[p.to].pairs++
	u.pairs = slices.Insert(u.pairs, i, p)
}

func (h *Hub) removePair(u *user, i int) {
	id := u.pairs[i].to
	if u.pairs = slices.Delete(u.pairs, i, i+1); len(u.pairs) == 0 {
		u.pairs = nil
	}
	h.nodes[id].pairs--
	h.tidy(id)
}

// arrived pairs a user who has just become available with those who may be
// told to him. He counts as told of what was before he came: that is sent to
// the new resource alone.
func (h *Hub) arrived(u *user) {
	for _, id := range h.nodes[u.id].listers {
		other := h.nodes[id].user
		if i, ok := other.pair(u.id); ok {
			other.pairs[i].away = 0
		} else {
			h.addPair(other, i, pair{to: u.id, at: h.clock - 1})
		}
	}
}

// left notes in what arrived did that there is nobody to be told anything.
func (h *Hub) left(u *user) {
	for _, id := range h.nodes[u.id].listers {
		other := h.nodes[id].user
		if i, ok := other.pair(u.id); ok {
			other.pairs[i].away = 1
			h.fade(other)
		}
	}
}
