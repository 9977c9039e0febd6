package roster

import "container/list"

// cache is who was busy last: users for whom there is nothing to do, and whose
// state is in the store, but who may be needed again soon. It belongs to
// Manager.mu.
type cache struct {
	users list.List // of *user, the one that has rested for longest in front
	size  int       // bytes, about
}

// overhead is what a user takes beyond his roster, about, in bytes.
const overhead = 1 << 10

func (u *user) size() int { return overhead + u.last.size() }

// rest lets a user rest, and forgets those who have for longest if they are too
// many. m.mu is held, and the user's goroutine is about to end.
func (m *Manager) rest(u *user) {
	u.resting = m.cache.users.PushBack(u)
	m.cache.size += u.size()
	for m.cache.size > m.Limits.Cache && m.cache.users.Len() > 0 {
		oldest := m.cache.users.Front().Value.(*user)
		m.wake(oldest)
		delete(m.users, oldest.jid)
	}
}

// wake lets a user rest no more. m.mu is held.
func (m *Manager) wake(u *user) {
	if u.resting != nil {
		m.cache.users.Remove(u.resting)
		m.cache.size -= u.size()
		u.resting = nil
	}
}
