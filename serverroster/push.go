package serverroster

import (
	"errors"
	"slices"

	"rosterd/jid"
	"rosterd/roster"
)

// serverPush is one call of [Keeper.Push].
type serverPush struct {
	contacts []jid.JID
	settled  func(missing []jid.JID, err error)
}

// maxPushes bounds the calls of Push that wait for one user.
const maxPushes = 64

var (
	errCannotPush = errors.New("the server cannot be made to push at present")
	// ErrNotPushed is what the server did not take, and most likely will not.
	ErrNotPushed = errors.New("the server did not take what it was to push")
)

// Push has the server push the last known items of contacts to all of a user's clients, where
// it does so by itself with what is written to its own roster: what does not differ is written
// again. settled is called once, from any goroutine and perhaps before Push returns,
// with the contacts whose items the server did not confirm, and why. It must not block.
func (k *Keeper) Push(user jid.JID, contacts []jid.JID, settled func(missing []jid.JID, err error)) {
	p := &serverPush{contacts, settled}
	if err := k.push(user, p); err != nil {
		settled(contacts, err)
	}
}

func (k *Keeper) push(user jid.JID, p *serverPush) error {
	if way, _ := k.Ways(user.Domain()); way == nil {
		return errCannotPush
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.host(user.Domain())
	if h == nil || h.broken != "" || h.isPaused() {
		return errCannotPush
	}
	j := h.jobs[user]
	if j == nil {
		j = k.add(h, user)
	}
	if len(j.pushes) >= maxPushes {
		return errCannotPush
	}
	j.pushes, j.soon = append(j.pushes, p), true
	if j.again = j == h.current; !j.again {
		h.put(j, &h.urgent) // clients wait for it
	}
	wake(h)
	return nil
}

// pushAgain is what is to be written again, as it was to be pushed and has not been written in
// this turn.
func (t *turn) pushAgain() []roster.Change {
	var contacts []jid.JID
	for _, p := range t.toPush {
		for _, contact := range p.contacts {
			if _, done := t.repeated[contact]; !t.confirmed[contact] && !t.refused[contact] && !done {
				if t.repeated == nil {
					t.repeated = make(map[jid.JID]struct{})
				}
				t.repeated[contact] = struct{}{}
				contacts = append(contacts, contact)
			}
		}
	}
	changes := make([]roster.Change, len(contacts))
	for i, item := range t.want.Lookup(contacts) {
		changes[i] = roster.Change{Action: roster.Changed, Item: plainItem(item)}
		if item.JID.IsZero() { // the server does not have it
			changes[i] = roster.Change{Action: roster.Removed, Item: roster.Item{JID: contacts[i], Subscription: roster.SubscriptionNone}}
		}
	}
	return changes
}

// looksFirst reports whether the server is to be asked first, once: it is to push the removal
// of a contact whom it does not have, as far as is known, and is to send them nothing.
func (t *turn) looksFirst() bool {
	if t.lookedFirst {
		return false
	}
	for _, p := range t.toPush {
		for _, item := range t.want.Lookup(p.contacts) {
			t.lookedFirst = t.lookedFirst || item.JID.IsZero()
		}
	}
	return t.lookedFirst
}

// writeAgain writes what does not differ. What the server has is the same after that.
func (t *turn) writeAgain(changes []roster.Change) (over bool, err error) {
	have := t.have
	left, over, err := t.write(changes)
	t.have = have
	if left { // the rest has another turn
		for _, c := range changes {
			delete(t.repeated, c.Item.JID)
		}
	}
	return over, err
}

// settlePushes tells what became of the pushes, or leaves the rest to the next turn.
func (t *turn) settlePushes(done bool, err error) {
	if err == nil {
		if err = ErrNotPushed; t.way == nil || t.unsaid {
			err = errCannotPush
		}
	}
	for _, p := range t.toPush {
		p.contacts = slices.DeleteFunc(slices.Clone(p.contacts), func(contact jid.JID) bool { return t.confirmed[contact] })
		switch {
		case len(p.contacts) == 0:
			p.settled(nil, nil)
		case done:
			p.settled(p.contacts, err)
		default:
			t.mu.Lock()
			t.j.pushes = append(t.j.pushes, p)
			t.mu.Unlock()
		}
	}
	t.toPush = nil
}

// fail settles pushes that nobody is going to make.
func failPushes(pushes []*serverPush) {
	for _, p := range pushes {
		p.settled(p.contacts, errCannotPush)
	}
}

// takePushes takes all that wait. k.mu is held.
func (h *host) takePushes() (all []*serverPush) {
	for _, j := range h.jobs {
		all = append(all, j.pushes...)
		j.pushes = nil
	}
	return all
}
