package main

import (
	"context"
	"fmt"
	"time"
)

// refreshRows are the rows about changes that the backend reports.
type refreshRows struct {
	b *bench
	n int // users of a big refresh

	many, bulk, worked *row
	one                map[int]*row // by the number of contacts
	changes            int          // of one user
}

var changeSizes = []int{20, 200, 1000}

func (b *bench) refreshes() part {
	r := &refreshRows{b: b, n: b.pick(10_000, 1_000), changes: b.pick(200, 40), one: make(map[int]*row)}
	what := fmt.Sprintf("refresh of %d users, 200 contacts", r.n)
	r.many = b.row(what, "/s", "get", 0.6, true)
	r.bulk = b.row("  the same with bulk fetch", "/s", "rosterd without", 3, true)
	r.worked = b.row("  the same, if a request costs the backend 1 ms", "/s", "rosterd without", 0, true)
	for _, contacts := range changeSizes {
		r.one[contacts] = b.row(fmt.Sprintf("one change, POST to push, %d contacts", contacts), "ms", "one GET and one echo", 1.5, false)
	}
	return part{name: "refreshes", run: r.run}
}

func (r *refreshRows) run(ctx context.Context) error {
	get, err := r.b.get(ctx, 200, r.n)
	if err != nil {
		return err
	}
	without, err := r.big(ctx, r.n, nil)
	if err != nil {
		return err
	}
	r.many.add(float64(r.n)/get.Seconds, without)
	before, err := r.b.backendCounts(ctx)
	if err != nil {
		return err
	}
	bulkURL := "http://" + r.b.address + "/bulk"
	with, err := r.big(ctx, r.n, settings{"contacts.bulk_url": bulkURL})
	if err == nil {
		r.bulk.add(without, with)
		if after, err := r.b.backendCounts(ctx); err == nil && after.BulkUsers == before.BulkUsers {
			r.bulk.note = "bulk fetch was not used"
		}
		err = r.costly(ctx, bulkURL)
	}
	if err = tolerate(err, r.bulk, r.worked); err != nil {
		return err
	}
	return r.single(ctx)
}

// costly measures what bulk fetch saves if the requests themselves cost
// something.
func (r *refreshRows) costly(ctx context.Context, bulkURL string) error {
	const work = "?work=1000"
	n := r.n / 5
	more := settings{"contacts.url": r.b.contactsURL() + work}
	without, err := r.big(ctx, n, more)
	if err != nil {
		return err
	}
	more["contacts.bulk_url"] = bulkURL + work
	with, err := r.big(ctx, n, more)
	if err == nil {
		r.worked.add(without, with)
	}
	return err
}

// big is the rate of a refresh of n users, to the last push.
func (r *refreshRows) big(ctx context.Context, n int, more settings) (rate float64, err error) {
	d, err := r.b.startRosterd(ctx, more)
	if err != nil {
		return 0, err
	}
	defer d.close()
	everybody := users('u', 200, 0, n)
	if err := d.link.run(ctx, &flow{users: everybody, window: 64, presence: true}); err != nil {
		return 0, err
	}
	took, err := r.b.refresh(ctx, d, everybody)
	return float64(n) / took.Seconds(), err
}

// refresh changes users, who are connected, and tells rosterd. It returns how
// long it took from the POST to the last push.
func (b *bench) refresh(ctx context.Context, d *rosterd, some []user) (time.Duration, error) {
	if err := b.change(ctx, some); err != nil {
		return 0, err
	}
	body := namesOf(some)
	wait := d.link.expect(&d.link.pushes, len(some))
	answer := make(chan error, 1)
	began := time.Now()
	go func() { answer <- refreshed(b.post(ctx, "http://"+d.refresh+"/roster_admin/refresh", body)) }()
	last, err := wait(ctx)
	if err != nil {
		return 0, fmt.Errorf("refresh: %w", err)
	}
	return last.Sub(began), <-answer
}

// single measures how long one change takes.
func (r *refreshRows) single(ctx context.Context) error {
	e, err := r.b.startEcho(ctx)
	if err != nil {
		return err
	}
	defer e.close()
	f := &flow{users: users('u', 1, 0, 1), passes: 10 * r.changes, window: 1, versions: []string{echoVersion}, laps: true}
	if err := e.link.run(ctx, f); err != nil {
		return err
	}
	trip := median(f.took)

	d, err := r.b.startRosterd(ctx, nil)
	if err != nil {
		return err
	}
	defer d.close()
	for _, contacts := range changeSizes {
		somebody := users('u', contacts, 0, 1)
		if err := d.link.run(ctx, &flow{users: somebody, window: 1, presence: true}); err != nil {
			return err
		}
		took := make([]time.Duration, r.changes)
		for i := range took {
			if took[i], err = r.b.refresh(ctx, d, somebody); err != nil {
				return err
			}
		}
		get, err := r.b.get(ctx, contacts, r.changes, "-workers", "1")
		if err != nil {
			return err
		}
		r.one[contacts].add(get.Median*1e3+micros(trip)/1e3, micros(median(took))/1e3)
	}
	return nil
}
