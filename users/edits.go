package users

import (
	"context"
	"errors"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// maxEdits is how many edits of one user wait, with the one that is under way. All users
// together have maxAllEdits.
const (
	maxEdits    = 16
	maxAllEdits = 4096
)

// edit is a change of their own contacts that a user asks for.
type edit struct {
	roster.Edit
	full     jid.JID
	deadline time.Time
	reply    func(error)
}

// edited is an edit that the backend has taken. No fetch that began later has shown it yet.
type edited struct {
	at      time.Time
	removed bool
	confirm bool // see [roster.Edit]
}

// Edit passes a change of their own contacts that a resource's user asks for to the backend,
// and does not wait for it: unless Edit returns an error, reply is called once, within the
// answer limit, from the user's loop; it does not block. The user's edits are passed on in
// order, one after the other.
//
// The error is nil if the backend has taken the edit, and a [*roster.NotAllowedError] if it
// does not permit it; after any other, nobody knows. Unless it is not permitted, the user is
// refreshed at once, whatever the error is: the change is told by the push that follows.
func (m *Manager) Edit(full jid.JID, e roster.Edit, reply func(error)) error {
	event := editEvent{edit{e, full, time.Now().Add(m.Limits.Answer), reply}}
	m.mu.Lock()
	u := m.user(full.Bare())
	switch {
	case m.stopped:
		m.mu.Unlock()
		return roster.ErrStopping
	case m.edits.Load() >= maxAllEdits || u.editsLeft.Load() >= maxEdits:
		m.mu.Unlock()
		return roster.ErrBusy
	}
	m.edits.Add(1)
	u.editsLeft.Add(1)
	first := u.enqueue(event)
	m.mu.Unlock()
	if first {
		u.wake()
	}
	return nil
}

// edit passes on the first edit that waits, unless another is under way.
func (u *user) edit() {
	if u.editing || len(u.edits) == 0 {
		return
	}
	e := u.edits[0]
	u.edits = u.edits[1:]
	u.editing = true
	if u.stopping {
		u.post(editedEvent{e, roster.ErrStopping})
		return
	}
	m, c := u.m, roster.Change{Action: roster.Added, Item: e.Contact}
	switch {
	case e.Remove:
		c.Action = roster.Removed
	case u.has(e.Contact.JID):
		c.Action = roster.Changed
	}
	m.start(func() {
		ctx, cancel := context.WithDeadline(m.ctx, e.deadline)
		defer cancel()
		began := time.Now()
		err := m.Editor.Edit(ctx, u.jid, c)
		if m.debugs() {
			m.Logger.Debug("edit passed on", "user", u.jid, "action", c.Action, "took", time.Since(began), "err", err)
		}
		switch {
		case err == nil, errors.As(err, new(*roster.NotAllowedError)):
		case m.ctx.Err() != nil:
			err = roster.ErrStopping
		case errors.Is(err, context.DeadlineExceeded):
			err = roster.ErrOverdue
		}
		u.post(editedEvent{e, err})
	})
}

// has reports whether a contact is in the last known roster, as the edits since have left it.
func (u *user) has(contact jid.JID) bool {
	if e, since := u.edited[contact]; since {
		return !e.removed
	}
	_, known := u.last.Item(contact)
	return known
}

// passed notes what became of an edit.
func (u *user) passed(e editedEvent) {
	u.editing = false
	u.m.edits.Add(-1)
	u.editsLeft.Add(-1)
	e.reply(e.err)
	if !errors.As(e.err, new(*roster.NotAllowedError)) {
		if e.err == nil && len(u.edited) < maxRefused {
			if u.edited == nil {
				u.edited = make(map[jid.JID]edited)
			}
			u.edited[e.Contact.JID] = edited{u.m.now(), e.Remove, e.Confirm}
		}
		u.refresh(unawaited())
		u.m.queue.refresh(u.jid)
	}
	u.edit()
}

// unawaited is a call of [Manager.Refresh] for whose end nobody waits.
func unawaited() *call {
	c := &call{left: 1, failed: make(map[jid.JID]error), done: make(chan struct{})}
	c.abandoned.Store(true)
	return c
}

// confirm has the contacts told again that were edited before a fetch began, as it found them:
// the backend may have taken an edit and left the contact as it was, which the client that
// edited it may show otherwise.
func (u *user) confirm(f *fetching) {
	for contact, e := range u.edited {
		if e.at.Before(f.at) {
			if e.confirm {
				u.miss(contact, u.m.now())
			}
			delete(u.edited, contact)
		}
	}
}
