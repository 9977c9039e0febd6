package roster

import (
	"time"

	"rosterd/jid"
	"rosterd/store"
)

// restore reads who asked and was marked when the last process ended.
func (m *Manager) restore() error {
	if err := m.part(); err != nil {
		return err
	}
	err := m.Store.Noted(store.Users, func(key string, notes [][]byte) error {
		user, err := jid.Parse(key)
		for _, note := range notes {
			if full, ok := askedIn(user, note); ok && err == nil {
				m.Sessions.Interested(full)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return m.Store.Each(store.Marks, func(key string, _ store.Entry) error {
		if user, err := jid.Parse(key); err == nil {
			m.agenda.mark(user, soon)
		}
		return nil
	})
}

// busy reports whether a fetch for a user may be under way.
func (m *Manager) busy(user jid.JID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := m.users[user]
	return u != nil && u.running
}

// Resume says that a domain's users can be told something, on a stream that
// began. They are brought in line in the background, as some may have missed
// something. It does not block.
func (m *Manager) Resume(domain string) {
	m.resumed.Store(domain, time.Now())
	m.agenda.add(domain, m.Sessions.Users(domain))
}

// surely reports whether a resource to which something was sent at a time is
// still the same session: while the stream was down, another one may have come
// in its name, which asked nobody for its roster.
func (m *Manager) surely(user jid.JID, sent time.Time) bool {
	resumed, ok := m.resumed.Load(user.Domain())
	if !ok {
		return !sent.Before(m.started)
	}
	return !sent.Before(resumed.(time.Time))
}

// Hasten says that the backend of some domains is well again: their marked users
// are tried without waiting any longer.
func (m *Manager) Hasten(domains []string) { m.agenda.hasten(domains) }

// absent reports whether a user has no connected resource: then there is nothing
// to do for him.
func (m *Manager) absent(user jid.JID) bool {
	asof := m.agenda.now()
	if m.Sessions.HasConnected(user) {
		return false
	}
	m.unmark(user, asof)
	return true
}

// mark notes that a user is to be refreshed once more, see [agenda.mark].
func (m *Manager) mark(user jid.JID, p pause) {
	m.marks.Lock()
	defer m.marks.Unlock()
	if m.agenda.mark(user, p) {
		m.Store.Put(store.Marks, user.String(), []byte{recordFormat})
	}
}

// unmark notes that nothing is left to do for a user, see [agenda.done].
func (m *Manager) unmark(user jid.JID, asof uint64) {
	m.marks.Lock()
	defer m.marks.Unlock()
	if m.agenda.done(user, asof) {
		m.Store.Put(store.Marks, user.String(), nil)
	}
}

// inLine notes that nothing is left to do for a user, if that is so. One whom the
// backend does not know is looked at again, as long as he is there.
func (m *Manager) inLine(u *user) {
	if len(u.flying) > 0 || u.behind {
		return
	}
	if !u.missing || !m.Sessions.HasConnected(u.jid) {
		m.unmark(u.jid, u.asof)
		return
	}
	m.marks.Lock()
	defer m.marks.Unlock()
	if m.agenda.later(u.jid, u.asof, m.Rules.ConfirmAfter) {
		m.Store.Put(store.Marks, u.jid.String(), nil)
	}
}

// try brings a user of the agenda in line.
func (m *Manager) try(e entry) {
	if m.absent(e.user) {
		m.agenda.leave(e)
		return
	}
	if e.marked {
		m.mu.Lock()
		m.counts.Retries++
		m.mu.Unlock()
	}
	p, err := m.refresh(e.user)
	if err != nil {
		return // stopped
	}
	m.work.Go(func() {
		defer m.agenda.leave(e)
		select {
		case <-p.done:
		case <-m.ctx.Done():
		}
	})
}
