package users

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// fewItems is how many items a roster has at least to be guarded: of a short one, all may
// well be removed.
const fewItems = 10

// Never is a time after which nothing happens by itself.
const Never = time.Duration(math.MaxInt64)

// undecided is for what waits for a person: the backend may say something else meanwhile.
var undecided = backoff{30 * time.Second, maxRecheck}

// suspect is a roster that was fetched and is not believed yet.
type suspect struct {
	roster   *roster.Roster
	since    time.Time
	removed  int  // contacts that it lacks
	of       int  // so many
	approved bool // by a person: it counts when it is fetched once more
	rejected bool // by a person: it never counts by itself
}

// again is when a held roster is fetched again.
func (s *suspect) again(r Rules) backoff {
	if s.rejected || r.ConfirmAfter == Never {
		return undecided
	}
	confirm := max(0, time.Until(s.since.Add(r.ConfirmAfter)))
	return backoff{confirm, confirm}
}

// counts reports whether a roster that was fetched again is believed.
func (s *suspect) counts(r Rules) bool {
	return s.approved || !s.rejected && r.ConfirmAfter != Never && time.Since(s.since) >= r.ConfirmAfter
}

// heldError is why a fetch was not applied.
type heldError struct {
	removed, of int
	wait        time.Duration
	rejected    bool
}

func (e *heldError) Error() string {
	what := fmt.Sprintf("would remove %d of %d contacts: ", e.removed, e.of)
	switch {
	case e.rejected:
		return what + "that was rejected"
	case e.wait == Never:
		return what + "it counts if somebody approves it"
	}
	return what + fmt.Sprintf("it counts if the backend says the same after %s", e.wait)
}

// Holds reports whether a fetch that removes so many of some contacts is to be confirmed.
func (r Rules) Holds(of, removed int, missing bool) bool {
	return (of >= fewItems || missing) && float64(removed) > r.MaxRemoved*float64(of)
}

// guard is the removal guard: a backend that lost its data must not take everybody's
// contacts away. A roster that removes too much is believed only if the same was fetched
// long enough ago, or a person approved it. A short roster is believed at once, but not that
// the user is missing: whatever stands before a backend says so while that restarts.
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
	held := m.Rules.Holds(of, removed, f.Missing)
	if !held && u.own != nil {
		of, removed = u.own.Len(), len(roster.Gone(u.own, now))
		held = m.Rules.Holds(of, removed, f.Missing)
	}
	if !held {
		u.own = nil
		m.guarded.believe(u.jid, now)
		return nil
	}
	if before != nil && before.roster.Equal(now) {
		if before.counts(m.Rules) {
			m.Logger.Warn("the backend confirmed that contacts are removed", "user", u.jid, "removed", removed, "of", of, "approved", before.approved)
			m.guarded.believe(u.jid, now)
			if u.own != nil {
				version := now.Version()
				u.sure.Store(&version)
				u.own = nil
			}
			return nil
		}
		u.suspect = before
		u.suspect.removed, u.suspect.of = removed, of
	} else {
		u.suspect = &suspect{roster: now, since: time.Now(), removed: removed, of: of, rejected: m.guarded.isRejected(u.jid, now)}
		m.held.Add(1)
		attributes := []any{"user", u.jid, "removed", removed, "of", of}
		what := "the backend removes most contacts of a user, which is not believed before it says so again"
		switch {
		case u.suspect.rejected:
			what = "the backend removes most contacts of a user, which was rejected"
		case m.Rules.ConfirmAfter == Never:
			what = "the backend removes most contacts of a user, which is not believed before somebody approves it"
		default:
			attributes = append(attributes, "after", m.Rules.ConfirmAfter)
		}
		m.Logger.Warn(what, append(attributes, "decide", "rosterd approve or rosterd reject")...)
	}
	m.guarded.hold(u.jid, u.held())
	return &heldError{removed, of, m.Rules.ConfirmAfter, u.suspect.rejected}
}

// until is when a held roster is believed at the earliest; nil: not by itself.
func (s *suspect) until(r Rules) *time.Time {
	if s.rejected || r.ConfirmAfter == Never {
		return nil
	}
	at := s.since.Add(r.ConfirmAfter).UTC()
	return &at
}

// Held is a roster that the removal guard holds.
type Held struct {
	User     string     `json:"user"`
	Removed  int        `json:"removed"` // contacts that it lacks
	Of       int        `json:"of"`      // so many
	Since    time.Time  `json:"since"`   // when it was fetched first
	Until    *time.Time `json:"until"`   // when it is believed if the backend says the same; null: when somebody approves it
	Rejected bool       `json:"rejected"`
}

// held is what is held of the user; there is something.
func (u *user) held() Held {
	s := u.suspect
	return Held{User: u.jid.String(), Removed: s.removed, Of: s.of, Since: s.since.UTC(), Rejected: s.rejected, Until: s.until(u.m.Rules)}
}

// guarded is what the removal guard holds, and what was rejected. It is safe for concurrent
// use.
type guarded struct {
	store Rejections

	mu       sync.Mutex
	held     map[jid.JID]Held   // of users who are fetched again for it
	rejected map[jid.JID]string // the version of the roster; also in the store
}

// Rejections keeps over a restart which rosters were rejected, each by its user and its
// version. Its methods do not block.
type Rejections interface {
	Reject(user, version string)
	Unreject(user string)
	Rejections(each func(user, version string) error) error
}

func newGuarded(s Rejections) (*guarded, error) {
	g := &guarded{store: s, held: make(map[jid.JID]Held), rejected: make(map[jid.JID]string)}
	return g, s.Rejections(func(name, version string) error {
		if user, err := jid.Parse(name); err == nil {
			g.rejected[user] = version
		}
		return nil
	})
}

func (g *guarded) hold(user jid.JID, h Held) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held[user] = h
}

// forget says that nothing is held any more, as the user is not fetched again for it: they
// are looked at when they are there.
func (g *guarded) forget(user jid.JID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.held, user)
}

// believe says that a roster of the user is believed, and what was rejected is not, if that
// is another one. If it is the same, it may be the last known one already, and it is only the
// server's own roster that it must not replace: after a restart nobody knows of that yet.
func (g *guarded) believe(user jid.JID, r *roster.Roster) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.held, user)
	if version, was := g.rejected[user]; was && version != r.Version() {
		delete(g.rejected, user)
		g.store.Unreject(user.String())
	}
}

// decide notes whether a held roster was rejected.
func (g *guarded) decide(user jid.JID, s *suspect, r Rules) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.rejected {
		g.rejected[user] = s.roster.Version()
		g.store.Reject(user.String(), s.roster.Version())
	} else if _, was := g.rejected[user]; was {
		delete(g.rejected, user)
		g.store.Unreject(user.String())
	}
	if h, ok := g.held[user]; ok {
		h.Rejected, h.Until = s.rejected, s.until(r)
		g.held[user] = h
	}
}

func (g *guarded) isRejected(user jid.JID, r *roster.Roster) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	version, was := g.rejected[user]
	return was && version == r.Version()
}

func (g *guarded) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.held)
}

// Held are the rosters that the removal guard holds, in the order of the users' names.
func (m *Manager) Held() []Held {
	m.guarded.mu.Lock()
	defer m.guarded.mu.Unlock()
	return slices.SortedFunc(maps.Values(m.guarded.held), func(a, b Held) int { return cmp.Compare(a.User, b.User) })
}

// ErrNothingHeld says that the removal guard holds nothing of a user.
var ErrNothingHeld = errors.New("nothing is held: the last fetch was believed, or was not made yet")

// Approve believes the roster of a user (a bare JID) that is held, if the backend says the
// same when it is asked now. It waits for that, as [Manager.Refresh] does, also if the user has
// no connected resource, and returns why it failed.
func (m *Manager) Approve(ctx context.Context, user jid.JID) error {
	if err := m.decide(ctx, user, true); err != nil {
		return err
	}
	failed, err := m.refresh(ctx, []jid.JID{user}, true)
	if err == nil {
		err = failed[user]
	}
	return err
}

// Reject has the roster of a user (a bare JID) that is held not be believed, also after a
// restart, until the backend says something else or somebody approves it. It returns when
// that is kept.
func (m *Manager) Reject(ctx context.Context, user jid.JID) error {
	if err := m.decide(ctx, user, false); err != nil {
		return err
	}
	return m.sync(ctx)
}

func (m *Manager) decide(ctx context.Context, user jid.JID, approve bool) error {
	decided := make(chan error, 1)
	m.post(user, decideEvent{approve, decided})
	select {
	case err := <-decided:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// decide takes a person's word for what is held.
func (u *user) decide(e decideEvent) {
	s := u.suspect
	if s == nil {
		e.decided <- ErrNothingHeld
		return
	}
	s.approved, s.rejected = e.approve, !e.approve
	u.m.guarded.decide(u.jid, s, u.m.Rules)
	u.m.Logger.Warn("what would remove most contacts of a user was decided", "user", u.jid, "approved", e.approve)
	e.decided <- nil
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
	if !m.Rules.Holds(has.Len(), len(roster.Gone(has, last.roster)), last.missing) {
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
		u.fetchLater(MarkedGuard, err, u.suspect.again(u.m.Rules))
	case u.own == nil: // another one is known by now
		u.m.serverRosters.Keep(u.jid, nil)
	}
}
