package fetcher

import (
	"cmp"
	"context"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// A breaker opens when half of at least tripFetches fetches that ended within one
// tripWindow found the backend down. While it is open rosterd alone asks, for one
// user every openTime, until it finds the backend up.
const (
	tripWindow  = 10 * time.Second
	tripFetches = 20
	openTime    = 5 * time.Second
)

// breaker stops the fetches from one backend, a host and port, while it is down. A
// backend that is down does not cut off another one. It is safe for concurrent use.
type breaker struct {
	f       *Fetcher
	backend string // host:port, for the log

	mu         sync.Mutex // guards all below; nothing blocks while it is held
	open       bool
	opened     time.Time
	generation uint64 // grows when it opens and when it closes
	domains    map[string]struct{}
	last       jid.JID // who was asked for last
	lastError  string
	errorAt    time.Time

	// While it is closed:
	window        time.Time // when it began
	ended, failed int       // fetches since then
	failing       map[jid.JID]struct{}
}

// breaker finds or makes the breaker of the backend at u. Their number is bounded: no
// user's name is in the host or port of a URL.
func (f *Fetcher) breaker(u *url.URL) *breaker {
	backend := backendOf(u)
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.breakers[backend]
	if b == nil {
		b = &breaker{f: f, backend: backend, domains: make(map[string]struct{}), failing: make(map[jid.JID]struct{})}
		f.breakers[backend] = b
	}
	return b
}

// Backend is how a host and port of the contacts URLs is doing.
type Backend struct {
	Name      string    `json:"name"` // host:port
	Down      bool      `json:"down"` // it is asked once every 5 s
	Since     time.Time `json:"since,omitzero"`
	LastError string    `json:"last_error,omitempty"` // of [Error]; "": none yet
	ErrorAt   time.Time `json:"last_error_at,omitzero"`
}

// Backends are those that were asked, by name.
func (f *Fetcher) Backends() []Backend {
	f.mu.Lock()
	breakers := slices.Collect(maps.Values(f.breakers))
	f.mu.Unlock()
	var backends []Backend
	for _, b := range breakers {
		b.mu.Lock()
		status := Backend{Name: b.backend, Down: b.open, LastError: b.lastError, ErrorAt: b.errorAt}
		if b.open {
			status.Since = b.opened
		}
		b.mu.Unlock()
		backends = append(backends, status)
	}
	slices.SortFunc(backends, func(a, b Backend) int { return strings.Compare(a.Name, b.Name) })
	return backends
}

// backendOf is the host:port of a URL.
func backendOf(u *url.URL) string {
	port := cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	return net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// probeKey marks the context of a probe, which an open breaker lets through.
type probeKey struct{}

// admits reports whether a fetch may begin now, and the generation in which it does.
func (b *breaker) admits(ctx context.Context, user jid.JID) (generation uint64, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if ctx.Value(probeKey{}) != nil {
		return b.generation, true
	}
	b.domains[user.Domain()] = struct{}{}
	b.last = user
	return b.generation, !b.open
}

// isOpen reports whether no request may begin now but a probe.
func (b *breaker) isOpen() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open
}

// unchanged reports whether the breaker has neither opened nor closed since a generation.
func (b *breaker) unchanged(generation uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.generation == generation
}

// end takes note of the end of a fetch. One that began before the breaker last
// changed tells nothing about the time since, and is ignored.
func (b *breaker) end(generation uint64, user jid.JID, failure *Error) {
	now := time.Now()
	b.mu.Lock()
	if failure != nil && failure.Result != resultCanceled && failure.Result != resultOpen {
		b.lastError, b.errorAt = failure.text, now
	}
	if generation != b.generation || b.mustBeOpen(now, user, failure) == b.open {
		b.mu.Unlock()
		return
	}
	b.open = !b.open
	b.generation++
	b.window = time.Time{} // what was counted is of before
	if b.open {
		b.opened = now
	}
	open, generation := b.open, b.generation
	down, domains := now.Sub(b.opened), slices.Sorted(maps.Keys(b.domains))
	b.mu.Unlock()

	if open {
		b.f.options.Metrics.CircuitsOpen.Inc()
		b.f.options.Logger.Error("the backend is down: it is asked once every 5 s until it answers", "backend", b.backend, "err", failure.text)
		b.f.startProbe(func() { b.probe(generation) })
		return
	}
	b.f.options.Metrics.CircuitsOpen.Dec()
	b.f.options.Logger.Info("the backend answers again", "backend", b.backend, "down", down.Round(time.Millisecond))
	if b.f.recovered != nil {
		b.f.recovered(domains)
	}
}

// mustBeOpen counts a fetch that ended, and reports whether the breaker has to be open
// now. b.mu is held.
func (b *breaker) mustBeOpen(now time.Time, user jid.JID, failure *Error) bool {
	down := failure != nil && failure.down
	if b.open { // a probe, which closes it by any answer, be it nonsense
		return failure != nil && (down || !slices.Contains([]string{resultStatus, resultInvalid, resultTooLarge}, failure.Result))
	}
	if now.Sub(b.window) >= tripWindow {
		b.window, b.ended, b.failed = now, 0, 0
		clear(b.failing)
	}
	if failure != nil && !down && failure.cause != nil {
		return false // the caller's context ended it
	}
	if down && failure.Result != resultRefused {
		if _, known := b.failing[user]; known {
			return false // that may be this user's trouble alone
		}
		b.failing[user] = struct{}{}
	}
	b.ended++
	if down {
		b.failed++
	}
	return down && b.ended >= tripFetches && 2*b.failed >= b.ended
}

// probe asks the backend, time and again until the breaker closes, for the user who
// was asked for last. Nobody waits for the contacts.
func (b *breaker) probe(generation uint64) {
	f := b.f
	for {
		select {
		case <-time.After(openTime):
		case <-f.life.Done():
			return
		}
		b.mu.Lock()
		user := b.last
		b.mu.Unlock()
		ctx, r := context.WithValue(f.life, probeKey{}, true), roster.Request{User: user}
		req, failure := f.request(r)
		if q := f.bulk(user.Domain()); failure == nil && backendOf(req.URL) != b.backend && q != nil && q.backend == b.backend {
			_ = f.post(ctx, q.url, []jid.JID{user}, func(int, *roster.Roster) {})
		} else {
			_, _ = f.Fetch(ctx, r)
		}
		if !b.unchanged(generation) {
			return
		}
	}
}
