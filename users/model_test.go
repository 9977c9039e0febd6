package users

import (
	"context"
	"errors"
	flags "flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sort"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rosterd/internal/bubble"
	"rosterd/jid"
	"rosterd/roster"
	"rosterd/session"
)

var (
	modelSeed  = flags.Uint64("model.seed", 0, "the one seed that TestModel runs, with a log")
	modelSeeds = flags.Uint64("model.seeds", 150, "how many seeds TestModel runs")
)

// TestModel lets a Manager live among clients, a backend, a server and a store
// that all fail, and kills it between any two things that it does. As soon as
// nothing fails any more, every client has what the backend says, and no client
// ever saw a contact vanish whom the backend listed all the time.
func TestModel(t *testing.T) {
	from, to := uint64(1), *modelSeeds
	if *modelSeed > 0 {
		from, to = *modelSeed, *modelSeed
	}
	for seed := from; seed <= to; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) { newModel(t, seed).run() })
		})
	}
}

var (
	modelHosts = []string{"example.org", "example.com"}
	modelUsers = []string{"juliet@example.org", "romeo@example.org", "nurse@example.org", "paris@example.com"}
)

// model is everything around a Manager. Its random numbers are drawn under mu,
// by one goroutine at a time as far as the virtual clock can see to it.
type model struct {
	t     *testing.T
	rand  *rand.Rand
	mu    sync.Mutex
	began time.Time
	log   []string

	lists   map[string]map[string]listed // what the backend lists, by user and contact
	unsaid  map[string]bool              // users whose change no refresh has told yet
	broken  bool                         // the backend fails
	slow    time.Duration                // a fetch takes up to this long
	clients []*modelClient

	process  *process
	sessions *session.Table
	kept     *disk
	stream   *modelStream // nil: none
	trouble  bool         // pushes fail now and then
	fits     int          // items in a reply
	rules    Rules
	cache    int // bytes
	batch    int // users fetched together
	places   int
	contacts int
	calls    map[*process]int // of Refresh
	kills    int
	away     bool // the store cannot be read, or could not a short time ago
}

// listed is an item of the backend.
type listed struct {
	name  string
	since int // the step since when the contact is there, without a break
}

// process is one life of a Manager. It ends, and has no effect any more, after a
// number of effects.
type process struct {
	*Manager
	kept    *disk
	effects sync.Mutex
	left    int       // effects; negative: any number
	died    time.Time // when none was left
}

// act reports whether the process lives to do one thing more, and does it.
func (p *process) act(do func()) bool {
	p.effects.Lock()
	defer p.effects.Unlock()
	if p.left == 0 {
		return false
	}
	if p.left--; p.left == 0 {
		p.died = p.kept.Now()
	}
	do()
	return true
}

func (p *process) dies(after int) {
	p.effects.Lock()
	defer p.effects.Unlock()
	if p.left != 0 && after == 0 {
		p.died = p.kept.Now()
	}
	p.left = after
}

func (p *process) dead() bool { return !p.lives() }

// mortal reports whether the process is dead, or will be.
func (p *process) mortal() bool {
	p.effects.Lock()
	defer p.effects.Unlock()
	return p.left >= 0
}

func (p *process) lives() bool {
	p.effects.Lock()
	defer p.effects.Unlock()
	return p.left != 0
}

// modelClient is a client that can log in and out under one full JID.
type modelClient struct {
	m         *model
	full      jid.JID
	versioned bool
	online    bool
	life      int             // counts the logins
	wants     bool            // it has to ask (again): it is online and its query was lost
	waits     bool            // for an answer
	asked     bool            // in this life
	knew      bool            // asked, before the last query
	pushed    bool            // it took a push in this life
	untold    bool            // rosterd was killed and does not know whether it uses versions
	edited    bool            // it shows a change of its own
	lacks     map[string]held // what it had before an answer that was not whole
	items     map[string]held
	version   string // of items, kept from one life to the next
}

// held is a contact that a client sees.
type held struct {
	name string
	at   int // the step in which it was sent
}

// modelStream carries what the Manager sends, in order.
type modelStream struct {
	m     *model
	queue []*frame
	open  map[*frame]bool // sent, and not settled; replies: not surely read
	dead  bool
	more  chan struct{}
}

type frame struct {
	client *modelClient
	life   int
	sent   int            // the step in which
	answer *roster.Answer // of a reply
	items  []roster.Item
	change roster.Change // of a push
	// end is called with what became of it, m.mu is not held. delivered counts
	// only if it is not lost.
	end func(lost, delivered bool)
}

var errLost = fmt.Errorf("%w: lost", roster.ErrNotConnected)

func newModel(t *testing.T, seed uint64) *model {
	m := &model{t: t, rand: rand.New(rand.NewPCG(seed, 1)), began: time.Now(), lists: make(map[string]map[string]listed), unsaid: make(map[string]bool), calls: make(map[*process]int)}
	m.rules = Rules{MaxRemoved: 1, ConfirmAfter: 30 * time.Second}
	switch m.rand.IntN(4) {
	case 0:
		m.rules.MaxStale = never
	case 1:
		m.rules.MaxStale = time.Minute
	case 2:
		m.rules.MaxAge = time.Minute
	}
	if m.rand.IntN(3) == 0 {
		m.fits = 2
	}
	m.cache = []int{-1, overhead, 1 << 20}[m.rand.IntN(3)]
	m.batch = 1 + m.rand.IntN(4)
	m.places = 1 + m.rand.IntN(4)
	m.contacts = 5
	switch m.rand.IntN(4) {
	case 0:
		m.contacts, m.rules.MaxRemoved = 20, 0.4
	case 1:
		m.contacts = 2 // the same roster comes back often
	}
	for _, user := range modelUsers {
		m.lists[user] = make(map[string]listed)
		for range m.contacts - 1 {
			m.change(user)
		}
		for i := range 3 {
			m.clients = append(m.clients, &modelClient{m: m, full: mustJID(t, fmt.Sprintf("%s/%d", user, i)), versioned: m.rand.IntN(2) == 0})
		}
	}
	m.kept = newDisk()
	return m
}

func (m *model) FetchMany(ctx context.Context, rs []roster.Request, done func(int, roster.Fetched, error)) {
	var wait sync.WaitGroup
	for i, r := range rs {
		wait.Go(func() {
			f, err := m.Fetch(ctx, r)
			m.mu.Lock()
			if m.trouble && m.rand.IntN(3) == 0 {
				f, err = roster.Fetched{}, errors.New("partly down")
			}
			m.mu.Unlock()
			done(i, f, err)
		})
	}
	wait.Wait()
}

func (m *model) BatchSize(string) int { return m.batch }

func (m *model) logf(format string, args ...any) {
	m.log = append(m.log, fmt.Sprintf("%8.3f ", time.Since(m.began).Seconds())+fmt.Sprintf(format, args...))
}

// Write takes errors that are logged.
func (m *model) Write(line []byte) (int, error) {
	if strings.Contains(string(line), "err="+errAway.Error()) {
		return len(line), nil
	}
	m.t.Errorf("logged: %s", line)
	return len(line), nil
}

func (m *model) wrong(format string, args ...any) {
	m.logf("WRONG "+format, args...)
	m.t.Errorf(format, args...)
}

// step is the time that since and at count.
func (m *model) step() int { return int(time.Since(m.began).Microseconds()) }

// change changes one item of the backend's.
func (m *model) change(user string) {
	contact, name := string(rune('a'+m.rand.IntN(m.contacts)))+"@example.net", string(rune('A'+m.rand.IntN(2)))
	list := m.lists[user]
	was, is := list[contact]
	if is && m.rand.IntN(2) == 0 {
		delete(list, contact)
	} else if is {
		list[contact] = listed{name, was.since}
	} else {
		list[contact] = listed{name, m.step()}
	}
	m.unsaid[user] = true
	m.logf("backend %s: %v", user, m.listed(user))
}

func (m *model) listed(user string) string {
	var all []string
	for contact, item := range m.lists[user] {
		all = append(all, contact[:1]+item.name)
	}
	sort.Strings(all)
	return strings.Join(all, " ")
}

func (c *modelClient) listed() string {
	var all []string
	for contact, item := range c.items {
		all = append(all, contact[:1]+item.name)
	}
	sort.Strings(all)
	return strings.Join(all, " ")
}

// Fetch is the backend's answer: what it lists at some moment of the fetch.
func (m *model) Fetch(ctx context.Context, r roster.Request) (roster.Fetched, error) {
	m.mu.Lock()
	first, second := time.Duration(0), time.Duration(0)
	if m.slow > 0 {
		first, second = time.Duration(m.rand.Int64N(int64(m.slow))), time.Duration(m.rand.Int64N(int64(m.slow)))
	}
	m.mu.Unlock()
	wait := func(d time.Duration) {
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
	}
	wait(first)
	m.mu.Lock()
	broken := m.broken
	var list []roster.Item
	for contact, item := range m.lists[r.User.String()] {
		list = append(list, roster.Item{JID: mustJID(m.t, contact), Name: item.name, Subscription: roster.SubscriptionBoth})
	}
	now := roster.New(list)
	m.mu.Unlock()
	wait(second)
	if ctx.Err() != nil {
		return roster.Fetched{}, ctx.Err()
	}
	if broken {
		return roster.Fetched{}, errors.New("down")
	}
	if r.Validator == now.Version() {
		return roster.Fetched{Validator: r.Validator}, nil
	}
	return roster.Fetched{Roster: now, Validator: now.Version()}, nil
}

// modelPusher is the server as one process sees it.
type modelPusher struct {
	m *model
	p *process
}

func (p *modelPusher) Connected() bool {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	return p.m.stream != nil && p.m.process == p.p
}

func (p *modelPusher) Push(to []jid.JID, changes []roster.Change, settled func(roster.Outcome)) error {
	m := p.m
	m.mu.Lock()
	if m.stream == nil || !p.p.act(func() {}) {
		defer m.mu.Unlock()
		return errLost
	}
	s := m.stream
	var mu sync.Mutex
	left, owed := len(to)*len(changes)+1, make(map[jid.JID]struct{})
	o := roster.Outcome{}
	end := func(contact jid.JID, lost, ok bool) {
		mu.Lock()
		if lost || !ok {
			owed[contact] = struct{}{}
			o.Lost, o.Err = o.Lost || lost, errLost
		}
		left--
		last := left == 0
		mu.Unlock()
		if last {
			for contact := range owed {
				o.Owed = append(o.Owed, contact)
			}
			settled(o)
		}
	}
	var refused []jid.JID
	for _, change := range changes {
		for _, full := range to {
			c := m.client(full)
			if m.trouble && m.rand.IntN(12) == 0 {
				m.logf("  push to %s refused: %s %s %s", full, change.Action, change.Item.JID, change.Item.Name)
				refused = append(refused, change.Item.JID)
				continue
			}
			m.logf("  push to %s: %s %s %s ver=%s", full, change.Action, change.Item.JID, change.Item.Name, change.Version)
			s.put(&frame{client: c, life: c.life, sent: m.step(), change: change, end: func(lost, ok bool) { end(change.Item.JID, lost, ok) }})
		}
	}
	m.mu.Unlock()
	for _, contact := range refused {
		end(contact, false, false)
	}
	end(jid.JID{}, false, true)
	return nil
}

func (m *model) client(full jid.JID) *modelClient {
	for _, c := range m.clients {
		if c.full == full {
			return c
		}
	}
	panic(full.String())
}

// ask is the query of a client. m.mu is held, and given up meanwhile.
func (m *model) ask(c *modelClient) {
	p := m.process
	if m.stream == nil || p.dead() {
		c.wants = true
		return
	}
	c.wants, c.waits, c.asked, c.knew = false, true, true, c.asked
	var version *string
	if c.versioned {
		version = new(string)
		*version = c.version
	}
	m.logf("%s asks, has [%s] version %q", c.full, c.listed(), c.version)
	life := c.life
	m.mu.Unlock()
	reply := func(a roster.Answer) (rest []roster.Item) {
		m.mu.Lock()
		if !p.act(func() {}) {
			m.mu.Unlock()
			return nil
		}
		f := &frame{client: c, life: life, sent: m.step(), answer: &a}
		if a.Err != nil {
			f.sent -= int(time.Minute.Microseconds()) // it is older than that
		}
		if a.Roster != nil && !a.Same {
			f.items = a.Roster.Items()
			if m.fits > 0 && len(f.items) > m.fits {
				f.items, rest = f.items[:m.fits], f.items[m.fits:]
			}
		}
		m.logf("  reply to %s: %d items, same %v, err %v", c.full, len(f.items), a.Same, a.Err)
		f.end = func(lost, _ bool) {
			if lost {
				p.Undelivered(c.full)
			}
		}
		s := m.stream
		if s == nil || s.dead {
			m.mu.Unlock()
			p.Undelivered(c.full)
			return rest
		}
		s.put(f)
		m.mu.Unlock()
		return rest
	}
	err := p.Get(c.full, version, reply)
	m.mu.Lock()
	if err != nil {
		c.waits = false
		m.logf("  %v", err)
	}
}

// put queues a frame. m.mu is held.
func (s *modelStream) put(f *frame) {
	if s.dead {
		s.m.t.Error("put into a dead stream")
	}
	s.queue = append(s.queue, f)
	s.open[f] = true
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// pump delivers, one after the other.
func (s *modelStream) pump() {
	m := s.m
	for {
		m.mu.Lock()
		delay := time.Duration(m.rand.IntN(50)) * time.Millisecond
		if m.rand.IntN(20) == 0 {
			delay = 3 * time.Second
		}
		m.mu.Unlock()
		time.Sleep(delay)
		m.mu.Lock()
		if s.dead {
			m.mu.Unlock()
			return
		}
		if len(s.queue) == 0 {
			m.mu.Unlock()
			<-s.more
			continue
		}
		f := s.queue[0]
		s.queue = s.queue[1:]
		gone := !s.deliver(f)
		after := time.Duration(m.rand.IntN(100)) * time.Millisecond
		if m.rand.IntN(10) == 0 {
			after = time.Minute // nobody answers
		}
		p := m.process
		m.mu.Unlock()
		time.AfterFunc(after, func() {
			m.mu.Lock()
			if !s.open[f] {
				m.mu.Unlock()
				return // lost meanwhile
			}
			delete(s.open, f)
			forget := gone && f.answer == nil && (f.client.life == f.life && !f.client.online)
			if forget {
				m.sessions.Gone(f.client.full)
			}
			m.mu.Unlock()
			if forget {
				p.Gone(f.client.full)
			}
			f.end(false, true)
		})
	}
}

// deliver gives a frame to its client, if that is still there. m.mu is held.
func (s *modelStream) deliver(f *frame) bool {
	c, m := f.client, s.m
	if !c.online || c.life != f.life {
		return false
	}
	if !c.asked && f.answer == nil {
		return true // a client does not take pushes before it has asked
	}
	if a := f.answer; a != nil {
		c.waits, c.untold = false, c.untold && m.away // else the store may say otherwise
		if a.Roster == nil || a.Same {
			m.logf("    %s got an answer: same %v, err %v", c.full, a.Same, a.Err)
			return true
		}
		items := make(map[string]held)
		for _, item := range f.items {
			contact := item.JID.String()
			at := f.sent
			if had, ok := c.items[contact]; ok {
				at = had.at
			}
			items[contact] = held{item.Name, at}
		}
		if len(f.items) == a.Roster.Len() {
			for contact := range c.items {
				if _, ok := items[contact]; !ok {
					c.vanished(contact)
				}
			}
		}
		c.lacks, c.edited = c.items, false
		c.items, c.version = items, ""
		if a.Named {
			c.version = a.Version
			if n := a.Roster.Len() - len(f.items); n > 0 {
				c.version = roster.Partial(c.version, n)
			}
		}
		m.logf("    %s got an answer: [%s] version %q", c.full, c.listed(), c.version)
		return true
	}
	c.pushed = true
	contact := f.change.Item.JID.String()
	if f.change.Action == roster.Removed {
		c.vanished(contact)
		delete(c.items, contact)
	} else {
		at := f.sent
		if had, ok := c.items[contact]; ok {
			at = had.at
		} else if had, ok := c.lacks[contact]; ok {
			at = had.at
		}
		c.items[contact] = held{f.change.Item.Name, at}
	}
	if c.versioned {
		if f.change.Version != "" { // else a client has nothing new to remember
			c.version = f.change.Version
		}
	} else if f.change.Version != "" && !c.untold {
		m.wrong("%s got a version", c.full)
	}
	m.logf("    %s got a push: [%s] version %q", c.full, c.listed(), c.version)
	return true
}

// vanished is called when a client sees a contact no more.
func (c *modelClient) vanished(contact string) {
	had, ok := c.items[contact]
	if !ok {
		return
	}
	if item, ok := c.m.lists[c.full.Bare().String()][contact]; ok && item.since < had.at {
		c.m.wrong("%s saw %s vanish", c.full, contact)
	}
}

// cut ends the stream. Of what is under way, some arrives all the same, but
// nobody here hears of it. If the process lives, it hears that all is lost.
func (m *model) cut(alive bool) {
	s := m.stream
	if s == nil {
		return
	}
	m.stream = nil
	for n := m.rand.IntN(len(s.queue) + 1); n > 0; n-- {
		s.deliver(s.queue[0])
		s.queue = s.queue[1:]
	}
	s.dead = true
	select {
	case s.more <- struct{}{}:
	default:
	}
	open := s.open
	s.open, s.queue = make(map[*frame]bool), nil
	if !alive {
		return
	}
	m.logf("the stream is lost, with %d under way", len(open))
	late := time.Duration(m.rand.IntN(2)) * time.Duration(m.rand.IntN(2000)) * time.Millisecond
	go func() { // it is not heard of at once
		time.Sleep(late)
		for f := range open {
			f.end(true, false)
		}
	}()
}

func (m *model) connect() {
	if m.stream != nil {
		return
	}
	m.logf("connected")
	m.stream = &modelStream{m: m, open: make(map[*frame]bool), more: make(chan struct{}, 1)}
	go m.stream.pump()
	p := m.process
	m.mu.Unlock()
	for _, host := range modelHosts {
		p.Resume(host)
	}
	m.mu.Lock()
}

// begin starts a process. m.mu is held.
func (m *model) begin() {
	p := &process{left: -1, kept: m.kept}
	m.process, m.kept.act = p, p.act
	var err error
	m.mu.Unlock()
	defer m.mu.Lock()
	if m.sessions, err = session.Load(m.kept); err != nil {
		m.t.Fatal(err)
	}
	if p.Manager, err = NewManager(Options{
		Source: m, Editor: &modelEditor{m, p}, Sessions: m.sessions, Pusher: &modelPusher{m, p}, Store: m.kept,
		Logger: slog.New(slog.NewTextHandler(m, &slog.HandlerOptions{Level: slog.LevelError})), Rules: m.rules, Limits: Limits{Cache: m.cache, Background: m.places},
	}); err != nil {
		m.t.Fatal(err)
	}
}

// restart ends the process, if it is not dead yet, in order or not, and begins
// another one. m.mu is held.
func (m *model) restart(kill bool) {
	m.kills++
	p := m.process
	if kill {
		m.logf("killed")
		p.dies(0)
		m.cut(false)
		m.kept.flush(m.rand.IntN(40))
	} else {
		m.logf("stopped")
	}
	m.mu.Unlock()
	p.Close()
	time.Sleep(10 * time.Millisecond)
	m.mu.Lock()
	if !kill {
		m.cut(true)
		m.kept.flush(-1)
		p.dies(0)
	}
	old := m.kept
	p.effects.Lock()
	died := p.died
	p.effects.Unlock()
	ahead := []time.Duration{0, 0, time.Hour, -time.Hour}[m.rand.IntN(4)]
	m.logf("the next one's clock is ahead by %v", ahead)
	m.kept = old.next(died, ahead)
	for _, c := range m.clients {
		c.untold = c.untold || !old.toldOf(c.full)
		if c.waits && !old.knowsOf(c.full) { // nobody knows that it asked
			c.waits, c.wants, c.asked = false, c.online, c.knew || c.pushed
		}
	}
	m.begin()
}

func (m *model) login(c *modelClient) {
	c.online, c.waits, c.asked, c.pushed = true, false, false, false
	c.life++
	if !c.versioned || c.version == "" || c.edited { // who edits and leaves may miss the correction
		c.edited = false
		c.items, c.version = make(map[string]held), ""
	}
	m.ask(c)
}

// logout ends a session. What the server does not report is found later.
func (m *model) logout(c *modelClient) {
	m.logf("%s logs out", c.full)
	c.online, c.wants, c.waits = false, false, false
	if m.stream == nil || m.process.dead() || m.rand.IntN(4) == 0 {
		return
	}
	m.sessions.Gone(c.full)
	p := m.process
	m.mu.Unlock()
	p.Gone(c.full)
	m.mu.Lock()
}

func (m *model) refresh(user string) {
	p := m.process
	was := m.unsaid[user]
	m.unsaid[user] = false
	m.logf("refresh of %s", user)
	m.calls[p]++
	go func() {
		failed, err := p.Refresh(m.t.Context(), []jid.JID{mustJID(m.t, user)})
		m.mu.Lock()
		defer m.mu.Unlock()
		m.calls[p]--
		m.logf("refresh of %s: %v %v", user, failed, err)
		if p.dead() || errors.Is(err, roster.ErrStopping) {
			m.unsaid[user] = m.unsaid[user] || was // who asked for it heard no answer
		}
	}()
}

// edit is a client that shows a change of its own before it was answered, and keeps
// it though it is refused. A set that does not reach rosterd, or is lost with it, is
// an error of the server's, and that client's affair. m.mu is held, and given up
// meanwhile.
func (m *model) edit(c *modelClient) {
	p := m.process
	if !c.online || !c.asked || c.waits || m.stream == nil || p.mortal() || m.kept.isSlow() {
		return
	}
	contact := string(rune('a'+m.rand.IntN(m.contacts+1))) + "@example.net"
	if had, has := c.items[contact]; has && m.rand.IntN(2) == 0 {
		delete(c.items, contact)
	} else {
		c.items[contact] = held{"mine", had.at} // 0: from nobody, hence it may vanish
	}
	c.edited = true
	m.logf("%s shows [%s] after an edit that is refused", c.full, c.listed())
	m.mu.Unlock()
	p.Refused(c.full, []jid.JID{mustJID(m.t, contact)})
	synctest.Wait() // a kill before it was noted is as if the set had not come
	m.mu.Lock()
}

// change asks the backend for a change of the user's contacts. Nobody reports what becomes of
// it. m.mu is held, and given up meanwhile.
func (c *modelClient) change() {
	m, p := c.m, c.m.process
	if !c.online || m.stream == nil || p.dead() {
		return
	}
	contact, name := string(rune('a'+m.rand.IntN(m.contacts)))+"@example.net", string(rune('A'+m.rand.IntN(2)))
	e := roster.Edit{Contact: roster.Item{JID: mustJID(m.t, contact), Name: name}, Remove: m.rand.IntN(3) == 0, Confirm: m.rand.IntN(2) == 0}
	m.mu.Unlock()
	_ = p.Edit(c.full, e, func(error) {})
	m.mu.Lock()
}

// modelEditor is the backend as a process sees it: it does what it is told, or says so, or both.
type modelEditor struct {
	m *model
	p *process
}

func (e *modelEditor) Edit(ctx context.Context, user jid.JID, c roster.Change) (err error) {
	m := e.m
	m.mu.Lock()
	wait, does := time.Duration(m.rand.Int64N(int64(m.slow)+1)), m.rand.IntN(6)
	m.mu.Unlock()
	select {
	case <-time.After(wait):
	case <-ctx.Done():
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case does == 0:
		return &roster.NotAllowedError{}
	case m.broken || does == 1 || ctx.Err() != nil:
		err = errors.New("down")
	}
	if does >= 3 && e.p.lives() {
		list, contact := m.lists[user.String()], c.Item.JID.String()
		was, is := list[contact]
		switch {
		case c.Action == roster.Removed:
			delete(list, contact)
		case is:
			list[contact] = listed{c.Item.Name, was.since}
		default:
			list[contact] = listed{c.Item.Name, m.step()}
		}
		m.logf("%s changed %s: %v, and said %v", user, contact, m.listed(user.String()), err)
	}
	return err
}

// do does one thing.
func (m *model) do() {
	c := m.clients[m.rand.IntN(len(m.clients))]
	user := modelUsers[m.rand.IntN(len(modelUsers))]
	switch n := m.rand.IntN(100); {
	case m.process.dead():
		m.restart(true)
	case n < 25:
		m.change(user)
		if m.rand.IntN(5) > 0 {
			m.refresh(user)
		}
	case n < 30:
		m.refresh(user)
	case n < 50:
		if c.online {
			m.logout(c)
			if m.rand.IntN(2) == 0 {
				m.login(c)
			}
		} else {
			m.login(c)
		}
	case n < 55:
		if c.online {
			m.ask(c)
		}
	case n < 57:
		m.edit(c)
	case n < 60:
		c.change()
	case n < 64:
		m.broken = !m.broken
		m.logf("backend broken: %v", m.broken)
	case n < 68:
		m.slow = time.Duration(m.rand.IntN(4)) * 10 * time.Second
		m.logf("backend takes up to %v", 2*m.slow)
	case n < 76:
		m.cut(true)
	case n < 86:
		m.connect()
	case n < 90:
		m.trouble = !m.trouble
		m.logf("pushes refused: %v", m.trouble)
	case n < 92:
		m.mend()
		m.restart(false)
	case n < 94:
		m.mend()
		m.restart(true)
	case n < 96:
		effects := m.rand.IntN(8)
		m.mend()
		m.process.dies(effects)
		m.logf("killed after %d effects", effects)
	case n < 97:
		m.kept.flush(-1)
	default:
		m.more(c, user)
	}
}

var errAway = errors.New("away")

// mend lets the store be written and read, so that a kill does not lose what was told
// without it.
func (m *model) mend() {
	m.kept.set(false, m.kept.slow)
	if m.away {
		m.logf("the store can be read")
		m.kept.lose(nil)
		m.connect()
		m.mu.Unlock()
		time.Sleep(10 * time.Minute) // it is tried every 30 s, when nothing is under way
		synctest.Wait()
		m.mu.Lock()
		m.away = false
	}
}

// more does one thing more.
func (m *model) more(c *modelClient, user string) {
	switch m.rand.IntN(8) {
	case 0:
		for contact := range m.lists[user] {
			if m.rand.IntN(5) > 0 {
				delete(m.lists[user], contact)
			}
		}
		m.unsaid[user] = true
		m.logf("backend %s: %v", user, m.listed(user))
		m.refresh(user)
	case 1:
		m.kept.set(false, time.Duration(m.rand.IntN(5))*time.Second)
	case 2:
		m.kept.set(false, 0)
	case 3:
		if !m.process.mortal() {
			m.kept.set(true, 0) // until the next step that may kill
		}
	case 4:
		p := m.process
		m.mu.Unlock()
		p.Known(c.full.Bare())
		p.Want(c.full.Bare())
		m.mu.Lock()
	case 5:
		if p := m.process; c.online && c.asked && !c.waits {
			m.logf("%s did not ask, as it seems", c.full)
			m.mu.Unlock()
			p.Unasked(c.full)
			m.mu.Lock()
		}
	case 6:
		for range 20 {
			m.refresh(user)
		}
	case 7:
		if !m.process.mortal() {
			m.logf("the store cannot be read")
			m.away = true
			for _, c := range m.clients {
				c.untold = true
			}
			m.kept.lose(errAway)
		}
	}
}

func (m *model) run() {
	m.mu.Lock()
	m.begin()
	m.connect()
	defer func() {
		if m.t.Failed() || *modelSeed > 0 {
			m.t.Log("\n" + strings.Join(m.log, "\n"))
		}
	}()
	m.logf("%+v, %d items in an answer, cache %d", m.rules, m.fits, m.cache)
	for range 120 {
		m.do()
		pause := time.Duration(m.rand.IntN(300)) * time.Millisecond
		switch m.rand.IntN(20) {
		case 0:
			pause = time.Duration(m.rand.IntN(900)) * time.Second
		case 1, 2, 3:
			pause = 0
		}
		m.mu.Unlock()
		if pause > 0 {
			time.Sleep(pause)
		}
		synctest.Wait()
		m.mu.Lock()
	}
	m.logf("all faults end")
	m.mend()
	if m.process.mortal() {
		m.restart(true)
	}
	m.broken, m.slow, m.trouble = false, 0, false
	m.kept.set(false, 0)
	if m.rand.IntN(2) == 0 { // with what they were told last, be it corrected or not
		for _, c := range m.clients {
			if c.online && m.rand.IntN(2) == 0 {
				m.logout(c)
			}
		}
	}
	m.connect()
	m.settle()
	m.check("when all was quiet")
	if n := m.calls[m.process]; n != 0 {
		m.wrong("%d refreshes are not answered", n)
	}
	for _, c := range m.clients {
		if c.online {
			m.logout(c)
		}
	}
	m.settle()
	for range 2 { // each finds what others have left
		for _, c := range m.clients {
			m.login(c)
			m.mu.Unlock()
			time.Sleep(time.Minute)
			m.mu.Lock()
		}
		m.settle()
		m.check("after a new login")
	}
	for _, c := range m.clients {
		m.sessions.Gone(c.full)
		m.mu.Unlock()
		m.process.Gone(c.full)
		m.mu.Lock()
	}
	m.settle()
	p := m.process
	p.mu.Lock()
	if len(p.users) != p.cache.list.Len() || p.waiting.Load() != 0 || p.active.Load() != 0 || p.queue.free != p.Limits.Background || len(p.queue.entries) != 0 {
		m.wrong("%d users, %d queries, %d loops, %d places, %d tries left", len(p.users), p.waiting.Load(), p.active.Load(), p.queue.free, len(p.queue.entries))
	}
	p.mu.Unlock()
	if c := p.Counts(); c.Marked != 0 || c.Resync != 0 {
		m.wrong("%+v", c)
	}
	m.cut(true)
	m.mu.Unlock()
	p.Close()
	time.Sleep(5 * time.Minute) // what is left of the streams
}

// settle waits until all is quiet. m.mu is held, and given up meanwhile.
func (m *model) settle() {
	for range 2 {
		for user, unsaid := range m.unsaid {
			if unsaid {
				m.refresh(user)
			}
		}
		for _, c := range m.clients {
			if c.online && c.wants {
				m.ask(c)
			}
		}
		m.mu.Unlock()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		m.mu.Lock()
	}
}

func (m *model) check(when string) {
	for _, c := range m.clients {
		if c.online && c.listed() != m.listed(c.full.Bare().String()) {
			m.wrong("%s %s has [%s], the backend has [%s]", when, c.full, c.listed(), m.listed(c.full.Bare().String()))
		}
	}
}
