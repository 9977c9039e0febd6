package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// keepRows are the rows about the server's own rosters: what it costs the logins and the
// others that rosterd keeps them.
type keepRows struct {
	b        *bench
	imported int // users of 200 contacts who are brought to the server
	logins   int // of each kind

	first20, first200, later *row
	module                   *row // nil: there is none
	took, each, chat, share  *row
	processor                *row
}

// importTakes is how long an import may take: each item has Prosody save the whole roster,
// and rosterd takes a fifth of its time.
const importTakes = 3 * time.Hour

func (b *bench) serverRosters() part {
	r := &keepRows{b: b, imported: b.pick(1_000, 10), logins: b.pick(500, 50)}
	const off = "server_roster off"
	r.first20 = b.row(b.server+": first logins, 20 contacts that are written before", "/s", off, 0, true)
	r.first200 = b.row(b.server+": first logins, 200 contacts that are written behind", "/s", off, 0.9, true)
	r.later = b.row(b.server+": logins in step, 200 contacts", "/s", off, 0.9, true)
	if b.peer != "" {
		r.module = b.row("  the same", "/s", "module", 0, true)
	}
	what := fmt.Sprintf("%s: import of %d users, 200 contacts", b.server, r.imported)
	r.took = b.row(what, "s", "", 0, false)
	r.each = b.row("  the server's time for an item", "ms", "", 0, false)
	r.chat = b.row("  chat meanwhile, 99th percentile", "ms", "idle", 3, false)
	r.share = b.row("  share of the server's time", "%", "a fifth", 1, false)
	r.processor = b.row("  processor time of the server meanwhile", "%", "idle", 0, false)
	return part{name: "rosters", run: r.run, long: importTakes, once: true}
}

func (r *keepRows) run(ctx context.Context) error {
	few, others := users('u', 20, 0, r.logins), users('u', 200, r.imported, r.logins)
	accounts := append(users('e', 0, 0, 3), few...)
	accounts = append(append(accounts, others...), users('u', 200, 0, r.imported)...)
	var first20, first200, later [2]float64
	var module float64
	for i, start := range []func() (*subject, error){
		func() (*subject, error) { return r.b.startReal(ctx, variants[r.b.server][0], accounts) },
		func() (*subject, error) {
			v := variants[r.b.server][0]
			v.keeps = true
			return r.b.startReal(ctx, v, accounts)
		},
	} {
		err := r.with(ctx, start, func(s *subject) (err error) {
			if first20[i], err = coldRate(ctx, s, few); err != nil {
				return err
			}
			if first200[i], err = coldRate(ctx, s, others); err != nil {
				return err
			}
			if err := r.settled(ctx, s); err != nil {
				return err
			}
			if later[i], err = coldRate(ctx, s, others); err != nil || i == 0 {
				return err
			}
			return r.bring(ctx, s)
		})
		if err != nil {
			return err
		}
	}
	r.first20.add(first20[0], first20[1])
	r.first200.add(first200[0], first200[1])
	r.later.add(later[0], later[1])
	if r.module == nil {
		return nil
	}
	err := r.with(ctx, func() (*subject, error) { return r.b.startPeer(ctx, variants[r.b.server][0], accounts) }, func(s *subject) (err error) {
		module, err = coldRate(ctx, s, others)
		return err
	})
	r.module.add(module, later[1])
	return err
}

// with has a subject for as long as use takes.
func (r *keepRows) with(ctx context.Context, start func() (*subject, error), use func(*subject) error) error {
	s, err := start()
	if err != nil {
		return err
	}
	defer s.close()
	return use(s)
}

// coldRate is the rate of logins whose clients have no roster.
func coldRate(ctx context.Context, s *subject, some []user) (float64, error) {
	took, err := logins(ctx, s.server.ClientAddress(), some, nil, func(_ int, c *client) { c.close() })
	return float64(len(some)) / took.Seconds(), err
}

// bring measures an import: users who are offline are reported, and have nothing on the
// server yet. The chat of others is measured before, for as long as a tenth of a minute.
func (r *keepRows) bring(ctx context.Context, s *subject) error {
	idle, _, processorIdle, err := r.meanwhile(ctx, s, func(ctx context.Context) error {
		return sleepFor(ctx, time.Duration(r.b.pick(30, 3))*time.Second)
	})
	if err != nil {
		return err
	}
	before, err := s.rosterFigures(ctx)
	if err != nil {
		return err
	}
	p99, took, processor, err := r.meanwhile(ctx, s, func(ctx context.Context) error {
		if err := r.b.tell(ctx, s, users('u', 200, 0, r.imported)); err != nil {
			return err
		}
		return s.until(ctx, func(now rosterFigures) bool {
			return now.written-before.written >= float64(200*r.imported) && now.waiting == 0
		})
	})
	if err != nil {
		return err
	}
	after, err := s.rosterFigures(ctx)
	if err != nil {
		return err
	}
	seconds, items := after.seconds-before.seconds, after.written-before.written
	r.took.add(0, took.Seconds())
	r.each.add(0, seconds*1e3/items)
	r.chat.add(micros(idle)/1e3, micros(p99)/1e3)
	r.share.add(20, seconds/took.Seconds()*100)
	r.processor.add(processorIdle*100, processor*100)
	if after.failed > before.failed {
		r.took.note = fmt.Sprintf("%.0f items failed on the way", after.failed-before.failed)
	}
	return nil
}

// meanwhile does something, and measures the chat of two others and the server's processor.
func (r *keepRows) meanwhile(ctx context.Context, s *subject, do func(context.Context) error) (p99, took time.Duration, processor float64, err error) {
	ch, err := newChat(ctx, s.server.ClientAddress())
	if err != nil {
		return 0, 0, 0, err
	}
	defer ch.close()
	talking, hush := context.WithCancel(ctx)
	defer hush()
	talked := make(chan error, 1)
	began, cpu := time.Now(), serverCPU()
	go func() { talked <- ch.talk(talking) }()
	if err := do(ctx); err != nil {
		return 0, 0, 0, err
	}
	took = time.Since(began)
	processor = (serverCPU() - cpu).Seconds() / took.Seconds()
	hush()
	if err := <-talked; err != nil {
		return 0, 0, 0, err
	}
	_, p99, err = ch.latencies(ctx)
	return p99, took, processor, err
}

// settled waits until rosterd has nothing to bring to the server.
func (r *keepRows) settled(ctx context.Context, s *subject) error {
	return s.until(ctx, func(now rosterFigures) bool { return now.waiting == 0 })
}

// rosterFigures are what rosterd says of the server's own rosters.
type rosterFigures struct{ written, failed, waiting, seconds float64 }

func (s *subject) until(ctx context.Context, reached func(rosterFigures) bool) error {
	for {
		now, err := s.rosterFigures(ctx)
		if err != nil || reached(now) {
			return err
		}
		if err := sleepFor(ctx, 200*time.Millisecond); err != nil {
			return fmt.Errorf("%w; last: %+v", err, now)
		}
	}
}

func (s *subject) rosterFigures(ctx context.Context) (now rosterFigures, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.metrics+"/metrics", nil)
	if err != nil {
		return now, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return now, err
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		series, value, _ := strings.Cut(lines.Text(), " ")
		x, _ := strconv.ParseFloat(value, 64)
		switch series {
		case `rosterd_server_roster_items_total{result="written"}`:
			now.written = x
		case `rosterd_server_roster_items_total{result="failed"}`:
			now.failed = x
		case "rosterd_server_roster_waiting_users":
			now.waiting = x
		case "rosterd_server_roster_write_seconds_total":
			now.seconds = x
		}
	}
	return now, lines.Err()
}

func sleepFor(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
