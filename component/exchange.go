package component

import (
	"gosrc.io/xmpp/stanza"

	"rosterd/jid"
	"rosterd/roster"
	"rosterd/xmlstream"
)

const nsExchange = "http://jabber.org/protocol/rosterx" // XEP-0144

// exchange suggests changes to resources in messages from the component itself
// (XEP-0144): the best that can be done where the server lets nobody push. What
// the clients make of it nobody tells.
func (p *pushes) exchange(s *stream, to []jid.JID, changes []roster.Change) {
	room := p.c.opts.MaxStanza - maxQuery
	for _, full := range to {
		room = min(room, p.c.opts.MaxStanza-maxQuery-len(xmlstream.AppendEscaped(nil, p.c.address(full))))
	}
	written := p.c.names.changes(changes)
	for len(changes) > 0 {
		payload, n := appendExchange(nil, written, room)
		for _, full := range to {
			// A headline is for those who are there (RFC 6121, section 8.5.2.1.1):
			// any other kind a server may keep for the next login.
			b := appendMessage(nil, stanza.Attrs{Type: stanza.MessageTypeHeadline, From: p.c.names.domain(), To: p.c.address(full)})
			err := p.put(s, append(append(b, payload...), "</message>"...))
			for _, change := range changes[:n] {
				if err != nil {
					p.fail(change, err)
				} else {
					p.unconfirmed = append(p.unconfirmed, change)
				}
			}
		}
		changes, written = changes[n:], written[n:]
	}
}

// actions are XEP-0144's words (section 3) for what a change does.
var actions = map[roster.Action]string{roster.Added: "add", roster.Changed: "modify", roster.Removed: "delete"}

// appendExchange appends as many changes as max bytes hold, at least one, and
// returns how many.
func appendExchange(b []byte, changes []roster.Change, max int) ([]byte, int) {
	start := len(b)
	b = append(b, "<x xmlns='"+nsExchange+"'>"...)
	for i, change := range changes {
		before := len(b)
		b = xmlstream.AppendAttr(append(b, "<item"...), "action", actions[change.Action])
		b = xmlstream.AppendAttr(b, "jid", change.Item.JID.String())
		if change.Item.Name != "" {
			b = xmlstream.AppendAttr(b, "name", change.Item.Name)
		}
		b = append(roster.AppendGroups(append(b, '>'), change.Item.Groups), "</item>"...)
		if len(b)-start > max && i > 0 {
			return append(b[:before], "</x>"...), i
		}
	}
	return append(b, "</x>"...), len(changes)
}
