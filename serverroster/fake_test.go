package serverroster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rosterd/internal/bubble"
	"rosterd/internal/locked"
	"rosterd/jid"
	"rosterd/metrics"
	"rosterd/roster"
	"rosterd/store"
)

func mustJID(s string) jid.JID {
	j, err := jid.Parse(s)
	if err != nil {
		panic(s + ": " + err.Error())
	}
	return j
}

var juliet, romeo, nurse = mustJID("juliet@example.org"), mustJID("romeo@example.org"), mustJID("nurse@example.org")

// contacts makes a roster from lines like "romeo@example.org both Romeo Friends,Work".
func contacts(lines ...string) *roster.Roster {
	var items []roster.Item
	for _, line := range lines {
		f := strings.Fields(line)
		item := roster.Item{JID: mustJID(f[0]), Subscription: roster.SubscriptionBoth}
		if len(f) > 1 {
			item.Subscription = roster.Subscription(f[1])
		}
		if len(f) > 2 {
			item.Name = f[2]
		}
		if len(f) > 3 {
			item.Groups = strings.Split(f[3], ",")
		}
		items = append(items, item)
	}
	return roster.New(items)
}

// many is a roster of n contacts.
func many(n int) *roster.Roster {
	var lines []string
	for i := range n {
		lines = append(lines, fmt.Sprintf("contact%d@example.net both Contact%d", i, i))
	}
	return contacts(lines...)
}

// fakeServer has rosters of its own, and is a Way to them.
type fakeServer struct {
	mu       sync.Mutex
	rosters  map[jid.JID]map[jid.JID]roster.Item
	gone     bool // the stream is
	none     map[jid.JID]bool
	each     time.Duration                         // an item takes so long, and a get
	grows    time.Duration                         // an item takes longer by that for each that is there
	prepare  func(jid.JID) jid.JID                 // how the server writes an address; nil: as it is
	store    func(roster.Item) roster.Item         // what it makes of an item; nil: what it is
	shared   *roster.Roster                        // contacts whom it adds to every roster by itself; nil: nobody
	refuses  map[jid.JID]bool                      // contacts
	faults   map[jid.JID]int                       // how often it has one with a contact yet
	fails    func(user jid.JID, item string) error // item "": a get
	lies     bool                                  // it confirms and does nothing
	swallows bool                                  // it does not even confirm
	silent   bool                                  // it does not answer
	onSet    func(user jid.JID)                    // before an item is written
	gets     int
	removals int
	refusals int
	sets     int // items, without removals
	portions []portion
	order    []string // what was done to whom
}

// portion is a call of Set.
type portion struct {
	user  jid.JID
	items int
	at    time.Time
	took  time.Duration
}

func newFakeServer() *fakeServer {
	return &fakeServer{rosters: make(map[jid.JID]map[jid.JID]roster.Item), none: make(map[jid.JID]bool), refuses: make(map[jid.JID]bool), faults: make(map[jid.JID]int)}
}

var errStream = errors.New("the stream is lost")

func (s *fakeServer) has(user jid.JID) *roster.Roster {
	s.mu.Lock()
	defer s.mu.Unlock()
	return roster.New(slices.Collect(maps.Values(s.rosters[user])))
}

// put gives the server a roster for a user, as if they had edited it.
func (s *fakeServer) put(user jid.JID, r *roster.Roster) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rosters[user] = make(map[jid.JID]roster.Item)
	for _, item := range r.Items() {
		s.rosters[user][item.JID] = item
	}
}

// do changes the server while nothing else does.
func (s *fakeServer) do(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *fakeServer) written() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sets + s.removals
}

// asked is how often the server was asked for a roster.
func (s *fakeServer) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gets
}

func (s *fakeServer) wait(ctx context.Context, d time.Duration) error {
	s.mu.Lock()
	silent := s.silent
	s.mu.Unlock()
	if silent {
		<-ctx.Done()
		return ctx.Err()
	}
	if d > 0 {
		select {
		case <-time.After(d):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (s *fakeServer) Get(ctx context.Context, user jid.JID) (*roster.Roster, error) {
	if err := s.wait(ctx, s.each); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gets++
	s.order = append(s.order, "get "+user.String())
	if s.gone {
		return nil, errStream
	}
	if s.fails != nil {
		if err := s.fails(user, ""); err != nil {
			return nil, err
		}
	}
	items := maps.Clone(s.rosters[user])
	if s.shared != nil {
		if items == nil {
			items = make(map[jid.JID]roster.Item)
		}
		for _, item := range s.shared.Items() {
			if own, there := items[item.JID]; there {
				item.Name, item.Groups = own.Name, append(item.Groups, own.Groups...)
			}
			items[item.JID] = item
		}
	}
	return roster.New(slices.Collect(maps.Values(items))), nil
}

func (s *fakeServer) Set(ctx context.Context, user jid.JID, changes []roster.Change, written func(roster.Change)) error {
	began := time.Now()
	var refused *RefusedError
	for _, c := range changes {
		if err := s.wait(ctx, s.each+s.grows*time.Duration(s.has(user).Len())); err != nil {
			return err
		}
		var refusal *RefusedError
		if err := s.set(ctx, user, c); errors.As(err, &refusal) {
			if refused == nil {
				refused = &RefusedError{Why: "not-acceptable"}
			}
			refused.Faulty = refused.Faulty || refusal.Faulty
			refused.Contacts = append(refused.Contacts, c.Item.JID)
			continue
		} else if err != nil {
			return err
		}
		if !s.swallows {
			written(c)
		}
	}
	s.mu.Lock()
	s.portions = append(s.portions, portion{user, len(changes), began, time.Since(began)})
	s.mu.Unlock()
	if refused != nil {
		return refused
	}
	return nil
}

func (s *fakeServer) set(ctx context.Context, user jid.JID, c roster.Change) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.onSet != nil {
		s.onSet(user)
	}
	switch {
	case ctx.Err() != nil: // who wrote was killed
		return ctx.Err()
	case s.gone:
		return errStream
	case s.none[user]:
		return ErrNoAccount
	case s.faults[c.Item.JID] > 0:
		s.faults[c.Item.JID]--
		return &RefusedError{Faulty: true}
	case s.refuses[c.Item.JID]:
		s.refusals++
		return &RefusedError{}
	}
	if s.fails != nil {
		if err := s.fails(user, c.Item.JID.String()); err != nil {
			return err
		}
	}
	s.order = append(s.order, string(c.Action)+" "+user.String())
	contact, item := c.Item.JID, c.Item
	if s.prepare != nil {
		contact = s.prepare(contact)
	}
	if item.JID = contact; s.store != nil {
		item = s.store(item)
	}
	if s.rosters[user] == nil {
		s.rosters[user] = make(map[jid.JID]roster.Item)
	}
	switch {
	case c.Action == roster.Removed:
		if s.removals++; !s.lies && !s.swallows {
			delete(s.rosters[user], contact)
		}
	default:
		if s.sets++; !s.lies && !s.swallows {
			s.rosters[user][contact] = item
		}
	}
	return nil
}

// fakeRosters are the last known rosters.
type fakeRosters struct {
	mu      sync.Mutex
	known   map[jid.JID]*roster.Roster
	doubt   map[jid.JID]bool // they do not replace what is not known
	asked   int              // whether they do
	telling map[jid.JID]bool // clients are being told something
	old     bool             // what is known was not fetched since the start
	locked  int              // locks that were not given back
	asks    int              // for locks
}

func (r *fakeRosters) Believes(user jid.JID, has *roster.Roster) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	return !r.doubt[user]
}

func (r *fakeRosters) Known(user jid.JID) (*roster.Roster, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known, ok := r.known[user]
	return known, ok
}

func (r *fakeRosters) Confirmed(jid.JID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.old
}

func (r *fakeRosters) LockPushes(user jid.JID) (unlock func(), ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asks++; r.asks > 10_000 {
		r.telling = nil // it would be asked for ever
	}
	if r.telling[user] {
		return nil, false
	}
	r.locked++
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.locked--
	}, true
}

// fakeWatcher notes what it is told.
type fakeWatcher struct {
	t       *testing.T
	rosters *fakeRosters
	mu      sync.Mutex
	knows   map[jid.JID]map[jid.JID]roster.Subscription // what the server has, since the keeper was started
	inStep  map[jid.JID]int                             // with the last known roster
	direct  bool                                        // an exchange was said
	lost    []string
	act     func(user jid.JID) // when they are in step; nil: nothing
}

func (w *fakeWatcher) Written(user jid.JID, c roster.SubscriptionChange, exchanges bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.direct = w.direct || exchanges
	has := w.knows[user]
	if has == nil {
		w.t.Errorf("%s was written for %s before it was told what the server has", c.JID, user)
		return
	}
	if has[c.JID] != c.Before {
		w.t.Errorf("%s was %q for %s, and not %q", c.JID, has[c.JID], user, c.Before)
	}
	has[c.JID] = c.After
}

func (w *fakeWatcher) InStep(user jid.JID, now *roster.Roster) {
	want, _ := w.rosters.Known(user)
	inStep := len(difference(now, want)) == 0
	if inStep && w.act != nil {
		w.act(user)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	has := make(map[jid.JID]roster.Subscription)
	for _, item := range now.Items() {
		has[item.JID] = item.Subscription
	}
	w.knows[user] = has
	if inStep {
		w.inStep[user]++
	}
}

func (w *fakeWatcher) Lost(host string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lost = append(w.lost, host)
}

func (w *fakeWatcher) told(user jid.JID) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.inStep[user]
}

// stored is a store with users.
type stored interface {
	Store
	PutUser(u store.User, withRoster bool, done func())
	DeleteUser(user string)
	Close() error
}

// memory is a store of which a kill loses what nobody waited for.
type memory struct {
	*store.Clock
	mu        sync.Mutex
	now, kept tables
}

type tables struct {
	users map[string]string // versions
	rows  map[string]store.ServerRoster
}

func (t tables) clone() tables { return tables{maps.Clone(t.users), maps.Clone(t.rows)} }

func newMemory(t tables) *memory {
	return &memory{Clock: store.NewClock(time.Time{}, time.Now), now: t.clone(), kept: t.clone()}
}

func (m *memory) do(f func(), done func()) {
	m.mu.Lock()
	if f(); done != nil {
		m.kept = m.now.clone()
	}
	m.mu.Unlock()
	if done != nil {
		done()
	}
}

func (m *memory) ServerRoster(user string) (store.ServerRoster, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now.rows[user], nil
}

func (m *memory) PutServerRoster(r store.ServerRoster, done func()) {
	m.do(func() { m.now.rows[r.JID] = r }, done)
}

func (m *memory) PutUser(u store.User, _ bool, done func()) {
	m.do(func() { m.now.users[u.JID] = u.Version }, done)
}

func (m *memory) DeleteUser(user string) {
	m.do(func() { delete(m.now.users, user); delete(m.now.rows, user) }, nil)
}

func (m *memory) Sync(done func()) { m.do(func() {}, done) }

func (m *memory) Close() error {
	m.Sync(func() {})
	return nil
}

func (m *memory) ServerRostersBehind(checked time.Time, after string, limit int) (users []string, next string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := slices.Sorted(maps.Keys(m.kept.users))
	n, _ := slices.BinarySearch(all, after+"\x00")
	for _, user := range all[n:min(n+limit, len(all))] {
		next = user
		if row, ok := m.kept.rows[user]; !ok || row.Writing || row.Version != m.kept.users[user] || row.Checked.Before(checked) {
			users = append(users, user)
		}
	}
	if n+limit > len(all) {
		next = ""
	}
	return users, next, nil
}

// world is a keeper with all that it works with.
type world struct {
	t       *testing.T
	path    string // "": it is in memory
	server  *fakeServer
	rosters *fakeRosters
	watcher *fakeWatcher
	store   stored
	keeper  *Keeper
	name    string // of the way; "": there is none
	rate    int
	broken  []string
	pushed  *pushed
	way     Way                // nil: server
	online  func(jid.JID) bool // see Options
	log     *locked.Buffer
}

// onDisk runs a test in a bubble, with a store on the disk, and in memory. The keeper is
// resumed.
func onDisk(t *testing.T, f func(w *world)) {
	t.Run("disk", func(t *testing.T) { inBubble(t, filepath.Join(t.TempDir(), "rosterd.db"), f) })
	t.Run("memory", func(t *testing.T) { test(t, f) })
}

// test is that in memory alone, for what takes days.
func test(t *testing.T, f func(w *world)) { inBubble(t, "", f) }

func inBubble(t *testing.T, path string, f func(w *world)) {
	bubble.Test(t, func(t *testing.T) {
		w := &world{t: t, path: path, server: newFakeServer(), rosters: &fakeRosters{known: make(map[jid.JID]*roster.Roster)},
			name: "privilege", rate: 1000, pushed: &pushed{}, log: &locked.Buffer{}}
		w.watcher = &fakeWatcher{t: t, rosters: w.rosters, inStep: make(map[jid.JID]int)}
		w.open()
		defer func() { w.close() }()
		w.keeper.Resume("example.org")
		f(w)
	})
}

func (w *world) open() {
	if before, is := w.store.(*memory); is {
		w.store = newMemory(before.kept)
	} else if w.path == "" {
		w.store = newMemory(tables{make(map[string]string), make(map[string]store.ServerRoster)})
	} else {
		var err error
		if w.store, err = store.Open(w.path, store.Options{Logger: slog.New(slog.NewTextHandler(w.t.Output(), nil))}); err != nil {
			w.t.Fatal(err)
		}
	}
	w.start(w.store)
}

// start starts a keeper.
func (w *world) start(s Store) {
	w.watcher.mu.Lock()
	w.watcher.knows = make(map[jid.JID]map[jid.JID]roster.Subscription)
	w.watcher.mu.Unlock()
	m := metrics.New(prometheus.NewRegistry())
	w.keeper = New(Options{
		Ways: func(string) (Way, string) {
			w.server.mu.Lock()
			defer w.server.mu.Unlock()
			if w.name == "" || w.server.gone {
				return nil, ""
			}
			if w.way != nil {
				return w.way, w.name
			}
			return w.server, w.name
		},
		Rosters: w.rosters, Store: s, Watcher: w.watcher, Broken: func(_, why string) { w.broken = append(w.broken, why) }, Rate: w.rate,
		Pushed: w.pushed.note, Online: func(user jid.JID) bool { return w.online != nil && w.online(user) },
		Logger:  slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelInfo})),
		Metrics: Metrics{Items: m.ServerRosterItems, Waiting: m.ServerRosterWaiting, Seconds: m.ServerRosterSeconds},
	})
}

func (w *world) close() {
	w.keeper.Close()
	if err := w.store.Close(); err != nil {
		w.t.Error(err)
	}
}

// again restarts rosterd.
func (w *world) again() {
	w.close()
	w.open()
	w.keeper.Resume("example.org")
}

// kill kills rosterd and starts it again: what nobody waited for is lost.
func (w *world) kill() {
	w.keeper.endCalls()
	synctest.Wait()
	keeper, before := w.keeper, w.store
	if w.path != "" {
		path := w.path + "+"
		for _, suffix := range []string{"", "-wal"} {
			data, err := os.ReadFile(w.path + suffix)
			if err == nil {
				err = os.WriteFile(path+suffix, data, 0o600)
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				w.t.Fatal(err)
			}
		}
		w.path = path
	}
	w.open()
	keeper.Close()
	if err := before.Close(); err != nil {
		w.t.Error(err)
	}
	w.keeper.Resume("example.org")
}

// know says what the last known roster of a user is.
func (w *world) know(user jid.JID, r *roster.Roster) {
	kept := make(chan struct{})
	w.put(user, r, func() { close(kept) })
	<-kept
}

func (w *world) put(user jid.JID, r *roster.Roster, done func()) {
	w.rosters.mu.Lock()
	w.rosters.known[user] = r
	w.rosters.mu.Unlock()
	w.store.PutUser(store.User{JID: user.String(), Version: r.Version(), Items: r.Len(), Roster: r.Packed()}, true, done)
}

// keep is know and Keep, without a query.
func (w *world) keep(user jid.JID, r *roster.Roster) {
	w.know(user, r)
	w.keeper.Keep(user, nil)
}

// query is know and Keep; it returns after how long the query could be answered.
func (w *world) query(user jid.JID, r *roster.Roster) time.Duration {
	w.know(user, r)
	return w.ask(user)
}

func (w *world) ask(user jid.JID) time.Duration {
	began, ready := time.Now(), make(chan struct{})
	w.keeper.Keep(user, func(inStep bool) {
		defer close(ready)
		known, ok := w.rosters.Known(user)
		if row, err := w.store.ServerRoster(user.String()); inStep && (!ok || err != nil || row.Writing || row.Version != known.Version()) {
			w.t.Errorf("%s is said to be in step, and is not: %v", user, err)
		}
	})
	<-ready
	return time.Since(began)
}

// settle waits until nothing is to be done.
func (w *world) settle() {
	w.t.Helper()
	for range 100_000 {
		synctest.Wait()
		idle := true
		for _, s := range w.keeper.Status() {
			idle = idle && s.Waiting == 0 && !s.Looking
		}
		if idle {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	w.t.Fatalf("it does not come to an end: %+v", w.keeper.Status())
}

// equal wants the server to have a roster.
func (w *world) equal(user jid.JID, want *roster.Roster) {
	w.t.Helper()
	if has := w.server.has(user); !has.Equal(want) {
		w.t.Fatalf("the server has for %s %s\nwant %s", user, has.XML(), want.XML())
	}
}

// quiet wants nothing to be written or asked by f.
func (w *world) quiet(f func()) {
	w.t.Helper()
	before := w.server.written()
	f()
	w.settle()
	if now := w.server.written(); now != before {
		w.t.Fatalf("%d items were written, want none", now-before)
	}
}

func (w *world) status() Status {
	w.t.Helper()
	all := w.keeper.Status()
	if len(all) != 1 {
		w.t.Fatalf("the status of %d hosts", len(all))
	}
	return all[0]
}

// sleep lets time pass, and what follows from it happen.
func (w *world) sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
