package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// growthRows are the rows about what many users, and large rosters, cost.
type growthRows struct {
	b         *bench
	few, many int // connected users

	memory, peak, start, kept, refresh *row
	items                              *row
}

func (b *bench) growth() part {
	g := &growthRows{b: b, few: b.pick(1_000, 200), many: b.pick(100_000, 2_000)}
	connected := fmt.Sprintf("%d connected users, 200 contacts", g.many)
	g.memory = b.row("memory of each of "+connected, "KiB", "6 KiB", 1, false)
	g.peak = b.row("  at its peak", "KiB", "6 KiB", 0, false)
	g.start = b.row("start to first answer, with their stored state", "s", "3 s", 1, false)
	g.kept = b.row("  who are pushed a change after it, of 100", "", "100", 1, true)
	g.refresh = b.row(fmt.Sprintf("processor time of refreshing one of %d", g.many), "µs", fmt.Sprintf("one of %d", g.few), 1.3, false)
	g.items = b.row("processor time of an item, roster of 10000", "µs", "roster of 1000", 1.2, false)
	return part{name: "growth", run: g.run}
}

func (g *growthRows) run(ctx context.Context) error {
	if err := g.largeRosters(ctx); err != nil {
		return err
	}
	r, err := g.b.startRosterd(ctx, nil)
	if err != nil {
		return err
	}
	defer r.close()
	connect := func(first, n int) error {
		return r.link.run(ctx, &flow{users: users('u', 200, first, n), window: 64, presence: true})
	}
	if err := connect(0, g.few); err != nil {
		return err
	}
	few, err := g.refreshCost(ctx, r, g.few)
	if err != nil {
		return err
	}
	if err := connect(g.few, g.many-g.few); err != nil {
		return err
	}
	_, peak := rss(r.pid())
	now := g.settledMemory(ctx, r)
	perUser := func(bytes int64) float64 { return float64(bytes) / 1024 / float64(g.many) }
	g.memory.add(6, perUser(now))
	g.peak.add(6, perUser(peak))
	many, err := g.refreshCost(ctx, r, g.many)
	if err != nil {
		return err
	}
	g.refresh.add(few, many)
	return g.restart(ctx, r)
}

// refreshCost is the processor time, in µs, of refreshing one of n connected users
// who has a change. It is a mean: of what the garbage collector does, each user
// has their share. With many connected, those who are refreshed were not busy of
// late.
func (g *growthRows) refreshCost(ctx context.Context, r *rosterd, n int) (float64, error) {
	const rounds = 10
	before := cpu(r.pid())
	for i := range rounds {
		if _, err := g.b.refresh(ctx, r, users('u', 200, i*g.few%n, g.few)); err != nil {
			return 0, err
		}
	}
	return micros(cpu(r.pid())-before) / float64(rounds*g.few), nil
}

// settledMemory is the resident memory once nothing is done any more: the
// runtime gives back slowly what it does not need.
func (g *growthRows) settledMemory(ctx context.Context, r *rosterd) int64 {
	pause := time.NewTicker(time.Second)
	defer pause.Stop()
	lowest, since := int64(1)<<62, 0
	for range g.b.pick(60, 3) {
		select {
		case <-pause.C:
		case <-ctx.Done():
			return lowest
		}
		now, _ := rss(r.pid())
		if since++; now < lowest-lowest/100 {
			since = 0
		}
		if lowest = min(lowest, now); since >= 10 {
			break
		}
	}
	return lowest
}

// restart measures a start with the state that was stored: from the start of
// the process to the first answer, and whether it knows who is there.
func (g *growthRows) restart(ctx context.Context, r *rosterd) error {
	r.stop()
	r.fake.first = &flow{users: users('u', 200, 0, 1), window: 1}
	began := time.Now()
	if err := r.launch(ctx); err != nil {
		return err
	}
	if err := r.link.wait(ctx, r.fake.first); err != nil {
		return err
	}
	g.start.add(3, r.fake.first.ended.Sub(began).Seconds())
	some := users('u', 200, 1, 100)
	if err := g.b.change(ctx, some); err != nil {
		return err
	}
	wait := r.link.expect(&r.link.pushes, len(some))
	answer, err := g.b.post(ctx, "http://"+r.refresh+"/roster_admin/refresh", namesOf(some))
	if err := refreshed(answer, err); err != nil {
		return err
	}
	soon, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	pushed := len(some)
	if _, err := wait(soon); err != nil {
		if !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		r.link.mu.Lock()
		pushed = r.link.pushes.n
		r.link.mu.Unlock()
	}
	g.kept.add(float64(len(some)), float64(pushed))
	return nil
}

// largeRosters measures what an item costs in rosters of any size.
func (g *growthRows) largeRosters(ctx context.Context) error {
	// As much as it takes for one answer: what does not fit is another matter.
	r, err := g.b.startRosterd(ctx, settings{"xmpp.max_stanza_bytes": 64 << 20})
	if err != nil {
		return err
	}
	defer r.close()
	costs := make(map[int]float64)
	for _, size := range []struct{ contacts, n int }{
		{100, g.b.pick(4_000, 500)}, {1_000, g.b.pick(800, 100)}, {10_000, g.b.pick(80, 10)},
	} {
		f := &flow{users: users('u', size.contacts, 0, size.n), window: 8}
		before := cpu(r.pid())
		if err := r.link.run(ctx, f); err != nil {
			return fmt.Errorf("%d contacts: %w", size.contacts, err)
		}
		costs[size.contacts] = micros(cpu(r.pid())-before) / float64(size.contacts*size.n)
	}
	g.items.add(costs[1_000], costs[10_000])
	g.items.note = fmt.Sprintf("in the last run %.3g µs with 100 contacts, %.3g with 1000, %.3g with 10000", costs[100], costs[1_000], costs[10_000])
	return nil
}
