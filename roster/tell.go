package roster

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"rosterd/jid"
)

// delivery is one call of Pusher.Push.
type delivery struct {
	to            []jid.JID
	before, after told
	changes       []Change
	partial       bool // the client may lack more than these: it is told no version to be trusted
}

// tell makes now the last known roster: it answers the queries with it, and
// pushes to the interested resources that did not ask what differs from what
// each was last told.
func (m *Manager) tell(u *user, now *Roster, queries []query, p *pending) {
	if u.last != nil && u.last.Equal(now) {
		now = u.last
	}
	owed := u.owed
	u.leave(now)
	groups := m.others(u, queries)
	for i := range queries {
		if q := &queries[i]; q.version != nil {
			if q.has = u.named(*q.version, now); q.has != nil {
				q.same = q.has == now && u.has(q.full, now)
				t := told{roster: q.has, asked: time.Now(), versioned: true}
				u.told[q.full] = t
				if groups == nil {
					groups = make(map[told][]jid.JID, 1)
				}
				groups[t] = append(groups[t], q.full)
			}
		}
	}
	var deliveries []delivery
	for t, others := range groups {
		after := told{roster: now, versioned: t.versioned} // if in doubt, it is told everything
		if !t.doubt {
			after.before, after.asked = t.before, t.asked
		}
		if c := changes(t, now, owed, u.former); len(c) > 0 {
			deliveries = append(deliveries, delivery{to: others, before: t, after: after, changes: c})
			continue
		}
		u.setTold(others, after)
	}
	m.noteTouched(u, now, deliveries)
	u.dirty = u.dirty || now != u.last || len(owed) > 0
	u.owed, u.last = nil, now
	m.mu.Lock()
	u.known = now
	m.mu.Unlock()
	m.tellApplied(u, len(queries), deliveries)
	m.deliver(u, append(m.answer(u, queries, Answer{Roster: now}), deliveries...), owed, p)
	if m.watcher != nil {
		m.watcher.Told(u.jid, now)
	}
}

// answer answers queries, and returns what is still to be pushed to those who
// asked.
func (m *Manager) answer(u *user, queries []query, a Answer) []delivery {
	var rest []delivery
	for _, q := range queries {
		a.Named, a.Same = q.version != nil, q.has != nil
		u.dirty = u.dirty || !q.same
		if a.Same {
			q.reply(a) // the differences are pushed, if there are any
			continue
		}
		t := u.told[q.full]
		t.versioned = a.Named
		if a.Named {
			if has := u.find(*q.version, u.last); has != nil { // it has that, or nearly so, until it has the answer
				t.before = both(t.before, has)
			}
		}
		if a.Roster != nil {
			t = t.asks(a.Roster)
		} else {
			// A client that named a version goes on with what it has, of which nobody
			// here knows: no version that it is told counts before it asks again.
			t.doubt, t.asked = true, time.Time{}
		}
		u.told[q.full] = t
		if items := q.reply(a); len(items) > 0 {
			failed := t
			failed.doubt = true
			rest = append(rest, delivery{to: []jid.JID{q.full}, before: failed, after: t, changes: added(items)})
			if a.Named {
				m.note(u, touching(a.Roster.Version(), 0))
			}
		}
	}
	return rest
}

// noteTouched notes the contacts whose items somebody is about to be told
// otherwise than before.
func (m *Manager) noteTouched(u *user, now *Roster, deliveries []delivery) {
	version := ""
	if slices.ContainsFunc(deliveries, func(d delivery) bool { return d.after.versioned }) {
		version = now.Version()
	}
	room := 0
	if u.last == nil {
		room = now.Size() / 2 // all contacts
	}
	note := touching(version, room)
	if now != u.last {
		compare(u.last, now, func(a, b []byte) {
			if a == nil {
				a = b
			}
			note.add(address(a))
		})
	}
	for _, d := range deliveries {
		for _, c := range d.changes {
			note.addContact(c.Item.JID)
		}
	}
	if now != u.last || len(deliveries) > 0 {
		m.note(u, note)
	}
}

// confirmed is how long after its answer was sent a resource has surely got it,
// if the stream did not break.
const confirmed = 10 * time.Minute

// others are the interested resources that did not ask, by what they were last
// told. What was told to resources that are not interested any more is
// forgotten.
func (m *Manager) others(u *user, queries []query) map[told][]jid.JID {
	interested := m.Sessions.InterestedOf(u.jid)
	for full := range u.told {
		if !slices.Contains(interested, full) {
			delete(u.told, full)
		}
	}
	var others map[told][]jid.JID // nil as a rule
	for _, full := range interested {
		t, ok := u.told[full]
		if m.unsure(t.asked) {
			t.doubt = true
		} else if !t.doubt && time.Since(t.asked) > confirmed {
			t.before = nil
		}
		if ok {
			u.told[full] = t
		}
		if !slices.ContainsFunc(queries, func(q query) bool { return q.full == full }) {
			if others == nil {
				others = make(map[told][]jid.JID, 1)
			}
			others[t] = append(others[t], full)
		}
	}
	return others
}

func added(items []Item) []Change {
	changes := make([]Change, len(items))
	for i, item := range items {
		changes[i] = Change{Action: Added, Item: item}
	}
	return changes
}

// deliver pushes, and finishes p once all is settled or the settle limit is
// over: then the pushes are on their way, and a client on a poor line is no
// reason to let the backend wait.
func (m *Manager) deliver(u *user, deliveries []delivery, owed map[jid.JID]struct{}, p *pending) {
	left := len(deliveries) + 1 // guarded by m.mu, as is failure
	var failure error
	one := func(o Outcome) { // m.mu is held
		if o.Err != nil {
			failure = o.Err
		}
		if left--; left == 0 && p != nil && !p.finished {
			p.err, p.finished = failure, true
			close(p.done)
		}
	}
	for _, d := range deliveries {
		if d.after.versioned {
			if len(u.flying) == 0 {
				u.versions = nil
			}
			u.versions = addLast(u.versions, d.after.roster.Version(), maxVersions)
			nameAll(d.changes, d.after.roster.Version(), !d.partial && m.surely(u.jid, d.before.asked))
		}
		f := &flight{contacts: make([]jid.JID, len(d.changes)), partial: d.partial}
		for i, c := range d.changes {
			f.contacts[i] = c.Item.JID
		}
		if u.flying == nil {
			u.flying = make(map[*flight]struct{})
		}
		u.flying[f] = struct{}{}
		u.correcting += f.corrects()
		u.setTold(d.to, d.after)
		began := time.Now()
		err := m.Pusher.Push(d.to, d.changes, func(o Outcome) {
			m.tellPushed(u, d, o.Err, began)
			m.mu.Lock()
			defer m.mu.Unlock()
			u.settled = append(u.settled, settled{f, o})
			m.start(u)
			one(o)
		})
		if err != nil {
			m.tellPushed(u, d, err, began)
			u.setTold(d.to, d.before)
			u.land(f)
			u.owe(slices.Collect(maps.Keys(owed)))
			m.fell(u, soon)
			m.mu.Lock()
			one(Outcome{Err: err})
			m.mu.Unlock()
		}
	}
	if p != nil && len(deliveries) > 0 {
		time.AfterFunc(m.Limits.Settle, func() { m.finish(p, nil) })
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	one(Outcome{})
}

// Partial is the version of a roster that lacks changes of one whose version is
// given, and which follow as pushes. Nobody knows it: a client that names it is
// given the whole roster.
func Partial(version string, lacking int) string { return version + "~" + strconv.Itoa(lacking) }

// nameAll gives changes that are pushed one after the other their versions: the
// last one makes the roster version, if the client surely had what they change.
func nameAll(changes []Change, version string, surely bool) {
	last := len(changes) - 1
	for i := range changes {
		changes[i].Version = Partial(version, last-i)
	}
	if surely {
		changes[last].Version = version
	}
}

// setTold notes what resources were told.
func (s *state) setTold(to []jid.JID, t told) {
	for _, full := range to {
		s.told[full] = t
	}
}
