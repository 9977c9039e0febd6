package presence

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rosterd/internal/bubble"
	"rosterd/jid"
	"rosterd/roster"
)

var (
	modelSeeds  = flag.Int("seeds", 24, "run the model tests with so many seeds, from 1 on")
	modelRandom = flag.Bool("random", false, "with random seeds")
	modelSeed   = flag.Uint64("seed", 0, "run the model tests with this seed alone")
	modelLog    = flag.Int("steps", 60, "how many of the last steps of a model test that fails are logged")
)

// TestModel is the main proof: users come, go and change, rosters change, the
// server reads slowly, streams, servers and rosterd itself are lost, all at
// random. Whenever it has been quiet for a while, what each client was shown,
// worked out from the stanzas alone, must be what is true.
func TestModel(t *testing.T) { testModel(t, false) }

// TestModelOwnRosters is the same where the server's own rosters are kept: it does by itself
// what servers do by them, they follow at random moments, and presences are relayed late.
func TestModelOwnRosters(t *testing.T) { testModel(t, true) }

func testModel(t *testing.T, own bool) {
	seeds := make([]uint64, *modelSeeds)
	for i := range seeds {
		if seeds[i] = uint64(i) + 1; *modelRandom {
			seeds[i] = rand.Uint64()
		}
	}
	if *modelSeed != 0 {
		seeds = []uint64{*modelSeed}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				m := newModel(t, seed, own)
				defer func() {
					if t.Failed() {
						t.Logf("again with: go test ./presence -run %s -seed %d\nthe last steps:\n\t%s",
							t.Name(), seed, strings.Join(m.log[max(0, len(m.log)-*modelLog):], "\n\t"))
					}
				}()
				m.begin()
				for range 25 {
					for range m.rand.IntN(80) {
						m.step()
					}
					if m.check(); t.Failed() {
						break
					}
				}
				m.cut()
				m.quit()
			})
		})
	}
}

// model is a server with its clients, the backend, and a hub.
type model struct {
	t     *testing.T
	rand  *rand.Rand // of the goroutine that makes the steps
	waits *rand.Rand // guarded by mu
	hub   *Hub
	all   []jid.JID             // bare JIDs of users, served and not
	cut   func()                // ends the stream: what is on its way is lost
	next  int                   // payload
	left  map[jid.JID]time.Time // when each was last known to be available, or rosterd was restarted

	reported map[jid.JID]bool // to the hub, on this stream

	logging sync.Mutex
	log     []string // guarded by logging

	wire    sync.Mutex                     // what the server does, and says of it, is in one order
	mu      sync.Mutex                     // inside wire
	calm    time.Time                      // when slow was changed last
	slow    time.Duration                  // how long the server takes for a stanza
	there   map[jid.JID]string             // available resources -> payload
	shown   map[jid.JID]map[jid.JID]string // clients (bare ones elsewhere) -> full JIDs -> payload
	doubt   map[[2]jid.JID]bool            // client, full JID: shown by a rosterd before this one; true: which can know
	backend map[jid.JID]*roster.Roster     // what is true of the rosters
	seen    map[[2]jid.JID]bool            // user, contact: the user's roster let the contact see them, once
	known   map[jid.JID]*roster.Roster     // what users.Manager knows
	blocked map[jid.JID]map[jid.JID]bool   // user -> whom that user has blocked: bare JIDs, or a domain

	*ownServer // nil: the server has no rosters
}

func newModel(t *testing.T, seed uint64, own bool) *model {
	m := &model{
		t: t, rand: rand.New(rand.NewPCG(seed, seed)), waits: rand.New(rand.NewPCG(seed, 1)), cut: func() {},
		there: make(map[jid.JID]string), shown: make(map[jid.JID]map[jid.JID]string), doubt: make(map[[2]jid.JID]bool),
		backend: make(map[jid.JID]*roster.Roster), seen: make(map[[2]jid.JID]bool), known: make(map[jid.JID]*roster.Roster),
		blocked: make(map[jid.JID]map[jid.JID]bool), left: make(map[jid.JID]time.Time),
	}
	for i := range 8 {
		m.all = append(m.all, address(fmt.Sprintf("u%d", i)))
	}
	for i := range 3 {
		m.all = append(m.all, address(fmt.Sprintf("v%d@b.example", i)))
	}
	for i := range 2 {
		j := address(fmt.Sprintf("w%d@c.example", i))
		m.all = append(m.all, j)
		m.shown[j] = make(map[jid.JID]string)
	}
	for _, user := range m.all[:11] {
		m.change(user)
	}
	if own {
		m.ownRosters(seed)
	}
	m.restart()
	return m
}

func (m *model) note(format string, args ...any) {
	m.logging.Lock()
	defer m.logging.Unlock()
	m.log = append(m.log, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// change makes a user's roster a random one. mu is held, but at the beginning.
func (m *model) change(user jid.JID) {
	var items []roster.Item
	for _, contact := range m.all {
		s := []roster.Subscription{"none", "to", "from", "both", "both", "", ""}[m.rand.IntN(7)]
		if s != "" {
			items = append(items, roster.Item{JID: contact, Subscription: s})
		}
		if opens(s) {
			m.seen[[2]jid.JID{user, contact}] = true
		}
	}
	m.backend[user] = roster.New(items)
}

// restart makes a new hub, as a new rosterd would.
func (m *model) restart() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for client, shown := range m.shown {
		for full := range shown {
			m.doubt[[2]jid.JID{client, full}] = true
		}
	}
	clear(m.known)
	m.forgets()
	if m.hub != nil {
		for _, full := range m.hub.Unheard(time.Now().Add(time.Hour)) {
			m.left[full] = time.Now()
		}
	}
	var shown []jid.JID // as session.Table keeps them: until some time after they were found to be gone
	for full, at := range m.left {
		if time.Since(at) < 10*time.Minute {
			shown, m.left[full] = append(shown, full), time.Now()
		}
	}
	m.hub = New([]string{"a.example", "b.example"}, m, Limits{Resources: 8})
	if m.ownServer != nil {
		m.hub.Recall(shown)
		m.hub.Keeper(m)
	}
}

// line is one stream to the server: it takes some stanzas before it blocks.
type line struct {
	m    *model
	ctx  context.Context
	sent chan func() // what the server does with it; wire and mu are held
}

func (l *line) Relay(s Stanza) error {
	l.m.mayRelay(s)
	return l.send(func() { l.m.deliver(s) })
}

func (l *line) Passed(reply func()) { l.send(reply) }

func (l *line) send(do func()) error {
	select {
	case l.sent <- do:
		return nil
	case <-l.ctx.Done():
		return errGone
	}
}

// Blocked is answered in its turn, with what is true then.
func (l *line) Blocked(user jid.JID, reply func([]jid.JID, bool)) {
	l.m.mu.Lock()
	wait := time.Duration(l.m.waits.IntN(300)) * time.Millisecond
	l.m.mu.Unlock()
	time.AfterFunc(wait, func() {
		l.m.mu.Lock()
		list := slices.Collect(maps.Keys(l.m.blocked[user]))
		l.m.mu.Unlock()
		reply(list, l.ctx.Err() == nil)
	})
}

// block lets a user block or unblock somebody, of which rosterd hears with the next
// presence.
func (m *model) block() {
	user := m.all[m.rand.IntN(8)] // of the host that can be asked
	whom := m.all[m.rand.IntN(len(m.all))]
	if m.rand.IntN(8) == 0 {
		whom = domainJID("b.example")
	}
	m.mu.Lock()
	m.note("%s blocks or unblocks %s", name(user), name(whom))
	if m.blocked[user] == nil {
		m.blocked[user] = make(map[jid.JID]bool)
	}
	if m.blocked[user][whom] {
		delete(m.blocked[user], whom)
	} else {
		m.blocked[user][whom] = true
	}
	m.showsAfterBlock(user, whom)
	m.mu.Unlock()
	for _, full := range m.resources() {
		if full.Bare() == user {
			m.available(full, true)
			break
		}
	}
}

func domainJID(domain string) jid.JID {
	j, err := jid.New("", domain, "")
	if err != nil {
		panic(err)
	}
	return j
}

// opens reports whether a user shows himself to another. m.mu is held.
func (m *model) opens(user, to jid.JID) bool {
	item, listed := m.backend[user].Item(to)
	return listed && opens(item.Subscription) && !m.blocked[user][to] && !m.blocked[user][domainJID(to.Domain())]
}

// serve is the server: it delivers stanzas in their order.
func (l *line) serve() {
	for {
		select {
		case <-l.ctx.Done():
			return
		case do := <-l.sent:
			l.m.wire.Lock()
			l.m.mu.Lock()
			do()
			slow := l.m.slow
			l.m.mu.Unlock()
			l.m.wire.Unlock()
			select {
			case <-time.After(slow):
			case <-l.ctx.Done():
				return
			}
		}
	}
}

// deliver shows a stanza to the clients it is for. m.mu is held.
func (m *model) deliver(s Stanza) {
	for client, shown := range m.shown {
		if client != s.To && client.Bare() != s.To {
			continue
		}
		switch {
		case !s.Unavailable && s.From.IsBare(), s.From.Bare() == client.Bare():
			m.t.Errorf("%s is sent %s", name(client), text(s))
		case !s.Unavailable:
			shown[s.From] = string(s.Payload)
			m.paid(s.From, client)
		case s.From.IsBare():
			maps.DeleteFunc(shown, func(full jid.JID, _ string) bool { return full.Bare() == s.From })
			m.takenBack(s.From, client)
		default:
			delete(shown, s.From)
			m.takenBack(s.From, client)
		}
	}
}

// begin begins a stream.
func (m *model) begin() {
	m.note("stream")
	m.reported = make(map[jid.JID]bool)
	ctx, cancel := context.WithCancel(m.t.Context())
	l := &line{m, ctx, make(chan func(), m.rand.IntN(50))}
	var work sync.WaitGroup
	work.Go(func() { run(ctx, m.hub, l) })
	work.Go(l.serve)
	m.cut = func() {
		cancel()
		work.Wait()
	}
	m.hub.Blocking("a.example", true)
	m.resume(ctx)
	synctest.Wait()
}

func (m *model) Known(user jid.JID) (*roster.Roster, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.known[user]
	return r, ok
}

func (m *model) Want(user jid.JID) {
	hub := m.hub
	time.AfterFunc(time.Duration(user.Local()[1])*37*time.Millisecond, func() { m.learn(hub, user) })
}

// learn is a fetch whose roster gets known.
func (m *model) learn(hub *Hub, user jid.JID) {
	m.mu.Lock()
	r := m.backend[user]
	m.known[user] = r
	m.mu.Unlock()
	hub.Told(user, r)
	m.keep(user, nil)
}

func (m *model) payload() string {
	m.next++
	return fmt.Sprint(m.next)
}

// available and gone are what clients do, and the server reports.
func (m *model) available(full jid.JID, report bool) {
	payload := m.payload()
	m.note("%s available: %s (reported: %t)", name(full), payload, report)
	m.wire.Lock()
	defer m.wire.Unlock()
	m.mu.Lock()
	m.broadcast(full, payload)
	m.there[full] = payload
	if m.shown[full] == nil {
		m.shown[full] = make(map[jid.JID]string)
		m.answer(full)
	}
	m.mu.Unlock()
	if report {
		m.reported[full] = true
		m.hub.Available(full, []byte(payload))
	}
}

// replay is that the server reports, when a stream has begun, who was there before, in any
// order. The client does nothing, and the server sends it to nobody else: so does Prosody's
// mod_privilege (advertise_presences). ejabberd reports nobody.
func (m *model) replay(full jid.JID) {
	m.wire.Lock()
	defer m.wire.Unlock()
	m.mu.Lock()
	payload := m.there[full]
	m.mu.Unlock()
	if m.reported[full] {
		return
	}
	m.note("%s is reported: %s", name(full), payload)
	m.hub.Available(full, []byte(payload))
}

func (m *model) gone(full jid.JID, report bool) {
	m.note("%s gone (reported: %t)", name(full), report)
	m.wire.Lock()
	defer m.wire.Unlock()
	m.mu.Lock()
	m.broadcast(full, "")
	delete(m.there, full)
	delete(m.shown, full)
	maps.DeleteFunc(m.doubt, func(d [2]jid.JID, _ bool) bool { return d[0] == full })
	m.clientGone(full)
	m.mu.Unlock()
	if !report {
		return
	}
	m.left[full] = time.Now()
	m.hub.Unavailable(full, []byte(m.payload()))
	connected := m.hub.Unheard(time.Now().Add(time.Hour)) // as users.Manager would be told
	if !slices.ContainsFunc(connected, func(j jid.JID) bool { return j.Bare() == full.Bare() }) {
		m.mu.Lock()
		delete(m.known, full.Bare())
		if m.ownServer != nil {
			delete(m.inStep, full.Bare())
		}
		m.mu.Unlock()
	}
}

func (m *model) resource() jid.JID {
	user := m.all[m.rand.IntN(11)]
	return address(user.String() + "/" + fmt.Sprint(1+m.rand.IntN(3)))
}

// come and go is what one random client does.
func (m *model) comeAndGo(report bool) {
	full := m.resource()
	m.mu.Lock()
	_, there := m.there[full]
	m.mu.Unlock()
	switch {
	case there && m.rand.IntN(2) == 0:
		m.gone(full, report)
	case !there && m.rand.IntN(3) > 0 && report:
		m.note("%s asks for its roster", name(full))
		m.learn(m.hub, full.Bare())
		fallthrough
	default:
		m.available(full, report)
	}
}

func (m *model) step() {
	if m.ownServer != nil && m.calmly {
		time.Sleep(time.Duration(m.rand.IntN(4000)) * time.Millisecond)
	}
	switch n := m.rand.IntN(100); {
	case n < 60:
		m.comeAndGo(true)
	case n < 80:
		user := m.all[m.rand.IntN(11)]
		m.note("refresh of %s", name(user))
		m.mu.Lock()
		m.doubts(user)
		m.change(user)
		m.doubts(user)
		_, known := m.known[user]
		m.mu.Unlock()
		if known {
			m.learn(m.hub, user)
		}
	case n < 83:
		m.mu.Lock()
		m.slow = []time.Duration{0, time.Millisecond, 100 * time.Millisecond, time.Second}[m.rand.IntN(4)]
		if m.ownServer != nil && m.calmly {
			m.slow = min(m.slow, 10*time.Millisecond)
		}
		m.note("a stanza takes %s", m.slow)
		m.calm = time.Now()
		m.mu.Unlock()
	case n < 85:
		m.lose()
	case n < 89:
		m.block()
	default:
		time.Sleep(time.Duration(m.rand.IntN(1 << m.rand.IntN(31))))
	}
}

// lose is the loss of a stream, with what may come with it.
func (m *model) lose() {
	m.note("the stream is lost")
	time.Sleep(time.Millisecond)
	m.cut()
	since := time.Now()
	time.Sleep(time.Millisecond)
	if m.rand.IntN(4) == 0 {
		m.note("rosterd is restarted")
		m.restart()
	}
	for range m.rand.IntN(20) {
		m.comeAndGo(false)
	}
	if m.rand.IntN(4) == 0 {
		m.note("the server is restarted")
		for _, full := range m.resources() {
			if m.gone(full, false); m.rand.IntN(2) == 0 {
				m.available(full, false)
			}
		}
	}
	time.Sleep(time.Duration(m.rand.IntN(int(2 * time.Minute))))
	m.begin()
	for _, full := range m.resources() {
		if m.rand.IntN(3) == 0 {
			time.Sleep(100 * time.Millisecond)
		}
		if m.rand.IntN(5) == 0 {
			m.comeAndGo(true)
		}
		if _, there := m.there[full]; there {
			m.replay(full)
		}
	}
	synctest.Wait()
	for _, full := range slices.SortedFunc(slices.Values(m.hub.Unheard(since)), jid.JID.Compare) {
		if m.there[full] != "" {
			m.t.Errorf("%s is unheard", name(full))
		}
		m.gone(full, true)
	}
}

// doubts notes that a user may not be told what a rosterd before this one has shown of those
// whom their roster does not let them see. mu is held.
func (m *model) doubts(user jid.JID) {
	for d := range m.doubt {
		if item, _ := m.backend[user].Item(d[1].Bare()); d[0].Bare() == user && !sees(item.Subscription) {
			m.doubt[d] = false
		}
	}
}

func (m *model) resources() []jid.JID {
	return slices.SortedFunc(maps.Keys(m.there), jid.JID.Compare)
}

// check waits until it is quiet and compares what is shown with what is true.
func (m *model) check() {
	m.mu.Lock()
	m.slow = 0
	m.mu.Unlock()
	time.Sleep(5 * time.Minute)
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	for client, shown := range m.shown {
		for full, payload := range m.there {
			if m.opens(full.Bare(), client.Bare()) && full.Bare() != client.Bare() && shown[full] != payload && !m.isForgotten(full, client) {
				m.t.Errorf("%s is shown %q of %s and not %q", name(client), shown[full], name(full), payload)
			}
		}
		for full := range shown {
			_, there := m.there[full]
			if !there || !m.opens(full.Bare(), client.Bare()) {
				if !m.cannotKnow(client, full) {
					m.t.Errorf("%s is shown %s", name(client), name(full))
				}
				delete(shown, full)
			}
		}
	}
	clear(m.doubt)
}

// cannotKnow reports whether a rosterd that was restarted cannot know that it
// must take back what a client was shown before: who is neither on a served
// host nor has the contact in his roster is not told of everybody who is not
// there, and of somebody who is there nobody is told which resources are not.
func (m *model) cannotKnow(client, full jid.JID) bool {
	can, doubted := m.doubt[[2]jid.JID{client, full}]
	if !doubted {
		return false
	}
	if client.IsBare() || !can {
		return true
	}
	item, ok := m.backend[client.Bare()].Item(full.Bare())
	_, visible := m.backend[full.Bare()].Item(client.Bare())
	for other := range m.there {
		if visible && other.Bare() == full.Bare() {
			return true
		}
	}
	return !ok || !sees(item.Subscription)
}
