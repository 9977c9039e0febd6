package users

import (
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// ServerRosters keeps the server's own rosters in step with the last known ones, which it
// asks for with [Manager.Known]. Its methods are safe for concurrent use and do not block.
type ServerRosters interface {
	// Keeps reports whether those of a domain's users are kept, now or as soon as the
	// server can be reached.
	Keeps(domain string) bool
	// Pushes reports whether the server pushes by itself what is written to them.
	Pushes(domain string) bool
	// Keep says that a user's last known roster may have changed. If ready is not nil, a
	// query waits: ready is called once, from any goroutine, with whether the server's
	// roster is in step, or when it is not worth waiting for.
	Keep(user jid.JID, ready func(inStep bool))
	// Resume says that the server may have been restarted since: what is known of a
	// domain's is in doubt.
	Resume(domain string)
}

// step is a roster that the server's own was in step with at a time.
type step struct {
	roster *roster.Roster
	at     time.Time
}

// KeepServerRosters has s keep the server's own rosters from now on. It is called before
// anything else, or not at all.
func (m *Manager) KeepServerRosters(s ServerRosters) {
	m.serverRosters = s
	m.start(m.sweeper.run)
}

// keeps reports whether the server's own rosters of a domain's users are kept: then users are
// fetched though they have no connected resource.
func (m *Manager) keeps(domain string) bool {
	return m.serverRosters != nil && m.serverRosters.Keeps(domain)
}

// inStep reports whether the server's own roster is surely in step with the last known one,
// or is not kept.
func (u *user) inStep() bool {
	if !u.m.keeps(u.jid.Domain()) {
		return true
	}
	s := u.step.Load()
	return s != nil && s.roster == u.last && u.m.sameSession(u.jid, s.at)
}

// bringInStep has the server's own roster brought in step with the last known one, which is
// in the store. ready is called when that is done, or not worth waiting for.
func (u *user) bringInStep(ready func()) {
	u.publish()
	s := &step{u.last, u.m.now()}
	u.m.serverRosters.Keep(u.jid, func(inStep bool) {
		if inStep {
			u.step.Store(s)
		}
		ready()
	})
}

// Confirmed reports whether the backend has said the last known roster to this process, and
// nothing else since that clients could not be told. If not, the server may have been given a
// later one, by the process before or another instance: the user is fetched, and
// [ServerRosters].Keep is called behind that. It does not block, but may read the store.
func (m *Manager) Confirmed(user jid.JID) bool {
	if last := m.lastOf(user); last.fetched.After(m.started) {
		return !last.outdated // else that fetch is to come
	}
	if m.Sessions.HasConnected(user) {
		m.queue.refresh(user)
	} else {
		m.queue.offline(user)
	}
	return false
}
