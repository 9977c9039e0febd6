package users

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// fewItems is how many items a roster has at least to be guarded: of a short one, all may
// well be removed.
const fewItems = 10

// suspect is a roster that was fetched and is not believed yet.
type suspect struct {
	roster *roster.Roster
	since  time.Time
}

// heldError is why a fetch was not applied.
type heldError struct {
	removed, of int
	wait        time.Duration
}

func (e *heldError) Error() string {
	return fmt.Sprintf("would remove %d of %d contacts: it counts if the backend says the same after %s", e.removed, e.of, e.wait)
}

// holds reports whether a fetch that removes so many of some contacts is to be confirmed.
func (r Rules) holds(of, removed int, missing bool) bool {
	return (of >= fewItems || missing) && float64(removed) > r.MaxRemoved*float64(of)
}

// guard is the removal guard: a backend that lost its data must not take everybody's
// contacts away. A roster that removes too much is believed only if the same was fetched
// long enough ago. A short roster is believed at once, but not that the user is missing:
// whatever stands before a backend says so while that restarts.
//
// So does what is to replace the server's own roster, if nothing was known of that: see
// [Manager.Believes].
func (u *user) guard(f roster.Fetched) error {
	m, now, before := u.m, f.Roster, u.suspect
	u.suspect = nil
	of, removed := u.last.Len(), len(roster.Gone(u.last, now))
	if len(u.missed) > 0 { // somebody may have them, though they are not in the last known roster
		contacts := slices.Collect(maps.Keys(u.missed))
		had, has := u.last.Lookup(contacts), now.Lookup(contacts)
		for i, contact := range contacts {
			if had[i].JID != contact {
				of++
				if has[i].JID != contact {
					removed++
				}
			}
		}
	}
	held := m.Rules.holds(of, removed, f.Missing)
	if !held && u.own != nil {
		of, removed = u.own.Len(), len(roster.Gone(u.own, now))
		held = m.Rules.holds(of, removed, f.Missing)
	}
	if !held {
		u.own = nil
		return nil
	}
	if before != nil && before.roster.Equal(now) {
		if time.Since(before.since) >= m.Rules.ConfirmAfter {
			m.Logger.Warn("the backend confirmed that contacts are removed", "user", u.jid, "removed", removed, "of", of)
			if u.own != nil {
				version := now.Version()
				u.sure.Store(&version)
				u.own = nil
			}
			return nil
		}
		u.suspect = before
	} else {
		u.suspect = &suspect{now, time.Now()}
		m.held.Add(1)
		m.Logger.Warn("the backend removes most contacts of a user, which is not believed before it says so again",
			"user", u.jid, "removed", removed, "of", of, "after", m.Rules.ConfirmAfter)
	}
	return &heldError{removed, of, m.Rules.ConfirmAfter}
}

// confirmation is how long until the roster that is held may be confirmed.
func (u *user) confirmation() backoff {
	wait := time.Until(u.suspect.since.Add(u.m.Rules.ConfirmAfter))
	return backoff{wait, wait}
}

// Believes reports whether the last known roster of a user may replace what the server's own
// roster has, of which nothing was known, as the state was lost or never there. If it would
// remove what the guard holds, the user is fetched again, and [ServerRosters].Keep is called
// when the backend has confirmed it, or says something else. It does not block, but may read
// the store.
func (m *Manager) Believes(name jid.JID, has *roster.Roster) bool {
	last := m.lastOf(name)
	if last.roster == nil {
		return false
	}
	if !m.Rules.holds(has.Len(), len(roster.Gone(has, last.roster)), last.missing) {
		return true
	}
	m.mu.Lock()
	u := m.users[name]
	m.mu.Unlock()
	if u != nil {
		if sure := u.sure.Load(); sure != nil && *sure == last.roster.Version() {
			return true
		}
	}
	m.post(name, ownEvent{has})
	return false
}

// protect has the last known roster confirmed before it replaces the server's own.
func (u *user) protect(has *roster.Roster) {
	if u.own != nil || u.stopping {
		return
	}
	u.own = has
	if u.fetching != nil || u.suspect != nil || u.last == nil {
		return // the guard sees to it with the next fetch
	}
	switch err := u.guard(roster.Fetched{Roster: u.last, Missing: u.notFound}); {
	case err != nil:
		u.fetchLater(err, u.confirmation())
	case u.own == nil: // another one is known by now
		u.m.serverRosters.Keep(u.jid, nil)
	}
}
