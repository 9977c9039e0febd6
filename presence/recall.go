package presence

import (
	"slices"

	"rosterd/jid"
	"rosterd/roster"
)

// before is what an earlier rosterd may have told others of a user.
type before struct {
	shown []jid.JID // full JIDs
	// who are those of the users with a before that could see them, as bare JIDs.
	who []jid.JID
	// all: nobody knows who, as the roster was not kept before rosterd was killed.
	all bool
}

// Recall tells the hub which resources an earlier rosterd may have shown to others.
// Some have left since, and some clients drop a contact's resource only for
// unavailable presence from its full JID. It is called before the first stream.
func (h *Hub) Recall(shown []jid.JID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, full := range shown {
		if !h.concerns(full) {
			continue
		}
		bare := full.Bare()
		b := h.before[bare]
		if b == nil {
			b = &before{}
			h.before[bare] = b
			h.recalls.push(bare)
		}
		b.shown = append(b.shown, full)
	}
}

// nextRecall is a user of whom it is to be found out who could see him. [Hub.recalled]
// follows, with what was last known of his roster.
func (h *Hub) nextRecall() (user jid.JID, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.recalls.len() == 0 {
		return jid.JID{}, false
	}
	return h.recalls.first(), true
}

// recalled takes note of who could see a user. Others had no client then that could
// show him now.
func (h *Hub) recalled(user jid.JID, last *roster.Roster, known bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.recalls.pop()
	b := h.before[user]
	for _, item := range last.Items() {
		if opens(item) && h.before[item.JID] != nil {
			b.who = append(b.who, item.JID)
		}
	}
	b.all = !known
}

// sweepContact adds to batch what tells a user which resources of a contact are not
// there, or may not be seen any more: those that others were shown before, or if
// none is known, from the bare JID, which is the answer to a probe (RFC 6121,
// section 4.3.2). h.mu is held.
func (h *Hub) sweepContact(contact, to jid.JID, visible bool, batch []Stanza) []Stanza {
	u := h.lookup(contact)
	var known []jid.JID
	if b := h.before[contact]; b != nil && h.before[to] != nil && (b.all || slices.Contains(b.who, to)) {
		known = b.shown
	}
	for _, full := range known {
		if !visible || !u.isAvailable(full) {
			batch = append(batch, Stanza{From: full, To: to, Unavailable: true})
		}
	}
	if len(known) == 0 && !visible {
		batch = append(batch, Stanza{From: contact, To: to, Unavailable: true})
	}
	return batch
}
