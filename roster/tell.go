package roster

import (
	"errors"
	"maps"
	"slices"
	"time"

	"rosterd/jid"
)

// delivery is one call of Pusher.Push.
type delivery struct {
	to      []jid.JID
	told    told // before
	changes []Change
}

// tell makes now the last known roster: it answers the queries with it, and
// pushes to the interested resources that did not ask what differs from what
// each was last told.
func (m *Manager) tell(u *user, now *Roster, queries []query, p *pending) {
	m.mu.Lock()
	epoch, owed := m.resumes, u.owed
	u.owed, u.last = nil, now
	for _, q := range queries {
		// Before the reply, which may turn out undelivered.
		u.told[q.full] = u.told[q.full].asks(now)
	}
	m.mu.Unlock()

	var deliveries []delivery
	asked := make(map[jid.JID]struct{}, len(queries))
	for _, q := range queries {
		asked[q.full] = struct{}{}
		if rest := q.reply(now, nil); len(rest) > 0 {
			deliveries = append(deliveries, delivery{[]jid.JID{q.full}, told{roster: now, doubt: true}, added(rest)})
		}
	}
	for t, others := range m.others(u, asked, epoch) {
		if c := changes(t, now, owed); len(c) > 0 {
			deliveries = append(deliveries, delivery{others, t, c})
		} else {
			m.setTold(u, others, told{roster: now}) // the same; the older one need not be kept
		}
	}
	m.deliver(u, now, deliveries, owed, epoch, p)
	if m.watcher != nil {
		m.watcher.Told(u.jid, now)
	}
}

// others are the interested resources that did not ask, by what they were last
// told. What was told to resources that are not interested any more is
// forgotten.
func (m *Manager) others(u *user, asked map[jid.JID]struct{}, epoch uint64) map[told][]jid.JID {
	m.mu.Lock()
	defer m.mu.Unlock()
	if u.marked {
		m.mark(u, epoch) // by a reply
	}
	before := u.told
	u.told = make(map[jid.JID]told, len(before))
	others := make(map[told][]jid.JID)
	for _, full := range m.sessions.InterestedOf(u.jid) {
		t, ok := before[full]
		if ok {
			u.told[full] = t
		}
		if _, ok := asked[full]; !ok {
			others[t] = append(others[t], full)
		}
	}
	return others
}

func added(items []Item) []Change {
	changes := make([]Change, len(items))
	for i, item := range items {
		changes[i] = Change{Added, item}
	}
	return changes
}

// deliver pushes, and finishes p once all is settled or the settle limit is
// over: then the pushes are on their way, and a client on a poor line is no
// reason to let the backend wait.
func (m *Manager) deliver(u *user, now *Roster, deliveries []delivery, owed map[jid.JID]struct{}, epoch uint64, p *pending) {
	left := len(deliveries) + 1 // guarded by m.mu, as is failure
	var failure error
	settled := func(o Outcome) {
		m.mu.Lock()
		if o.Err != nil {
			failure = o.Err
			u.owe(o.Owed)
			if o.Lost {
				m.mark(u, epoch)
			}
		}
		left--
		last := left == 0
		m.mu.Unlock()
		if last {
			m.finish(p, failure)
		}
	}
	for _, d := range deliveries {
		m.setTold(u, d.to, told{roster: now})
		if err := m.pusher.Push(d.to, d.changes, settled); err != nil {
			m.setTold(u, d.to, d.told)
			settled(Outcome{Owed: slices.Collect(maps.Keys(owed)), Err: err, Lost: errors.Is(err, ErrNotConnected)})
		}
	}
	if p != nil && len(deliveries) > 0 {
		time.AfterFunc(m.limits.Settle, func() { m.finish(p, nil) })
	}
	settled(Outcome{})
}

// setTold notes what resources were told.
func (m *Manager) setTold(u *user, to []jid.JID, t told) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, full := range to {
		u.told[full] = t
	}
}
