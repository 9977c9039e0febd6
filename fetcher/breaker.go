package fetcher

import (
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

// A breaker opens when half of at least tripFetches fetches that ended within
// tripWindow found the backend down. It is open for openTime. Then one fetch at a
// time may probe the backend, until one finds it up.
const (
	tripWindow  = 10 * time.Second
	tripFetches = 20
	openTime    = 5 * time.Second
	// Whoever asks when a probe is due makes it. After this time, rosterd does.
	probeDelay = openTime + time.Millisecond
)

// breaker stops the fetches from one backend, a host and port, while it is down. A
// backend that is down does not cut off another one. It is safe for concurrent use.
type breaker struct {
	f       *Fetcher
	backend string      // host:port, for the log
	timer   *time.Timer // of the next probe
	made    time.Time

	mu         sync.Mutex // guards all below; nothing blocks while it is held
	generation uint64     // grows when it opens and when it closes
	open       bool
	opened     time.Time // when, while open
	retry      time.Time // when the next probe may begin, while open
	probing    bool      // one is under way
	domains    map[string]struct{}
	last       jid.JID // who was asked for last
	window     window  // while closed
	failing    map[jid.JID]struct{}
	failingAt  time.Time // when the first of them was noted
}

// attempt is a fetch that a breaker let begin.
type attempt struct {
	user       jid.JID
	generation uint64 // of the breaker, then
	probe      bool
}

// breaker is that for the backend at u. There are as many as the URLs that are
// configured have hosts and ports; no user's name is in these.
func (f *Fetcher) breaker(u *url.URL) *breaker {
	backend := backendOf(u)
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.breakers[backend]
	if b == nil {
		b = &breaker{f: f, backend: backend, made: time.Now(), domains: make(map[string]struct{}), failing: make(map[jid.JID]struct{})}
		b.timer = time.AfterFunc(probeDelay, b.probe)
		b.timer.Stop()
		f.breakers[backend] = b
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

// refuses reports whether begin would refuse a fetch now, which then need not wait
// for a slot.
func (b *breaker) refuses(user jid.JID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	refused := !b.admits()
	if refused {
		b.asked(user)
	}
	return refused
}

// begin lets a fetch begin, or refuses it. Each attempt is to be ended.
func (b *breaker) begin(user jid.JID) (a attempt, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked(user)
	if !b.admits() {
		return a, false
	}
	b.probing = b.open
	return attempt{user: user, generation: b.generation, probe: b.open}, true
}

// admits reports whether a fetch may begin now. b.mu is held.
func (b *breaker) admits() bool {
	return !b.open || !b.probing && !time.Now().Before(b.retry)
}

// asked notes a user who is to be fetched. b.mu is held.
func (b *breaker) asked(user jid.JID) {
	b.domains[user.Domain()] = struct{}{}
	b.last = user
}

// retryable reports whether a fetch may ask once more: not if the breaker has
// opened, and not if this is the one request that is to show whether it closes.
func (b *breaker) retryable(a attempt) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !a.probe && a.generation == b.generation
}

// end takes note of the end of a fetch. One that began before the breaker last
// changed tells nothing about the time since, and is ignored.
func (b *breaker) end(a attempt, failure *Error) {
	now := time.Now()
	b.mu.Lock()
	if a.generation != b.generation {
		b.mu.Unlock()
		return
	}
	wasOpen := b.open
	if a.probe {
		b.endProbe(now, failure)
	} else {
		b.count(now, a.user, failure)
	}
	if b.open == wasOpen {
		b.mu.Unlock()
		return
	}
	b.generation++
	down, domains := now.Sub(b.opened), slices.Sorted(maps.Keys(b.domains))
	b.mu.Unlock()

	if !wasOpen {
		b.f.addOpenBreakers(1)
		b.f.options.Logger.Error("the backend is down: it is asked once every 5 s until it answers", "backend", b.backend, "err", failure.text)
		return
	}
	b.f.addOpenBreakers(-1)
	b.f.options.Logger.Info("the backend answers again", "backend", b.backend, "down", down.Round(time.Millisecond))
	if b.f.recovered != nil {
		b.f.recovered(domains)
	}
}

func (f *Fetcher) addOpenBreakers(n float64) {
	if f.options.Metrics.CircuitsOpen != nil {
		f.options.Metrics.CircuitsOpen.Add(n)
	}
}

// count counts a fetch that ended while the breaker was closed, and opens it if
// there were too many failures. b.mu is held.
func (b *breaker) count(now time.Time, user jid.JID, failure *Error) {
	down := failure != nil && failure.down
	switch {
	case !down && failure != nil && failure.cause != nil:
		return // the caller's context ended it
	case down && failure.Result != resultRefused && !b.firstOf(now, user):
		return // that may be this user's trouble alone
	}
	ended, failed := b.window.add(now.Sub(b.made), down)
	if !down || ended < tripFetches || 2*failed < ended {
		return
	}
	b.open, b.opened, b.retry = true, now, now.Add(openTime)
	b.window = window{}
	clear(b.failing)
	b.probeLater()
}

// window counts the fetches that ended within tripWindow, each tenth of it by
// itself.
type window [10]struct {
	tenth         int64 // since the breaker was made
	ended, failed int
}

// add counts a fetch that ended at that age of the breaker, and returns the sums.
func (w *window) add(age time.Duration, down bool) (ended, failed int) {
	const n = int64(len(w))
	now := int64(age / (tripWindow / time.Duration(n)))
	current := &w[now%n]
	if current.tenth != now {
		current.tenth, current.ended, current.failed = now, 0, 0
	}
	current.ended++
	if down {
		current.failed++
	}
	for _, tenth := range w {
		if tenth.tenth > now-n {
			ended += tenth.ended
			failed += tenth.failed
		}
	}
	return ended, failed
}

// firstOf reports whether this is the first failure of a user in this window.
// b.mu is held.
func (b *breaker) firstOf(now time.Time, user jid.JID) bool {
	if now.Sub(b.failingAt) >= tripWindow {
		clear(b.failing)
		b.failingAt = now
	}
	_, known := b.failing[user]
	b.failing[user] = struct{}{}
	return !known
}

// endProbe closes the breaker if a probe found the backend up: it answers, be it
// nonsense. b.mu is held.
func (b *breaker) endProbe(now time.Time, failure *Error) {
	b.probing = false
	switch {
	case failure == nil,
		!failure.down && slices.Contains([]string{resultStatus, resultInvalid, resultTooLarge}, failure.Result):
		b.open = false
		return
	case failure.down || failure.cause == nil:
		b.retry = now.Add(openTime)
	} // else the caller's context ended it, and the next one may probe at once
	b.probeLater()
}

// probeLater lets rosterd probe the backend when nobody else has. b.mu is held.
func (b *breaker) probeLater() { b.timer.Reset(probeDelay) }

// probe asks the backend for the user who was asked for last. Nobody waits for the
// contacts: what counts is whether the breaker closes.
func (b *breaker) probe() {
	f := b.f
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return
	}
	f.probes.Add(1)
	f.mu.Unlock()
	defer f.probes.Done()

	b.mu.Lock()
	user, open := b.last, b.open
	b.mu.Unlock()
	if !open {
		return
	}
	r := roster.Request{User: user}
	req, failure := f.request(r)
	if q := f.bulk(user.Domain()); failure == nil && backendOf(req.URL) != b.backend && q != nil && q.backend == b.backend {
		_ = f.post(f.life, q.url, []jid.JID{user}, func(int, *roster.Roster) {})
	} else {
		_, _ = f.count(f.fetch(f.life, r, nil))
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open { // a probe that could not be made has ended nothing
		b.probeLater()
	}
}
