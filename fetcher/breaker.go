package fetcher

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"

	"rosterd/jid"
)

// A circuit opens when half of at least tripFetches fetches that ended within
// tripWindow found the backend down. It is open for openTime; then one fetch at
// a time is let through, until one closes it.
const (
	tripWindow  = 10 * time.Second
	tripFetches = 20
	openTime    = 5 * time.Second
)

// What the circuit is told of a fetch. nil is a success.
var (
	errDown    = errors.New("down")
	errIgnored = errors.New("ignored")
)

// breaker stops the fetches from one backend, a host and port, while it is
// down. It is safe for concurrent use.
//
// The circuit counts what ended, when it ends: by itself it would count a fetch
// to the second in which it began, and forget it if it took longer than the
// window, as timeouts may.
type breaker struct {
	backend string // host:port, for the log

	mu         sync.Mutex // guards all below; nothing blocks while it is held
	circuit    *gobreaker.TwoStepCircuitBreaker[struct{}]
	generation uint64    // grows with every change of the circuit's state
	open       bool      // the state is not closed
	since      time.Time // when it opened
	domains    map[string]struct{}

	// One user's trouble is not the backend's: what may be his alone is counted
	// once for each user and window.
	failing      map[jid.JID]struct{}
	failingSince time.Time

	// While the circuit is open and nobody asks, probe asks for the one who
	// asked last.
	last    jid.JID
	timer   *time.Timer // of the next probe
	stopped bool
}

// newBreaker makes a breaker whose circuit is closed. probe is called, in a
// goroutine of its own, when it has been open for a while.
func newBreaker(backend string, probe func(*breaker)) *breaker {
	b := &breaker{backend: backend, domains: make(map[string]struct{}), failing: make(map[jid.JID]struct{})}
	b.timer = time.AfterFunc(openTime, func() { probe(b) })
	b.timer.Stop()
	b.circuit = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Interval: tripWindow, BucketPeriod: tripWindow / 10, Timeout: openTime, MaxRequests: 1,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			return c.Requests >= tripFetches && 2*c.TotalFailures >= c.Requests
		},
		IsExcluded: func(err error) bool { return err == errIgnored },
		OnStateChange: func(_ string, _, to gobreaker.State) { // b.mu is held
			b.generation++
			b.open = to != gobreaker.StateClosed
		},
	})
	return b
}

// pass lets one fetch through, and is told its end.
type pass struct {
	user       jid.JID
	generation uint64
	probed     func(error) // tells the circuit, if it was not closed; else nil
}

// refuses reports whether a fetch need not wait for its turn, as it would be
// refused if that came now.
func (b *breaker) refuses(user jid.JID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	refused := false
	switch b.circuit.State() {
	case gobreaker.StateOpen:
		refused = true
	case gobreaker.StateHalfOpen:
		c := b.circuit.Counts()
		refused = c.Requests > c.TotalExclusions
	}
	if refused {
		b.asks(user)
	}
	return refused
}

// asks notes a user who is to be fetched. b.mu is held.
func (b *breaker) asks(user jid.JID) {
	b.domains[user.Domain()] = struct{}{}
	b.last = user
}

// begin lets a fetch begin, or refuses it. Each pass is to be ended.
func (b *breaker) begin(user jid.JID) (p pass, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asks(user)
	p = pass{user: user}
	if b.circuit.State() != gobreaker.StateClosed {
		var err error
		p.probed, err = b.circuit.Allow()
		ok = err == nil
	} else {
		ok = true
	}
	p.generation = b.generation
	return p, ok
}

// retryable reports whether the fetch may ask once more: not if the circuit has
// opened, and not if this is the one request that is to show whether it closes.
func (b *breaker) retryable(p pass) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return p.probed == nil && p.generation == b.generation
}

// change is what the end of a fetch did to the circuit.
type change int

const (
	unchanged change = iota
	opened
	closed
)

// end tells the circuit what became of a fetch. What began before the circuit
// last changed tells nothing about the time since, and is ignored. down is how
// long the circuit was open, if this closes it.
func (b *breaker) end(p pass, failure *Error) (c change, down time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.generation != b.generation {
		return unchanged, 0
	}
	if p.probed != nil {
		p.probed(probeOutcome(failure))
		if !b.open {
			b.timer.Stop()
			return closed, time.Since(b.since)
		}
		b.probeLater()
		return unchanged, 0
	}
	outcome := fetchOutcome(failure)
	if outcome == errIgnored || outcome == errDown && failure.Result != resultRefused && !b.firstOf(p.user) {
		return unchanged, 0
	}
	if ended, err := b.circuit.Allow(); err == nil {
		ended(outcome)
	}
	if !b.open {
		return unchanged, 0
	}
	b.since = time.Now()
	clear(b.failing)
	b.probeLater()
	return opened, 0
}

// fetchOutcome is what a fetch says about a backend that was up.
func fetchOutcome(failure *Error) error {
	switch {
	case failure == nil:
		return nil
	case failure.down:
		return errDown
	case failure.cause != nil: // the caller's context ended it
		return errIgnored
	}
	return nil
}

// probeOutcome is what a fetch says about a backend that was down: it is up if
// it answers, be it nonsense.
func probeOutcome(failure *Error) error {
	if failure != nil && failure.cause == nil &&
		!slices.Contains([]string{resultStatus, resultInvalid, resultTooLarge}, failure.Result) {
		return errDown
	}
	return fetchOutcome(failure)
}

// firstOf reports whether this is the first failure of a user in this window.
// b.mu is held.
func (b *breaker) firstOf(user jid.JID) bool {
	if time.Since(b.failingSince) >= tripWindow {
		clear(b.failing)
		b.failingSince = time.Now()
	}
	_, known := b.failing[user]
	b.failing[user] = struct{}{}
	return !known
}

// users are the domains whose users were asked for here, sorted.
func (b *breaker) users() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.domains))
}
