package fetcher

import (
	"context"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"rosterd/roster"
)

// circuits are the breakers of all backends: one for each host and port, so that
// a backend that is down does not cut another one off. There are as many as the
// contacts URLs that are configured have hosts; no user's name is in a host.
type circuits struct {
	mu      sync.Mutex // guards all below
	by      map[string]*breaker
	stopped bool

	probes sync.WaitGroup  // under way
	life   context.Context // of the probes
	cancel context.CancelFunc
}

func newCircuits() *circuits {
	c := &circuits{by: make(map[string]*breaker)}
	c.life, c.cancel = context.WithCancel(context.Background())
	return c
}

// of is the breaker for a URL, which calls probe while its circuit is open.
func (c *circuits) of(u *url.URL, probe func(*breaker)) *breaker {
	backend := backendOf(u)
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.by[backend]
	if b == nil {
		b = newBreaker(backend, func(b *breaker) { c.probe(b, probe) })
		b.stopped = c.stopped
		c.by[backend] = b
	}
	return b
}

// backendOf is the host:port of a URL.
func backendOf(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// probe probes a backend whose circuit is open, and sees to it that the next
// probe comes if it still is then.
func (c *circuits) probe(b *breaker, probe func(*breaker)) {
	c.mu.Lock()
	if c.stopped {
		c.mu.Unlock()
		return
	}
	c.probes.Add(1)
	c.mu.Unlock()
	defer c.probes.Done()
	probe(b)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probeLater()
}

// probeLater lets a probe follow when the circuit has been open long enough, if
// it is open. b.mu is held.
func (b *breaker) probeLater() {
	if b.open && !b.stopped {
		b.timer.Reset(openTime + time.Millisecond) // the circuit wants more than openTime
	}
}

// stop ends the probes and waits for those under way.
func (c *circuits) stop() {
	c.mu.Lock()
	c.stopped = true
	for _, b := range c.by {
		b.mu.Lock()
		b.stopped = true
		b.timer.Stop()
		b.mu.Unlock()
	}
	c.mu.Unlock()
	c.cancel()
	c.probes.Wait()
}

// breaker is the one for the backend at u.
func (f *Fetcher) breaker(u *url.URL) *breaker { return f.circuits.of(u, f.probe) }

// probe fetches the contacts of the user who was asked for last. Nobody waits
// for them: what counts is whether the circuit closes.
func (f *Fetcher) probe(b *breaker) {
	b.mu.Lock()
	user, open := b.last, b.open
	b.mu.Unlock()
	if !open {
		return
	}
	r := roster.Request{User: user}
	if q := f.bulk(user.Domain()); q != nil && q.backend == b.backend {
		if req, failure := f.request(r); failure == nil && backendOf(req.URL) != b.backend {
			_ = f.together(f.circuits.life, q.url, []asked{{user, func(*roster.Roster) {}}})
			return
		}
	}
	_, _ = f.count(f.fetch(f.circuits.life, r, nil))
}

// end tells the breaker the end of a fetch, and others what that changed.
func (f *Fetcher) end(b *breaker, p pass, failure *Error) {
	switch change, down := b.end(p, failure); change {
	case opened:
		f.circuitsOpen(1)
		f.log.LogAttrs(context.Background(), slog.LevelError, "the backend is down: it is asked once every 5 s until it answers",
			slog.String("backend", b.backend), slog.String("err", failure.text))
	case closed:
		f.circuitsOpen(-1)
		f.log.LogAttrs(context.Background(), slog.LevelInfo, "the backend answers again",
			slog.String("backend", b.backend), slog.Duration("down", down.Round(time.Millisecond)))
		if f.recovered != nil {
			f.recovered(b.users())
		}
	}
}

func (f *Fetcher) circuitsOpen(n float64) {
	if f.metrics.CircuitsOpen != nil {
		f.metrics.CircuitsOpen.Add(n)
	}
}
