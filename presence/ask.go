package presence

import (
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// ask sees to it that the roster of an available user gets known: Rosters.Known
// is asked at once, Rosters.Want after a while, once while the user is
// available and the stream is up. h.mu is held.
func (h *Hub) ask(u *user) {
	if u.asking || u.wanted {
		return
	}
	u.asking = true
	u.holds++
	h.asks.push(u)
	h.signal()
}

// nextAsk is a user to ask Rosters.Known for, or nil. [Hub.asked] follows.
func (h *Hub) nextAsk() (*user, jid.JID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.asks.len() == 0 {
		return nil, jid.JID{}
	}
	u := h.asks.pop()
	u.askedAt = h.clock
	return u, h.nodes[u.id].jid
}

// asked takes over what Rosters.Known said, unless Told was called meanwhile:
// that is at least as new.
func (h *Hub) asked(u *user, now *roster.Roster, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case u.known || u.available == 0:
	case u.leftAt > u.askedAt:
		h.asks.push(u) // what was told since the user was last away, Known may not have known
		h.signal()
		return // still asking
	case ok:
		h.know(u, now)
	case !u.wanted:
		h.wants.push(dated{u, h.now() + h.limits.WantAfter})
		return // still asking
	}
	u.asking = false
	h.letGo(u)
}

// nextWant is a user to ask Rosters.Want for, if it is time for one.
func (h *Hub) nextWant() (jid.JID, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	for h.wants.len() > 0 && h.wants.first().due <= now && h.wantAt <= now {
		u := h.wants.pop().user
		bare := h.nodes[u.id].jid
		want := !u.known && u.available > 0
		u.asking, u.wanted = false, want
		h.letGo(u)
		if want {
			h.wantAt = now + time.Second/time.Duration(h.limits.Wants)
			return bare, true
		}
	}
	return jid.JID{}, false
}
