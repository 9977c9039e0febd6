package presence

import (
	"slices"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// Available says that a resource has sent presence without a type: its first,
// or an update. payload is the presence's children; it is kept, and must not
// be modified.
func (h *Hub) Available(full jid.JID, payload []byte) {
	if !h.concerns(full) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	u := h.user(full.Bare())
	r := u.find(full)
	if r == nil || r.gone {
		if r = h.makeRoom(u, full); r == nil {
			return
		}
	}
	first := r.gone || r.fresh || r.heard < h.lost
	// What the server reports of one who was there before the stream was lost
	// is no news. He is brought in line with all others.
	replay := !h.settled && !r.gone && r.heard < h.lost
	r.payload, r.changed, r.heard = payload, h.clock, h.now()
	u.blocks.outdate()
	if first {
		r.joined, r.fresh = h.clock, false
	}
	if replay {
		return
	}
	if r.gone {
		h.arise(u, r)
	}
	u.source.mark()
	if first {
		u.viewer.mark()
	}
	if !u.known {
		h.ask(u)
	}
	h.enqueue(u)
}

// arise makes a resource an available one. h.mu is held.
func (h *Hub) arise(u *user, r *resource) {
	if r.gone = false; !r.shown {
		r.since = h.clock
	}
	if u.available++; u.available == 1 {
		h.arrived(u)
	}
}

// Login says that a resource does what a client does when a session begins: it
// asks for its roster. If it is taken for available, the end of an earlier
// session went unnoticed; its next presence counts as its first.
func (h *Hub) Login(full jid.JID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if u := h.lookup(full.Bare()); u != nil {
		if r := u.find(full); r != nil {
			r.fresh = true
		}
	}
}

// makeRoom finds or makes a resource that is about to become available, or
// returns nil if a user has so many that no more are kept. Of too many
// available ones the one that was seen first is given up: the server may have
// failed to report its end.
func (h *Hub) makeRoom(u *user, full jid.JID) *resource {
	if u.find(full) == nil && len(u.resources) >= 2*h.limits.Resources {
		i := slices.IndexFunc(u.resources, func(r resource) bool { return r.gone && r.fade != untold })
		if i < 0 {
			return nil // a client that comes and goes faster than can be told
		}
		u.resources = slices.Delete(u.resources, i, i+1)
	}
	if u.available >= h.limits.Resources {
		i := slices.IndexFunc(u.resources, func(r resource) bool { return !r.gone })
		h.unavailable(u, i, nil)
	}
	if r := u.find(full); r != nil {
		return r
	}
	u.resources = append(u.resources, resource{full: full, gone: true})
	return &u.resources[len(u.resources)-1]
}

// Unavailable says that a resource has sent unavailable presence, with these
// children, or that it was found to be gone. Nothing changes if it was not
// available.
func (h *Hub) Unavailable(full jid.JID, payload []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	u := h.lookup(full.Bare())
	if u == nil {
		return
	}
	i := slices.IndexFunc(u.resources, func(r resource) bool { return r.full == full && !r.gone })
	if i < 0 {
		return
	}
	h.clock++
	h.unavailable(u, i, payload)
}

// unavailable makes the resource at i a gone one. h.mu is held.
func (h *Hub) unavailable(u *user, i int, payload []byte) {
	r := &u.resources[i]
	h.fade(u)
	if u.available--; u.available == 0 {
		h.left(u)
		// Nobody may look for changes of his roster while he is away.
		u.known, u.wanted, u.leftAt = false, false, h.clock
	}
	if !r.shown {
		u.resources = slices.Delete(u.resources, i, i+1)
		return
	}
	r.payload, r.changed, r.gone, r.fade = payload, h.clock, true, untold
	u.blocks.outdate()
	u.source.mark()
	h.enqueue(u)
}

// Told says that a user's last known roster is this one from now on.
func (h *Hub) Told(bare jid.JID, now *roster.Roster) {
	h.mu.Lock()
	defer h.mu.Unlock()
	// Nobody looks for changes of the roster of a user who is away.
	if u := h.lookup(bare); u != nil && u.available > 0 {
		h.know(u, now)
	}
}

// know takes over a user's roster. h.mu is held.
func (h *Hub) know(u *user, now *roster.Roster) {
	h.clock++
	h.setRoster(u, now)
	u.source.mark()
	h.enqueue(u)
	if u.owed {
		u.owed = false
		h.bringInLine(u)
	}
}

// Alive says that a resource was found to be there still, by asking it or by
// another sign of it. Nothing changes if it is not available.
func (h *Hub) Alive(full jid.JID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if u := h.lookup(full.Bare()); u != nil {
		if r := u.find(full); r != nil && !r.gone {
			r.heard = h.now()
		}
	}
}

// Unheard are the resources that are taken for available and of which there
// was no sign since a time: some may be gone, though no server said so. Those
// found dead are to be reported with [Hub.Unavailable], the others with
// [Hub.Alive].
func (h *Hub) Unheard(since time.Time) []jid.JID {
	limit := since.Sub(h.born)
	var unheard []jid.JID
	h.mu.Lock()
	defer h.mu.Unlock()
	for u := range h.users() {
		for _, r := range u.resources {
			if !r.gone && r.heard < limit {
				unheard = append(unheard, r.full)
			}
		}
	}
	return unheard
}

// Align says that the clients of a user may show contacts online who are not:
// they were there before rosterd was, though they have been reported only now.
// They are brought in line as at the beginning of a stream. It is not needed
// for those who are reported within Limits.Settle, and done once for each stream.
func (h *Hub) Align(bare jid.JID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if u := h.lookup(bare); u != nil && h.settled && !u.aligned {
		u.aligned = true
		h.bringInLine(u)
	}
}

// concerns reports whether a JID is that of a resource of a served user.
func (h *Hub) concerns(full jid.JID) bool {
	return h.hosts[full.Domain()] && full.Local() != "" && !full.IsBare()
}
