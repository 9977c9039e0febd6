package serverroster

import (
	"context"
	"time"

	"rosterd/jid"
)

// prober is a [Way] whose server can be made to ask a contact for presence.
type prober interface {
	// Probe sends a presence probe (RFC 6121, section 4.3.1) to a contact in the name of
	// a user (bare JIDs), if that is permitted.
	Probe(ctx context.Context, user, contact jid.JID) (permitted bool, err error)
}

// maxProbes bounds the contacts of a host who are to be asked for presence. One more is seen
// with their next presence, as if the server could not ask.
const maxProbes = 10_000

// unseen are contacts who are to be asked for presence in the name of a user.
type unseen struct {
	user     jid.JID
	contacts []jid.JID
}

// wantPresence notes the contacts whom the user may see from now on: they may have come before
// the user.
func (t *turn) wantPresence() {
	all := t.j.touched
	t.j.touched = nil
	if _, is := t.way.(prober); !is || t.Online == nil || !t.Online(t.j.user) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var contacts []jid.JID
	for contact, now := range all {
		if now.sees && t.h.toAsk < maxProbes {
			contacts = append(contacts, contact)
			t.h.toAsk++
		}
	}
	if contacts != nil {
		t.h.unseen.PushBack(unseen{t.j.user, contacts})
	}
}

// nextUnseen takes the next contact who is to be asked for presence, users having turns. Who
// has gone meanwhile is left out.
func (k *Keeper) nextUnseen(h *host) (user, contact jid.JID, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for h.unseen.Len() > 0 && h.urgent.Len() == 0 {
		first := h.unseen.Remove(h.unseen.Front()).(unseen)
		if !k.Online(first.user) {
			h.toAsk -= len(first.contacts)
			continue
		}
		h.toAsk--
		contact, first.contacts = first.contacts[0], first.contacts[1:]
		if len(first.contacts) > 0 {
			h.unseen.PushBack(first)
		}
		return first.user, contact, true
	}
	return jid.JID{}, jid.JID{}, false
}

// forgetUnseen has nobody asked for presence. k.mu is held.
func (h *host) forgetUnseen() {
	h.unseen.Init()
	h.toAsk = 0
}

// askPresence asks one contact for presence, unless a query waits. What fails is not tried
// again: as if the server could not ask, the contact is seen with their next presence.
func (k *Keeper) askPresence(h *host) {
	t := &turn{Keeper: k, h: h}
	if !t.rest() {
		return
	}
	user, contact, ok := k.nextUnseen(h)
	if !ok {
		return
	}
	if want, known := k.Rosters.Known(user); !known || !sees(want.Lookup([]jid.JID{contact})[0]) {
		return // removed meanwhile
	}
	way, _ := k.Ways(h.name)
	p, permitted := way.(prober)
	var took time.Duration
	if permitted {
		took, _ = t.measure(func(ctx context.Context) (err error) {
			permitted, err = p.Probe(ctx, user, contact)
			return err
		})
	}
	if !permitted || took >= slowCall {
		k.mu.Lock()
		h.forgetUnseen()
		k.mu.Unlock()
	}
}
