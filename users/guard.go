package users

import (
	"fmt"
	"maps"
	"slices"
	"time"

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

// guard is the removal guard: a backend that lost its data must not take everybody's
// contacts away. A roster that removes too much is believed only if the same was fetched
// long enough ago. A short roster is believed at once, but not that the user is missing:
// whatever stands before a backend says so while that restarts.
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
	if of < fewItems && !f.Missing || float64(removed) <= m.Rules.MaxRemoved*float64(of) {
		return nil
	}
	if before != nil && before.roster.Equal(now) {
		if time.Since(before.since) >= m.Rules.ConfirmAfter {
			m.Logger.Warn("the backend confirmed that contacts are removed", "user", u.jid, "removed", removed, "of", of)
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
