package chaos

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"rosterd/e2e/harness"
	"rosterd/internal/pgserver"
)

// world is all that takes part in a run.
type world struct {
	journal *journal
	figures *Figures
	moments occasions
	truth   *truth
	backend *backend
	reports *reports
	server  server
	daemon  *daemon   // the first of daemons
	daemons []*daemon // two, if they are a pair
	devices []*device

	api    *api     // nil: there is none
	alone  bool     // see habit.pushesAlone
	toKeep sync.Map // users whose roster of the server is to be kept

	database   *pgserver.Server // nil: there is no pair
	toDatabase []*harness.Relay // from each of daemons

	toServer  *harness.Relay // from rosterd
	toBackend *harness.Relay
	maxStanza int  // xmpp.max_stanza_bytes, 0: so large that it does not matter
	stranded  bool // a connection was left half-open, which takes rosterd 50 s to find out

	// slowStart has clients log in after a restart of the server only when
	// rosterd is connected again. COMPAT ejabberd, which answers roster queries
	// itself from its start until a component has come, with an empty roster,
	// and tells nobody: neither rosterd nor anybody else can know.
	slowStart bool
	dir       string
	close     func()
}

// chance makes a source of chance for one purpose of a run, so that what is done
// for one does not depend on what was done for another.
func chance(seed uint64, purpose string) *rand.Rand {
	h := uint64(14695981039346656037)
	for _, c := range []byte(purpose) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return rand.New(rand.NewPCG(seed, h))
}

// build makes the world of a plan; start brings it to life.
func build(o Options, p *plan) (w *world, err error) {
	w = &world{journal: newJournal(), figures: &Figures{Runs: 1}, truth: newTruth(), maxStanza: p.maxStanza}
	var closers []func()
	w.close = func() {
		for i := len(closers) - 1; i >= 0; i-- {
			closers[i]()
		}
		closers = nil
	}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if w.dir, err = os.MkdirTemp("", "chaos-"); err != nil {
		return nil, err
	}
	closers = append(closers, func() { _ = os.RemoveAll(w.dir) })

	h, real := o.Kind.habit()
	w.alone = h.pushesAlone
	var options harness.ServerOptions
	if real {
		w.server = &realServer{server: o.Server, prefix: o.Prefix}
		options = o.Server.Options()
		w.slowStart = !h.replays
		if !h.setsRosters {
			w.api, err = startAPI(pass(o.Server.APIURL()), w.figures, chance(o.Seed, "api"))
		}
	} else {
		f, err := startFake(h, w.journal, chance(o.Seed, "server"))
		if err != nil {
			return nil, err
		}
		f.sabotage, f.misplace, f.truth, f.figures, f.pair = o.sabotage, o.misplace, w.truth, w.figures, o.Pair
		w.server = f
		closers = append(closers, f.close)
		if !h.setsRosters {
			if w.api, err = startAPI(f.call, w.figures, chance(o.Seed, "api")); err != nil {
				return nil, err
			}
		}
		options = harness.ServerOptions{Host: host, Component: component, Secret: secret}
	}
	if err != nil {
		return nil, err
	}
	if w.api != nil {
		closers = append(closers, w.api.close)
	}
	if w.backend, err = startBackend(w.truth, w.journal, w.figures, chance(o.Seed, "backend")); err != nil {
		return nil, err
	}
	closers = append(closers, w.backend.close)
	w.backend.mayLie, w.backend.happened = w.mayLie, w.moments.happened
	if w.toServer, err = harness.StartRelay(w.server.componentAddress()); err != nil {
		return nil, err
	}
	closers = append(closers, w.toServer.Close)
	if w.toBackend, err = harness.StartRelay(w.backend.address()); err != nil {
		return nil, err
	}
	closers = append(closers, w.toBackend.Close)

	binary, err := harness.TakesFullDisk(w.dir, o.Binary)
	if err != nil {
		return nil, err
	}
	names := []string{"rosterd"}
	if o.Pair {
		names = []string{"rosterd A", "rosterd B"}
		if w.database, err = pgserver.Start(); err != nil {
			return nil, err
		}
		closers = append(closers, func() { w.database.Close() })
	}
	for i, name := range names {
		settings := w.settings(options, h, p)
		if o.Pair {
			relay, err := harness.StartRelay(w.database.Address())
			if err != nil {
				return nil, err
			}
			closers = append(closers, relay.Close)
			w.toDatabase = append(w.toDatabase, relay)
			delete(settings, "state.path")
			settings["state.url"] = w.database.At(w.toDatabase[i].Address(), "postgres")
		}
		d := &daemon{name: name, pair: o.Pair, journal: w.journal, forgot: w.forgot, options: harness.RosterdOptions{
			Binary: binary, ContactsURL: "http://" + w.toBackend.Address() + "/contacts/%s", Settings: settings,
		}}
		closers = append(closers, d.close)
		w.daemons = append(w.daemons, d)
	}
	w.daemon = w.daemons[0]
	w.reports = newReports(w.any(chance(o.Seed, "who is asked")), w.journal, w.figures, chance(o.Seed, "reports"))
	w.reports.happened, w.reports.known = w.moments.happened, w.known
	return w, nil
}

// settings are rosterd's. Its times are the ordinary ones but for those whose
// end a run waits for.
func (w *world) settings(options harness.ServerOptions, h habit, p *plan) map[string]any {
	ip := harness.Loopback()
	settings := map[string]any{
		"refresh.listen": ip + ":5290", "metrics.listen": ip + ":9590",
		"xmpp.address": w.toServer.Address(), "xmpp.domain": options.Component, "xmpp.secret": options.Secret,
		"xmpp.hosts": []string{options.Host}, "xmpp.unrestricted": !h.privileged && !h.pushesAlone,
		"contacts.timeout": "1s", "contacts.confirm_after": "200ms", "contacts.resync_rate": 1000,
		"state.path": filepath.Join(w.dir, "state.db"), "log.level": "debug",
	}
	if w.api != nil {
		settings["ejabberd.api"] = map[string]any{"url": w.api.url()}
	}
	if p.maxStanza > 0 {
		settings["xmpp.max_stanza_bytes"] = p.maxStanza
	}
	if p.noPresence {
		settings["xmpp.presence"] = "off"
	}
	for key, value := range p.settings {
		settings[key] = value
	}
	return settings
}

// mayLie says whether a sudden empty answer is one that rosterd promises to see
// through: of a roster of 10 contacts or more that it knows. That all are gone
// must not have been true a short time ago: a second answer that says the same
// counts.
func (w *world) mayLie(user string) bool {
	if !w.truth.hasMany(user) {
		return false
	}
	for _, d := range w.devices {
		if v, _ := d.now(); d.user == user && v != nil && v.steady(many) && w.running() {
			return true
		}
	}
	return false
}

// awaitLogins waits until clients can log in without harm, see slowStart.
func (w *world) awaitLogins(ctx context.Context) error {
	if !w.slowStart {
		return nil
	}
	return w.awaitUp(ctx, 20*time.Second)
}

// awaitUp waits until rosterd is connected and gets queries, but not longer than
// a time.
func (w *world) awaitUp(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for !w.up(ctx) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("rosterd is not ready: %w", ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

func (w *world) up(ctx context.Context) bool {
	if f, ok := w.server.(*fake); ok {
		return f.connected()
	}
	return slices.ContainsFunc(w.daemons, func(d *daemon) bool {
		r := d.current()
		if r == nil {
			return false
		}
		ctx, cancel := context.WithTimeout(ctx, time.Second) // it may be paused
		defer cancel()
		answer, err := r.Metrics("/readyz").Get(ctx)
		return err == nil && answer.Status == 200 && !bytes.HasPrefix(answer.Body, []byte("standby"))
	})
}

// running says whether rosterd runs.
func (w *world) running() bool {
	return slices.ContainsFunc(w.daemons, func(d *daemon) bool { return d.current() != nil })
}

// any returns one of those that run, by chance, or nil.
func (w *world) any(rng *rand.Rand) func() *harness.Rosterd {
	var mu sync.Mutex
	return func() *harness.Rosterd {
		mu.Lock()
		first := rng.IntN(len(w.daemons))
		mu.Unlock()
		if r := w.daemons[first].current(); r != nil {
			return r
		}
		return w.daemons[len(w.daemons)-1-first].current()
	}
}

// run carries out a plan, waits until it is quiet, and looks whether all is as
// it has to be.
func (w *world) run(ctx context.Context, o Options, p *plan) error {
	for _, d := range w.daemons {
		if err := d.start(); err != nil {
			return err
		}
	}
	live, stop := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer stop()
	tasks.Go(func() { w.reports.run(live) })
	for _, d := range w.devices {
		tasks.Go(func() { d.run(live, chance(o.Seed, d.String())) })
	}
	w.follow(live, p)
	w.mend()
	return w.converge(ctx, o)
}

// follow carries out the steps: each track's one after the other, the tracks
// beside each other.
func (w *world) follow(ctx context.Context, p *plan) {
	began := time.Now()
	var tracks sync.WaitGroup
	for _, steps := range p.tracks {
		tracks.Go(func() {
			for _, s := range steps {
				select {
				case <-time.After(time.Until(began.Add(s.at))):
				case <-ctx.Done():
					return
				}
				if s.whenUp {
					_ = w.awaitUp(ctx, 4*time.Second)
				}
				if s.on != "" {
					w.moments.wait(ctx, s.on, s.nth, 700*time.Millisecond)
				}
				if s.fault != "" {
					w.figures.fault(s.fault)
				}
				w.journal.note("now: %s%s", s.what, s.fault)
				s.do(ctx, w)
			}
		})
	}
	tracks.Wait()
}

// mend ends all faults.
func (w *world) mend() {
	w.backend.setFault(nil)
	if w.api != nil {
		w.api.setFault("", 0)
	}
	w.toServer.Resume()
	w.toBackend.Resume()
	for _, relay := range w.toDatabase {
		relay.Resume()
	}
	for _, relay := range append([]*harness.Relay{w.toServer, w.toBackend}, w.toDatabase...) {
		if err := relay.Accept(); err != nil {
			w.journal.violation("%v", err)
		}
	}
	w.reports.hurry()
	w.journal.note("the faults have stopped")
}

// How long it may take until all clients are in line: rosterd waits up to 60 s
// before it tries again what has failed often.
const (
	patience         = 90 * time.Second
	patienceStranded = 150 * time.Second
)

// converge waits until every client's roster is the backend's.
func (w *world) converge(ctx context.Context, o Options) error {
	limit := patience
	if w.stranded {
		limit = patienceStranded
	}
	if o.patience > 0 {
		limit = o.patience
	}
	began := time.Now()
	reported, progress := began, ""
	for {
		left := w.reports.left()
		if left > 0 {
			reported = time.Now()
		}
		late := w.late(ctx, 1)
		// rosterd leaves the server four fifths of its time, which on a busy machine is
		// much: as long as its rosters change, it is at work. That ends: see 3*limit.
		if now := strings.Join(late, ""); strings.HasPrefix(now, lateRoster) && now != progress {
			reported, progress = time.Now(), now
		}
		switch {
		case left == 0 && len(late) == 0:
			w.figures.Slowest = time.Since(began)
			w.journal.note("all clients are in line, %v after the last fault", w.figures.Slowest.Round(time.Millisecond))
			return w.linger(ctx)
		case time.Since(reported) > limit && w.logInAnew():
			reported = time.Now()
		case time.Since(reported) > limit:
			for _, line := range w.late(ctx, maxViolations) {
				w.journal.violation("not in line %v after the last fault: %s", limit, line)
			}
			return nil
		case left > 0 && time.Since(began) > 2*limit:
			w.journal.violation("%d reports are not answered", left)
			return nil
		case time.Since(began) > 3*limit:
			w.journal.violation("not in line after %v, though there was progress: %s", 3*limit, strings.Join(late, ""))
			return nil
		}
		if len(w.journal.broken()) > 0 && time.Since(began) > 15*time.Second {
			return nil // enough is known
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// logInAnew has those clients log in anew that keep what an instance told them that could not
// write it, and reports whether there are any.
func (w *world) logInAnew() (some bool) {
	for _, d := range w.devices {
		v, _ := d.now()
		if v == nil || d.differs() == "" || !v.keeps() {
			continue
		}
		some = true
		w.journal.note("%s: keeps what nobody knows of: it logs in anew", v)
		w.figures.count(&w.figures.Anew)
		d.order(order{how: inOrder})
		d.order(order{online: true})
	}
	return some
}

// forgot notes that an instance has ended that had not written what it told.
func (w *world) forgot() {
	for _, d := range w.devices {
		if v, _ := d.now(); v != nil {
			v.mu.Lock()
			v.forgot = true
			v.mu.Unlock()
		}
	}
}

// late says of devices that are not in line, and then of the server's own rosters, how
// they differ, of so many at most.
func (w *world) late(ctx context.Context, most int) []string {
	var late []string
	for _, d := range w.devices {
		if differs := d.differs(); differs != "" {
			if late = append(late, d.String()+" "+differs); len(late) == most {
				return late
			}
		}
	}
	if late != nil {
		return late
	}
	return w.lateRosters(ctx, most)
}

// linger waits a little for what is not to come, and looks once more.
func (w *world) linger(ctx context.Context) error {
	select {
	case <-time.After(300 * time.Millisecond):
	case <-ctx.Done():
		return ctx.Err()
	}
	for _, line := range w.late(ctx, maxViolations) {
		w.journal.violation("was in line, and is not any more: %s", line)
	}
	return nil
}
