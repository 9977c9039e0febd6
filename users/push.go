package users

import (
	"slices"
	"sync"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// delivery is one call of [Pusher].Push.
type delivery struct {
	to          []jid.JID
	changes     []roster.Change
	versioned   bool
	sameSession bool // the resources surely had what is changed, see Manager.sameSession
	whole       bool // it tells one resource everything
	correction  bool // it corrects some contacts: the resource may lack more
}

// settling is what a refresh waits for: until all its pushes are settled, or the settle
// limit is over. Then the pushes are on their way, and a client on a poor line is no reason
// to let the backend wait.
type settling struct {
	user  jid.JID
	calls []*call
	left  int // pushes
	err   error
	once  sync.Once
}

func (s *settling) finish(err error) {
	s.once.Do(func() {
		for _, c := range s.calls {
			c.finish(s.user, err)
		}
	})
}

// settled notes that a push was, and that it failed if err is not nil.
func (s *settling) settled(err error) {
	if s == nil {
		return
	}
	if err != nil {
		s.err = err
	}
	if s.left--; s.left == 0 {
		s.finish(s.err)
	}
}

// refetched is how far the time of the last fetch may lag in the store before an unchanged
// roster is written again.
const refetched = time.Minute

// apply makes what was fetched the last known roster, and tells the clients.
func (u *user) apply(got roster.Fetched, f *fetching, queries []query) {
	u.dirty = u.dirty || u.outdated || u.m.reports.since(u.jid, u.fetched) || u.validator != got.Validator || u.notFound != got.Missing || f.at.Sub(u.dated) > refetched
	u.confirm(f)
	before := u.state
	u.outdated, u.fetched, u.validator, u.notFound, u.failed = false, f.at, got.Validator, got.Missing, false
	u.fetchedGeneration = &f.generation
	u.tell(before, got.Roster, queries, f.calls)
}

// recheckAfter is how long until a user whom the backend does not know is fetched again, as
// long as they are there; 0: not.
func (u *user) recheckAfter() time.Duration {
	if u.notFound && u.m.Sessions.HasConnected(u.jid) {
		return min(max(1, u.m.Rules.ConfirmAfter), maxRecheck)
	}
	return 0
}

// tell makes now the last known roster: it answers the queries with it, and pushes to the
// interested resources that did not ask what each may lack. before is the state to return to
// if nothing can be told.
func (u *user) tell(before state, now *roster.Roster, queries []query, calls []*call) {
	same := make([]bool, len(queries)) // the client has what is known, or what was until now
	behind := make([]jid.JID, 0)       // of those, the clients that have what was
	for i, q := range queries {
		switch {
		case q.version == nil:
		case u.trusts(*q.version, now):
			same[i] = true
		case u.trusts(*q.version, u.last):
			same[i] = true
			behind = append(behind, q.full)
		}
	}
	old := u.last
	deliveries := u.deliveries(u.replace(now, u.m.now(), u.m.confirmedBefore()), queries, behind)
	u.dirty = u.dirty || old != now || len(before.missed) > 0
	u.logTold(len(queries), deliveries)

	s := &settling{user: u.jid, calls: calls, left: 1}
	var pushes []sending
	for _, d := range deliveries {
		if t := u.told[d.to[0]]; d.whole && t.since.IsZero() {
			t.since = u.m.now()
			u.set(d.to[0], t)
		}
		pushes = append(pushes, u.prepare(d, s))
	}
	lags := !u.inStep() // the server's own roster
	locks := old != now && u.locksPushes()
	then := func() {
		sent := u.answer(queries, roster.Answer{Roster: now}, same)
		for _, p := range pushes {
			if sent = u.push(p) || sent; sent {
				u.publish() // at once: what clients had before is not to be written any more
			}
		}
		if !sent && len(pushes) > 0 && len(queries) == 0 {
			u.undo(before)
		}
		if u.publish(); lags && !locks && len(queries) == 0 && u.last == now { // behind the pushes: they may be what is written
			u.m.serverRosters.Keep(u.jid, nil)
		}
		if u.m.watcher != nil {
			u.m.watcher.Told(u.jid, u.last)
		}
		if s.left > 1 && len(calls) > 0 {
			time.AfterFunc(u.m.Limits.Settle, func() { s.finish(nil) })
		}
		s.settled(nil)
		u.correct()
	}
	u.waits = lags && len(queries) > 0
	u.locks = locks
	if old != now || len(pushes) > 0 || u.waits {
		for i, q := range queries {
			if !same[i] {
				u.tells(q.full, q.version != nil, u.m.now())
			}
		}
		u.commit(then)
		return
	}
	then()
}

// undo returns to what was known before something was fetched that nobody could be told:
// what is missed would grow with every try.
func (u *user) undo(before state) {
	now := u.state
	u.state = before
	u.epoch, u.told, u.inFlight, u.outdated = now.epoch, now.told, now.inFlight, true
}

// interested are the interested resources. What is known of others is forgotten.
func (u *user) interested() []jid.JID {
	interested := u.m.Sessions.InterestedOf(u.jid)
	for full := range u.told {
		if !slices.Contains(interested, full) {
			delete(u.told, full)
		}
	}
	return interested
}

// deliveries are the pushes to the interested resources that are not answered with all.
func (u *user) deliveries(difference *difference, queries []query, behind []jid.JID) (list []delivery) {
	confirmedBefore := u.m.confirmedBefore()
	for _, full := range u.interested() {
		t, known := u.told[full]
		asks := slices.ContainsFunc(queries, func(q query) bool { return q.full == full })
		has := asks && slices.Contains(behind, full)
		if asks && !has {
			continue
		}
		if known && !t.doubt && !t.asked.IsZero() && t.asked.Before(confirmedBefore) {
			t.since = time.Time{}
			u.told[full] = t
		}
		d := delivery{to: []jid.JID{full}, versioned: t.versioned || has, sameSession: has || u.m.sameSession(u.jid, t.asked)}
		if has || known && !t.doubt {
			if d.changes = difference.changes(); len(d.changes) == 0 {
				continue
			}
			i := slices.IndexFunc(list, func(o delivery) bool { return !o.whole && o.versioned == d.versioned && o.sameSession == d.sameSession })
			if i >= 0 {
				list[i].to = append(list[i].to, full)
				continue
			}
		} else {
			if !known { // rosterd was killed as it asked: nobody knows whether it uses versions
				t.versioned = true
			}
			d.whole, d.changes = true, u.everything(t, difference)
		}
		if len(d.changes) == 0 {
			u.set(full, told{versioned: t.versioned})
			continue
		}
		list = append(list, d)
	}
	return list
}

// answer answers queries; same says which clients have the roster, and is nil if that is
// still to be found out. What the answer cannot hold is pushed. It reports whether somebody
// was given a roster.
func (u *user) answer(queries []query, a roster.Answer, same []bool) (given bool) {
	var rest []sending
	for i, q := range queries {
		a.Named, a.Version = q.version != nil, ""
		a.Same = same != nil && same[i] || same == nil && a.Named && u.trusts(*q.version, a.Roster)
		u.answered()
		t, now := u.told[q.full], u.m.now()
		before := t
		t.versioned, t.doubt = a.Named, a.Roster == nil
		switch {
		case a.Roster == nil:
			// A client that named a version goes on with what it has, of which nobody here
			// knows: no version that it is told counts before it asks again.
			t.asked = time.Time{}
			if q.never {
				t.since = time.Time{}
			} else if t.since.IsZero() {
				t.since = now
			}
		case !before.noted(a.Named, now) || before.doubt || !u.m.sameSession(u.jid, t.asked):
			t.asked = now
		}
		u.dirty = u.dirty || t != before
		switch {
		case a.Roster == nil:
		case a.Same:
			t.since = time.Time{}
		case t.since.IsZero():
			t.since = t.asked
		}
		if a.Roster != nil && a.Named {
			a.Version = u.version(a.Roster)
		}
		given = given || a.Roster != nil
		u.set(q.full, t)
		if items := q.reply(a); len(items) > 0 {
			d := delivery{to: []jid.JID{q.full}, versioned: a.Named, sameSession: true, whole: true}
			for _, item := range items {
				d.changes = append(d.changes, roster.Change{Action: roster.Added, Item: item})
			}
			rest = append(rest, u.prepare(d, nil))
		}
	}
	if len(rest) > 0 {
		u.commit(func() {
			for _, s := range rest {
				u.push(s)
			}
		})
	}
	return given
}

// sending is a delivery that is noted as in flight.
type sending struct {
	delivery
	push *push
}

// prepare notes a delivery as in flight. With that the state is written before it is sent.
func (u *user) prepare(d delivery, s *settling) sending {
	p := &push{contacts: make([]jid.JID, len(d.changes)), correction: d.correction, settling: s}
	for i, c := range d.changes {
		p.contacts[i] = c.Item.JID
	}
	if d.whole {
		p.whole = d.to[0]
	}
	if p.correction {
		u.correcting += len(p.contacts)
	}
	if s != nil {
		s.left++
	}
	if u.inFlight == nil {
		u.inFlight = make(map[*push]struct{})
	}
	u.inFlight[p] = struct{}{}
	u.dirty = true
	return sending{d, p}
}

// push sends a delivery, and reports whether it could.
func (u *user) push(s sending) bool {
	m, d := u.m, s.delivery
	if d.versioned {
		d.changes = withVersions(d.changes, u.version(u.last), d.sameSession && !d.correction)
	}
	began := time.Now()
	err := m.Pusher.Push(d.to, d.changes, func(o roster.Outcome) {
		u.logPushed(d, o.Err, began)
		u.post(acknowledgedEvent{s.push, o})
	})
	if err != nil {
		u.logPushed(d, err, began)
		u.land(s.push)
		if d.whole {
			u.doubt(d.to[0], d.versioned, u.m.now())
		} else {
			for _, contact := range s.push.contacts {
				u.miss(contact, u.m.now())
			}
		}
		u.fetchLater(MarkedClient, err, soon)
		s.push.settling.settled(err)
		return false
	}
	if d.whole {
		if t := u.told[d.to[0]]; t.doubt || t.asked.IsZero() {
			u.set(d.to[0], told{versioned: t.versioned, since: t.since})
		}
	}
	return true
}

// acknowledge notes what became of pushes.
func (u *user) acknowledge(p *push, o roster.Outcome) {
	u.land(p)
	u.dirty = true
	if t, ok := u.told[p.whole]; ok && o.Err == nil && !t.doubt && t.asked.IsZero() {
		t.since = time.Time{} // it has everything
		u.told[p.whole] = t
	}
	if o.Err != nil {
		for _, contact := range o.Owed {
			u.miss(contact, u.m.now())
		}
		u.epoch++ // the versions of pushes that came after are not what their clients show
		b := soon
		if o.Refused {
			b = seldom
		}
		u.fetchLater(MarkedClient, o.Err, b)
	}
	p.settling.settled(o.Err)
	u.correct()
}

// land notes that pushes are in flight no more.
func (u *user) land(p *push) {
	delete(u.inFlight, p)
	if p.correction {
		u.correcting -= len(p.contacts)
	}
}

// logTold logs what follows from a roster that is the last known one now. It names no
// contact.
func (u *user) logTold(queries int, deliveries []delivery) {
	if !u.m.debugs() {
		return
	}
	pushes := 0
	for _, d := range deliveries {
		pushes += len(d.to) * len(d.changes)
	}
	u.m.Logger.Debug("roster known", "user", u.jid, "items", u.last.Len(), "queries", queries, "pushes", pushes)
}

func (u *user) logPushed(d delivery, err error, began time.Time) {
	if u.m.debugs() {
		u.m.Logger.Debug("pushes settled", "user", u.jid, "clients", len(d.to), "pushes", len(d.to)*len(d.changes), "took", time.Since(began), "err", err)
	}
}
