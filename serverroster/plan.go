package serverroster

import (
	"crypto/sha256"
	"encoding/base64"
	"slices"

	"rosterd/jid"
	"rosterd/roster"
)

// plainItem is an item without what a server's roster is not compared by.
func plainItem(i roster.Item) roster.Item {
	i.Ask, i.Approved = false, false
	if len(i.Groups) > 1 {
		i.Groups = slices.Compact(slices.Sorted(slices.Values(i.Groups)))
	}
	return i
}

func plain(r *roster.Roster) *roster.Roster {
	items := r.Items()
	for n := range items {
		items[n] = plainItem(items[n])
	}
	return roster.New(items)
}

// difference is what makes the roster want of have, which is plain. Removals come first: a
// server may take an address that is removed for another one that is set. A removed item is
// as the server has it.
func difference(have, want *roster.Roster) []roster.Change {
	changes := roster.Diff(have, plain(want))
	withRemoved(changes, have)
	slices.SortStableFunc(changes, func(a, b roster.Change) int { return order(a) - order(b) })
	return changes
}

// withRemoved makes the items of removals as have has them.
func withRemoved(changes []roster.Change, have *roster.Roster) {
	var places []int
	var contacts []jid.JID
	for i, c := range changes {
		if c.Action == roster.Removed {
			places, contacts = append(places, i), append(contacts, c.Item.JID)
		}
	}
	if contacts == nil {
		return
	}
	for i, item := range have.Lookup(contacts) {
		if !item.JID.IsZero() {
			changes[places[i]].Item = item
		}
	}
}

func contactsOf(changes []roster.Change) []jid.JID {
	contacts := make([]jid.JID, len(changes))
	for i, c := range changes {
		contacts[i] = c.Item.JID
	}
	return contacts
}

// subscriptionChange is what a change makes of the subscription in an item, if there is one.
func subscriptionChange(had roster.Item, c roster.Change) roster.SubscriptionChange {
	change := roster.SubscriptionChange{JID: c.Item.JID, Before: had.Subscription}
	if c.Action != roster.Removed {
		change.After = c.Item.Subscription
	}
	return change
}

func order(c roster.Change) int {
	if c.Action == roster.Removed {
		return 0
	}
	return 1
}

// removals is how many of changes are such.
func removals(changes []roster.Change) (n int) {
	for _, c := range changes {
		if c.Action == roster.Removed {
			n++
		}
	}
	return n
}

// nameOf names a difference: by what is to be, and what is there in its place. "" is none.
func nameOf(changes []roster.Change, have *roster.Roster) string {
	if len(changes) == 0 {
		return ""
	}
	var b []byte
	for i, item := range have.Lookup(contactsOf(changes)) {
		b = append(append(b, changes[i].Action...), ' ')
		if changes[i].Action != roster.Removed {
			b = roster.AppendItem(b, changes[i].Item)
		}
		if !item.JID.IsZero() {
			b = roster.AppendItem(b, item)
		}
	}
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// applied is a roster after changes.
func applied(r *roster.Roster, changes []roster.Change) *roster.Roster {
	if len(changes) == 0 {
		return r
	}
	last := make(map[jid.JID]roster.Change, len(changes))
	for _, c := range changes {
		last[c.Item.JID] = c
	}
	items := slices.DeleteFunc(r.Items(), func(i roster.Item) bool { _, changed := last[i.JID]; return changed })
	for _, c := range last {
		if c.Action != roster.Removed {
			items = append(items, plainItem(c.Item))
		}
	}
	return roster.New(items)
}
