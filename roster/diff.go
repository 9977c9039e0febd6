package roster

import (
	"bytes"

	"rosterd/jid"
	"rosterd/xmlstream"
)

// Action says what a [Change] did to an item.
type Action string

// The actions.
const (
	Added   Action = "added"
	Changed Action = "changed" // renamed, regrouped or re-subscribed
	Removed Action = "removed"
)

// Change is one item in which two rosters differ: what one roster push tells
// (RFC 6121, section 2.1.6). Of a removed item only the JID counts.
type Change struct {
	Action Action
	Item   Item
	// Version is what the client's roster is called with this change, if the
	// client uses roster versioning (section 2.6), or else "".
	Version string
}

// Diff is what turns the roster old into the roster now, in the order of the
// contacts' addresses.
func Diff(old, now *Roster) []Change {
	var changes []Change
	note := func(action Action, data []byte) {
		if item, ok := parseItem(data); ok {
			changes = append(changes, Change{Action: action, Item: item})
		}
	}
	compare(old, now, func(a, b []byte) {
		switch {
		case b == nil:
			if item, ok := parseItem(a); ok {
				changes = append(changes, Change{Action: Removed, Item: Item{JID: item.JID}})
			}
		case a == nil:
			note(Added, b)
		default:
			note(Changed, b)
		}
	})
	return changes
}

// SubscriptionChange is a contact whose subscription differs between two rosters. The
// empty subscription stands for no item.
type SubscriptionChange struct {
	JID           jid.JID // bare
	Before, After Subscription
}

// SubscriptionChanges are the contacts whose subscriptions differ between the rosters old
// and now, in the order of their addresses.
func SubscriptionChanges(old, now *Roster) []SubscriptionChange {
	var changes []SubscriptionChange
	compare(old, now, func(a, b []byte) {
		change := SubscriptionChange{Before: itemSubscription(a), After: itemSubscription(b)}
		if change.Before == change.After {
			return
		}
		written := address(a)
		if a == nil {
			written = address(b)
		}
		var err error
		if change.JID, err = jid.Parse(xmlstream.Unescape(written)); err == nil {
			changes = append(changes, change)
		}
	})
	return changes
}

// itemSubscription is the subscription in an item, which AppendItem wrote.
func itemSubscription(item []byte) Subscription {
	_, rest, _ := bytes.Cut(item, []byte(" subscription='"))
	value, _, _ := bytes.Cut(rest, []byte{'\''})
	return subscriptionOf(value)
}

// Gone are the contacts of old whom the roster now does not have.
func Gone(old, now *Roster) (gone []jid.JID) {
	if old.Len() == 0 {
		return nil
	}
	compare(old, now, func(a, b []byte) {
		if b != nil {
			return
		}
		if contact, err := jid.Parse(xmlstream.Unescape(address(a))); err == nil {
			gone = append(gone, contact)
		}
	})
	return gone
}

// compare calls differ for each contact of whom one roster has no item (nil), or
// both have one, but not the same.
func compare(old, now *Roster, differ func(a, b []byte)) {
	if old == now {
		return
	}
	a, b := old.XML(), now.XML()
	// What is the same at the beginning, most of it as a rule, is skipped as a
	// whole, up to an item of its own.
	if same := commonPrefix(a, b); same > 0 {
		if same == len(a) && same == len(b) {
			return
		}
		start := max(bytes.LastIndex(a[:same], []byte(itemNext)), 0)
		a, b = a[start:], b[start:]
	}
	// And at the end, from an item of its own on.
	same := commonSuffix(a, b)
	if item := bytes.Index(a[len(a)-same:], []byte(itemNext)); item >= 0 {
		a, b = a[:len(a)-same+item], b[:len(b)-same+item]
	}
	for len(a) > 0 || len(b) > 0 {
		var x, y, restA, restB []byte
		order := 0
		if len(a) > 0 {
			x, restA = firstItem(a)
		}
		if len(b) > 0 {
			y, restB = firstItem(b)
		}
		switch {
		case x == nil:
			order = 1
		case y == nil:
			order = -1
		default:
			order = bytes.Compare(address(x), address(y))
		}
		switch {
		case order < 0:
			differ(x, nil)
			a = restA
		case order > 0:
			differ(nil, y)
			b = restB
		default:
			if !bytes.Equal(x, y) {
				differ(x, y)
			}
			a, b = restA, restB
		}
	}
}

func commonSuffix(a, b []byte) int {
	n := min(len(a), len(b))
	x, y := a[len(a)-n:], b[len(b)-n:]
	const block = 256
	end := n
	for end >= block && bytes.Equal(x[end-block:end], y[end-block:end]) {
		end -= block
	}
	for end > 0 && x[end-1] == y[end-1] {
		end--
	}
	return n - end
}

func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	const block = 256
	i := 0
	for i+block <= n && bytes.Equal(a[i:i+block], b[i:i+block]) {
		i += block
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}
