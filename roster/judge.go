package roster

import (
	"fmt"
	"time"
)

// fewItems is how many items a roster has at least to be guarded: of a short
// one, all may well be removed.
const fewItems = 10

// suspect is a roster that was fetched and is not believed yet.
type suspect struct {
	roster *Roster
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

// judge says whether a roster that was fetched is believed: a backend that lost
// its data must not take everybody's contacts away. It is not if it removes too
// much, unless the same was fetched long enough ago. A short roster is believed at
// once, but not that the user is missing: whatever stands before a backend says so
// while that restarts.
func (m *Manager) judge(u *user, f Fetched) error {
	now := f.Roster
	before := u.suspect
	u.suspect = nil
	of, removed := u.last.Len(), removes(u.last, now)
	for contact := range u.owed {
		// Somebody may have it, though it is not in the last known roster.
		if _, ok := u.last.Item(contact); !ok {
			of++
			if _, ok := now.Item(contact); !ok {
				removed++
			}
		}
	}
	if of < fewItems && !f.Missing {
		return nil
	}
	if float64(removed) <= m.Rules.MaxRemoved*float64(of) {
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
		m.mu.Lock()
		m.counts.Held++
		m.mu.Unlock()
		m.Logger.Warn("the backend removes most contacts of a user, which is not believed before it says so again",
			"user", u.jid, "removed", removed, "of", of, "after", m.Rules.ConfirmAfter)
	}
	return &heldError{removed, of, m.Rules.ConfirmAfter}
}
