package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"rosterd/e2e/harness"
	"rosterd/internal/pgserver"
	"rosterd/store"
)

// pairRows are the rows about the state in PostgreSQL, beside SQLite.
type pairRows struct {
	b              *bench
	n              int // users of a refresh
	many, few      int // whose state is kept; of whom a client is connected
	refresh        *row
	size, takeover *row
	all            *row
}

func (b *bench) pair() part {
	p := &pairRows{b: b, n: b.pick(10_000, 1_000), many: b.pick(1_000_000, 10_000), few: b.pick(100_000, 1_000)}
	p.refresh = b.row(fmt.Sprintf("refresh of %d users, 200 contacts, PostgreSQL", p.n), "/s", "SQLite", 0.5, true)
	p.size = b.row(fmt.Sprintf("database with the state of %d users", p.many), "MiB", "their rosters, 3 KB each", 0, false)
	p.takeover = b.row(fmt.Sprintf("  from the lock to all that is read, %d connected", p.few), "s", "1 s", 1, false)
	p.all = b.row(fmt.Sprintf("  the same, %d connected", p.many), "s", "10 s", 1, false)
	return part{name: "pair", run: p.run, once: true, long: time.Hour}
}

func (p *pairRows) run(ctx context.Context) error {
	postgres, err := pgserver.Start("fsync=on", "shared_buffers=512MB", "max_wal_size=4GB")
	if err != nil {
		return err
	}
	defer postgres.Close()
	r := &refreshRows{b: p.b}
	sqlite, err := r.big(ctx, p.n, nil)
	if err != nil {
		return err
	}
	shared, err := r.big(ctx, p.n, settings{"state.path": nil, "state.url": postgres.URL(), "refresh.advertise": "http://127.0.0.1:5290"})
	if err != nil {
		return err
	}
	p.refresh.add(sqlite, shared)
	return p.state(ctx, postgres)
}

// state measures the state of many users, which it makes with SQL.
func (p *pairRows) state(ctx context.Context, postgres *pgserver.Server) error {
	db, err := store.NewPair(postgres.URL(), "bench.example.org", "", slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer db.Close()
	takeOver := func() (took time.Duration, size int64, err error) {
		began := time.Now()
		lease, err := db.Stand(ctx)
		if err != nil {
			return 0, 0, err
		}
		defer lease.Release(true)
		s, err := lease.Open(store.Options{}, false, nil)
		if err != nil {
			return 0, 0, err
		}
		defer s.Close()
		err = s.Resources(func(store.Resource) error { return nil })
		if err == nil {
			err = s.Marks(func(string, string, time.Time) error { return nil })
		}
		took = time.Since(began)
		if err == nil {
			size, err = db.Size(ctx)
		}
		return took, size, err
	}
	if _, _, err := takeOver(); err != nil { // the tables are made
		return err
	}
	const number = "(SELECT pair FROM rosterd.pairs WHERE domain = 'bench.example.org')"
	fill := fmt.Sprintf(`INSERT INTO rosterd.users (pair, jid, items, version, fetched, validator, not_found, outdated, epoch, answered, told, missed, former, unsure, seen)
		SELECT %s, 'user' || n || '@example.org', 200, '3f2a9c01d4e5b687', '2026-01-01T00:00:00.000000000Z', '', false, false, 7, '2026-01-01T00:00:00.000000000Z',
			'[{"resource":"balcony.7d1f2","versioned":true,"asked":"2026-01-01T00:00:00Z"}]', '', '', false, '2026-01-01T00:00:00.000000000Z' FROM generate_series(1, %d) AS n;
		INSERT INTO rosterd.rosters (pair, jid, roster, checksum) SELECT %[1]s, 'user' || n || '@example.org', convert_to(repeat(md5(n::text), 94), 'UTF8'), 0 FROM generate_series(1, %[2]d) AS n`,
		number, p.many)
	connect := func(first, last int) string {
		return fmt.Sprintf(`INSERT INTO rosterd.resources (pair, bare, resource, connected, interested, available, stamped, left_at)
			SELECT %s, 'user' || n || '@example.org', 'balcony.7d1f2', true, true, true, '', '' FROM generate_series(%d, %d) AS n`, number, first, last)
	}
	if err := postgres.Exec(ctx, fill+";"+connect(1, p.few)); err != nil {
		return err
	}
	took, size, err := takeOver()
	if err != nil {
		return err
	}
	p.size.add(float64(p.many)*3008/(1<<20), float64(size)/(1<<20))
	p.takeover.add(1, took.Seconds())
	if err := postgres.Exec(ctx, connect(p.few+1, p.many)); err != nil {
		return err
	}
	if took, _, err = takeOver(); err == nil {
		p.all.add(10, took.Seconds())
	}
	return err
}

// takeoverRows are the rows about instances of a pair that are killed, or stopped, on a real
// server.
type takeoverRows struct {
	b             *bench
	kills, stops  int
	killed, ended *row
}

func (b *bench) takeover() part {
	t := &takeoverRows{b: b, kills: b.pick(50, 3), stops: b.pick(20, 2)}
	t.killed = b.row(fmt.Sprintf("%s: kill -9 to the first answer, 95th percentile of %d", b.server, t.kills), "s", "3 s", 1, false)
	t.ended = b.row(fmt.Sprintf("  SIGTERM to the first answer, 95th percentile of %d", t.stops), "s", "1 s", 1, false)
	return part{name: "takeover", run: t.run, once: true, long: time.Hour}
}

func (t *takeoverRows) run(ctx context.Context) error {
	postgres, err := pgserver.Start("fsync=on")
	if err != nil {
		return err
	}
	defer postgres.Close()
	backend, err := harness.StartBackend()
	if err != nil {
		return err
	}
	defer backend.Close()
	options := harness.ServerOptions{Host: host, Component: domain, Secret: secret, Users: map[string]string{"juliet": "secret"}}
	var server *harness.Server
	if t.b.server == "prosody" {
		server, err = harness.StartProsody(ctx, harness.ProsodyOptions{ServerOptions: options})
	} else {
		options.AnyFromAddress = true
		server, err = harness.StartEjabberd(ctx, harness.EjabberdOptions{ServerOptions: options})
	}
	if err != nil {
		return err
	}
	defer server.Close()
	start := func() (*harness.Rosterd, error) {
		return harness.StartRosterd(harness.RosterdOptions{Binary: t.b.binary, Server: server, ContactsURL: backend.URL(),
			Settings: map[string]any{"state.url": postgres.URL(), "xmpp.unrestricted": options.AnyFromAddress, "log.level": "info"}})
	}
	active, err := start()
	if err != nil {
		return err
	}
	defer func() { active.Close() }()
	if err := active.WaitReady(ctx); err != nil {
		return err
	}
	client, err := harness.NewGosrcClient(harness.ClientOptions{Address: server.ClientAddress(), JID: "juliet@" + host + "/bench", Password: "secret"})
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.Login(ctx); err != nil {
		return err
	}
	var killed, stopped []time.Duration
	for n := range t.kills + t.stops {
		next, err := start()
		if err != nil {
			return err
		}
		if err := next.WaitStandby(ctx); err != nil {
			return err
		}
		// The server itself has the name of before: with that, it may answer while nobody is there.
		name := fmt.Sprintf("Romeo %d", n)
		backend.Set("juliet", harness.Contacts{"romeo@example.org": {Name: name}})
		began := time.Now()
		end := func() { active.Kill() }
		if n >= t.kills {
			end = func() { _, _ = active.Stop(ctx) }
		}
		go end()
		for {
			if err := next.WaitLog(ctx, "this instance is the active one"); err != nil {
				return err
			}
			if items, err := client.Roster(ctx); err == nil && len(items) == 1 && items[0].Name == name {
				break
			}
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if n < t.kills {
			killed = append(killed, time.Since(began))
		} else {
			stopped = append(stopped, time.Since(began))
		}
		active.Close()
		active = next
	}
	percentile := func(all []time.Duration) float64 {
		slices.Sort(all)
		return all[len(all)*95/100].Seconds()
	}
	t.killed.add(3, percentile(killed))
	t.ended.add(1, percentile(stopped))
	return nil
}
