package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// serverRows are the rows of one variant of a real server. The first of a pair
// is beside the bare component, the second beside the in-process module.
type serverRows struct {
	b      *bench
	v      variant
	few    int // users of 1,000 contacts
	many   int // users of 200 contacts
	online int // users who are refreshed, of 200 contacts

	cold, again           map[int][2]*row // by the number of contacts
	last, mid, p99, costs [2]*row
}

// measured is what one subject gave.
type measured struct {
	cold, again           map[int]float64 // logins per second
	versions              bool            // its rosters have them
	last, mid, p99        time.Duration
	clients, serverCosted time.Duration // processor time of the cold logins of 200 contacts
}

// onServer is the part of a variant.
func (b *bench) onServer(name string, v variant) part {
	s := &serverRows{b: b, v: v, few: b.pick(100, 20), many: b.pick(500, 100), online: b.pick(1_000, 100),
		cold: make(map[int][2]*row), again: make(map[int][2]*row)}
	s.makeRows()
	return part{name: name, run: s.run}
}

// pair makes a row beside the bare component, and one beside the module if it
// is there.
func (s *serverRows) pair(what, unit string, bare, module float64, least bool) (rows [2]*row) {
	what = s.b.server + s.v.name + ": " + what
	rows[0] = s.b.row(what, unit, "bare component", bare, least)
	if s.b.peer != "" {
		rows[1] = s.b.row("  the same", unit, "module", module, least)
	}
	return rows
}

func (s *serverRows) makeRows() {
	s.cold[200] = s.pair("logins, 200 contacts", "/s", 0.9, 0, true)
	s.cold[1000] = s.pair("logins, 1000 contacts", "/s", 0.9, 0, true)
	s.again[200] = s.pair("logins with the version, 200 contacts", "/s", 0, 3, true)
	s.again[1000] = s.pair("logins with the version, 1000 contacts", "/s", 0, 8, true)
	s.last = s.pair(fmt.Sprintf("last push of a refresh of %d users", s.online), "ms", 0, s.v.refresh, false)
	s.mid = s.pair("chat meanwhile, median", "ms", 0, 0, false)
	s.p99 = s.pair("chat meanwhile, 99th percentile", "ms", 0, s.v.chat, false)
	s.costs[0] = s.b.row("  processor time of the clients, for a login of 200 contacts", "ms", "the server's", 1, false)
}

func (s *serverRows) run(ctx context.Context) error {
	bare, err := s.measure(ctx, s.b.startBare)
	if err != nil {
		return fmt.Errorf("bare component: %w", err)
	}
	real, err := s.measure(ctx, s.b.startReal)
	if err != nil {
		return fmt.Errorf("rosterd: %w", err)
	}
	s.note(0, bare, real)
	s.costs[0].add(micros(bare.serverCosted)/1e3/float64(s.many), micros(bare.clients)/1e3/float64(s.many))
	if s.b.peer == "" {
		return nil
	}
	module, err := s.measure(ctx, s.b.startPeer)
	if err != nil {
		return fmt.Errorf("module: %w", err)
	}
	s.note(1, module, real)
	return nil
}

// note adds what rosterd gave beside somebody else.
func (s *serverRows) note(which int, other, real measured) {
	for contacts, rows := range s.cold {
		rows[which].add(other.cold[contacts], real.cold[contacts])
		if real.versions {
			s.again[contacts][which].add(other.again[contacts], real.again[contacts])
		} else {
			s.again[contacts][which].note = "not there yet: versions"
		}
	}
	for rows, figure := range map[*row][2]time.Duration{
		s.last[which]: {other.last, real.last}, s.mid[which]: {other.mid, real.mid}, s.p99[which]: {other.p99, real.p99},
	} {
		rows.add(micros(figure[0])/1e3, micros(figure[1])/1e3)
	}
}

// measure starts a server with a subject, and measures it.
func (s *serverRows) measure(ctx context.Context, start func(context.Context, variant, []user) (*subject, error)) (m measured, err error) {
	accounts := append(users('e', 0, 0, 3), users('u', 200, 0, max(s.many, s.online))...)
	subject, err := start(ctx, s.v, append(accounts, users('u', 1000, 0, s.few)...))
	if err != nil {
		return m, err
	}
	defer subject.close()
	m.cold, m.again = make(map[int]float64), make(map[int]float64)
	address := subject.server.ClientAddress()
	for _, size := range []struct{ contacts, n int }{{200, s.many}, {1000, s.few}} {
		clients, server := ownCPU(), serverCPU()
		cold, again, vers, err := loginRates(ctx, address, users('u', size.contacts, 0, size.n))
		if err != nil {
			return m, err
		}
		m.cold[size.contacts], m.again[size.contacts] = cold, again
		m.versions = vers[0] != ""
		if size.contacts == 200 {
			m.clients, m.serverCosted = (ownCPU()-clients)/2, (serverCPU()-server)/2
		}
	}
	return m, s.refresh(ctx, subject, &m)
}

// serverCPU is what the server has used so far.
func serverCPU() time.Duration { return childrenCPU("lua", "prosody", "beam", "erl") }

// refresh measures a refresh of users who are online, and how long two others
// wait for each other's messages meanwhile.
func (s *serverRows) refresh(ctx context.Context, to *subject, m *measured) error {
	address := to.server.ClientAddress()
	some := users('u', 200, 0, s.online)
	clients := make([]*client, len(some))
	defer func() {
		for _, c := range clients {
			if c != nil {
				c.close()
			}
		}
	}()
	if _, err := logins(ctx, address, some, nil, func(i int, c *client) { clients[i] = c }); err != nil {
		return err
	}
	for _, c := range clients {
		if err := c.online(); err != nil {
			return err
		}
	}
	var left atomic.Int64
	left.Store(int64(len(some)))
	last := make(chan time.Time, 1)
	for _, c := range clients {
		var once sync.Once
		go c.listen(func() {
			once.Do(func() {
				if left.Add(-1) == 0 {
					last <- time.Now()
				}
			})
		}, func(string) {})
	}
	ch, err := newChat(ctx, address)
	if err != nil {
		return err
	}
	defer ch.close()
	if err := s.b.change(ctx, some); err != nil {
		return err
	}
	talking, hush := context.WithCancel(ctx)
	defer hush()
	talked, told := make(chan error, 1), make(chan error, 1)
	began := time.Now()
	go func() { talked <- ch.talk(talking) }()
	go func() { told <- s.b.tell(ctx, to, some) }()
	select {
	case at := <-last:
		m.last = at.Sub(began)
	case <-time.After(2 * time.Minute):
		return fmt.Errorf("refresh: %d of %d users were pushed nothing", left.Load(), len(some))
	case <-ctx.Done():
		return ctx.Err()
	}
	// A refresh that is over at once is to have a few messages, too.
	time.Sleep(time.Until(began.Add(20 * pace)))
	hush()
	if err := <-talked; err != nil {
		return err
	}
	if m.mid, m.p99, err = ch.latencies(ctx); err != nil {
		return err
	}
	return <-told
}
