package users

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"rosterd/jid"
	"rosterd/roster"
	"rosterd/store"
)

// forgettable is how long after it was put the store may have forgotten a user who is in
// the cache still: their roster is put again.
const forgettable = time.Hour

// save puts the state into the store. done, unless it is nil, is called when a kill of the
// process cannot lose it.
func (u *user) save(done func()) {
	if u.unread { // as if it could not be written
		if len(u.told) > 0 {
			u.m.Store.PutUnread(u.recordUnread())
		}
		if done != nil {
			done()
		}
		return
	}
	u.dirty, u.dated = false, u.fetched
	if done == nil && u.last == nil && len(u.told) == 0 && len(u.missed) == 0 && len(u.inFlight) == 0 && len(u.refused) == 0 {
		u.kept = nil
		u.m.Store.DeleteUser(u.jid.String())
		return
	}
	withRoster := u.last != u.kept || u.m.now().Sub(u.saved) > forgettable
	u.kept, u.saved = u.last, u.m.now()
	u.m.Store.PutUser(u.record(), withRoster, done) // from here on the loop may run again
}

// record is the state as it is kept. Should rosterd be killed, whatever is in flight may
// have been lost: it is kept as missed, or its resource as in doubt.
func (u *user) record() store.User {
	r := store.User{
		JID: u.jid.String(), Roster: u.last.Packed(), Items: u.last.Len(), Fetched: u.fetched, Validator: u.validator,
		NotFound: u.notFound, Outdated: u.outdated, Epoch: u.epoch,
	}
	if u.last != nil {
		r.Version = u.last.Version()
	}
	told, missed := maps.Clone(u.told), make(map[jid.JID]struct{}, len(u.missed))
	for p := range u.inFlight {
		if p.whole != (jid.JID{}) {
			if t, ok := told[p.whole]; ok {
				t.doubt = true
				told[p.whole] = t
			}
			continue
		}
		for _, contact := range p.contacts {
			missed[contact] = struct{}{}
		}
	}
	for _, contacts := range u.refused {
		maps.Copy(missed, contacts)
	}
	maps.Copy(missed, u.missed)
	for full, t := range told {
		r.Told = append(r.Told, store.Told{Resource: full.Resource(), Versioned: t.versioned, Doubt: t.doubt, Asked: t.asked, Since: t.since})
		if t.asked.After(r.Answered) {
			r.Answered = t.asked
		}
	}
	for contact := range missed {
		r.Missed = append(r.Missed, contact.String())
	}
	slices.Sort(r.Missed)
	for _, f := range u.former {
		r.Former = append(r.Former, store.Former{Contact: f.contact.String(), Removed: f.removed})
	}
	return r
}

// recordUnread is what the clients were told of a user whose state could not be read: what they
// may show, and since when.
func (u *user) recordUnread() store.User {
	r := store.User{JID: u.jid.String(), Epoch: u.epoch}
	for full, t := range u.told {
		if t.since.IsZero() {
			t.since = u.saved
		}
		r.Told = append(r.Told, store.Told{Resource: full.Resource(), Versioned: t.versioned, Doubt: true, Since: t.since})
	}
	shown := make(map[jid.JID]struct{})
	maps.Copy(shown, u.missed)
	for _, item := range u.last.Items() {
		shown[item.JID] = struct{}{}
	}
	for _, f := range u.former {
		shown[f.contact] = struct{}{}
	}
	for p := range u.inFlight {
		for _, contact := range p.contacts {
			shown[contact] = struct{}{}
		}
	}
	for contact := range shown {
		r.Missed = append(r.Missed, contact.String())
	}
	return r
}

// load takes the state from the store. If that cannot be read at present, the user is served
// as if nothing were known of them, and nothing is put: see reread.
func (u *user) load() {
	s, err := u.m.read(u.jid)
	u.loaded, u.unread = true, err != nil
	u.take(s)
	u.publish()
}

// take takes a state over that the store has.
func (u *user) take(s state) {
	u.state = s
	u.kept, u.dated, u.saved = u.last, u.fetched, u.m.now()
}

// reread reads what load could not. All resources are in doubt then: they were told
// something without what the store has, or before.
func (u *user) reread() {
	before, err := u.m.read(u.jid)
	if err != nil {
		u.fetchLater(MarkedState, err, soon)
		return
	}
	now, began := u.state, u.saved
	u.unread = false
	u.take(before)
	if now.last == nil {
		u.publish()
	} else { // clients were told otherwise meanwhile: which of the two is true, the next fetch shows
		u.known.Store(&known{})
	}
	u.join(now, began)
}

// join puts what the clients were told without this state, from a time on, together with it.
// All are in doubt then, and told everything.
func (u *user) join(other state, began time.Time) {
	u.epoch = max(u.epoch, other.epoch) + 1
	for full, t := range other.told {
		is, known := u.told[full]
		switch {
		case is.since.IsZero() && (!t.never() || known && !is.never()):
			is.since = began
		case !t.since.IsZero() && t.since.Before(is.since):
			is.since = t.since
		}
		u.set(full, told{versioned: is.versioned || t.versioned, doubt: true, since: is.since})
	}
	for full := range u.told {
		u.doubt(full, false, u.m.now())
	}
	for contact := range other.missed {
		u.miss(contact, u.m.now())
	}
	for _, contact := range roster.Gone(other.last, u.last) { // was it removed, or is it new? The next fetch shows it
		u.miss(contact, u.m.now())
	}
	u.former = append(u.former, other.former...)
	u.fetchLater(MarkedClient, errUndelivered, soon)
}

// ToldElsewhere says what clients of a user were told by another process, since this one began
// or before, as that one would have kept it: they count as interested, and are told everything.
// It does not block.
func (m *Manager) ToldElsewhere(r store.User) error {
	user, err := jid.Parse(r.JID)
	if err != nil {
		return errRecord
	}
	s, err := stateOf(user, r, m.now())
	if err != nil {
		return err
	}
	for full := range s.told {
		m.Sessions.Interested(full)
	}
	m.post(user, elsewhereEvent{s})
	return nil
}

func (u *user) toldElsewhere(s state) {
	began := u.m.started
	for _, t := range s.told {
		for _, at := range []time.Time{t.asked, t.since} {
			if !at.IsZero() && at.Before(began) {
				began = at
			}
		}
	}
	u.join(s, began)
}

// read is what the store has of a user. If that is damaged, nothing is known of them: the
// clients are told everything. It fails if the store cannot be read at present.
func (m *Manager) read(user jid.JID) (state, error) {
	r, err := m.Store.User(user.String())
	var s state
	if err == nil {
		if s, err = stateOf(user, r, m.now()); err == nil {
			return s, nil
		}
	}
	m.unreadable.Do(func() { m.Logger.Error("what was kept of a user cannot be read", "user", user, "err", err) })
	// No version that a client names is of this epoch: seconds are more than failures were.
	s = state{epoch: uint64(m.now().Unix())}
	if errors.Is(err, store.ErrDamaged) || errors.Is(err, errRecord) {
		return s, nil
	}
	return s, err
}

var errRecord = errors.New("a damaged record")

// stateOf is the state that was kept, as it is now.
func stateOf(user jid.JID, r store.User, now time.Time) (state, error) {
	s := state{
		fetched: r.Fetched, validator: r.Validator, notFound: r.NotFound, outdated: r.Outdated, epoch: r.Epoch,
	}
	if r.Version != "" {
		var err error
		if s.last, err = roster.Unpack(r.Roster, r.Items, r.Version); err != nil {
			return state{}, fmt.Errorf("%w: %w", errRecord, err)
		}
	}
	ended := len(r.Missed) > 0
	for _, t := range r.Told {
		full, err := jid.ParseStamped(user.String() + "/" + t.Resource)
		if err != nil {
			return state{}, errRecord
		}
		ended = ended || t.Doubt
		s.set(full, told{versioned: t.Versioned, doubt: t.Doubt, asked: t.Asked, since: t.Since})
		if unsure := r.Unsure && t.Asked.After(r.Answered.Add(-2*store.Unsent)); unsure && !t.Doubt {
			is := s.told[full]
			if is.doubt = true; is.since.IsZero() { // it had everything: none of those who were never told anything
				is.since = now
			}
			s.told[full] = is
		}
	}
	for _, name := range r.Missed {
		contact, err := jid.Parse(name) // a client may name one with a resource
		if err != nil {
			return state{}, errRecord
		}
		s.miss(contact, now)
	}
	for _, f := range r.Former {
		contact, err := jid.Parse(f.Contact)
		if err != nil {
			return state{}, errRecord
		}
		s.former = append(s.former, former{contact, f.Removed})
	}
	if ended { // something was under way when the process before ended
		s.epoch++
	}
	return s, nil
}
