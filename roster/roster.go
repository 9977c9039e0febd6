// Package roster is the domain of rosterd: what a user's roster is, how two
// rosters differ, and who decides which one is the last known (RFC 6121,
// section 2). It does no I/O of its own: contacts come from a [Source], roster
// pushes leave through a [Pusher].
package roster

import (
	"slices"
	"strings"
	"unicode/utf8"

	"rosterd/jid"
)

// Subscription is the state of the presence subscription between a user and a
// contact (RFC 6121, section 2.1.2.5).
type Subscription string

// The subscription states an item of a roster can have. "remove" is not among
// them: it is no state but a request, written by whoever renders a [Change].
const (
	SubscriptionNone Subscription = "none"
	SubscriptionTo   Subscription = "to"
	SubscriptionFrom Subscription = "from"
	SubscriptionBoth Subscription = "both"
)

// Valid reports whether s is one of the four states.
func (s Subscription) Valid() bool {
	switch s {
	case SubscriptionNone, SubscriptionTo, SubscriptionFrom, SubscriptionBoth:
		return true
	}
	return false
}

// Item is one contact in a roster (RFC 6121, section 2.1.2).
//
// Name and Groups hold only characters that XML 1.0 allows; Groups are sorted
// and free of doubles. Whoever builds an Item sees to it.
type Item struct {
	JID          jid.JID // bare
	Name         string
	Subscription Subscription
	Ask          bool // ask='subscribe' (section 2.1.2.2)
	Approved     bool // section 2.1.2.1
	Groups       []string
}

// Equal reports whether i and o would look the same to a client.
func (i Item) Equal(o Item) bool {
	return i.JID == o.JID && i.Name == o.Name && i.Subscription == o.Subscription &&
		i.Ask == o.Ask && i.Approved == o.Approved && slices.Equal(i.Groups, o.Groups)
}

// Roster is an immutable set of items, one for each contact. The nil Roster is
// empty. It is safe for concurrent use.
type Roster struct {
	items []Item // sorted by JID
}

// New makes a roster of items, which it takes over and sorts. Of several items
// with one JID the first counts.
func New(items []Item) *Roster {
	slices.SortStableFunc(items, func(a, b Item) int { return a.JID.Compare(b.JID) })
	items = slices.CompactFunc(items, func(a, b Item) bool { return a.JID == b.JID })
	return &Roster{items: items}
}

// Len is the number of items.
func (r *Roster) Len() int {
	if r == nil {
		return 0
	}
	return len(r.items)
}

// Items are the items in the order of their JIDs. The caller must not modify
// them.
func (r *Roster) Items() []Item {
	if r == nil {
		return nil
	}
	return r.items
}

// Item is the item of a contact, if the roster has it.
func (r *Roster) Item(contact jid.JID) (Item, bool) {
	i, ok := slices.BinarySearchFunc(r.Items(), contact, func(item Item, j jid.JID) int { return item.JID.Compare(j) })
	if !ok {
		return Item{}, false
	}
	return r.items[i], true
}

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
}

// Diff is what turns the roster old into the roster now, in the order of the
// contacts' JIDs.
func Diff(old, now *Roster) []Change {
	var changes []Change
	a, b := old.Items(), now.Items()
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].JID.Compare(b[0].JID) < 0:
			changes = append(changes, Change{Removed, Item{JID: a[0].JID}})
			a = a[1:]
		case len(a) == 0 || a[0].JID.Compare(b[0].JID) > 0:
			changes = append(changes, Change{Added, b[0]})
			b = b[1:]
		default:
			if !a[0].Equal(b[0]) {
				changes = append(changes, Change{Changed, b[0]})
			}
			a, b = a[1:], b[1:]
		}
	}
	return changes
}

// CleanText takes the characters that XML 1.0 forbids (section 2.2, Char) out
// of s, and bytes that are not UTF-8: one of them would make a server close
// the stream.
func CleanText(s string) string {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "")
	}
	return strings.Map(func(r rune) rune {
		if r < 0x20 && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF {
			return -1
		}
		return r
	}, s)
}
