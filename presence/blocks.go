package presence

import (
	"maps"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// Whom a user has blocked (XEP-0191) is not shown their presence, whatever the roster
// says: it is as if the roster had the contact without "from". Only the user's server
// knows, and does not tell a component of changes. So it is asked before presence is sent
// that came later than the last answer, or when that is too old.

// blocks is what is known of a user's block list. It is of the loop alone.
type blocks struct {
	list   map[string]struct{} // bare JIDs, and domains
	at     time.Duration       // when it was answered; 0: never on this stream
	upTo   uint64              // the last fact that may be shown by it
	asking bool                // it is being asked for
	parked []*queue[*user]     // into which the user is to be put back once it is answered
}

// blockAnswer is what a server has answered. It holds for what the server reported before
// it answered: a stream is in order.
type blockAnswer struct {
	list []jid.JID
	ok   bool
	upTo uint64
}

// Blocking says whether a host's block lists can be asked for on this stream. It is called
// before anything can be sent to the host's users.
func (h *Hub) Blocking(host string, can bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.blocking[host] = can
}

// BlocksChanged says that a user, a bare JID, has blocked or unblocked somebody.
func (h *Hub) BlocksChanged(bare jid.JID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if u := h.users[bare]; u != nil {
		h.clock++
		u.changed, u.news = h.clock, true
		h.post(u)
	}
}

// listed reports whether a block list has somebody, a bare JID. Of an address with a
// resource all of that user is blocked: others are shown presence as a whole.
func listed(list map[string]struct{}, bare jid.JID) bool {
	if len(list) == 0 {
		return false
	}
	_, one := list[bare.String()]
	_, all := list[bare.Domain()]
	return one || all
}

// knowsBlocks reports whether a user's presence can be shown by the block list that is
// known. If not, it is asked for. mu is held.
func (h *Hub) knowsBlocks(u *user) bool {
	b := &u.blocks
	if !h.blocking[u.jid.Domain()] || b.at > 0 && b.upTo >= u.changed && h.now()-b.at < h.limits.BlockAge {
		return true
	}
	if !b.asking {
		b.asking = true
		h.blockAsks.push(u)
	}
	return false
}

// askBlocks asks for a user's block list. The answer comes by way of the mailbox.
func (h *Hub) askBlocks(s Sender, u *user) {
	stream := h.streams
	s.Blocked(u.jid, func(list []jid.JID, ok bool) {
		h.mu.Lock()
		defer h.mu.Unlock()
		if stream == h.streams { // else it is too late
			u.answer = &blockAnswer{list, ok, h.clock}
			h.post(u)
		}
	})
}

// takeBlocks takes over a block list. If there was no answer, the one before holds.
func (h *Hub) takeBlocks(u *user, a *blockAnswer) {
	b := &u.blocks
	b.at, b.upTo, b.asking = max(h.now(), 1), a.upTo, false
	old, now := b.list, make(map[string]struct{}, len(a.list))
	for _, entry := range a.list {
		now[entry.Bare().String()] = struct{}{}
	}
	if a.ok && !maps.Equal(old, now) {
		b.list = now
		contacts := roster.SubscriptionChanges(nil, u.roster)
		for i := range contacts {
			contacts[i].Before = contacts[i].After
		}
		h.adapt(u, contacts, old)
		h.unblocked(u, old)
		h.broadcast(u)
	}
	u.unpark()
}

// unpark puts a user back where they waited for the block list.
func (u *user) unpark() {
	for _, q := range u.blocks.parked {
		q.push(u)
	}
	u.blocks.parked = nil
}
