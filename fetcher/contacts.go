package fetcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"rosterd/jid"
	"rosterd/roster"
)

// The reasons to skip an entry, as label values.
const (
	reasonJID          = "jid"          // none, or not one (RFC 7622)
	reasonResource     = "resource"     // a contact is a bare JID (RFC 6121, section 2.1.2.3)
	reasonSelf         = "self"         // the user's own
	reasonDouble       = "double"       // an entry before it is the item of this contact
	reasonWrongType    = "wrong_type"   // the entry or a field of it
	reasonSubscription = "subscription" // none of the four states
	reasonTooLarge     = "too_large"    // its name and groups: no server would take it
)

// maxText is how many bytes an item's name and groups may have, with 16 for
// each group. Written as XML, where a byte may become six, and in a stanza,
// that is less than any server's limit.
const maxText = 32 << 10

// SkipReasons are all reasons why an entry is skipped. Nobody may modify it.
var SkipReasons = []string{reasonJID, reasonResource, reasonSelf, reasonDouble, reasonWrongType, reasonSubscription, reasonTooLarge}

// skipped is what [decode] left out.
type skipped struct {
	reasons map[string]int // how many entries by reason; nil if none
	first   string         // the JID of the first of them, as the backend sent it
}

// decode makes the body of an answer into the roster of user, a bare JID. each, if
// it is not nil, is called for each entry that is left out, with the JID as the
// backend sent it.
//
// A body that is not UTF-8 is read like encoding/json reads it: U+FFFD stands
// for what cannot be decoded, lone surrogates included.
func (d *decoder) decode(body string, user jid.JID, each func(contact, reason string)) (*roster.Roster, skipped, *Error) {
	if !valid(body) {
		return nil, skipped{}, notJSON(body)
	}
	return d.decodeValid(body, user, each)
}

// decodeValid is decode for a body that is valid JSON.
func (d *decoder) decodeValid(body string, user jid.JID, each func(contact, reason string)) (*roster.Roster, skipped, *Error) {
	defer d.forget()
	d.user, d.each = user, each
	if each != nil {
		d.seen = make(map[jid.JID]struct{})
	}
	entries, failure := d.walk(body)
	if failure != nil {
		return nil, skipped{}, failure
	}
	r := roster.New(d.items)
	if r.Len() < len(d.items) {
		// Some contact has two entries: which ones are left out is looked up then
		// alone, as hardly a backend sends that.
		d.forget()
		d.user, d.seen = user, make(map[jid.JID]struct{})
		entries, _ = d.walk(body)
		r = roster.New(d.items)
	}
	if entries > 0 && len(d.items) == 0 {
		return nil, d.skipped, &Error{Result: resultInvalid, text: fmt.Sprintf("none of %d entries is usable", entries)}
	}
	return r, d.skipped, nil
}

// notJSON is the failure of a body that is not JSON.
func notJSON(body string) *Error { return &Error{Result: resultInvalid, text: whyNotJSON(body)} }

// whyNotJSON says what is wrong with a body that is not JSON.
func whyNotJSON(body string) string {
	var value json.RawMessage
	switch err := json.NewDecoder(strings.NewReader(body)).Decode(&value); {
	case err == nil:
		return "more than one JSON value"
	case errors.Is(err, io.EOF):
		return "an empty body"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "cut off"
	}
	return "not JSON"
}

// decoder gathers the items of one answer. Their texts are parts of the answer,
// where it does not escape them.
//
// Its memory is used for one answer after the other; it is not safe for concurrent
// use.
type decoder struct {
	user    jid.JID
	items   []roster.Item
	seen    map[jid.JID]struct{} // the items' contacts; nil: doubles are not looked for
	groups  []string             // of all items, each of which has a part of it
	skipped skipped
	each    func(contact, reason string) // may be nil
}

// What a decoder keeps room for, from one answer to the next: items.
const maxKept = 4096

// newDecoder makes a decoder for one answer after the other.
func newDecoder() *decoder { return &decoder{} }

// forget makes d ready for the next answer, of which the last one is no part: only
// its memory is used again.
func (d *decoder) forget() {
	items, groups := d.items, d.groups
	if cap(items) > maxKept || cap(groups) > 4*maxKept {
		items, groups = nil, nil
	}
	clear(items)
	clear(groups)
	*d = decoder{items: items[:0], groups: groups[:0]}
}

// walk adds all entries of an answer.
func (d *decoder) walk(body string) (entries int, failure *Error) {
	c := cursor{s: body}
	switch c.kind() {
	case '{':
		for c.open(); c.more(); entries++ {
			key := c.key()
			d.add(key, &c, true)
		}
	case '[':
		for c.open(); c.more(); entries++ {
			d.addElement(c.value())
		}
	default:
		return 0, &Error{Result: resultInvalid, text: "neither a JSON object nor an array"}
	}
	return entries, nil
}

// addElement adds an entry of the array form: an object that names its contact.
func (d *decoder) addElement(entry string) {
	c := cursor{s: entry}
	if !c.isObject() {
		d.skip("", reasonWrongType)
		return
	}
	contact := "null"
	for c.open(); c.more(); {
		if key, value := c.key(), c.value(); text(key) == "jid" {
			contact = value
		}
	}
	switch contact[0] {
	case 'n': // null is absent
		d.skip("", reasonJID)
	case '"':
		d.add(contact, &cursor{s: entry}, false)
	default:
		d.skip("", reasonWrongType)
	}
}

// add adds the entry that comes for a contact, a JSON string, or skips it. keyed
// is the form of the whole.
func (d *decoder) add(contact string, entry *cursor, keyed bool) {
	raw := text(contact)
	item := roster.Item{Subscription: roster.SubscriptionBoth}
	reason := d.contact(&item, raw, keyed)
	if reason == "" {
		reason = d.fields(&item, entry)
	} else {
		entry.value()
	}
	if reason == "" && oversized(item) {
		reason = reasonTooLarge
	}
	if reason != "" {
		d.skip(raw, reason)
		return
	}
	if d.seen != nil {
		d.seen[item.JID] = struct{}{}
	}
	d.items = append(d.items, item)
}

func oversized(item roster.Item) bool {
	size := len(item.Name)
	for _, group := range item.Groups {
		size += len(group) + 16
	}
	return size > maxText
}

func (d *decoder) skip(contact, reason string) {
	if d.skipped.reasons == nil {
		d.skipped = skipped{reasons: make(map[string]int), first: contact}
	}
	d.skipped.reasons[reason]++
	if d.each != nil {
		d.each(contact, reason)
	}
}

// contact sets the item's JID, or says why it is not a contact of the user.
func (d *decoder) contact(item *roster.Item, raw string, keyed bool) (reason string) {
	j, err := jid.Parse(raw)
	if err != nil {
		return reasonJID
	}
	// {"error": {…}} and {"data": []} are answers that backends give, and such
	// a word is a well-formed domain. Taken for a contact, it would replace all
	// the user's contacts. An address of one label is no contact unless it says
	// that it is a JID.
	if keyed && j.Local() == "" && !strings.ContainsAny(j.Domain(), ".:") {
		return reasonJID
	}
	if !j.IsBare() {
		return reasonResource
	}
	if j == d.user {
		return reasonSelf
	}
	if _, double := d.seen[j]; double { // of nil, too
		return reasonDouble
	}
	item.JID = j
	return ""
}

// printable is s for a log line: short, and without anything that does not
// print.
func printable(s string) string {
	const longest = 100
	if len(s) > longest {
		s = strings.ToValidUTF8(s[:longest], "") + "…"
	}
	quoted := strconv.Quote(s)
	return quoted[1 : len(quoted)-1]
}
