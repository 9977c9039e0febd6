package fetcher

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"rosterd/jid"
	"rosterd/roster"
	"rosterd/xmlstream"
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

// The fields of an item, as label values.
const (
	fieldEntry        = "entry" // all of them: the entry is no object
	fieldName         = "name"
	fieldGroups       = "groups"
	fieldSubscription = "subscription"
	fieldAsk          = "ask"
	fieldApproved     = "approved"

	fieldJID = "jid" // names the contact in the array form
)

// Fields are all fields of an item, and "entry". Nobody may modify it.
var Fields = []string{fieldEntry, fieldName, fieldGroups, fieldSubscription, fieldAsk, fieldApproved}

const (
	// maxText is how many bytes an item's name and groups may have, with 16 for
	// each group. Written as XML, where a byte may become six, and in a stanza,
	// that is less than any server's limit.
	maxText = 32 << 10
	// tooLong stands for the value of a field that no server would take.
	tooLong = "more than 32 KiB"
)

// decoder makes items from the JSON of an answer. The texts of the items are parts
// of the answer where it does not escape them, so nothing is copied.
//
// The parser is encoding/json's own second version. It accepts what
// [json.Valid] does (names that come twice and bytes that are not UTF-8 included,
// nesting up to 10,000 levels), and holds one value at a time: a whole tree may
// take 200 times the size of an answer.
//
// A decoder is used for one answer after the other, by one goroutine at a time.
type decoder struct {
	json *jsontext.Decoder
	body string
	err  error // the first error of json; nothing that is read after it counts

	user   jid.JID
	utf8   bool // the body is
	items  []roster.Item
	groups []string  // of all items, each of which has a part of it
	odd    []Finding // fields of the current entry whose values cannot be understood
	found  Findings
}

// maxReused is the largest answer, in bytes, after which its buffer and decoder are used
// again. The memory for a larger one is given back.
const maxReused = 4 << 20

func newDecoder() *decoder { return &decoder{json: jsontext.NewDecoder(strings.NewReader(""))} }

// begin starts to read a body. It keeps the memory of the last one, and nothing
// else of it.
func (d *decoder) begin(body string) {
	clear(d.items)
	clear(d.groups)
	clear(d.odd[:cap(d.odd)])
	*d = decoder{json: d.json, body: body, items: d.items[:0], groups: d.groups[:0], odd: d.odd[:0]}
	d.json.Reset(strings.NewReader(body), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
}

// putDecoder keeps a decoder for the next answer.
func (f *Fetcher) putDecoder(d *decoder) {
	large := len(d.body) > maxReused
	if d.begin(""); !large {
		f.decoders.Put(d)
	}
}

// kind is the kind of what comes next, by its first byte. It is invalid if nothing
// comes, or no JSON.
func (d *decoder) kind() jsontext.Kind { return d.json.PeekKind() }

// open enters the object or array that comes.
func (d *decoder) open() { d.fail(d.token()) }

// more reports whether the object or array that was entered goes on, and leaves it
// if not.
func (d *decoder) more() bool {
	switch d.kind() {
	case '}', ']', jsontext.KindInvalid:
		d.fail(d.token())
		return false
	}
	return d.err == nil
}

func (d *decoder) token() error {
	_, err := d.json.ReadToken()
	return err
}

// value is the next value or member name as it stands in the body, without the
// space around it. It is never empty.
func (d *decoder) value() string {
	v, err := d.json.ReadValue()
	if err != nil {
		d.fail(err)
		return "null"
	}
	end := int(d.json.InputOffset())
	return d.body[end-len(v) : end]
}

// skipValue passes over the next value, however large.
func (d *decoder) skipValue() { d.fail(d.json.SkipValue()) }

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

// end fails unless the body was one JSON value, all of which has been read.
func (d *decoder) end() *Error {
	text := "not JSON"
	switch {
	case d.err == nil && d.token() == io.EOF:
		return nil
	case d.err == nil:
		text = "more than one JSON value"
	case errors.Is(d.err, io.EOF):
		text = "an empty body"
	case errors.Is(d.err, io.ErrUnexpectedEOF):
		text = "cut off"
	case strings.HasPrefix(d.body, "\xff\xfe"), strings.HasPrefix(d.body, "\xfe\xff"):
		text = "UTF-16: JSON has to be UTF-8" // RFC 8259, section 8.1
	}
	return &Error{Result: resultInvalid, text: text}
}

// decode makes the body of an answer into the roster of user, a bare JID. There are
// no findings if the body is not JSON.
//
// A body that is not UTF-8 is read like encoding/json reads it: U+FFFD stands
// for what cannot be decoded, lone surrogates included.
func (d *decoder) decode(body string, user jid.JID) (*roster.Roster, Findings, *Error) {
	d.begin(body)
	d.user, d.utf8 = user, utf8.ValidString(body)
	kind := d.kind()
	if kind != '{' && kind != '[' {
		d.skipValue()
		return nil, Findings{}, cmp.Or(d.end(), &Error{Result: resultInvalid, text: "neither a JSON object nor an array"})
	}
	entries := 0
	for d.open(); d.more(); entries++ {
		d.addEntry(kind == '{')
	}
	if failure := d.end(); failure != nil {
		return nil, Findings{}, failure
	}
	if entries > 0 && len(d.items) == 0 {
		return nil, d.found, &Error{Result: resultInvalid, text: fmt.Sprintf("none of %d entries is usable", entries)}
	}
	r := roster.New(d.items)
	if r.Len() < len(d.items) { // hardly a backend sends a contact twice, so doubles are looked for only then
		seen := make(map[jid.JID]bool)
		for _, item := range d.items {
			if seen[item.JID] {
				d.skip(item.JID.String(), reasonDouble)
			}
			seen[item.JID] = true
		}
	}
	return r, d.found, nil
}

// addEntry adds a member of an object, whose name is the contact, or an element of an
// array, which is an object that names its contact in a field, or the contact alone.
func (d *decoder) addEntry(isMember bool) {
	name := ""
	if isMember {
		name = d.value()
	}
	begin := d.json.InputOffset()
	item, contact, isObject := d.entry()
	if isMember {
		contact = name
	}
	switch contact[0] {
	case '"':
		d.add(item, text(contact), begin, isMember || !isObject, isObject)
	case 'n': // null is absent
		d.skip("", reasonJID)
	default:
		d.skip("", reasonWrongType)
	}
}

// entry reads an entry. contact is the JSON of its field jid, or "null" without one,
// or the whole entry if it is no object.
func (d *decoder) entry() (item roster.Item, contact string, isObject bool) {
	item.Subscription = roster.SubscriptionBoth
	d.odd = d.odd[:0]
	if d.kind() == '{' {
		return item, d.fields(&item), true
	}
	value := d.value()
	if value[0] == '[' && strings.TrimLeft(value[1:], " \t\r\n") == "]" { // PHP writes an empty object like that
		return item, "null", true
	}
	d.ignore(fieldEntry, typeOf(value))
	return item, value, false
}

// fields sets the item's fields from the object that comes, and returns the JSON of
// its field jid. Backends write fields in many ways (PHP, databases and forms know
// few types): what can be understood is, and what cannot is no reason to take the
// contact away. Of a field that comes twice the last counts.
func (d *decoder) fields(item *roster.Item) (contact string) {
	contact = "null"
	for d.open(); d.more(); {
		name, ok := text(d.value()), true
		begin := d.json.InputOffset()
		switch name {
		case fieldName:
			item.Name, ok = plainText(d.value())
		case fieldGroups:
			item.Groups, ok = d.groupSet()
		case fieldSubscription:
			item.Subscription, ok = subscription(d.value())
		case fieldAsk:
			item.Ask, ok = ask(d.value())
		case fieldApproved:
			item.Approved, ok = truth(d.value())
		case fieldJID:
			contact = d.value()
		default:
			d.skipValue()
		}
		if !ok {
			value := strings.TrimLeft(d.body[begin:d.json.InputOffset()], ": \t\r\n")
			d.ignore(name, value)
		}
	}
	// The name is written into one tag, where a byte may become six.
	if len(item.Name) > maxText/6 && len(xmlstream.AppendEscaped(nil, item.Name)) > maxText {
		d.ignore(fieldName, tooLong)
		item.Name = ""
	}
	size := len(item.Name)
	for _, group := range item.Groups {
		size += len(group) + 16
	}
	if size > maxText {
		d.ignore(fieldGroups, tooLong)
		item.Groups = nil
	}
	return contact
}

// ignore notes a field of the current entry whose value cannot be understood: once,
// though it may come a million times.
func (d *decoder) ignore(name, value string) {
	if !slices.ContainsFunc(d.odd, func(f Finding) bool { return f.Field == name }) {
		d.odd = append(d.odd, Finding{Field: name, Value: value})
	}
}

// add adds the item that was read from an entry, or skips it. begin is where the
// entry begins. bare says that nothing calls the contact a JID.
func (d *decoder) add(item roster.Item, contact string, begin int64, bare, isObject bool) {
	j, reason := d.contact(contact, bare, isObject)
	if reason != "" {
		d.skip(contact, reason)
		return
	}
	for _, field := range d.odd {
		field.Contact = contact
		d.found.Ignored.add(field)
	}
	if !d.utf8 && !utf8.ValidString(d.body[begin:d.json.InputOffset()]) {
		d.found.NotUTF8.add(Finding{Contact: contact})
	}
	item.JID = j
	d.items = append(d.items, item)
}

func (d *decoder) skip(contact, reason string) {
	d.found.Skipped.add(Finding{Contact: contact, Reason: reason})
}

// contact parses the JID of a contact. reason says why it is not one of the user's.
func (d *decoder) contact(raw string, bare, isObject bool) (j jid.JID, reason string) {
	j, err := jid.Parse(raw)
	if err != nil {
		return j, reasonJID
	}
	// {"error": {…}}, {"data": []} and {"error.code": 5} are answers that backends
	// give, and such a word is a well-formed domain. Taken for a contact, it would
	// replace all the user's contacts. A domain is no contact unless it is said to
	// be a JID, or has a dot and fields.
	if bare && j.Local() == "" && (!isObject || !strings.ContainsAny(j.Domain(), ".:")) {
		return j, reasonJID
	}
	if !j.IsBare() {
		return j, reasonResource
	}
	if j == d.user {
		return j, reasonSelf
	}
	return j, ""
}

// groupSet reads an object whose true members are the groups, an array of them, or
// the one group. What is no group is left out, and not ok.
func (d *decoder) groupSet() (groups []string, ok bool) {
	begin := len(d.groups)
	add := func(group string) (ok bool) {
		name, ok := plainText(group)
		if name != "" {
			d.groups = append(d.groups, name)
		}
		return ok
	}
	ok = true
	switch d.kind() {
	case '{':
		for d.open(); d.more(); {
			name := d.value()
			in, known := truth(d.value())
			ok = ok && known
			if in {
				add(name)
			}
		}
	case '[':
		for d.open(); d.more(); {
			ok = add(d.value()) && ok
		}
	case '"':
		add(d.value())
	default:
		ok = d.value() == "null"
	}
	groups = d.groups[begin:len(d.groups):len(d.groups)]
	slices.Sort(groups)
	return slices.Compact(groups), ok
}

// plainText is a text; a number is the one that it spells.
func plainText(value string) (s string, ok bool) {
	switch {
	case value[0] == '"':
		return cleanText(value), true
	case isNumber(value):
		return value, true
	}
	return "", value == "null"
}

func subscription(value string) (roster.Subscription, bool) {
	if value[0] == '"' {
		if s := roster.Subscription(lower(value)); s.Valid() {
			return s, true
		}
	}
	return roster.SubscriptionBoth, value == "null"
}

// ask reads "subscribe" (RFC 6121, section 2.1.2.2), or whether that is so.
func ask(value string) (asked, ok bool) {
	if value[0] == '"' && lower(value) == "subscribe" {
		return true, true
	}
	return truth(value)
}

// truth is whether something is so: as a boolean, as a number, which is then not 0,
// or as a text that says the one or the other. null is false.
func truth(value string) (is, ok bool) {
	if value == "null" {
		return false, true
	}
	if value[0] == '"' {
		value = lower(value)
	}
	switch value {
	case "true", "t", "yes", "y", "on":
		return true, true
	case "false", "f", "no", "n", "off", "":
		return false, true
	}
	if !isNumber(value) {
		return false, false
	}
	n, _ := strconv.ParseFloat(value, 64) // one that is too large is not 0 either
	return n != 0, true
}

// lower is the content of a JSON string in lower case, without the space around it.
func lower(quoted string) string { return strings.ToLower(strings.TrimSpace(text(quoted))) }

// isNumber reports whether a text is a number in JSON.
func isNumber(s string) bool {
	v := jsontext.Value(s)
	return v.Kind() == '0' && v.IsValid()
}

// typeOf says what an entry is that is no object. It stands for the entry, which is no
// contact's, and maybe nobody's business.
func typeOf(entry string) string {
	return map[jsontext.Kind]string{'"': "a text", '0': "a number", '[': "an array", 't': "true", 'f': "false", 'n': "null"}[jsontext.Value(entry).Kind()]
}

// text is the content of a JSON string. What is no UTF-8 or no character becomes
// U+FFFD.
func text(quoted string) string {
	if quoted[0] != '"' {
		return "" // of a body that is not JSON
	}
	inner := quoted[1 : len(quoted)-1]
	if strings.IndexByte(inner, '\\') < 0 && utf8.ValidString(inner) {
		return inner
	}
	s, _ := jsontext.AppendUnquote(nil, quoted) // the error says that there is U+FFFD
	return string(s)
}

// cleanText is what XML allows of the content of a JSON string.
func cleanText(quoted string) string {
	s := text(quoted)
	// JSON escapes control characters always, and U+FFFE and U+FFFF begin like that.
	if strings.IndexByte(quoted, '\\') < 0 && !strings.Contains(s, "\xef\xbf") {
		return s
	}
	return roster.CleanText(s)
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
