package roster

import (
	"maps"
	"slices"

	"rosterd/jid"
	"rosterd/store"
)

const (
	// maxRefused bounds the contacts of a resource that wait to be told again. With
	// more, the others stay as the client shows them until it asks.
	maxRefused = 1000
	// maxCorrecting is how many contacts a user's resources are being told of again
	// when the others wait: one set names many, and nobody waits to send the next.
	maxCorrecting = 100
)

// refusals are the contacts that resources were refused to change, and that their
// clients may show otherwise than they are.
type refusals map[jid.JID]map[jid.JID]struct{}

// Refused says that a resource was refused to change its user's items of these
// contacts. Its client may show the change all the same (RFC 6121, section 2.1.5,
// has it wait for the push that follows a success, but not all do): what is true is
// pushed to it. It does not block.
func (m *Manager) Refused(full jid.JID, contacts []jid.JID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(contacts) == 0 {
		return
	}
	u := m.add(full.Bare())
	if u.refused == nil {
		u.refused = make(refusals)
	}
	named := u.refused[full]
	if named == nil {
		named = make(map[jid.JID]struct{})
		u.refused[full] = named
	}
	var news []jid.JID // of the others, that is noted
	for _, contact := range contacts {
		if _, waits := named[contact]; !waits && len(named) < maxRefused {
			named[contact] = struct{}{}
			news = append(news, contact)
		}
	}
	if len(news) == 0 {
		return
	}
	note := touchingAll(u.knownVersion(), slices.Values(news))
	if m.stopped { // for the next process
		m.Store.Note(store.Users, u.jid.String(), note)
		return
	}
	u.due = append(u.due, note)
	m.attendTo(u)
	m.start(u)
}

// with is the roster after some changes.
func (r *Roster) with(changes []Change) *Roster {
	var items []Item
	for _, c := range changes {
		if c.Action != Removed {
			items = append(items, c.Item)
		}
	}
	for _, item := range r.Items() {
		if !slices.ContainsFunc(changes, func(c Change) bool { return c.Item.JID == item.JID }) {
			items = append(items, item)
		}
	}
	return New(items)
}

// knownVersion is that of the last known roster, or "". Manager.mu is held.
func (u *user) knownVersion() string {
	if u.known == nil {
		return ""
	}
	return u.known.Version()
}

// noteRefused notes what resources were refused to change, and wait to be told, in
// place of the notes that ended with a record. m.mu is held.
func (m *Manager) noteRefused(u *user) {
	for _, contacts := range u.refused {
		m.note(u, touchingAll(u.knownVersion(), maps.Keys(contacts)))
	}
}

// takeRefused is what resources were refused to change.
func (m *Manager) takeRefused(u *user) refusals {
	m.mu.Lock()
	defer m.mu.Unlock()
	refused := u.refused
	u.refused = nil
	return refused
}

// correct pushes what is true to the resources that were refused a change, as far
// as it is known.
func (m *Manager) correct(u *user) {
	m.mu.Lock()
	waits := len(u.refused) > 0
	m.mu.Unlock()
	if !waits {
		return
	}
	m.noteAsked(u) // that it was refused
	if u.last == nil || u.correcting >= maxCorrecting {
		return
	}
	for full, contacts := range m.takeRefused(u) {
		m.doubtContents(u, contacts, u.last, u.told[full].roster, u.told[full].before)
		var list []Change
		for contact := range contacts {
			item, listed := u.last.Item(contact)
			switch _, owed := u.owed[contact]; {
			case listed:
				list = append(list, Change{Action: Changed, Item: item})
			case !owed: // else somebody was told more than is known here, and all are told again
				list = append(list, Change{Action: Removed, Item: Item{JID: contact}})
			}
		}
		if len(list) > 0 {
			before := u.told[full]
			after := before
			if before.roster != u.last {
				after.roster = before.roster.with(list)
			}
			m.deliver(u, []delivery{{to: []jid.JID{full}, before: before, after: after, changes: list, partial: true}}, contacts, nil)
		}
	}
}

// owe leaves for later what resources were refused to change, as nobody knows what
// is true.
func (m *Manager) oweRefused(u *user) {
	for _, contacts := range m.takeRefused(u) {
		m.doubtContents(u, contacts)
		for contact := range contacts {
			u.owe([]jid.JID{contact})
		}
		m.fell(u, soon)
	}
}

// doubtContents notes that a client may show some contacts otherwise than they are,
// under the version of one of these rosters: who names that is told all.
func (m *Manager) doubtContents(u *user, contacts map[jid.JID]struct{}, rosters ...*Roster) {
	version := ""
	for _, r := range rosters {
		if r != nil {
			version = r.Version()
			u.mistrust(version)
		}
	}
	m.note(u, touchingAll(version, maps.Keys(contacts)))
}
