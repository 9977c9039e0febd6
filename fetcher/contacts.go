package fetcher

import (
	"bytes"
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

// decode makes the body of an answer into the roster of user, a bare JID.
//
// A body that is not UTF-8 is read like encoding/json reads it: U+FFFD stands
// for what cannot be decoded, lone surrogates included.
func decode(body []byte, user jid.JID) (*roster.Roster, skipped, *Error) {
	return decodeEach(body, user, nil)
}

// decodeEach is decode that calls each, if it is not nil, for each entry that
// is left out, with the JID as the backend sent it.
func decodeEach(body []byte, user jid.JID, each func(contact, reason string)) (*roster.Roster, skipped, *Error) {
	if !json.Valid(body) {
		return nil, skipped{}, &Error{Result: resultInvalid, text: whyNotJSON(body)}
	}
	d := &decoder{user: user, each: each, seen: make(map[jid.JID]struct{}), groups: make(map[string]string)}
	entries := 0
	c := cursor{b: body}
	switch c.kind() {
	case '{':
		for c.open(); c.more('}'); entries++ {
			d.add(c.key(), c.value(), true)
		}
	case '[':
		for c.open(); c.more(']'); entries++ {
			d.addElement(c.value())
		}
	default:
		return nil, skipped{}, &Error{Result: resultInvalid, text: "neither a JSON object nor an array"}
	}
	if entries > 0 && len(d.items) == 0 {
		return nil, d.skipped, &Error{Result: resultInvalid, text: fmt.Sprintf("none of %d entries is usable", entries)}
	}
	return roster.New(d.items), d.skipped, nil
}

// whyNotJSON says what is wrong with a body that is not JSON.
func whyNotJSON(body []byte) string {
	var value json.RawMessage
	switch err := json.NewDecoder(bytes.NewReader(body)).Decode(&value); {
	case err == nil:
		return "more than one JSON value"
	case errors.Is(err, io.EOF):
		return "an empty body"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "cut off"
	}
	return "not JSON"
}

// decoder gathers the items of one answer.
type decoder struct {
	user    jid.JID
	items   []roster.Item
	seen    map[jid.JID]struct{} // the items' contacts
	groups  map[string]string    // by what the backend sent: a few names, many times
	skipped skipped
	each    func(contact, reason string) // may be nil
}

// addElement adds an entry of the array form: an object that names its contact.
func (d *decoder) addElement(entry []byte) {
	c := cursor{b: entry}
	if !c.isObject() {
		d.skip("", reasonWrongType)
		return
	}
	var contact []byte
	for c.open(); c.more('}'); {
		if key, value := c.key(), c.value(); string(unquote(key)) == "jid" {
			contact = value
		}
	}
	switch {
	case contact == nil || contact[0] == 'n': // null is absent
		d.skip("", reasonJID)
	case contact[0] != '"':
		d.skip("", reasonWrongType)
	default:
		d.add(contact, entry, false)
	}
}

// add adds an entry for a contact, a JSON string, or skips it. keyed is the
// form of the whole.
func (d *decoder) add(contact, entry []byte, keyed bool) {
	raw := text(contact)
	item := roster.Item{Subscription: roster.SubscriptionBoth}
	reason := d.contact(&item, raw, keyed)
	if reason == "" {
		reason = d.fields(&item, entry)
	}
	if reason == "" && oversized(item) {
		reason = reasonTooLarge
	}
	if reason != "" {
		d.skip(raw, reason)
		return
	}
	d.seen[item.JID] = struct{}{}
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
	if _, double := d.seen[j]; double {
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
