package main

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// queryRows are the rows about queries of rosters of 200 contacts, 64 at a time.
type queryRows struct {
	b *bench
	n int // users

	cold, coldCPU, fakeCPU, same, fresh, version, versionSame, bytes *row
}

func (b *bench) queries() part {
	q := &queryRows{b: b, n: b.pick(10_000, 1_000)}
	q.cold = b.row("queries, cold, 200 contacts", "/s", "get", 0.6, true)
	q.coldCPU = b.row("  processor time of one", "µs", "get", 1.6, false)
	q.fakeCPU = b.row("  processor time of the fake server for it", "µs", "rosterd's", 0.3, false)
	q.same = b.row("queries, 304 from the backend", "/s", "get -conditional", 0.7, true)
	q.fresh = b.row("queries within max_age", "/s", "echo", 0.7, true)
	q.version = b.row("queries with the current version, within max_age", "/s", "echo, empty", 0.9, true)
	q.versionSame = b.row("  the same, 304 from the backend", "/s", "get -conditional", 0, true)
	q.bytes = b.row("  bytes of such an answer", "", "300", 1, false)
	return part{name: "queries", run: q.run}
}

// passes is how often the fast rows go over all users, and manyPasses those that
// would otherwise be over within a second.
const (
	passes     = 5
	manyPasses = 20
)

func (q *queryRows) run(ctx context.Context) error {
	get, err := q.b.get(ctx, 200, q.n)
	if err != nil {
		return err
	}
	conditional, err := q.b.get(ctx, 200, q.n, "-conditional", "-passes", strconv.Itoa(passes))
	if err != nil {
		return err
	}
	if err := q.asking(ctx, get, conditional); err != nil {
		return err
	}
	full, empty, err := q.echo(ctx)
	if err != nil {
		return err
	}
	return tolerate(q.within(ctx, full, empty), q.fresh, q.version, q.bytes)
}

// asking measures a rosterd that asks the backend for each query.
func (q *queryRows) asking(ctx context.Context, get, conditional getResult) error {
	r, err := q.b.startRosterd(ctx, nil)
	if err != nil {
		return err
	}
	defer r.close()
	f := &flow{users: users('u', 200, 0, q.n), window: 64, learn: true}
	before, ours := cpu(r.pid()), ownCPU()
	if err := r.link.run(ctx, f); err != nil {
		return err
	}
	n := float64(q.n)
	cost := micros(cpu(r.pid())-before) / n
	q.cold.add(n/get.Seconds, f.rate())
	q.coldCPU.add(get.CPU/n*1e6, cost)
	q.fakeCPU.add(cost, micros(ownCPU()-ours)/n)

	counts, err := q.b.backendCounts(ctx)
	if err != nil {
		return err
	}
	again := &flow{users: f.users, passes: passes, window: 64}
	if err := r.link.run(ctx, again); err != nil {
		return err
	}
	after, err := q.b.backendCounts(ctx)
	if err != nil {
		return err
	}
	if after.NotModified == counts.NotModified {
		q.same.note = "not there yet: conditional GETs"
	} else {
		q.same.add(passes*n/conditional.Seconds, again.rate())
	}
	if f.versions[0] == "" {
		q.versionSame.note = "not there yet: versions"
		return nil
	}
	named := &flow{users: f.users, passes: passes, window: 64, versions: f.versions}
	if err := r.link.run(ctx, named); err != nil {
		return err
	}
	q.versionSame.add(passes*n/conditional.Seconds, named.rate())
	return nil
}

// echo measures echo, with the whole roster and with the empty result.
func (q *queryRows) echo(ctx context.Context) (full, empty float64, err error) {
	e, err := q.b.startEcho(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer e.close()
	f := &flow{users: users('u', 200, 0, q.n), passes: manyPasses, window: 64}
	if err := e.link.run(ctx, f); err != nil {
		return 0, 0, err
	}
	named := &flow{users: f.users, passes: manyPasses, window: 64, versions: make([]string, q.n)}
	for i := range named.versions {
		named.versions[i] = echoVersion
	}
	if err := e.link.run(ctx, named); err != nil {
		return 0, 0, err
	}
	return f.rate(), named.rate(), nil
}

// within measures a rosterd that need not ask the backend again.
func (q *queryRows) within(ctx context.Context, full, empty float64) error {
	r, err := q.b.startRosterd(ctx, settings{"contacts.max_age": "1h"})
	if err != nil {
		return err
	}
	defer r.close()
	f := &flow{users: users('u', 200, 0, q.n), window: 64, learn: true}
	if err := r.link.run(ctx, f); err != nil {
		return err
	}
	before, err := q.b.backendCounts(ctx)
	if err != nil {
		return err
	}
	again := &flow{users: f.users, passes: manyPasses, window: 64}
	if err := r.link.run(ctx, again); err != nil {
		return err
	}
	q.fresh.add(full, again.rate())
	after, err := q.b.backendCounts(ctx)
	if err != nil {
		return err
	}
	if asked := after.Full + after.NotModified - before.Full - before.NotModified; asked > 0 {
		q.fresh.note = fmt.Sprintf("the backend was asked all the same, %d times for %d queries", asked, again.total())
	}
	if f.versions[0] == "" {
		return notThere{"versions"}
	}
	named := &flow{users: f.users, passes: manyPasses, window: 64, versions: f.versions}
	if err := r.link.run(ctx, named); err != nil {
		return err
	}
	q.version.add(empty, named.rate())
	q.bytes.add(300, float64(named.bytes)/float64(named.total()))
	return nil
}

// startEcho starts echo against a fake server of its own.
func (b *bench) startEcho(ctx context.Context, args ...string) (*rosterd, error) {
	f, err := newFake()
	if err != nil {
		return nil, err
	}
	e := &rosterd{fake: f}
	if e.child, err = self("echo", append([]string{"-address", f.address()}, args...)...); err == nil {
		e.link, err = f.accept(ctx, e.child)
	}
	if err != nil {
		e.close()
		return nil, fmt.Errorf("echo: %w", err)
	}
	return e, nil
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

func ms(d time.Duration) float64 { return micros(d) / 1e3 }
