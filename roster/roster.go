// Package roster is the domain of rosterd: what a user's roster is, how two
// rosters differ, and who decides which one is the last known (RFC 6121,
// section 2). It does no I/O of its own: contacts come from a [Source], roster
// pushes leave through a [Pusher].
package roster

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"rosterd/jid"
	"rosterd/xmlstream"
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
	body    atomic.Pointer[body]
	n       int // items in it
	version atomic.Pointer[string]
}

// New makes a roster of items. Of several items with one JID the first counts.
func New(items []Item) *Roster {
	w := workshops.Get().(*workshop)
	defer w.leave()
	w.xml, w.parts = w.xml[:0], w.parts[:0]
	sorted := true
	for i, item := range items {
		p := part{from: len(w.xml), index: i}
		w.xml = AppendItem(w.xml, item)
		p.end, p.addressEnd = len(w.xml), p.from+len(itemOpen)+len(address(w.xml[p.from:]))
		w.parts = append(w.parts, p)
		sorted = sorted && (i == 0 || bytes.Compare(w.address(w.parts[i-1]), w.address(p)) < 0)
	}
	if sorted {
		return newRoster(bytes.Clone(w.xml), len(items))
	}
	slices.SortFunc(w.parts, func(a, b part) int {
		return cmp.Or(bytes.Compare(w.address(a), w.address(b)), cmp.Compare(a.index, b.index))
	})
	parts := slices.CompactFunc(w.parts, func(a, b part) bool { return bytes.Equal(w.address(a), w.address(b)) })
	xml := make([]byte, 0, len(w.xml))
	for _, p := range parts {
		xml = append(xml, w.xml[p.from:p.end]...)
	}
	return newRoster(xml, len(parts))
}

// Spelled is a roster of the same version whose items are written otherwise, as
// spell makes them.
func (r *Roster) Spelled(spell func(Item) Item) *Roster {
	items := r.Items()
	for i := range items {
		items[i] = spell(items[i])
	}
	spelled := New(items)
	version := r.Version()
	spelled.version.Store(&version)
	return spelled
}

// Len is the number of items.
func (r *Roster) Len() int {
	if r == nil {
		return 0
	}
	return r.n
}

// Version names the roster's content (RFC 6121, section 2.6): the same content has
// the same name everywhere and always. It has 22 characters of base64url (RFC
// 4648, section 5), which stand for 128 bits of its SHA-256 hash.
func (r *Roster) Version() string {
	if r == nil {
		return emptyVersion
	}
	if known := r.version.Load(); known != nil {
		return *known
	}
	v := versionOf(r.XML())
	r.version.Store(&v)
	return v
}

var emptyVersion = versionOf(nil)

func versionOf(xml []byte) string {
	sum := sha256.Sum256(xml)
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// Split is the longest beginning of [Roster.XML] that has whole items, one at
// least, and at most limit bytes, and the items behind it.
func (r *Roster) Split(limit int) (xml []byte, rest []Item) {
	xml = r.XML()
	if len(xml) <= limit {
		return xml, nil
	}
	end := max(bytes.LastIndex(xml[:limit], []byte(itemNext)), 0)
	if end == 0 {
		first, _ := firstItem(xml)
		end = len(first)
	}
	return xml[:end], itemsOf(xml[end:])
}

// Items are the items, made anew with each call.
func (r *Roster) Items() []Item { return itemsOf(r.XML()) }

func itemsOf(xml []byte) []Item {
	var list []Item
	for data := range items(xml) {
		if item, ok := parseItem(data); ok {
			list = append(list, item)
		}
	}
	return list
}

// Item is the item of a contact, if the roster has it.
func (r *Roster) Item(contact jid.JID) (Item, bool) {
	begins := append(xmlstream.AppendEscaped([]byte(itemOpen), contact.String()), '\'')
	xml := r.XML()
	i := bytes.Index(xml, begins)
	if i < 0 {
		return Item{}, false
	}
	data, _ := firstItem(xml[i:])
	return parseItem(data)
}

// Equal reports whether two rosters would look the same to a client.
func (r *Roster) Equal(o *Roster) bool { return r == o || bytes.Equal(r.XML(), o.XML()) }

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
