package serverroster

import (
	"container/list"
	"context"
	"errors"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rosterd/jid"
	"rosterd/roster"
	"rosterd/store"
)

const (
	// fewItems is how many items may differ when a query waits until they are written, and
	// queryWaits for how long.
	fewItems   = 20
	queryWaits = 3 * time.Second
	// slowCall is how long a call takes at least of a server that is too slow to wait for.
	slowCall = time.Second
	// maxOwed is how long the server may be owed a rest for what queries wait for. Beyond,
	// no query waits behind others: it is answered first.
	maxOwed = 3 * time.Second
	// maxWaiting bounds the queries of a host that wait: one more is not let wait, as it
	// would do so in vain.
	maxWaiting = 256

	checkEvery   = 24 * time.Hour // the server is asked for what it has
	sweepEvery   = time.Hour
	owedAfter    = 2 * time.Second // what clients are being told is looked at again, until that is kept
	yieldsFor    = 5 * time.Second // at most, what is not to be written while clients are told
	chunk        = 500             // users that are looked up in the store at a time
	turnTakes    = 5 * time.Second // then another's turn has come who does not wait for an import
	callTakes    = 30 * time.Second
	closeTakes   = 500 * time.Millisecond // for what is under way
	minBackoff   = time.Second
	maxBackoff   = 5 * time.Minute
	failuresInA  = 3 // row, of different users, may be the way's and not theirs
	reportsEvery = time.Minute
	busyOver     = 30 * time.Second // the share of the server's time is about that of so long
)

// Store keeps what was written. Its methods do not wait for the disk, but ServerRoster and
// ServerRostersBehind, and those with done, which may write by themselves.
type Store interface {
	ServerRoster(user string) (store.ServerRoster, error)
	// PutServerRoster calls done, unless it is nil, when a kill cannot lose what was put,
	// or when it could not be written: from any goroutine, or before it returns.
	PutServerRoster(r store.ServerRoster, done func())
	// ServerRostersBehind are the users, of the first limit behind one, whose server roster
	// may not be in step or was checked before a time, and behind whom to go on; "": no one.
	ServerRostersBehind(checkedBefore time.Time, after string, limit int) (users []string, next string, err error)
	Sync(done func())
	// Now is the time by which all is stamped that is put, and what is compared with that: later
	// than any stamp of an earlier process.
	Now() time.Time
}

// Rosters has the last known rosters: users.Manager. Its methods may read the store.
type Rosters interface {
	Known(user jid.JID) (*roster.Roster, bool)
	// Believes reports whether the last known roster may replace what the server has of a
	// user, of which nothing was known. If not yet, [Keeper.Keep] is called when it may.
	Believes(user jid.JID, has *roster.Roster) bool
	// Confirmed reports whether the backend has said the last known roster to this process. If
	// not, [Keeper.Keep] is called when it has.
	Confirmed(user jid.JID) bool
	// LockPushes has a user's clients told of no change until unlock is called. It fails while
	// they are being told something; when that is over, [Keeper.Keep] is called.
	LockPushes(user jid.JID) (unlock func(), ok bool)
}

// Metrics are what a [Keeper] counts with.
type Metrics struct {
	Items   *prometheus.CounterVec // by result, one of Results
	Waiting prometheus.Gauge       // users who wait to be brought in step
	Seconds prometheus.Counter     // that the server took
}

// The results of [Metrics].Items.
const (
	resultWritten = "written"
	resultRemoved = "removed"
	resultRefused = "refused"
	resultFailed  = "failed"
)

// Results are all results of [Metrics].Items.
var Results = []string{resultWritten, resultRemoved, resultRefused, resultFailed}

// Options are what a [Keeper] works with. All but Watcher and Broken are required.
type Options struct {
	Hosts []string // prepared domains
	// Ways is how a host's rosters are reached at present, and by which name; nil: they
	// are not. It does not block. The way named "api" exchanges presence by itself, as
	// does one that says so: see [Watcher].
	Ways    func(host string) (way Way, name string)
	Rosters Rosters // what is changed there is in Store before [Keeper.Keep] is called
	Store   Store
	Watcher Watcher // nil: nobody
	// Broken is told of a way that says it does what it does not do. It is not used until
	// [Keeper.Resume]. Broken does not block; nil: nobody is told.
	Broken func(host, why string)
	// Pushed is told of contacts whose items the server has pushed to a user's clients by
	// itself, or may have, otherwise than they are. It does not block; nil: nobody is told.
	Pushed func(user jid.JID, contacts []jid.JID)
	// Online reports whether a contact's presence is to be asked for in the name of a user
	// who may see them from now on. It does not block; nil: never.
	Online  func(user jid.JID) bool
	Rate    int // users a second who are looked at in the background
	Logger  *slog.Logger
	Metrics Metrics
}

// Keeper keeps the server's own rosters in step with the last known ones. There is one
// worker for each host, which does one thing at a time. Together they take a fifth of the
// server's time at most: after each portion the server rests for four times as long, but for
// what queries wait for it does so afterwards. Queries go first, then those who have logged in
// or whose rosters have changed since the server had them, then all others. What waits is an
// address for each user. Its methods are safe for concurrent use, and do not block, but for
// [Keeper.Close]; Keep reads the store.
//
// The store has what a server's roster is after each turn of a user. Before anything is
// written, it has that: after a kill, the server is asked what it has.
type Keeper struct {
	Options
	calls    context.Context // of ways; ends soon after stopping does
	endCalls context.CancelFunc
	stopping context.Context
	stop     context.CancelFunc
	workers  sync.WaitGroup
	kept     sync.Map // by host: its rosters are kept

	mu      sync.Mutex // guards all below, and of each host and job what says so
	hosts   map[string]*host
	allowed time.Time // when the next user may be looked at in the background
}

// host is what is known of a host, and who waits there.
type host struct {
	name string
	wake chan struct{} // capacity 1: something is to be done

	// Touched by the worker alone.
	reported   time.Time // when progress was logged
	reporting  bool
	portion    int // items that were, or are next, written together into a roster of portionFor
	portionFor int

	// Guarded by Keeper.mu.
	free       time.Time // when the server has rested as long as it is owed
	jobs       map[jid.JID]*job
	urgent     list.List // of *job: queries wait for them
	soon       list.List // who logged in, or has changed since the server had it
	background list.List
	failing    list.List // they failed before, and come last
	unseen     list.List // of unseen, behind soon: see [turn.wantPresence]
	toAsk      int       // contacts of unseen
	current    *job      // that the worker has
	scan       scan
	resumed    time.Time // what was checked before may have changed
	proven     bool      // the way does what it says, since then
	undone     int       // items that the way said to have written, and had not
	doubters   int       // users of those
	broken     string    // why the way is not used
	failures   int       // in a row, of users
	failed     jid.JID   // the last of them
	good       jid.JID   // who was in step last; zero: nobody
	probe      bool      // it is to be found out by them whether the way fails
	down       bool      // it does: that was logged
	paused     time.Time // until when nothing is tried, for that
	slow       bool      // a query has waited in vain, and no call was quick since
	status     Status
	busyAt     time.Time // of status.Busy
}

// scan looks for users in the store: first for those who may not be in step, so that they
// need not wait for the others, then also for those who were not checked since a time.
type scan struct {
	on      bool
	all     bool // the second time
	after   string
	checked time.Time
	next    time.Time // when the next one is due
}

// job is that a user is to be looked at.
type job struct {
	user jid.JID

	// Guarded by Keeper.mu.
	in      *list.List // where it waits; nil: the worker has it, or a timer
	place   *list.Element
	waiters []*waiter
	soon    bool // it does not wait for an import
	again   bool // looked at again after this turn
	pushes  []*serverPush
	fails   int

	*progress // of the worker alone; nil: none yet
}

// progress is what turns of a job leave to the next one.
type progress struct {
	verify   bool      // what was written is to be seen
	rounds   int       // how often it was, and was not as written
	suspects []string  // differences that were there before something was written again
	wrote    bool      // something, since the server was asked last
	tried    bool      // to prove the way
	doubted  bool      // counted in doubters
	began    bool      // there was a turn
	owes     bool      // the clients are being told what is true
	yields   bool      // they are being told something: nothing is written until that is over
	faulty   bool      // what the server has a fault with is written again
	faults   int       // how often it was, or is
	late     time.Time // until then the server may do what it did not answer
	touched  map[jid.JID]touched
}

// waiter is a query that waits.
type waiter struct {
	once  sync.Once
	ready func(inStep bool)
	timer *time.Timer
}

// newWaiter makes one. If it waits in vain, so do the others of the host.
func (k *Keeper) newWaiter(h *host, ready func(inStep bool)) *waiter {
	w := &waiter{ready: ready}
	w.timer = time.AfterFunc(queryWaits, func() {
		if w.call(false) {
			k.mu.Lock()
			h.slow = true
			others := h.letGo()
			k.mu.Unlock()
			release(others, false)
		}
	})
	return w
}

func (w *waiter) release(inStep bool) {
	w.timer.Stop()
	w.call(inStep)
}

// call calls ready, and reports whether nobody did before.
func (w *waiter) call(inStep bool) (first bool) {
	w.once.Do(func() { first = true; w.ready(inStep) })
	return first
}

func release(waiters []*waiter, inStep bool) {
	for _, w := range waiters {
		w.release(inStep)
	}
}

// Status is how a host's rosters are doing. What it counts began with the process.
type Status struct {
	Host    string  `json:"host"`
	Waiting int     `json:"waiting"`             // users to be brought in step
	Looking bool    `json:"looking"`             // for more of them
	Written uint64  `json:"written"`             // items, without those that were removed
	Removed uint64  `json:"removed"`             // items
	InStep  uint64  `json:"in_step"`             // how often a user was found or brought in step
	Checked uint64  `json:"checked"`             // how often the server was asked for a user's roster
	Residue uint64  `json:"residue"`             // how often the server made something else of a user's items
	Busy    float64 `json:"busy"`                // the share of the server's time that this takes, at present
	Error   string  `json:"last_error,omitzero"` // if the last try failed
	Broken  string  `json:"broken,omitzero"`     // why the way is not used
}

// New makes a keeper. It has work from the first [Keeper.Resume] on, and [Keeper.Close] ends
// it.
func New(o Options) *Keeper {
	k := &Keeper{Options: o, hosts: make(map[string]*host)}
	k.calls, k.endCalls = context.WithCancel(context.Background())
	k.stopping, k.stop = context.WithCancel(context.Background())
	for _, host := range o.Hosts {
		k.kept.Store(host, true)
	}
	return k
}

// Keep says that a user's last known roster may have changed. If ready is not nil, a query
// waits: ready is called once, from any goroutine or before Keep returns. That is when the
// server's roster is in step, when more than 20 items differ, when what others wait for has
// taken too much of the server's time, when it fails, and after 3 s.
func (k *Keeper) Keep(user jid.JID, ready func(inStep bool)) {
	if waits, inStep := k.keep(user, ready); !waits && ready != nil {
		ready(inStep)
	}
}

// Keeps reports whether the rosters of a host's users are kept: also before there is a way,
// until [Keeper.None] says that there is none.
func (k *Keeper) Keeps(host string) bool {
	_, kept := k.kept.Load(host)
	return kept
}

// Pushes reports whether the server pushes to the clients of a host's users what is written.
func (k *Keeper) Pushes(host string) bool {
	_, name := k.Ways(host)
	return name == "api"
}

// None says that there is no way to a host's rosters. [Keeper.Resume] takes it back.
func (k *Keeper) None(host string) { k.kept.Delete(host) }

// keep reports whether ready is going to be called, if there is one, or else whether the
// server's roster is in step.
func (k *Keeper) keep(user jid.JID, ready func(inStep bool)) (waits, inStep bool) {
	if way, _ := k.Ways(user.Domain()); way == nil {
		return false, false // Resume finds them
	}
	want, known := k.Rosters.Known(user)
	if !known {
		return false, false
	}
	row, err := k.Store.ServerRoster(user.String())
	inStep = err == nil && row.Version == want.Version() && !row.Writing && row.Residue != noAccount
	now := time.Now()
	k.mu.Lock()
	h := k.host(user.Domain())
	if h == nil || h.broken != "" {
		k.mu.Unlock()
		return false, false
	}
	j := h.jobs[user]
	if inStep && j == nil && isCurrent(row, h.resumed, k.Store.Now()) { // as a rule
		k.mu.Unlock()
		k.tellInStep(user, row)
		return false, true
	}
	defer k.mu.Unlock()
	// What was in step most likely is: it is looked at, but nobody waits for that.
	waits = ready != nil && (!inStep || j != nil && j == h.current) && !h.slow && !now.Before(h.paused) &&
		h.free.Sub(now) <= maxOwed && h.urgent.Len() < maxWaiting && (row.JID != "" || want.Len() <= fewItems)
	if j == nil {
		j = k.add(h, user)
		h.put(j, &h.background)
	}
	j.again = j == h.current
	if ready != nil || row.JID != "" {
		if j.soon = true; j.in == &h.background || j.in == nil && j != h.current && j.fails == 0 {
			h.put(j, &h.soon)
		}
	}
	if waits {
		j.waiters = append(j.waiters, k.newWaiter(h, ready))
		if !j.again {
			h.put(j, &h.urgent)
		}
	}
	wake(h)
	return waits, inStep && row.JID != ""
}

// tellInStep tells the watcher what the server's roster is.
func (k *Keeper) tellInStep(user jid.JID, row store.ServerRoster) {
	if k.Watcher == nil {
		return
	}
	if has, err := roster.Unpack(row.Roster, row.Items, ""); err == nil {
		k.Watcher.InStep(user, has)
	}
}

// isCurrent reports whether the server need not be asked again what it has.
func isCurrent(row store.ServerRoster, resumed, now time.Time) bool {
	return row.JID != "" && !row.Writing && row.Residue != noAccount && !row.Checked.Before(resumed) && now.Sub(row.Checked) < checkEvery
}

// Resume says that there is a way to a host's rosters, on a new stream or to a server that
// was restarted: whoever may differ is brought in step, and then the server is asked for
// all others, too.
func (k *Keeper) Resume(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.host(name)
	if h == nil {
		return
	}
	k.kept.Store(name, true)
	now := k.Store.Now()
	h.resumed, h.paused, h.failures, h.probe = now, time.Time{}, 0, false
	h.proven, h.undone, h.doubters, h.broken = false, 0, 0, ""
	h.scan = scan{on: true, checked: now}
	for _, j := range h.jobs {
		if j.in == nil && j != h.current { // it failed
			h.put(j, &h.background)
		}
	}
	wake(h)
}

// Status is how the hosts' rosters are doing.
func (k *Keeper) Status() (all []Status) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(k.hosts)) {
		h := k.hosts[name]
		h.spend(0)
		s := h.status
		s.Host, s.Waiting, s.Looking, s.Broken = name, len(h.jobs), h.scan.on, h.broken
		all = append(all, s)
	}
	return all
}

// WhyBroken is why a host's way is not used though it says that it works; "": it is used. It
// does not block.
func (k *Keeper) WhyBroken(host string) (why string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if h := k.hosts[host]; h != nil {
		why = h.broken
	}
	return why
}

// busy is how many hosts have something to do. k.mu is held.
func (k *Keeper) busy() (n int) {
	for _, h := range k.hosts {
		if h.current != nil || h.urgent.Len() > 0 || h.soon.Len() > 0 || h.background.Len() > 0 || h.failing.Len() > 0 || h.unseen.Len() > 0 {
			n++
		}
	}
	return n
}

// spend counts time of the server's. k.mu is held.
func (h *host) spend(took time.Duration) {
	now := time.Now()
	h.status.Busy = h.status.Busy*math.Exp(-float64(now.Sub(h.busyAt))/float64(busyOver)) + float64(took)/float64(busyOver)
	h.busyAt = now
}

// owe lets the server rest for longer, and returns those who do not wait any more. k.mu is
// held.
func (h *host) owe(pause time.Duration) (released []*waiter) {
	now := time.Now()
	if h.free.Before(now) {
		h.free = now
	}
	if h.free = h.free.Add(pause); h.free.Sub(now) <= maxOwed {
		return nil
	}
	return h.letGo()
}

// Close waits for what is under way, which it ends after 0.5 s, and calls those who wait.
func (k *Keeper) Close() {
	k.mu.Lock()
	k.stop()
	k.mu.Unlock()
	defer time.AfterFunc(closeTakes, k.endCalls).Stop()
	k.workers.Wait()
	k.endCalls()
	k.mu.Lock()
	var waiting []*waiter
	var pushes []*serverPush
	for _, h := range k.hosts {
		for _, j := range h.jobs {
			waiting = append(waiting, j.waiters...)
		}
		pushes = append(pushes, h.takePushes()...)
	}
	k.mu.Unlock()
	release(waiting, false)
	failPushes(pushes)
}

// host is a host, whose worker runs; nil: the keeper is closed. k.mu is held.
func (k *Keeper) host(name string) *host {
	if k.stopping.Err() != nil {
		return nil
	}
	h := k.hosts[name]
	if h == nil {
		h = &host{name: name, wake: make(chan struct{}, 1), jobs: make(map[jid.JID]*job)}
		k.hosts[name] = h
		k.workers.Go(func() { k.work(h) })
	}
	return h
}

func wake(h *host) {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// add makes a job, which waits nowhere. k.mu is held.
func (k *Keeper) add(h *host, user jid.JID) *job {
	j := &job{user: user}
	h.jobs[user] = j
	k.Metrics.Waiting.Inc()
	return j
}

// drop forgets a job. k.mu is held.
func (k *Keeper) drop(h *host, j *job) {
	h.put(j, nil)
	delete(h.jobs, j.user)
	k.Metrics.Waiting.Dec()
}

// isPaused reports whether nothing is tried at present. k.mu is held.
func (h *host) isPaused() bool { return time.Now().Before(h.paused) }

// put lets a job wait at the end of a list, or nowhere. k.mu is held.
func (h *host) put(j *job, in *list.List) {
	if j.in != nil {
		j.in.Remove(j.place)
	}
	if j.in = in; in != nil {
		j.place = in.PushBack(j)
	}
}

// later lets a job wait for a time. k.mu is held.
func (k *Keeper) later(h *host, j *job, d time.Duration) {
	h.put(j, nil)
	time.AfterFunc(d, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if h.jobs[j.user] == j && j.in == nil && j != h.current {
			h.put(j, h.rest(j))
			wake(h)
		}
	})
}

// rest is where a job waits for which nobody does. k.mu is held.
func (h *host) rest(j *job) *list.List {
	switch {
	case j.fails > 0:
		return &h.failing
	case j.soon:
		return &h.soon
	}
	return &h.background
}

// work does what is to be done for a host, until the keeper is closed.
func (k *Keeper) work(h *host) {
	for k.stopping.Err() == nil {
		j, waiters, wait := k.next(h)
		switch {
		case j != nil:
			k.run(h, j, waiters)
		case wait == probeNow:
			k.findOut(h)
		case wait == askNow:
			k.askPresence(h)
		case wait == 0:
			k.search(h)
		default:
			timer := time.NewTimer(wait)
			select {
			case <-h.wake:
			case <-timer.C:
			case <-k.stopping.Done():
			}
			timer.Stop()
		}
		k.report(h)
	}
}

// What next returns when it is to be found out whether the way fails, and when a contact is to
// be asked for presence.
const probeNow, askNow = -1, -2

// next is the job whose turn it is, with those who wait for it, or how long none is; 0: it
// is time to search for users.
func (k *Keeper) next(h *host) (j *job, waiters []*waiter, wait time.Duration) {
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	first := h.urgent.Front()
	switch {
	case now.Before(h.paused):
		return nil, nil, h.paused.Sub(now)
	case h.probe:
		return nil, nil, probeNow
	case first != nil:
	case h.soon.Len()+h.unseen.Len()+h.background.Len() > 0:
		if first = h.soon.Front(); first == nil && h.unseen.Len() == 0 {
			first = h.background.Front()
		}
		isNew := first != nil && first.Value.(*job).progress == nil
		early := isNew && now.Before(k.allowed)
		switch {
		case h.unseen.Len() > 0 && (first == nil || early):
			return nil, nil, askNow
		case early:
			return nil, nil, k.allowed.Sub(now)
		case isNew:
			k.allowed = now.Add(time.Second / time.Duration(max(1, k.Rate)))
		}
	case h.failing.Len() > 0:
		first = h.failing.Front()
	case h.broken != "":
		return nil, nil, sweepEvery
	case h.scan.on:
		return nil, nil, 0
	case h.scan.next.IsZero(): // before the first Resume
		return nil, nil, sweepEvery
	case now.Before(h.scan.next):
		return nil, nil, h.scan.next.Sub(now)
	default:
		h.scan = scan{on: true, checked: k.Store.Now().Add(-checkEvery), all: true}
		return nil, nil, 0
	}
	j = first.Value.(*job)
	h.put(j, nil)
	waiters, j.waiters, j.again = j.waiters, nil, false
	h.current = j
	if j.progress == nil {
		j.progress = new(progress)
	}
	return j, waiters, 0
}

// search looks at the next users in the store.
func (k *Keeper) search(h *host) {
	k.mu.Lock()
	at := h.scan
	k.mu.Unlock()
	var checked time.Time
	if at.all {
		checked = at.checked
	}
	if at.after == "" { // what was known before is to be found
		kept := make(chan struct{})
		k.Store.Sync(func() { close(kept) })
		<-kept
	}
	users, next, err := k.Store.ServerRostersBehind(checked, at.after, chunk)
	way, _ := k.Ways(h.name)
	k.mu.Lock()
	defer k.mu.Unlock()
	if h.scan != at {
		return // another one began
	}
	if err != nil || way == nil {
		if err != nil {
			k.Logger.Error("which of the server's rosters are in step cannot be read", "host", h.name, "err", err)
		}
		h.scan = scan{next: time.Now().Add(sweepEvery)}
		return
	}
	for _, name := range users {
		if user, err := jid.Parse(name); err == nil && user.Domain() == h.name && h.jobs[user] == nil {
			h.put(k.add(h, user), &h.background)
		}
	}
	switch h.scan.after = next; {
	case next != "":
	case !at.all:
		h.scan.all = true
	default:
		h.scan = scan{next: time.Now().Add(sweepEvery)}
	}
}

// run gives a job its turn.
func (k *Keeper) run(h *host, j *job, waiters []*waiter) {
	t := k.newTurn(h, j, waiters)
	done, err := t.run()
	if errors.Is(err, ErrNoAccount) {
		t.leaveNoAccount()
		done, err = true, nil
	}
	k.mu.Lock()
	h.current = nil
	waiters = append(waiters, k.place(h, j, done, err)...)
	var pushes []*serverPush // for which it may take long
	if err != nil || h.jobs[j.user] != j {
		pushes, j.pushes = j.pushes, nil
	}
	if h.isPaused() {
		pushes = append(pushes, h.takePushes()...)
	}
	k.mu.Unlock()
	release(waiters, t.inStep)
	failPushes(pushes)
}

// place lets a job wait, or not, after its turn, and returns those who do not wait for it
// any more. k.mu is held.
func (k *Keeper) place(h *host, j *job, done bool, err error) (released []*waiter) {
	switch {
	case h.jobs[j.user] != j: // the way is broken
		return j.waiters
	case err != nil:
		released, j.waiters = j.waiters, nil
		j.fails++
		h.status.Error = err.Error()
		k.later(h, j, backoff(j.fails))
		k.Logger.Debug("the server's roster of a user is not in step", "user", j.user, "err", err)
		if h.failed == j.user && h.failures > 0 {
			return released
		}
		h.failed = j.user
		if h.good == j.user {
			h.good = jid.JID{}
		}
		h.failures++
		switch {
		case h.failures < failuresInA:
		case h.good != jid.JID{}:
			h.probe = true
		default:
			released = append(released, k.pause(h, err)...)
		}
		return released
	}
	if done {
		j.fails, h.good = 0, j.user
		if !j.owes && !j.faulty && !j.isLate() {
			j.progress = nil
		}
	}
	switch {
	case len(j.waiters) > 0 || done && len(j.pushes) > 0:
		h.put(j, &h.urgent)
	case !done && j.yields && !j.again:
		k.later(h, j, yieldsFor) // or until Keep is called, unless it failed before
	case !done || j.again:
		if h.put(j, h.rest(j)); !done && j.in == &h.background { // one after the other
			h.background.MoveToFront(j.place)
		}
	case j.progress != nil && j.faulty:
		k.later(h, j, backoff(j.faults))
	case j.progress != nil && j.owes: // until that is kept
		k.later(h, j, owedAfter)
	case j.progress != nil:
		k.later(h, j, lateEvery)
	default:
		k.drop(h, j)
	}
	return nil
}

// pause has nothing tried for a while, and returns those who do not wait for it any more.
// k.mu is held.
func (k *Keeper) pause(h *host, err error) (released []*waiter) {
	h.paused = time.Now().Add(backoff(max(1, h.failures-failuresInA+1)))
	if !h.down {
		h.down = true
		k.Logger.Warn("the server's rosters cannot be read or written at present", "host", h.name, "err", err)
	}
	return h.letGo()
}

// findOut asks for the roster of somebody who was in step, as several others failed: a few
// users with whom something is wrong hold up nobody else.
func (k *Keeper) findOut(h *host) {
	k.mu.Lock()
	h.probe = false
	user := h.good
	k.mu.Unlock()
	way, _ := k.Ways(h.name)
	if way == nil {
		return // Resume finds them
	}
	t := &turn{Keeper: k, h: h}
	_, err := t.call(func(ctx context.Context) error {
		_, err := way.Get(ctx, user)
		return err
	})
	if err == nil || errors.Is(err, ErrNoAccount) {
		return // call has said so
	}
	k.mu.Lock()
	released, pushes := k.pause(h, err), h.takePushes()
	k.mu.Unlock()
	release(released, false)
	failPushes(pushes)
}

// letGo returns all who wait for jobs whose turn has not come. They wait no more. k.mu is
// held.
func (h *host) letGo() (waiters []*waiter) {
	for h.urgent.Len() > 0 {
		j := h.urgent.Front().Value.(*job)
		waiters = append(waiters, j.waiters...)
		j.waiters = nil
		h.put(j, h.rest(j))
	}
	if j := h.current; j != nil { // who came since its turn began
		waiters = append(waiters, j.waiters...)
		j.waiters = nil
	}
	return waiters
}

// backoff is how long is waited after so many failures.
func backoff(n int) time.Duration { return min(minBackoff<<min(n-1, 16), maxBackoff) }

// well says that the way works: a call took so long.
func (k *Keeper) well(h *host, took time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h.slow = h.slow && took >= slowCall
	if h.down {
		k.Logger.Info("the server's rosters can be read and written again", "host", h.name)
	}
	h.down, h.probe, h.failures, h.status.Error = false, false, 0, ""
}

// fail says that a way does not do what it says.
func (k *Keeper) fail(h *host, why string) {
	var released []*waiter
	k.mu.Lock()
	h.broken, h.scan = why, scan{}
	h.forgetUnseen()
	pushes := h.takePushes()
	for _, j := range h.jobs {
		released = append(released, j.waiters...)
		k.drop(h, j)
	}
	k.mu.Unlock()
	release(released, false)
	failPushes(pushes)
	k.Logger.Error("the server's rosters are not kept in step: what was written is not there", "host", h.name, "why", why)
	if k.Watcher != nil {
		k.Watcher.Lost(h.name)
	}
	if k.Broken != nil {
		k.Broken(h.name, why)
	}
}

// report logs the progress of what takes long.
func (k *Keeper) report(h *host) {
	k.mu.Lock()
	waiting, s := h.urgent.Len()+h.soon.Len()+h.background.Len()+h.failing.Len(), h.status
	idle := waiting == 0 && !h.scan.on
	failed := len(h.jobs) > 0 // and is tried again later
	broken := h.broken != ""
	k.mu.Unlock()
	now := time.Now()
	if idle && h.reporting {
		way, _ := k.Ways(h.name)
		h.reporting = way != nil && !broken // else they are not in step, and Resume goes on
	}
	switch {
	case idle && h.reporting && !failed:
		k.Logger.Info("the server's rosters are in step", "host", h.name, "written", s.Written, "removed", s.Removed)
		h.reporting = false
		fallthrough
	case idle:
		h.reported = time.Time{}
	case h.reported.IsZero():
		h.reported = now
	case now.Sub(h.reported) >= reportsEvery:
		k.Logger.Info("the server's rosters are being brought in step", "host", h.name, "users", waiting, "written", s.Written, "removed", s.Removed)
		h.reported, h.reporting = now, true
	}
}
