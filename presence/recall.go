package presence

import (
	"slices"

	"rosterd/jid"
	"rosterd/roster"
)

// before is what an earlier rosterd may have told others of a user.
type before struct {
	shown []jid.JID // full JIDs
	// to are those of the users with a before who could see them, as bare JIDs, sorted.
	to []jid.JID
	// all: nobody knows who, as the roster was not kept before rosterd was killed.
	all bool
}

// Recall tells the hub which resources an earlier rosterd may have shown to others. Some
// have left since, and some clients drop a contact's resource only for unavailable
// presence from its full JID. It is called before the first stream.
func (h *Hub) Recall(shown []jid.JID) {
	for _, full := range shown {
		if !h.serves(full) {
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

// recallSubscribers finds out who could see a user. Others had no client then that could
// show them now.
func (h *Hub) recallSubscribers(user jid.JID) {
	last, known := h.rosters.Known(user) // before it is fetched anew, as a rule
	b := h.before[user]
	b.all = !known
	for _, c := range roster.SubscriptionChanges(nil, last) {
		if opens(c.After) && h.before[c.JID] != nil {
			b.to = append(b.to, c.JID)
		}
	}
	slices.SortFunc(b.to, jid.JID.Compare)
}

// absent are contacts of a user who is brought in line. The user is still to be told that
// they are not available, or may not be seen any more.
type absent struct {
	of       *user
	in       *roster.Roster // the user's roster
	contacts []jid.JID
}

// sendAbsent goes a step on telling a user of contacts who are not available, or may not be
// seen, and reports whether there are more.
func (h *Hub) sendAbsent(u *user, batch []Stanza, limit int) (_ []Stanza, more bool) {
	if h.absent.of != u || h.absent.in != u.roster {
		h.absent = absent{of: u, in: u.roster}
		for _, c := range roster.SubscriptionChanges(nil, u.roster) {
			if sees(c.After) && h.hosts[c.JID.Domain()] && c.JID != u.jid {
				h.absent.contacts = append(h.absent.contacts, c.JID)
			}
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	contacts := h.absent.contacts
	for n := 0; len(contacts) > 0 && u.available > 0; n++ {
		if len(batch) >= limit || n == maxSubscribers {
			h.absent.contacts = contacts
			return batch, true
		}
		batch = h.sendContact(contacts[0], u, batch)
		contacts = contacts[1:]
	}
	h.absent = absent{}
	return batch, false
}

// sendContact adds to batch what tells a user which resources of a contact are not there,
// or may not be seen any more: those that others were shown before, or if none is known,
// from the bare JID, which is the answer to a probe (RFC 6121, section 4.3.2). mu is held.
func (h *Hub) sendContact(contact jid.JID, to *user, batch []Stanza) []Stanza {
	u := h.users[contact]
	visible := false
	if u != nil && u.available > 0 {
		_, subscribed := slices.BinarySearch(h.entries[to.id].subscribed, u.id)
		visible = subscribed || !u.known
	}
	var shown []jid.JID
	b := h.before[contact]
	if b != nil && h.before[to.jid] != nil {
		if _, saw := slices.BinarySearchFunc(b.to, to.jid, jid.JID.Compare); saw || b.all {
			shown = b.shown
		}
	}
	before := len(batch)
	for _, full := range shown {
		if _, r := h.available(full); r == nil || !visible {
			batch = append(batch, Stanza{From: full, To: to.jid, Unavailable: true})
		}
	}
	// Where the server's own roster is known it has told of those who are not there, but an
	// earlier rosterd may have been killed before it took back what somebody may not see any more.
	if told := b == nil && to.own.asks(contact, roster.SubscriptionTo); len(shown) == 0 && !visible && (u != nil && u.available > 0 || !told) {
		batch = append(batch, Stanza{From: contact, To: to.jid, Unavailable: true})
	}
	if len(batch) > before {
		h.relayed(to)
		to.absentAt, h.absentAt = h.clock, h.clock
	}
	if u != nil && len(batch) > before { // what the server sends of the contact may overtake it
		i, is := u.subscriber(to.id)
		if !is && !visible && u.available > 0 && u.native(to.jid, &subscriber{end: told}) {
			h.insert(u, i, subscriber{id: to.id, end: told})
			h.expire(u)
			is = true
		}
		if is {
			s := &u.subscribers[i]
			s.relayed, s.doubt = true, s.doubt || !visible
			h.relayed(u)
		}
	}
	return batch
}
