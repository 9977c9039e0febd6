package presence

import (
	"maps"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// Whom a user has blocked (XEP-0191) is not shown his presence, whatever his roster
// says: for the hub it is as if the roster had him without "from". Only the user's
// server knows, and does not tell a component of changes. So it is asked before
// presence is sent that came later than the last answer, or when that is too old.

// Blocking says whether a host's block lists can be asked for on this stream. It is
// called before anything can be sent to the host's users.
func (h *Hub) Blocking(host string, can bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.blocking[host] = can
}

// BlocksChanged says that a user, a bare JID, has blocked or unblocked somebody.
func (h *Hub) BlocksChanged(bare jid.JID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if u := h.lookup(bare); u != nil {
		u.blocks.outdate()
		u.source.mark()
		h.enqueue(u)
	}
}

// blocks is what is known of a user's block list.
type blocks struct {
	list     map[string]struct{} // bare JIDs, and domains
	at       time.Duration       // when it was answered; 0: never on this stream
	outdated bool                // something came later that must not be shown by it
	asking   bool                // it is being asked for
	sent     bool                // and the question is on its way
	parked   bool                // the user is to be put back into live, once it is answered
	review   bool                // and so into align
}

// hasBlocked reports whether the user has blocked somebody, a bare JID. Of an address
// with a resource all of that user is blocked: others are shown presence as a whole.
func (u *user) hasBlocked(bare jid.JID) bool {
	if len(u.blocks.list) == 0 {
		return false
	}
	_, one := u.blocks.list[bare.String()]
	_, all := u.blocks.list[bare.Domain()]
	return one || all
}

// mayOpen reports whether a contact can be told of a user who has that item.
func (u *user) mayOpen(item roster.Item) bool { return opens(item) && !u.hasBlocked(item.JID) }

// outdate says that what is known does not hold for what has just come. What comes
// behind a question, the server has reported before it answered: a stream is in
// order.
func (b *blocks) outdate() { b.outdated = b.outdated || !b.sent }

// knowsBlocks reports whether a user's presence can be shown by the block list that
// is known. If not, it is asked for.
func (h *Hub) knowsBlocks(u *user) bool {
	b := &u.blocks
	if !h.blocking[h.nodes[u.id].jid.Domain()] || b.at > 0 && !b.outdated && h.now()-b.at < h.limits.BlockAge {
		return true
	}
	if !b.asking {
		b.asking = true
		u.holds++
		h.blockAsks.push(u)
		h.signal()
	}
	return false
}

// askBlocks asks for block lists that are not known. It is called without h.mu.
func (h *Hub) askBlocks(s Sender) {
	for range maxTurns {
		h.mu.Lock()
		if h.blockAsks.len() == 0 {
			h.mu.Unlock()
			return
		}
		u := h.blockAsks.pop()
		bare, stream := h.nodes[u.id].jid, h.streams
		u.blocks.outdated, u.blocks.sent = false, true
		h.mu.Unlock()
		s.Blocked(bare, func(list []jid.JID, ok bool) { h.blocked(u, stream, list, ok) })
	}
}

// blocked takes over a block list. If there was no answer, the one before holds.
func (h *Hub) blocked(u *user, stream uint64, list []jid.JID, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if stream != h.streams || !u.blocks.asking {
		return // it came too late
	}
	u.blocks.at, u.blocks.asking, u.blocks.sent = max(h.now(), 1), false, false
	if ok {
		h.setBlocks(u, list)
	}
	h.unpark(u)
	h.letGo(u)
	h.signal()
}

// unpark puts a user back where he waited for the block list. h.mu is held.
func (h *Hub) unpark(u *user) {
	if u.blocks.parked {
		u.blocks.parked = false
		h.live.push(u)
	}
	if u.blocks.review {
		u.blocks.review = false
		h.align.push(u)
	}
}

// setBlocks makes list the block list of a user and adapts who may be told of him.
func (h *Hub) setBlocks(u *user, list []jid.JID) {
	h.clock++
	old, now := u.blocks.list, make(map[string]struct{}, len(list))
	for _, entry := range list {
		now[entry.Bare().String()] = struct{}{}
	}
	if maps.Equal(old, now) {
		return
	}
	for _, item := range u.roster.Items() {
		if !opens(item) {
			continue
		}
		u.blocks.list = old
		before := u.hasBlocked(item.JID)
		u.blocks.list = now
		switch after := u.hasBlocked(item.JID); {
		case after && !before:
			h.forbid(u, item.JID)
		case before && !after:
			h.allow(u, item.JID)
		}
	}
	u.blocks.list = now
	u.source.mark()
	h.enqueue(u)
}

// forgetBlocks ends what was under way on a stream that has ended: whom users have
// blocked is asked anew on the next one.
func (h *Hub) forgetBlocks() {
	clear(h.blocking)
	for h.blockAsks.len() > 0 {
		h.blockAsks.pop()
	}
	for u := range h.users() {
		b := &u.blocks
		b.at = 0
		h.unpark(u)
		if b.asking {
			b.asking, b.sent = false, false
			h.letGo(u)
		}
	}
}
