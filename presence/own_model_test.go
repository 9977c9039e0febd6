package presence

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// ownServer is a server with rosters of its own, as Prosody is (mod_presence), and what
// keeps them in step. The nil one does nothing.
type ownServer struct {
	own       map[jid.JID]*roster.Roster // guarded by model.mu, as all here
	inStep    map[jid.JID]time.Time      // since when a user's is, and the hub was told so on this stream
	line      context.Context            // of the stream
	job       map[jid.JID]bool           // whose is being written
	readies   map[jid.JID][]func()
	relayed   map[[2]jid.JID]time.Time
	owed      map[[2]jid.JID]bool   // resource, client: see owes; true: rosterd has ended since, and does not know
	unblocked map[jid.JID]time.Time // or blocked
	work      sync.WaitGroup
	ended     chan struct{}
	random    *rand.Rand
	up        time.Time // when the stream began
	resumed   bool      // the Keeper has something to say
	tells     bool      // a contact is told of what is written, as on ejabberd
	asks      bool      // and is asked, as by the module for Prosody
	calmly    bool      // seldom much at one moment
}

func (m *model) ownRosters(seed uint64) {
	m.ownServer = &ownServer{
		own: make(map[jid.JID]*roster.Roster), inStep: make(map[jid.JID]time.Time), relayed: make(map[[2]jid.JID]time.Time), owed: make(map[[2]jid.JID]bool), unblocked: make(map[jid.JID]time.Time), job: make(map[jid.JID]bool), readies: make(map[jid.JID][]func()),
		ended: make(chan struct{}), random: rand.New(rand.NewPCG(m.rand.Uint64(), 2)), tells: seed%2 == 0, calmly: seed/2%2 == 0, asks: seed/4%2 == 0,
	}
}

func (m *model) quit() {
	if m.ownServer != nil {
		close(m.ended)
		m.work.Wait()
	}
}

// has is the subscription of a contact in the server's own roster of a user. mu is held.
func (m *model) has(user, contact jid.JID) roster.Subscription {
	item, _ := m.own[user].Item(contact)
	return item.Subscription
}

// native reports whether the server sends a user's presence to another. mu is held.
func (m *model) native(user, to jid.JID) bool {
	return opens(m.has(user, to)) && !m.blocked[user][to] && !m.blocked[user][domainJID(to.Domain())]
}

// broadcast is what the server does with a presence: "" is unavailable. mu is held.
func (m *model) broadcast(full jid.JID, payload string) {
	if m.ownServer == nil {
		return
	}
	if _, there := m.there[full]; !there && payload == "" {
		return
	}
	for client, shown := range m.shown {
		switch {
		case client.Bare() == full.Bare() || !m.native(full.Bare(), client.Bare()):
		case payload == "":
			delete(shown, full)
		default:
			shown[full] = payload
			m.paid(full, client)
		}
	}
}

// answer is what the server does for a resource that has just become available: it asks
// for the presence of its user's contacts. mu is held.
func (m *model) answer(full jid.JID) {
	if m.ownServer == nil {
		return
	}
	for other, payload := range m.there {
		if other.Bare() != full.Bare() && sees(m.has(full.Bare(), other.Bare())) && m.native(other.Bare(), full.Bare()) {
			m.shown[full][other] = payload
		}
	}
}

// showsAfterBlock is what the server sends when a user has blocked or unblocked somebody:
// mu is held.
func (m *model) showsAfterBlock(user, whom jid.JID) {
	if m.ownServer == nil {
		return
	}
	m.unblocked[user] = time.Now()
	for client, shown := range m.shown {
		if client.Bare() != whom && domainJID(client.Domain()) != whom || client.Bare() == user || !opens(m.has(user, client.Bare())) {
			continue
		}
		for full, payload := range m.there {
			if full.Bare() != user {
				continue
			}
			if m.native(user, client.Bare()) {
				shown[full] = payload
			} else {
				delete(shown, full)
			}
		}
	}
}

// resume begins a stream on which the rosters are kept.
func (m *model) resume(ctx context.Context) {
	if m.ownServer == nil {
		return
	}
	m.mu.Lock()
	clear(m.inStep)
	m.line, m.up = ctx, time.Now()
	m.resumed = false
	wait := time.Duration(4000+m.random.IntN(5000)) * time.Millisecond // the server reports before
	if m.random.IntN(8) == 0 {
		wait += time.Minute // longer than anybody waits for it
	}
	hub := m.hub
	m.mu.Unlock()
	m.work.Go(func() {
		if !m.pause(wait) {
			return
		}
		m.mu.Lock()
		m.resumed = m.resumed || m.line == ctx
		users := slices.SortedFunc(maps.Keys(m.known), jid.JID.Compare)
		m.mu.Unlock()
		for _, user := range users {
			m.mu.Lock()
			same := hub == m.hub
			m.mu.Unlock()
			if same && ctx.Err() == nil {
				m.keep(user, nil)
			}
		}
	})
}

// pause waits, and reports whether the test goes on.
func (m *model) pause(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-m.ended:
		return false
	}
}

// Keeps and Keep implement Keeper.
func (m *model) Keeps(string) bool { return true }

func (m *model) Keep(user jid.JID, ready func(bool)) { m.keep(user, func() { ready(true) }) }

// keep brings the server's own roster of a user in step with the known one.
func (m *model) keep(user jid.JID, ready func()) {
	if m.ownServer == nil {
		return
	}
	m.mu.Lock()
	ctx, hub, job := m.line, m.hub, m.job[user]
	_, known := m.known[user]
	no := !known || ctx == nil || ctx.Err() != nil || !m.resumed
	if !no {
		m.job[user] = true
		m.readies[user] = append(m.readies[user], ready)
	}
	m.mu.Unlock()
	if no && ready != nil {
		ready()
	}
	if no || job {
		return
	}
	m.work.Go(func() {
		var readies []func()
		defer func() {
			for _, ready := range readies {
				if ready != nil {
					ready()
				}
			}
		}()
		wrote := false
		for {
			m.wire.Lock()
			m.mu.Lock()
			now, ok := m.known[user]
			changes := roster.Diff(m.own[user], now)
			gone := ctx.Err() != nil || !ok
			var c roster.Change
			var change roster.SubscriptionChange
			lost := false
			if len(changes) > 0 {
				if !gone {
					delete(m.inStep, user)
				}
				c = changes[m.random.IntN(len(changes))]
				lost = m.random.IntN(30) == 0
				if !gone {
					if !wrote || m.random.IntN(4) == 0 { // in another turn
						hub.InStep(user, m.own[user])
					}
					wrote = true
					change = roster.SubscriptionChange{JID: c.Item.JID, Before: m.has(user, c.Item.JID)}
					m.write(user, c)
					change.After = m.has(user, c.Item.JID)
				}
			} else if readies = append(readies, m.readies[user]...); !gone && m.inStep[user].IsZero() {
				m.inStep[user] = time.Now()
			}
			more := len(changes) > 0 || len(m.readies[user]) > 0
			delete(m.readies, user)
			m.job[user] = more && !gone
			wait := time.Duration(m.random.IntN(1<<m.random.IntN(12))) * time.Millisecond
			m.mu.Unlock()
			m.note("keeps %s: %d changes; %s; gone %t", name(user), len(changes), name(c.Item.JID), gone)
			switch {
			case gone:
			case len(changes) == 0:
				hub.InStep(user, now)
			case !lost || ctx.Err() == nil:
				hub.Written(user, change, m.tells)
			}
			m.wire.Unlock()
			if gone || !more || !m.pause(wait) {
				return
			}
		}
	})
}

// write makes a change of the server's own roster. mu is held.
func (m *model) write(user jid.JID, c roster.Change) {
	contact := c.Item.JID
	shown, asked := m.native(user, contact), sees(m.has(user, contact))
	m.own[user] = m.with(m.own[user], c)
	shows := m.native(user, contact)
	asks := !asked && sees(m.has(user, contact)) && m.native(contact, user)
	switch {
	case contact == user:
		return
	case shows != shown && m.tells:
		m.show(user, contact, shows)
	case shows && !shown:
		m.owes(user, contact)
	}
	switch {
	case asks && m.tells && m.asks:
		m.show(contact, user, true)
	case asks:
		m.owes(contact, user)
	}
}

// owes notes that somebody is not shown a user before the next presence unless rosterd relays
// the last one: the server has nothing to send until then. If rosterd ends before it does, the
// next one takes what the server's rosters have for what they had when the user came. mu is
// held.
func (m *model) owes(user, to jid.JID) {
	for full := range m.there {
		for client := range m.shown {
			if pair := [2]jid.JID{full, client}; full.Bare() == user && client.Bare() == to && !m.owed[pair] {
				m.owed[pair] = false // and if an earlier rosterd did, this one does not know
			}
		}
	}
}

// takenBack is the same of a client that the server goes on showing a user, or a resource, that
// was taken back from it. The nil ownServer does nothing. mu is held.
func (m *model) takenBack(who, client jid.JID) {
	if m.ownServer == nil || !m.native(who.Bare(), client.Bare()) {
		return
	}
	for full := range m.there {
		if full == who || full.Bare() == who {
			m.owed[[2]jid.JID{full, client}] = false
		}
	}
}

// paid notes that a client was shown a resource. mu is held.
func (m *model) paid(full, client jid.JID) {
	if m.ownServer != nil {
		delete(m.owed, [2]jid.JID{full, client})
	}
}

// clientGone notes that nothing is owed to a client any more. mu is held.
func (m *model) clientGone(client jid.JID) {
	if m.ownServer != nil {
		maps.DeleteFunc(m.owed, func(pair [2]jid.JID, _ bool) bool { return pair[1] == client })
	}
}

// forgets notes that rosterd has ended, and with it what it owed. mu is held.
func (m *model) forgets() {
	if m.ownServer != nil {
		for pair := range m.owed {
			m.owed[pair] = true
		}
	}
}

// isForgotten reports whether an earlier rosterd owed a client a resource. mu is held.
func (m *model) isForgotten(full, client jid.JID) bool {
	return m.ownServer != nil && m.owed[[2]jid.JID{full, client}]
}

// show is what the server sends of a user to another at once: their presence, or that they
// are unavailable. mu is held.
func (m *model) show(user, to jid.JID, is bool) {
	m.note("the server tells %s of %s: %t", name(to), name(user), is)
	for full, payload := range m.there {
		for client, shown := range m.shown {
			switch {
			case full.Bare() != user || client.Bare() != to:
			case is:
				shown[full] = payload
			default:
				delete(shown, full)
			}
		}
	}
}

// with is a roster with a change.
func (m *model) with(r *roster.Roster, c roster.Change) *roster.Roster {
	items := slices.DeleteFunc(r.Items(), func(i roster.Item) bool { return i.JID == c.Item.JID })
	if c.Action != roster.Removed {
		items = append(items, c.Item)
	}
	return roster.New(items)
}

// mayRelay fails if presence is relayed that the server sends by itself, or that tells of a
// resource to whom the user never was to be seen by.
func (m *model) mayRelay(s Stanza) {
	if m.ownServer == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.note("relays %s", text(s))
	pair := [2]jid.JID{s.From.Bare(), s.To.Bare()}
	if !s.From.IsBare() && !m.seen[pair] && len(m.hub.before) == 0 {
		m.t.Errorf("%s is relayed", text(s))
	}
	last := m.relayed[pair]
	m.relayed[pair] = time.Now()
	if time.Since(last) < time.Minute {
		return // the server's may have overtaken it
	}
	if s.Unavailable {
		return
	}
	const steady = 15 * time.Second
	for _, user := range []jid.JID{s.From.Bare(), s.To.Bare()} {
		if since := m.inStep[user]; m.served(user) && (since.IsZero() || time.Since(since) < steady) || m.job[user] {
			return
		}
	}
	if m.served(s.To) && !sees(m.has(s.To.Bare(), s.From.Bare())) {
		return // the server does not ask in their name
	}
	if time.Since(m.unblocked[s.From.Bare()]) < steady {
		return // they may have been told that the user is not to be seen
	}
	if m.slow > 0 || time.Since(m.calm) < 2*time.Minute || time.Since(m.up) < time.Minute {
		return
	}
	m.t.Errorf("%s is relayed", text(s))
	m.note("%s is relayed", text(s))
}

func (m *model) served(user jid.JID) bool { return user.Domain() != "c.example" }
