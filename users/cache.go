package users

import (
	"container/list"

	"rosterd/jid"
)

// cache is the users for whom there is nothing to do, whose state is in the store, and who
// may be needed again soon. Manager.mu is held for all of it.
type cache struct {
	list list.List // of *user, the one that has rested for longest in front
	size int       // bytes, about
	max  int
}

// overhead is what a user takes beyond their roster, about, in bytes.
const overhead = 1 << 10

// add lets a user rest, and forgets those who have for longest if they are too many.
func (c *cache) add(users map[jid.JID]*user, u *user) {
	if users[u.jid] != u { // it was forgotten already
		return
	}
	c.remove(u)
	u.size = overhead + u.last.MemorySize()
	u.idle = c.list.PushBack(u)
	c.size += u.size
	for c.size > c.max && c.list.Len() > 0 {
		oldest := c.list.Front().Value.(*user)
		c.remove(oldest)
		delete(users, oldest.jid)
	}
}

// remove lets a user rest no more.
func (c *cache) remove(u *user) {
	if u.idle != nil {
		c.list.Remove(u.idle)
		c.size -= u.size
		u.idle = nil
	}
}

// user finds or makes a user, for whom there is something to do now. m.mu is held.
func (m *Manager) user(name jid.JID) *user {
	u := m.users[name]
	if u == nil {
		u = &user{m: m, jid: name}
		m.users[name] = u
	}
	m.cache.remove(u)
	return u
}
