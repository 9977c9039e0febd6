package roster

import (
	"maps"
	"slices"
	"time"

	"rosterd/jid"
)

// state is what is known of a user.
type state struct {
	last    *Roster              // the last known roster; nil: none is
	fetched time.Time            // when it was
	told    map[jid.JID]told     // what each interested resource was last told; none: nothing
	stale   bool                 // somebody said that it has changed since
	owed    map[jid.JID]struct{} // contacts whose items some resource may lack all the same: pushes failed
	flying  map[*flight]struct{} // pushes that are not settled
	// mistrusted are versions that a client may name though it missed something:
	// a push was lost before others that came. The last are kept.
	mistrusted []string
	versions   []string  // that were told by pushes since none was flying; the last
	former     []jid.JID // contacts that are no more; the last
	validator  string    // of last, see [Fetched]
	missing    bool      // last is empty as the backend does not know the user
	since      uint64    // reports up to here came before last was fetched, see reports
	noted      bool      // some of it comes from notes in the store
}

// told is what a resource was last told.
type told struct {
	roster *Roster // nil: nothing
	before *Roster // what it had until it asked; nil if that is all in roster
	// doubt: the resource may have roster, before, or nothing, or if it uses
	// versions, some older roster. It asked and got an error, or its answer was
	// lost. Then it is told every item, and what it may have and is no more.
	doubt     bool
	asked     time.Time // when it got its answer; zero: it was told everything since
	versioned bool      // it uses roster versioning (RFC 6121, section 2.6)
}

// flight is what was pushed at once.
type flight struct {
	contacts []jid.JID
	partial  bool // see [delivery]
}

// asks is what is known of a resource when it has asked and now is its answer.
func (t told) asks(now *Roster) told {
	had := t.roster
	if had == now {
		had = t.before // it asked twice
	} else if t.before != nil {
		had = both(t.roster, t.before)
	}
	t = told{roster: now, doubt: t.doubt && t.roster == now, asked: time.Now(), versioned: t.versioned}
	if removes(had, now) > 0 {
		t.before = had
	}
	return t
}

// has reports whether a resource that uses versions was told a roster, and
// surely has it.
func (s *state) has(full jid.JID, r *Roster) bool {
	t := s.told[full]
	return r != nil && t.roster == r && t.before == nil && !t.doubt && t.versioned
}

// both is a roster of the contacts of two.
func both(a, b *Roster) *Roster { return New(slices.Concat(a.Items(), b.Items())) }

// doubt notes that a resource may have nothing.
func (s *state) doubt(full jid.JID, versioned bool) {
	t := s.told[full]
	t.doubt, t.versioned = true, t.versioned || versioned
	s.told[full] = t
}

// maxVersions bounds the versions that are not trusted.
const maxVersions = 32

func (s *state) mistrust(version string) { s.mistrusted = addLast(s.mistrusted, version, maxVersions) }

// addLast adds x to the end of list, if it has no x, and keeps the last max.
func addLast[T comparable](list []T, x T, max int) []T {
	if slices.Contains(list, x) {
		return list
	}
	if list = append(list, x); len(list) > max {
		list = slices.Clone(list[len(list)-max:])
	}
	return list
}

// maxFormer bounds the contacts that are kept though they are no more.
const maxFormer = 1000

// leave notes which contacts, that somebody may have, are no more.
func (s *state) leave(now *Roster) {
	if s.last == now && len(s.owed) == 0 {
		return
	}
	gone := make(map[jid.JID]struct{})
	if s.last != now {
		compare(s.last, now, func(a, b []byte) {
			if b != nil {
				return
			}
			if item, ok := parseItem(a); ok {
				gone[item.JID] = struct{}{}
			}
		})
	}
	for contact := range s.owed {
		if _, ok := now.Item(contact); !ok {
			gone[contact] = struct{}{}
		}
	}
	if len(gone) == 0 {
		return
	}
	former := slices.DeleteFunc(slices.Clone(s.former), func(contact jid.JID) bool {
		_, again := gone[contact]
		return again
	})
	former = slices.AppendSeq(former, maps.Keys(gone))
	s.former = slices.Clone(former[max(0, len(former)-maxFormer):])
}

// named is the roster that a version is the name of, if it is one that is known
// here and whoever names it surely has.
func (s *state) named(version string, now *Roster) *Roster {
	if len(s.owed) > 0 || len(s.flying) > 0 || slices.Contains(s.mistrusted, version) {
		return nil
	}
	return s.find(version, now)
}

// find is the roster that a version is the name of, if it is known here.
func (s *state) find(version string, now *Roster) *Roster {
	if now.Version() == version {
		return now
	}
	if s.last != nil && s.last.Version() == version {
		return s.last
	}
	for _, t := range s.told {
		for _, r := range [...]*Roster{t.roster, t.before} {
			if r != nil && r.Version() == version {
				return r
			}
		}
	}
	return nil
}

// maxOwed bounds what is owed to one user; with more, everything is.
const maxOwed = 100_000

// owe notes contacts whose items were not delivered.
func (s *state) owe(contacts []jid.JID) {
	if s.owed == nil {
		s.owed = make(map[jid.JID]struct{}, len(contacts))
	}
	for _, c := range contacts {
		s.owed[c] = struct{}{}
	}
	if len(s.owed) <= maxOwed {
		return
	}
	for full := range s.told {
		s.doubt(full, false)
	}
	for _, item := range s.last.Items() {
		delete(s.owed, item.JID) // it is told to those in doubt
	}
	if len(s.owed) > maxOwed {
		s.owed = nil
	}
}

// unconfirmed are the contacts whose items some resource may lack.
func (s *state) unconfirmed() map[jid.JID]struct{} {
	if len(s.flying) == 0 {
		return s.owed
	}
	all := make(map[jid.JID]struct{}, len(s.owed))
	for contact := range s.owed {
		all[contact] = struct{}{}
	}
	for f := range s.flying {
		for _, contact := range f.contacts {
			all[contact] = struct{}{}
		}
	}
	return all
}

// changes are what turns what was told into now, and beyond that what is owed.
// former are contacts that are no more.
func changes(t told, now *Roster, owed map[jid.JID]struct{}, former []jid.JID) []Change {
	changes := Diff(t.roster, now)
	if len(owed) == 0 && !t.doubt {
		return changes
	}
	known := make(map[jid.JID]struct{}, len(changes))
	for _, c := range changes {
		known[c.Item.JID] = struct{}{}
	}
	again := func(contact jid.JID) {
		if _, ok := known[contact]; ok {
			return
		}
		known[contact] = struct{}{}
		if item, ok := now.Item(contact); ok {
			changes = append(changes, Change{Action: Changed, Item: item})
		} else {
			changes = append(changes, Change{Action: Removed, Item: Item{JID: contact}})
		}
	}
	if t.doubt {
		for _, item := range t.before.Items() {
			again(item.JID)
		}
		for _, item := range now.Items() {
			if _, ok := known[item.JID]; !ok {
				known[item.JID] = struct{}{}
				changes = append(changes, Change{Action: Changed, Item: item})
			}
		}
	}
	if t.doubt && t.versioned {
		for _, contact := range former {
			again(contact)
		}
	}
	for contact := range owed {
		again(contact)
	}
	return changes
}
