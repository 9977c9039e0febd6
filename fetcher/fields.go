package fetcher

import (
	"slices"

	"rosterd/roster"
)

// fields sets the item's fields from the entry that comes, or says why it cannot.
// Of a field that comes twice the last counts.
func (d *decoder) fields(item *roster.Item, c *cursor) (reason string) {
	if !c.isObject() {
		c.value()
		return reasonWrongType
	}
	for c.open(); c.more(); {
		key := text(c.key())
		if key == "groups" {
			var ok bool
			if item.Groups, ok = d.groupSet(c); !ok {
				reason = reasonWrongType
			}
			continue
		}
		value, ok := c.value(), true
		switch key {
		case "name":
			item.Name, ok = name(value)
		case "subscription":
			item.Subscription, ok = subscription(value)
		case "ask":
			item.Ask, ok = ask(value)
		case "approved":
			item.Approved, ok = boolean(value)
		}
		if !ok {
			reason = reasonWrongType
		}
	}
	if reason == "" && !item.Subscription.Valid() {
		reason = reasonSubscription
	}
	return reason
}

func name(value string) (name string, ok bool) {
	switch value[0] {
	case '"':
		return cleanText(value), true
	case 'n':
		return "", true
	}
	return "", false
}

func subscription(value string) (s roster.Subscription, ok bool) {
	switch value[0] {
	case '"':
		return roster.Subscription(text(value)), true
	case 'n':
		return roster.SubscriptionBoth, true
	}
	return "", false
}

// ask reads "subscribe" (RFC 6121, section 2.1.2.2), or whether that is so.
func ask(value string) (asked, ok bool) {
	if value[0] == '"' {
		s := text(value)
		return s == "subscribe", s == "subscribe" || s == ""
	}
	return boolean(value)
}

func boolean(value string) (b, ok bool) {
	switch value[0] {
	case 't':
		return true, true
	case 'f', 'n':
		return false, true
	}
	return false, false
}

// included reads whether a group counts. COMPAT mod_http_roster_admin, which never
// looked at the value: a backend may say 1 for true.
func included(value string) (in, ok bool) {
	if c := value[0]; c == '-' || '0' <= c && c <= '9' {
		return value != "0", true
	}
	return boolean(value)
}

// groupSet reads an object whose true members are the groups, or an array of
// them.
func (d *decoder) groupSet(c *cursor) (groups []string, ok bool) {
	begin := len(d.groups)
	add := func(group string) {
		if name := cleanText(group); name != "" {
			d.groups = append(d.groups, name)
		}
	}
	ok = true
	switch c.kind() {
	case '{':
		for c.open(); c.more(); {
			key := c.key()
			in, known := included(c.value())
			ok = ok && known
			if in {
				add(key)
			}
		}
	case '[':
		for c.open(); c.more(); {
			if group := c.value(); group[0] == '"' {
				add(group)
			} else {
				ok = false
			}
		}
	default:
		ok = c.value()[0] == 'n'
	}
	groups = d.groups[begin:len(d.groups):len(d.groups)]
	slices.Sort(groups)
	return slices.Compact(groups), ok
}
