package fetcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"rosterd/jid"
	"rosterd/roster"
)

// The reasons to skip an entry, as label values: it has no JID that a contact of
// this user can have.
const (
	reasonJID       = "jid"        // none, or not one
	reasonResource  = "resource"   // a contact is a bare JID (RFC 6121, section 2.1.2.3)
	reasonSelf      = "self"       // the user's own
	reasonDouble    = "double"     // an entry before it is the item of this contact
	reasonWrongType = "wrong_type" // the JID is no text
)

// SkipReasons are all reasons why an entry is skipped. Nobody may modify it.
var SkipReasons = []string{reasonJID, reasonResource, reasonSelf, reasonDouble, reasonWrongType}

// findings are what [decode] could not serve as it was sent: entries, and fields.
type findings struct{ skipped, ignored tally }

// tally counts things by a label.
type tally struct {
	by    map[string]int // nil: none
	first string         // the contact of the first of them, as the backend sent it
}

func (t *tally) add(label, contact string) {
	if t.by == nil {
		*t = tally{by: make(map[string]int), first: contact}
	}
	t.by[label]++
}

// decode makes the body of an answer into the roster of user, a bare JID. each, if
// it is not nil, is called for each finding.
//
// A body that is not UTF-8 is read like encoding/json reads it: U+FFFD stands
// for what cannot be decoded, lone surrogates included.
func (d *decoder) decode(body string, user jid.JID, each func(Finding)) (*roster.Roster, findings, *Error) {
	if !valid(body) {
		return nil, findings{}, notJSON(body)
	}
	return d.decodeValid(body, user, each)
}

// decodeValid is decode for a body that is valid JSON.
func (d *decoder) decodeValid(body string, user jid.JID, each func(Finding)) (*roster.Roster, findings, *Error) {
	defer d.forget()
	d.user, d.each = user, each
	if each != nil {
		d.seen = make(map[jid.JID]struct{})
	}
	entries, failure := d.walk(body)
	if failure != nil {
		return nil, findings{}, failure
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
		return nil, d.findings, &Error{Result: resultInvalid, text: fmt.Sprintf("none of %d entries is usable", entries)}
	}
	return r, d.findings, nil
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
	if strings.HasPrefix(body, "\xff\xfe") || strings.HasPrefix(body, "\xfe\xff") {
		return "UTF-16: JSON has to be UTF-8" // RFC 8259, section 8.1
	}
	return "not JSON"
}

// decoder gathers the items of one answer. Their texts are parts of the answer,
// where it does not escape them.
//
// Its memory is used for one answer after the other; it is not safe for concurrent
// use.
type decoder struct {
	user   jid.JID
	items  []roster.Item
	seen   map[jid.JID]struct{} // the items' contacts; nil: doubles are not looked for
	groups []string             // of all items, each of which has a part of it
	findings
	each func(Finding) // may be nil
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
	contact := "null"
	switch {
	case c.isObject():
		for c.open(); c.more(); {
			if key, value := c.key(), c.value(); text(key) == "jid" {
				contact = value
			}
		}
	case entry[0] == '"': // no fields
		d.add(entry, &cursor{s: entry}, true)
		return
	default:
		contact = entry
	}
	switch contact[0] {
	case '"':
		d.add(contact, &cursor{s: entry}, false)
	case 'n': // null is absent
		d.skip("", reasonJID)
	default:
		d.skip("", reasonWrongType)
	}
}

// add adds the entry that comes for a contact, a JSON string, or skips it. bare
// says that the contact is not called a JID.
func (d *decoder) add(contact string, entry *cursor, bare bool) {
	raw := text(contact)
	item := roster.Item{Subscription: roster.SubscriptionBoth}
	isObject := entry.isObject()
	begin := entry.i
	if reason := d.contact(&item, raw, bare, isObject); reason != "" {
		entry.value()
		d.skip(raw, reason)
		return
	}
	if isObject {
		d.fields(&item, raw, entry)
	} else {
		d.ignore(raw, fieldEntry, kindOf(entry.value()))
	}
	if d.each != nil && !utf8.ValidString(entry.s[begin:entry.i]) {
		d.each(Finding{Contact: printable(raw), Reason: NotUTF8})
	}
	if d.seen != nil {
		d.seen[item.JID] = struct{}{}
	}
	d.items = append(d.items, item)
}

func (d *decoder) skip(contact, reason string) {
	d.skipped.add(reason, contact)
	if d.each != nil {
		d.each(Finding{Contact: printable(contact), Reason: reason})
	}
}

// ignore notes that a contact's field has its default, as its value cannot be
// understood.
func (d *decoder) ignore(contact, field, value string) {
	d.ignored.add(field, contact)
	if d.each != nil {
		d.each(Finding{Contact: printable(contact), Field: field, Value: printable(value)})
	}
}

// contact sets the item's JID, or says why it is not a contact of the user. bare
// says that nothing calls it a JID, and isObject that it has fields.
func (d *decoder) contact(item *roster.Item, raw string, bare, isObject bool) (reason string) {
	j, err := jid.Parse(raw)
	if err != nil {
		return reasonJID
	}
	// {"error": {…}}, {"data": []} and {"error.code": 5} are answers that backends
	// give, and such a word is a well-formed domain. Taken for a contact, it would
	// replace all the user's contacts. A domain is no contact unless it is said to
	// be a JID, or has a dot and fields.
	if bare && j.Local() == "" && (!isObject || !strings.ContainsAny(j.Domain(), ".:")) {
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
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}
