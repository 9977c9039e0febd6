package users

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"

	"rosterd/jid"
	"rosterd/roster"
	"rosterd/store"
)

// state is what is known of a user, and of what their clients were told. A resource that is
// not in doubt shows last, but for the contacts in missed and inFlight.
type state struct {
	last      *roster.Roster       // the last known roster; nil: none is
	fetched   time.Time            // when the backend was asked for it
	validator string               // see [roster.Fetched]
	notFound  bool                 // last is empty as the backend does not know the user
	outdated  bool                 // somebody said that it has changed since
	epoch     uint64               // grows whenever a client may show something else than its version names
	told      map[jid.JID]told     // the interested resources that asked, or were told something
	missed    map[jid.JID]struct{} // contacts that some resource may show otherwise than they are
	former    []former             // contacts that are no more, the latest last
	inFlight  map[*push]struct{}   // pushes that are not acknowledged
}

// told is what is known of a resource.
type told struct {
	versioned bool // it uses roster versioning (RFC 6121, section 2.6)
	// doubt: it may show anything that it was ever told, or nothing. It asked and got an
	// error, or its answer may be lost. Then it is told every item, and what it may show
	// and is no more.
	doubt bool
	// asked is when it asked, or was answered, as the store knows it; zero: it is in doubt,
	// or was pushed everything since.
	asked time.Time
	// since is when it was first told something that may be lost: contacts that were
	// removed before are gone for it, too, if it uses no versions. Zero: nothing is lost; or
	// if it is in doubt, it was never told anything.
	since time.Time
}

// never reports whether a resource was never told anything.
func (t told) never() bool { return t.doubt && t.since.IsZero() }

// former is a contact that is no more.
type former struct {
	contact jid.JID
	removed time.Time
}

// push is what was pushed at once to some resources.
type push struct {
	contacts   []jid.JID
	whole      jid.JID   // the resource that is told everything, if it is one
	correction bool      // it corrects some contacts
	settling   *settling // what waits for it; nil: nothing
}

// confirmed is how long after its answer was sent a resource has surely got it, if the
// stream did not break.
const confirmed = 10 * time.Minute

const (
	// maxFormer bounds the contacts that are kept though they are no more, but for those
	// that an answer which is not confirmed may lack.
	maxFormer = 1000
	// maxMissed bounds the contacts that somebody may have missed; with more, everybody is
	// in doubt.
	maxMissed = 100_000
)

// epochMark stands before the epoch in a version. A version without it is of epoch 0.
const epochMark = "."

// version names a roster for a client that has it whole, in the epoch (RFC 6121, section
// 2.6).
func (s *state) version(r *roster.Roster) string {
	if s.epoch == 0 {
		return r.Version()
	}
	return r.Version() + epochMark + strconv.FormatUint(s.epoch, 36)
}

// trusts reports whether a client that names a version surely shows that roster. It may
// not while something is in flight or was missed, nor if the version is of an epoch before.
func (s *state) trusts(version string, r *roster.Roster) bool {
	return r != nil && len(s.missed) == 0 && len(s.inFlight) == 0 && version == s.version(r)
}

// doubt notes that a resource may show anything that it was told; or nothing, if it never
// was. No version that it is told counts before it asks again: another session may have
// come in its name, with a roster of which nobody here knows.
func (s *state) doubt(full jid.JID, versioned bool, now time.Time) {
	t, known := s.told[full]
	if known && !t.doubt && t.since.IsZero() {
		t.since = now
	}
	t.doubt, t.asked, t.versioned = true, time.Time{}, t.versioned || versioned
	s.set(full, t)
}

// noted reports whether nothing need be written before a resource is told something: by what
// the store has, it is in doubt in the next process.
func (t told) noted(versioned bool, now time.Time) bool {
	return t.versioned == versioned && (t.doubt || now.Sub(t.asked) < store.Unsent)
}

// tells notes that a resource is about to be told something, which may be lost. Whoever was
// told something within the last moments of a process is in doubt in the next one.
func (s *state) tells(full jid.JID, versioned bool, now time.Time) {
	t := s.told[full]
	t.asked, t.versioned = now, versioned
	if t.since.IsZero() {
		t.since = t.asked
	}
	s.set(full, t)
}

func (s *state) set(full jid.JID, t told) {
	if s.told == nil {
		s.told = make(map[jid.JID]told, 1)
	}
	s.told[full] = t
}

// miss notes a contact that some resource may show otherwise than it is.
func (s *state) miss(contact jid.JID, now time.Time) {
	if s.missed == nil {
		s.missed = make(map[jid.JID]struct{}, 1)
	}
	if s.missed[contact] = struct{}{}; len(s.missed) <= maxMissed {
		return
	}
	for full := range s.told {
		s.doubt(full, false, now)
	}
	for _, item := range s.last.Items() {
		delete(s.missed, item.JID) // it is told to those in doubt
	}
	if len(s.missed) > maxMissed {
		s.missed = nil
	}
}

// coversMissed reports whether the last known roster has all contacts that some resource may
// have been told since: if rosterd was killed, others may know more than the store.
func (s *state) coversMissed() bool {
	if len(s.missed) == 0 {
		return true
	}
	contacts := slices.Collect(maps.Keys(s.missed))
	for i, item := range s.last.Lookup(contacts) {
		if item.JID != contacts[i] {
			return false
		}
	}
	return true
}

// difference is what turns what the resources show that are not in doubt into what is known
// now. The changes are worked out when the first resource is told them.
type difference struct {
	old, now *roster.Roster
	missed   []jid.JID
	list     []roster.Change
	known    bool // list is
}

// changes are the changes in the order of the contacts' addresses, and then those that were
// missed.
func (d *difference) changes() []roster.Change {
	if d.known {
		return d.list
	}
	d.known, d.list = true, roster.Diff(d.old, d.now)
	if len(d.missed) == 0 {
		return d.list
	}
	told := make(map[jid.JID]bool, len(d.list))
	for _, c := range d.list {
		told[c.Item.JID] = true
	}
	d.list = append(d.list, again(d.now, slices.DeleteFunc(d.missed, func(contact jid.JID) bool { return told[contact] }))...)
	return d.list
}

// replace makes now the last known roster. What was told before a time is confirmed.
func (s *state) replace(now *roster.Roster, at, confirmedBefore time.Time) *difference {
	d := &difference{old: s.last, now: now, missed: slices.Collect(maps.Keys(s.missed))}
	gone := make(map[jid.JID]bool)
	for _, contact := range roster.Gone(s.last, now) {
		gone[contact] = true
	}
	for i, item := range now.Lookup(d.missed) {
		if item.JID != d.missed[i] {
			gone[d.missed[i]] = true
		}
	}
	if len(gone) > 0 {
		list := slices.DeleteFunc(slices.Clone(s.former), func(f former) bool { return gone[f.contact] })
		for contact := range gone {
			list = append(list, former{contact, at})
		}
		recent := max(0, len(list)-maxFormer)
		for recent > 0 && !list[recent-1].removed.Before(confirmedBefore) && len(list)-recent < maxMissed {
			recent--
		}
		s.former = slices.Clone(list[recent:])
	}
	s.last, s.missed = now, nil
	return d
}

// again tells of contacts as a roster has them.
func again(now *roster.Roster, contacts []jid.JID) []roster.Change {
	var changes []roster.Change
	items := now.Lookup(contacts)
	for i, contact := range contacts {
		if items[i].JID == contact {
			changes = append(changes, roster.Change{Action: roster.Changed, Item: items[i]})
		} else {
			changes = append(changes, roster.Change{Action: roster.Removed, Item: roster.Item{JID: contact}})
		}
	}
	return changes
}

// everything is what a resource in doubt, or one that was never told anything, is told:
// every item, and what it may show and is no more.
func (s *state) everything(t told, d *difference) []roster.Change {
	never := t.since.IsZero()
	added, removed := make(map[jid.JID]bool), make(map[jid.JID]bool)
	if !never && d.old != nil {
		for _, c := range d.changes() {
			added[c.Item.JID] = c.Action == roster.Added
			removed[c.Item.JID] = c.Action == roster.Removed
		}
	}
	for _, f := range s.former {
		if t.versioned || !never && !f.removed.Before(t.since) {
			removed[f.contact] = true
		}
	}
	var all []roster.Change
	for _, item := range s.last.Items() {
		action := roster.Changed
		if never || d.old == nil || added[item.JID] {
			action = roster.Added
		}
		all = append(all, roster.Change{Action: action, Item: item})
		removed[item.JID] = false
	}
	gone := slices.SortedFunc(maps.Keys(removed), func(a, b jid.JID) int { return cmp.Compare(a.String(), b.String()) })
	for _, contact := range gone {
		if removed[contact] {
			all = append(all, roster.Change{Action: roster.Removed, Item: roster.Item{JID: contact}})
		}
	}
	return all
}

// withVersions gives changes that are pushed one after the other their versions: the last
// one makes the roster version, if it is surely the session that had what they change.
func withVersions(changes []roster.Change, version string, sameSession bool) []roster.Change {
	named := slices.Clone(changes)
	last := len(named) - 1
	for i := range named {
		named[i].Version = roster.Partial(version, last-i)
	}
	if sameSession {
		named[last].Version = version
	}
	return named
}

// fresh reports whether a query may be answered with the last known roster without asking
// the backend.
func (u *user) fresh() bool {
	return u.last != nil && !u.failed && u.suspect == nil && len(u.missed) == 0 &&
		!u.reported() && !u.notFound && u.m.Rules.MaxAge > 0 && u.m.now().Sub(u.fetched) < u.m.Rules.MaxAge
}

// reported reports whether the backend may have said that the last known roster has
// changed: to an earlier process, say.
func (u *user) reported() bool {
	return u.outdated || !u.fetched.After(u.m.started) || u.m.reports.since(u.jid, u.fetched)
}
