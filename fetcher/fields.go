package fetcher

import (
	"slices"

	"rosterd/roster"
)

// fields sets the item's fields from an entry, or says why it cannot. Of a
// field that comes twice the last counts.
func (d *decoder) fields(item *roster.Item, entry []byte) (reason string) {
	c := cursor{b: entry}
	if !c.isObject() {
		return reasonWrongType
	}
	for c.open(); c.more('}'); {
		key, value := c.key(), c.value()
		ok := true
		switch string(unquote(key)) {
		case "name":
			item.Name, ok = name(value)
		case "groups":
			item.Groups, ok = d.groupSet(value)
		case "subscription":
			item.Subscription, ok = subscription(value)
		case "ask":
			item.Ask, ok = ask(value)
		case "approved":
			item.Approved, ok = boolean(value)
		}
		if !ok {
			return reasonWrongType
		}
	}
	if !item.Subscription.Valid() {
		return reasonSubscription
	}
	return ""
}

func name(value []byte) (name string, ok bool) {
	switch value[0] {
	case '"':
		return roster.CleanText(text(value)), true
	case 'n':
		return "", true
	}
	return "", false
}

func subscription(value []byte) (s roster.Subscription, ok bool) {
	switch value[0] {
	case '"':
		return roster.Subscription(text(value)), true
	case 'n':
		return roster.SubscriptionBoth, true
	}
	return "", false
}

// ask reads "subscribe" (RFC 6121, section 2.1.2.2), or whether that is so.
func ask(value []byte) (asked, ok bool) {
	if value[0] == '"' {
		s := text(value)
		return s == "subscribe", s == "subscribe" || s == ""
	}
	return boolean(value)
}

func boolean(value []byte) (b, ok bool) {
	switch value[0] {
	case 't':
		return true, true
	case 'f', 'n':
		return false, true
	}
	return false, false
}

// member reads whether a group counts. COMPAT mod_http_roster_admin, which never
// looked at the value: a backend may say 1 for true.
func member(value []byte) (in, ok bool) {
	if c := value[0]; c == '-' || '0' <= c && c <= '9' {
		return string(value) != "0", true
	}
	return boolean(value)
}

// groupSet reads an object whose true members are the groups, or an array of
// them.
func (d *decoder) groupSet(value []byte) (groups []string, ok bool) {
	c := cursor{b: value}
	switch c.kind() {
	case '{':
		for c.open(); c.more('}'); {
			key := c.key()
			in, ok := member(c.value())
			if !ok {
				return nil, false
			}
			if in {
				groups = append(groups, d.group(key))
			}
		}
	case '[':
		for c.open(); c.more(']'); {
			group := c.value()
			if group[0] != '"' {
				return nil, false
			}
			groups = append(groups, d.group(group))
		}
	case 'n':
	default:
		return nil, false
	}
	groups = slices.DeleteFunc(groups, func(g string) bool { return g == "" })
	slices.Sort(groups)
	return slices.Compact(groups), true
}

// group is the clean name of a group, a JSON string.
func (d *decoder) group(raw []byte) string {
	if g, known := d.groups[string(raw)]; known {
		return g
	}
	g := roster.CleanText(text(raw))
	d.groups[string(raw)] = g
	return g
}
