package presence

import (
	"cmp"
	"slices"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// index is who is subscribed to whom. It is of the loop alone.
type index struct {
	ids     map[jid.JID]uint32 // of bare JIDs of users and of their contacts
	entries []entry            // by id; the first stands for nobody
	free    []uint32           // ids to be used again
}

// entry is a user, or somebody in a user's roster.
type entry struct {
	jid        jid.JID  // bare
	user       *user    // nil: not available
	subscribed []uint32 // the users whose presence this one may see, ascending; kept for those on served hosts
	count      uint32   // of the subscribers that have this id
	elsewhere  bool     // on a host that is not served: is always sent presence, and sends none
}

// reachable reports whether presence can be sent there.
func (e *entry) reachable() bool { return e.elsewhere || e.user != nil && e.user.online }

// intern is the id of a bare JID.
func (h *Hub) intern(bare jid.JID) uint32 {
	id, ok := h.ids[bare]
	if ok {
		return id
	}
	if n := len(h.free); n > 0 {
		id, h.free = h.free[n-1], h.free[:n-1]
	} else {
		id = uint32(len(h.entries))
		h.entries = append(h.entries, entry{})
	}
	h.entries[id] = entry{jid: bare, elsewhere: !h.hosts[bare.Domain()]}
	h.ids[bare] = id
	return id
}

// tidy gives an id back that stands for nobody any more.
func (h *Hub) tidy(id uint32) {
	if e := &h.entries[id]; e.user == nil && len(e.subscribed) == 0 && e.count == 0 {
		delete(h.ids, e.jid)
		*e = entry{}
		h.free = append(h.free, id)
	}
}

// release forgets a user of whom there is nothing to do or to remember.
func (h *Hub) release(u *user) {
	if u.queued || u.expiring || u.fetching || u.holding || u.resyncing || u.blocks.asking {
		return
	}
	h.mu.Lock()
	if u.posted || len(u.resources) > 0 {
		h.mu.Unlock()
		return
	}
	delete(h.users, u.jid)
	h.mu.Unlock()
	h.unsubscribe(u, func(subscriber) bool { return true })
	for _, c := range roster.SubscriptionChanges(nil, u.roster) {
		if id, ok := h.ids[c.JID]; ok && opens(c.After) {
			h.unlist(u, id)
		}
	}
	h.entries[u.id].user = nil
	h.tidy(u.id)
}

// setRoster makes now the roster of a user.
func (h *Hub) setRoster(u *user, now *roster.Roster) {
	changes := roster.SubscriptionChanges(u.roster, now)
	u.roster = now
	h.adaptOwn(u, changes)
	h.adapt(u, changes, u.blocks.list)
}

// adapt adapts who the subscribers of a user are to changes of their roster, or of their
// block list, which was another one. Nobody is their own subscriber.
func (h *Hub) adapt(u *user, changes []roster.SubscriptionChange, blocked map[string]struct{}) {
	var added []subscriber
	for _, c := range changes {
		was := opens(c.Before) && !listed(blocked, c.JID)
		is := opens(c.After) && !listed(u.blocks.list, c.JID)
		if was == is || c.JID == u.jid {
			continue
		}
		id := h.intern(c.JID)
		e := &h.entries[id]
		i, kept := u.subscriber(id)
		switch {
		case is && kept:
			s := &u.subscribers[i]
			h.mu.Lock() // what they were sent is taken back, or about to be
			s.doubt = s.doubt || slices.ContainsFunc(u.resources, func(r *resource) bool {
				return !r.gone() && (r.changed <= s.sent || r.replayed && r.since <= s.sent)
			})
			h.mu.Unlock()
			s.end, s.doubt = lasts, s.doubt || opens(c.Before)
		case is && e.reachable():
			// Who was blocked may have been told that the user is not to be seen.
			s := subscriber{id: id, relayed: e.user != nil && h.mayOvertake(u, e.user.absentAt), doubt: opens(c.Before)}
			added = append(added, s)
			e.count++
		case kept:
			u.subscribers[i].end = untold
			h.expire(u)
		}
		if !is {
			h.unlist(u, id)
		} else if j, listed := slices.BinarySearch(e.subscribed, u.id); !listed && !e.elsewhere {
			e.subscribed = slices.Insert(e.subscribed, j, u.id)
		}
	}
	// Who was sent nothing need not be told of the end.
	h.unsubscribe(u, func(s subscriber) bool { return s.end != lasts && s.sent == 0 && !s.doubt })
	if len(added) > 0 {
		u.subscribers = slices.Concat(u.subscribers, added)
		slices.SortFunc(u.subscribers, func(a, b subscriber) int { return cmp.Compare(a.id, b.id) })
	}
}

// mayOvertake reports whether what somebody was told at a fact, of who is absent, may have been
// overtaken by what the server sent of a user, or may still be.
func (h *Hub) mayOvertake(u *user, absentAt uint64) bool {
	if absentAt == 0 || absentAt > h.handled {
		return absentAt > 0
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(u.resources, func(r *resource) bool { return r.early && r.changed > absentAt })
}

// unlist takes a user out of those whom a contact may see.
func (h *Hub) unlist(u *user, contact uint32) {
	e := &h.entries[contact]
	if i, is := slices.BinarySearch(e.subscribed, u.id); is {
		e.subscribed = slices.Delete(e.subscribed, i, i+1)
	}
	h.tidy(contact)
}

// insert makes somebody a subscriber of a user.
func (h *Hub) insert(u *user, i int, s subscriber) {
	u.subscribers = slices.Insert(u.subscribers, i, s)
	h.entries[s.id].count++
}

// unsubscribe forgets subscribers of a user.
func (h *Hub) unsubscribe(u *user, which func(subscriber) bool) {
	u.subscribers = slices.DeleteFunc(u.subscribers, func(s subscriber) bool {
		if !which(s) {
			return false
		}
		h.entries[s.id].count--
		h.tidy(s.id)
		return true
	})
	if len(u.subscribers) == 0 {
		u.subscribers = nil
	}
}

// enter gives a user an id.
func (h *Hub) enter(u *user) {
	if u.id == 0 {
		u.id = h.intern(u.jid)
		h.entries[u.id].user = u
	}
}

// arrived makes a user who has become available a subscriber of those whom they may see.
// They count as sent what was before they came, at a fact: that is for the new resource
// alone.
func (h *Hub) arrived(u *user) {
	if u.online {
		return
	}
	h.mu.Lock()
	at := u.cameAt
	h.mu.Unlock()
	h.enter(u)
	u.online = true
	if u.own != nil {
		u.own.wanted, u.own.ready, u.own.askedFrom = false, false, nil
	}
	for _, id := range h.entries[u.id].subscribed {
		other := h.entries[id].user
		if i, is := other.subscriber(u.id); !is {
			h.insert(other, i, subscriber{id: u.id, sent: at - 1, relayed: u.absentAt > h.handled})
		}
	}
}

// forget forgets what was told Limits.Linger ago. It is called again if something is left.
func (h *Hub) forget(u *user, now time.Duration) {
	away := func(u *user) bool { return u == nil || !u.online && now-u.leftAt >= h.limits.Linger }
	more := !u.online && !away(u)
	h.mu.Lock()
	u.resources = slices.DeleteFunc(u.resources, func(r *resource) bool { return r.end == expired })
	for _, r := range u.resources {
		if more = more || r.gone(); r.end == told {
			r.end = expired
		}
	}
	h.mu.Unlock()
	if away(u) {
		for _, id := range h.entries[u.id].subscribed {
			h.unsubscribe(h.entries[id].user, func(s subscriber) bool { return s.id == u.id })
		}
	}
	h.unsubscribe(u, func(s subscriber) bool {
		e := &h.entries[s.id]
		if u.native(e.jid, &s) && s.end != lasts && e.reachable() {
			return false
		}
		return s.end == expired || s.end != lasts && !e.elsewhere && away(e.user)
	})
	for i := range u.subscribers {
		s := &u.subscribers[i]
		if more = more || s.end != lasts; s.end == told {
			s.end = expired
		} else if s.end == untold && h.entries[s.id].reachable() { // they were away when it ended
			h.broadcast(u)
		}
	}
	if more {
		h.expire(u)
	}
}
