package chaos

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"rosterd/e2e/harness"
	"rosterd/internal/leak"
)

// herd is a restart of the server after which all users log in at once, while
// the backend takes its time.
type herd struct {
	users  int
	places int           // contacts.max_in_flight
	pace   time.Duration // of the backend, for one answer

	// tooMany says that the backend cannot answer all of them in time: some are
	// to get an error.
	tooMany bool
}

// 10,000 users log in at once: the backend is asked for so many at a time as it
// is to be and no more, each query is answered with a roster or with an error of
// type wait before a server gives it up, rosterd's memory is bounded, and all
// are in line in the end.
func TestHerd(t *testing.T) {
	herds := map[string]herd{"in time": {users: 10_000, places: 256, pace: 200 * time.Millisecond}}
	if *full {
		herds["too many for the backend"] = herd{users: 10_000, places: 64, pace: 200 * time.Millisecond, tooMany: true}
	}
	for name, h := range herds {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			h.run(t)
		})
	}
}

// How much of rosterd there may be.
const (
	herdMemory = 400 << 20 // bytes, for 10,000 queries that wait
	herdSpare  = 50        // goroutines and descriptors that are left, besides those of connections to the backend
)

func (h herd) run(t *testing.T) {
	binary := *program
	if binary == "" {
		var err error
		if binary, err = plain(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	o := Options{Kind: LikeProsody, Seed: 1, Binary: binary, Logs: *logs}
	p := &plan{users: thousand(h.users), contacts: map[string]int{}, noPresence: true, settings: map[string]any{
		"contacts.max_in_flight": h.places, "contacts.timeout": "20s", "contacts.resync_rate": 100, "log.level": "info",
	}}
	for _, user := range p.users {
		p.contacts[user] = 2
		p.devices = append(p.devices, place{user, "phone"})
	}
	w, err := build(o, p)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	p.people(w, o)
	if err := w.daemon.start(); err != nil {
		t.Fatal(err)
	}
	h.awaitUp(ctx, t, w)
	rosterd := w.daemon.current()
	before := h.scrape(ctx, t, rosterd)

	w.backend.setPace(h.pace)
	if err := w.server.restart(ctx, 0); err != nil {
		t.Fatal(err)
	}
	members := h.login(ctx, t, w)
	h.awaitUp(ctx, t, w)
	began := time.Now()
	for _, m := range members {
		m.ask()
	}
	slowest, refused := h.answers(ctx, t, members)
	if h.tooMany && refused == 0 {
		t.Error("the backend was not slow enough to show anything")
	}
	h.wantInTime(ctx, t, rosterd)
	peak, err := rosterd.PeakMemory()
	if err != nil {
		t.Log(err)
	}
	if peak > herdMemory {
		t.Errorf("rosterd has used %d MiB", peak>>20)
	}
	h.awaitLine(ctx, t, members)
	t.Logf("%d users: slowest answer %v, %d errors, in line after %v; %d fetches, %d at a time; %d MiB",
		h.users, slowest.Round(time.Millisecond), refused, time.Since(began).Round(time.Millisecond), w.figures.Fetches, w.backend.mostAtOnce(), peak>>20)
	if most := w.backend.mostAtOnce(); most > h.places || most < h.places/2 {
		t.Errorf("%d fetches at a time, want %d", most, h.places)
	}
	if w.figures.Fetches > 2*h.users {
		t.Errorf("%d fetches for %d users", w.figures.Fetches, h.users)
	}
	h.awaitLeft(ctx, t, rosterd, before)
	w.daemon.stop(ctx)
	for _, v := range w.journal.broken() {
		t.Error(v)
	}
}

func (h herd) awaitUp(ctx context.Context, t *testing.T, w *world) {
	t.Helper()
	if err := w.awaitUp(ctx, time.Minute); err != nil {
		t.Fatal(err)
	}
}

// member is a client of the herd.
type member struct {
	*visit

	mu    sync.Mutex
	asked time.Time     // guarded by mu, as all below
	took  time.Duration // until it was answered; 0: it was not
	err   string        // the condition of the error that was the answer, or ""
}

// login logs everybody in at once.
func (h herd) login(ctx context.Context, t *testing.T, w *world) []*member {
	t.Helper()
	var members []*member
	for _, d := range w.devices {
		m := &member{visit: &visit{device: d, number: 1, roster: items{}, settled: map[string]bool{}, changed: func() {}}}
		var err error
		if m.session, err = w.server.login(ctx, d.user, d.resource, m); err != nil {
			t.Fatal(err)
		}
		m.session.presence()
		d.mu.Lock()
		d.online, d.visit = true, m.visit
		d.mu.Unlock()
		members = append(members, m)
	}
	return members
}

func (m *member) ask() {
	m.mu.Lock()
	m.asked = time.Now()
	m.mu.Unlock()
	m.visit.ask()
}

// receive implements receiver.
func (m *member) receive(id string, list []Item, err string) {
	m.mu.Lock()
	m.took, m.err = time.Since(m.asked), err
	m.mu.Unlock()
	m.visit.receive(id, list, err)
}

// answers waits until all are answered, and says how long that took at most and
// how many got an error.
func (h herd) answers(ctx context.Context, t *testing.T, members []*member) (slowest time.Duration, refused int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, m := range members {
		for {
			m.mu.Lock()
			took, err := m.took, m.err
			m.mu.Unlock()
			if took == 0 && ctx.Err() == nil {
				sleep(ctx, 10*time.Millisecond)
				continue
			}
			if slowest = max(slowest, took); took == 0 {
				t.Fatalf("%s is not answered", m)
			}
			if err != "" {
				refused++
			}
			if err != "" && !strings.HasPrefix(err, "wait ") {
				t.Fatalf("%s is answered with %s", m, err)
			}
			break
		}
	}
	return slowest, refused
}

// inTime are the queries that were answered within 25 s, all are all.
var (
	inTime = regexp.MustCompile(`(?m)^rosterd_query_duration_seconds_bucket\{le="25"\} (\d+)$`)
	all    = regexp.MustCompile(`(?m)^rosterd_query_duration_seconds_count (\d+)$`)
)

// wantInTime wants that rosterd has answered the queries within 25 s, by its own
// clock: the clients' includes what the test takes. On a machine that has more to
// do than this, one in a hundred may be late.
func (h herd) wantInTime(ctx context.Context, t *testing.T, r *harness.Rosterd) {
	t.Helper()
	answer, err := r.Metrics("/metrics").Get(ctx)
	if err != nil {
		t.Fatal(err)
	}
	count := func(series *regexp.Regexp) (n int) {
		if found := series.FindSubmatch(answer.Body); found != nil {
			n, _ = strconv.Atoi(string(found[1]))
		}
		return n
	}
	if n := count(all); n < h.users || n-count(inTime) > n/100 {
		t.Errorf("%d of %d queries were answered within 25 s", count(inTime), n)
	}
}

// awaitLine waits until each client has what the backend says, also those that
// got an error and did not ask again.
func (h herd) awaitLine(ctx context.Context, t *testing.T, members []*member) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, m := range members {
		for differs := m.lacks(); differs != ""; differs = m.lacks() {
			if sleep(ctx, 10*time.Millisecond); ctx.Err() != nil {
				t.Fatalf("%s %s", m, differs)
			}
		}
	}
}

// lacks says how the client's roster differs from the backend's, or "".
func (m *member) lacks() string {
	m.visit.mu.Lock()
	defer m.visit.mu.Unlock()
	return m.world().truth.wants(m.device.user, m.roster)
}

func (h herd) scrape(ctx context.Context, t *testing.T, r *harness.Rosterd) map[string]float64 {
	t.Helper()
	values, err := r.Scrape(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// awaitLeft waits until rosterd has put away what the herd made it use, but for
// the connections to the backend, which it keeps for a while: each has two
// goroutines.
func (h herd) awaitLeft(ctx context.Context, t *testing.T, r *harness.Rosterd, before map[string]float64) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; sleep(ctx, 200*time.Millisecond) {
		now := h.scrape(ctx, t, r)
		goroutines, files := now["go_goroutines"]-before["go_goroutines"], now["process_open_fds"]-before["process_open_fds"]
		if goroutines <= float64(2*h.places+herdSpare) && files <= float64(h.places+herdSpare) && now["rosterd_users_marked"] == 0 {
			return
		}
		if time.Now().After(end) {
			t.Errorf("left behind: %v goroutines, %v descriptors, %v marks", goroutines, files, now["rosterd_users_marked"])
			return
		}
	}
}

var _ fmt.Stringer = (*member)(nil)
