package fetcher

import (
	"slices"
	"strconv"
	"strings"

	"rosterd/roster"
	"rosterd/xmlstream"
)

// The fields of an item, as label values.
const (
	fieldEntry        = "entry" // all of them: the entry is no object
	fieldName         = "name"
	fieldGroups       = "groups"
	fieldSubscription = "subscription"
	fieldAsk          = "ask"
	fieldApproved     = "approved"
)

// Fields are all fields of an item, and "entry". Nobody may modify it.
var Fields = []string{fieldEntry, fieldName, fieldGroups, fieldSubscription, fieldAsk, fieldApproved}

// maxText is how many bytes an item's name and groups may have, with 16 for
// each group. Written as XML, where a byte may become six, and in a stanza,
// that is less than any server's limit.
const maxText = 32 << 10

// fields sets the item's fields from the object that comes. Backends write them in
// many ways (PHP, databases and forms know few types): what can be understood is,
// and what cannot is no reason to take the contact away. Of a field that comes
// twice the last counts.
func (d *decoder) fields(item *roster.Item, contact string, c *cursor) {
	for c.open(); c.more(); {
		key := text(c.key())
		if key == fieldGroups {
			c.kind()
			begin := c.i
			groups, ok := d.groupSet(c)
			if item.Groups = groups; !ok {
				d.ignore(contact, key, c.s[begin:c.i])
			}
			continue
		}
		value, ok := c.value(), true
		switch key {
		case fieldName:
			item.Name, ok = plainText(value)
		case fieldSubscription:
			item.Subscription, ok = subscription(value)
		case fieldAsk:
			item.Ask, ok = ask(value)
		case fieldApproved:
			item.Approved, ok = truth(value)
		}
		if !ok {
			d.ignore(contact, key, value)
		}
	}
	if len(xmlstream.AppendEscaped(nil, item.Name)) > maxText { // it is written into one tag
		d.ignore(contact, fieldName, tooLong)
		item.Name = ""
	}
	size := len(item.Name)
	for _, group := range item.Groups {
		size += len(group) + 16
	}
	if size > maxText {
		d.ignore(contact, fieldGroups, tooLong)
		item.Groups = nil
	}
}

// tooLong stands for the value of a field that no server would take.
const tooLong = "more than 32 KiB"

// plainText is a text; a number is the one that it spells.
func plainText(value string) (s string, ok bool) {
	switch c := value[0]; {
	case c == '"':
		return cleanText(value), true
	case c == 'n':
		return "", true
	case isNumber(value):
		return value, true
	}
	return "", false
}

func subscription(value string) (roster.Subscription, bool) {
	switch value[0] {
	case '"':
		if s := roster.Subscription(lower(value)); s.Valid() {
			return s, true
		}
	case 'n':
		return roster.SubscriptionBoth, true
	}
	return roster.SubscriptionBoth, false
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
	switch value[0] {
	case 't':
		return true, true
	case 'f', 'n':
		return false, true
	case '"':
		switch value = lower(value); value {
		case "true", "t", "yes", "y", "on":
			return true, true
		case "false", "f", "no", "n", "off", "":
			return false, true
		}
	}
	if !isNumber(value) {
		return false, false
	}
	n, _ := strconv.ParseFloat(value, 64) // one that is too large is not 0 either
	return n != 0, true
}

// lower is the content of a JSON string in lower case, without the space around it.
func lower(quoted string) string { return strings.ToLower(strings.TrimSpace(text(quoted))) }

func isNumber(s string) bool { return s != "" && skipNumber(s, 0) == len(s) }

// groupSet reads an object whose true members are the groups, an array of them, or
// the one group. What is no group is left out, and not ok.
func (d *decoder) groupSet(c *cursor) (groups []string, ok bool) {
	begin := len(d.groups)
	add := func(group string) (ok bool) {
		name, ok := plainText(group)
		if name != "" {
			d.groups = append(d.groups, name)
		}
		return ok
	}
	ok = true
	switch c.kind() {
	case '{':
		for c.open(); c.more(); {
			key := c.key()
			in, known := truth(c.value())
			ok = ok && known
			if in {
				add(key)
			}
		}
	case '[':
		for c.open(); c.more(); {
			ok = add(c.value()) && ok
		}
	case '"':
		add(c.value())
	default:
		ok = c.value()[0] == 'n'
	}
	groups = d.groups[begin:len(d.groups):len(d.groups)]
	slices.Sort(groups)
	return slices.Compact(groups), ok
}

// kindOf stands for the value of an entry that is no object: whatever that is, it is
// no contact's, and maybe nobody's business.
func kindOf(value string) string {
	switch value[0] {
	case '"':
		return "a text"
	case '[':
		return "an array"
	case 't', 'f', 'n':
		return value
	}
	return "a number"
}
