package users

import (
	"context"
	"sync"
	"time"

	"rosterd/jid"
)

// pushLockWaits is how long at most one waits for the other to push. Should what is pushed then
// be wrong, the clients are corrected.
const pushLockWaits = 3 * time.Second

// pushLocks are for servers that push by themselves what is written to their own rosters: of one
// user, either rosterd tells the clients what has changed, or the server does. Else the push of
// what was true before could come behind that of what is, on its other way to the client.
type pushLocks struct {
	mu    sync.Mutex
	users map[jid.JID]*pushLock // where somebody pushes
}

// pushLock is guarded by pushLocks.mu.
type pushLock struct {
	server  context.Context // ends when rosterd need not wait for the server any more; nil: it does not push
	telling *telling        // nil: rosterd does not push
}

// telling is that rosterd tells a user's clients something, or waits until the server is done. It
// is of the user's loop alone.
type telling struct {
	settles *time.Timer // when the server need not wait for it any more; nil: nothing was sent yet
}

// of is a user's. l.mu is held.
func (l *pushLocks) of(user jid.JID) *pushLock {
	one := l.users[user]
	if one == nil {
		one = new(pushLock)
		l.users[user] = one
	}
	return one
}

// clean forgets a user's, if nobody pushes. l.mu is held.
func (l *pushLocks) clean(user jid.JID, one *pushLock) {
	if one.server == nil && one.telling == nil {
		delete(l.users, user)
	}
}

// tell says that a user's clients are about to be told something, which takes the place of what
// they were told before. It is to wait for server to end, unless that is nil.
func (l *pushLocks) tell(user jid.JID) (t *telling, server context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.of(user)
	one.telling = new(telling)
	return one.telling, one.server
}

// told says that the server need not wait any more, and reports whether it did.
func (l *pushLocks) told(user jid.JID, t *telling) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.users[user]
	if one == nil || one.telling != t {
		return false
	}
	one.telling = nil
	l.clean(user, one)
	return true
}

// LockPushes has a user's clients told of no change until unlock is called, or for 3 s, as the
// server is to push to them. It fails while they are being told something; when that is over
// [ServerRosters].Keep is called.
func (m *Manager) LockPushes(user jid.JID) (unlock func(), ok bool) {
	l := m.pushLocks
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.of(user)
	if one.telling != nil {
		return nil, false
	}
	server, end := context.WithTimeout(m.ctx, pushLockWaits)
	one.server = server
	return func() {
		l.mu.Lock()
		one.server = nil
		l.clean(user, one)
		l.mu.Unlock()
		end()
	}, true
}

// locksPushes reports whether the server pushes by itself.
func (u *user) locksPushes() bool {
	return u.m.keeps(u.jid.Domain()) && u.m.serverRosters.Pushes(u.jid.Domain())
}

// lockPushes reports whether the loop may tell the clients. If not, it is run again when it may.
func (u *user) lockPushes() bool {
	if !u.locks || u.stopping || u.m.closed.Load() {
		return true
	}
	u.locks = false
	var server context.Context
	if u.telling, server = u.m.pushLocks.tell(u.jid); server == nil {
		return true
	}
	context.AfterFunc(server, u.run)
	return false
}

// unlockPushes has the server push again when all that the clients are told was acknowledged,
// or that takes long.
func (u *user) unlockPushes() {
	if u.then != nil {
		return // nothing more is sent before that
	}
	if u.telling == nil && len(u.inFlight) > 0 && u.locksPushes() { // of no change: it waits for nobody
		u.telling, _ = u.m.pushLocks.tell(u.jid)
	}
	if u.telling == nil {
		return
	}
	m, user, t := u.m, u.jid, u.telling
	switch {
	case len(u.inFlight) == 0:
		if u.letServer() {
			m.serverRosters.Keep(user, nil)
		}
	case t.settles == nil:
		t.settles = time.AfterFunc(pushLockWaits, func() {
			if m.pushLocks.told(user, t) {
				m.serverRosters.Keep(user, nil)
			}
		})
	}
}

// letServer has the server push again at once, and reports whether it was not to.
func (u *user) letServer() bool {
	t := u.telling
	if t == nil {
		return false
	}
	if t.settles != nil {
		t.settles.Stop()
	}
	u.telling = nil
	return u.m.pushLocks.told(u.jid, t)
}
