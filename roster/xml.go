package roster

import (
	"bytes"
	"iter"

	"rosterd/jid"
	"rosterd/xmlstream"
)

// A roster is kept as what is written of it (RFC 6121, section 2.1.2): each item
// as AppendItem makes it, in the order of their addresses as they are written.
// So it is rendered once and compared as bytes. As '<' and '\” stand in no
// value, the ends of items and attributes are found by looking for them.
const (
	itemOpen = "<item jid='"
	itemNext = "<item "
	groupEnd = "</group>"
)

// AppendItem appends an item as XML.
func AppendItem(b []byte, item Item) []byte {
	b = append(b, itemOpen...)
	if local := item.JID.Local(); local != "" {
		b = append(xmlstream.AppendEscaped(b, local), '@')
	}
	b = append(xmlstream.AppendEscaped(b, item.JID.Domain()), '\'')
	b = xmlstream.AppendAttr(b, "subscription", string(item.Subscription))
	if item.Name != "" {
		b = xmlstream.AppendAttr(b, "name", item.Name)
	}
	if item.Ask {
		b = append(b, " ask='subscribe'"...)
	}
	if item.Approved {
		b = append(b, " approved='true'"...)
	}
	if len(item.Groups) == 0 {
		return append(b, "/>"...)
	}
	return append(AppendGroups(append(b, '>'), item.Groups), "</item>"...)
}

// AppendGroups appends groups as XML.
func AppendGroups(b []byte, groups []string) []byte {
	for _, group := range groups {
		b = append(xmlstream.AppendEscaped(append(b, "<group>"...), group), groupEnd...)
	}
	return b
}

// firstItem splits the first item off xml, which is not empty.
func firstItem(xml []byte) (item, rest []byte) {
	if i := bytes.Index(xml[1:], []byte(itemNext)); i >= 0 {
		return xml[:i+1], xml[i+1:]
	}
	return xml, nil
}

// address is a contact's address as it is written in an item.
func address(item []byte) []byte {
	if len(item) < len(itemOpen) {
		return nil
	}
	value, _, _ := bytes.Cut(item[len(itemOpen):], []byte{'\''})
	return value
}

// parseItem reads what AppendItem wrote. Of anything else it makes something,
// or reports that it cannot.
func parseItem(data []byte) (item Item, ok bool) {
	var err error
	if item.JID, err = jid.Parse(xmlstream.Unescape(address(data))); err != nil || !item.JID.IsBare() {
		return Item{}, false
	}
	tag, groups, _ := bytes.Cut(data, []byte{'>'})
	for rest := tag; ; {
		_, after, more := bytes.Cut(rest, []byte{' '})
		if !more {
			break
		}
		name, after, _ := bytes.Cut(after, []byte("='"))
		var value []byte
		if value, rest, more = bytes.Cut(after, []byte{'\''}); !more {
			break
		}
		switch string(name) {
		case "subscription":
			item.Subscription = subscriptionOf(value)
		case "name":
			item.Name = xmlstream.Unescape(value)
		case "ask":
			item.Ask = true
		case "approved":
			item.Approved = true
		}
	}
	for len(groups) > 0 {
		group, rest, more := bytes.Cut(groups, []byte(groupEnd))
		if !more {
			break
		}
		item.Groups = append(item.Groups, xmlstream.Unescape(bytes.TrimPrefix(group, []byte("<group>"))))
		groups = rest
	}
	return item, item.Subscription.Valid()
}

// subscriptionOf is the state in value, without a copy of it.
func subscriptionOf(value []byte) Subscription {
	for _, s := range [...]Subscription{SubscriptionBoth, SubscriptionNone, SubscriptionTo, SubscriptionFrom} {
		if string(value) == string(s) {
			return s
		}
	}
	return ""
}

// items are the items in xml, each as it is written.
func items(xml []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(xml) > 0 {
			var item []byte
			if item, xml = firstItem(xml); !yield(item) {
				return
			}
		}
	}
}
