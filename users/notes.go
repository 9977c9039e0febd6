package users

import "rosterd/jid"

// notes are what others said of a user, each once, until the loop takes them: however often
// something is said while the loop waits for the server, they do not grow. Manager.mu is held
// for all of it.
type notes struct {
	undelivered map[jid.JID]undelivered
	refused     refusals
	gone        bool // nobody of the user is connected
}

// undelivered says that a resource may have missed anything.
type undelivered struct {
	versioned bool // it uses versions, as far as is known
	unasked   bool // it has not asked here
}

// refusals are contacts that resources may show otherwise than they are, as they were refused
// to change them.
type refusals map[jid.JID]map[jid.JID]struct{}

// maxRefused bounds the contacts of a resource that wait to be corrected. With more, the
// others stay as the client shows them until it asks.
const maxRefused = 1000

// add adds contacts of a resource, and reports whether one is new.
func (r refusals) add(full, contact jid.JID) (news bool) {
	named := r[full]
	if named == nil {
		named = make(map[jid.JID]struct{})
		r[full] = named
	}
	if _, waits := named[contact]; waits || len(named) >= maxRefused {
		return false
	}
	named[contact] = struct{}{}
	return true
}

func (n *notes) addUndelivered(full jid.JID, u undelivered) {
	if n.undelivered == nil {
		n.undelivered = make(map[jid.JID]undelivered, 1)
	}
	before := n.undelivered[full]
	n.undelivered[full] = undelivered{before.versioned || u.versioned, before.unasked || u.unasked}
}

func (n *notes) addRefused(full jid.JID, contacts []jid.JID) {
	if n.refused == nil {
		n.refused = make(refusals, 1)
	}
	for _, contact := range contacts {
		n.refused.add(full, contact)
	}
}

// note lets say add to the notes of a user, and reports whether their loop is to be woken for
// them. m.mu is held.
func (u *user) note(say func(*notes)) (first bool) {
	if u.notes == nil {
		u.notes = new(notes)
		first = u.enqueue(notedEvent{})
	}
	say(u.notes)
	return first
}

// note lets say add to the notes of a user.
func (m *Manager) note(name jid.JID, say func(*notes)) {
	m.mu.Lock()
	u := m.user(name)
	first := u.note(say)
	m.mu.Unlock()
	if first {
		u.wake()
	}
}

// noted does what the notes want.
func (u *user) noted() {
	u.m.mu.Lock()
	n := u.notes
	u.notes = nil
	u.m.mu.Unlock()
	if n.gone && len(u.refreshes) > 0 && u.fetching == nil { // Gone has taken them out of the queue
		u.m.queue.refresh(u.jid)
	}
	if len(n.undelivered) > 0 {
		u.undelivered(n.undelivered)
	}
	if len(n.refused) > 0 {
		u.refuse(n.refused)
	}
}
