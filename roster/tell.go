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
	told    *Roster // what they had been told
	changes []Change
}

// tell makes now the last known roster: it answers the queries with it, and
// pushes to the interested resources that did not ask what differs from what
// each was last told.
func (m *Manager) tell(u *user, now *Roster, queries []query, p *pending) {
	m.mu.Lock()
	epoch, owed := m.resumes, u.owed
	u.owed = nil
	for _, q := range queries {
		u.told[q.full] = now // before the reply, which may turn out undelivered
	}
	m.mu.Unlock()

	var deliveries []delivery
	asked := make(map[jid.JID]struct{}, len(queries))
	for _, q := range queries {
		asked[q.full] = struct{}{}
		if rest := q.reply(now, nil); len(rest) > 0 {
			deliveries = append(deliveries, delivery{[]jid.JID{q.full}, nil, added(rest)})
		}
	}
	for told, others := range m.others(u, asked, epoch) {
		if c := changes(told, now, owed); len(c) > 0 {
			deliveries = append(deliveries, delivery{others, told, c})
		} else {
			m.setTold(u, others, now) // the same; the older one need not be kept
		}
	}
	m.deliver(u, now, deliveries, owed, epoch, p)
}

// others are the interested resources that did not ask, by what they were last
// told. What was told to resources that are not interested any more is
// forgotten.
func (m *Manager) others(u *user, asked map[jid.JID]struct{}, epoch uint64) map[*Roster][]jid.JID {
	m.mu.Lock()
	defer m.mu.Unlock()
	if u.marked {
		m.mark(u, epoch) // by a reply
	}
	told := u.told
	u.told = make(map[jid.JID]*Roster, len(told))
	others := make(map[*Roster][]jid.JID)
	for _, full := range m.sessions.InterestedOf(u.jid) {
		if r, ok := told[full]; ok {
			u.told[full] = r
		}
		if _, ok := asked[full]; !ok {
			others[told[full]] = append(others[told[full]], full)
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
		m.setTold(u, d.to, now)
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

// setTold notes what resources were told; nil: nothing that is known.
func (m *Manager) setTold(u *user, to []jid.JID, r *Roster) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, full := range to {
		if r == nil {
			delete(u.told, full)
		} else {
			u.told[full] = r
		}
	}
}
