package fetcher

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rosterd/internal/bubble"
	"rosterd/jid"
)

const (
	logOpened = "the backend is down"
	logClosed = "the backend answers again"
)

// open makes the circuit open: tripFetches users in vain.
func (s *fake) open(t *testing.T, b *bench) {
	t.Helper()
	s.now(refuse)
	for i := range tripFetches {
		if got := b.result(t.Context(), numbered(i)); got != resultRefused {
			t.Fatalf("the fetch %d comes to %s", i, got)
		}
	}
	if b.open() != 1 {
		t.Fatal("the circuit is not open")
	}
}

func TestCircuitOpens(t *testing.T) {
	for name, test := range map[string]struct {
		do      func(n int) int
		fetches int // that open it
		timeout time.Duration
		result  string // of the last of them
	}{
		"refused":       {always(refuse), tripFetches, time.Second, resultRefused},
		"500":           {always(500), tripFetches, time.Second, resultStatus},
		"503":           {always(503), tripFetches, time.Second, resultStatus},
		"timed out":     {always(hang), tripFetches, 400 * time.Millisecond, resultTimeout},
		"half of them":  {func(n int) int { return []int{200, 500}[n%2] }, tripFetches + 1, time.Second, resultStatus},
		"after success": {func(n int) int { return map[bool]int{true: 200, false: refuse}[n <= 100] }, 200, time.Second, resultRefused},
	} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				s, b := newFake(t, test.do, func(o *Options) { o.Timeout = test.timeout })
				for i := range test.fetches {
					if b.open() != 0 {
						t.Fatalf("open after %d fetches, want %d", i, test.fetches)
					}
					got := b.result(t.Context(), numbered(i))
					if i == test.fetches-1 && got != test.result {
						t.Errorf("the last fetch comes to %s", got)
					}
				}
				began, asked := time.Now(), s.count()
				r, err := b.Fetch(t.Context(), juliet)
				if r != nil || err.(*Error).Result != resultOpen || err.Error() != "the backend is down and not asked for the moment" {
					t.Errorf("a fetch comes to %v, %v", r, err)
				}
				if time.Since(began) != 0 || s.count() != asked {
					t.Errorf("failed after %v and %d requests", time.Since(began), s.count()-asked)
				}
				if b.open() != 1 || b.logged(logOpened) != 1 || b.logged("backend=backend.test:80") != 1 {
					t.Errorf("%v circuits are open, logged %s", b.open(), b.log)
				}
				if all := b.exposed(t) + err.Error(); strings.Contains(all, secret) || strings.Contains(all, "/contacts/") {
					t.Errorf("exposed %s", all)
				}
			})
		})
	}
}

func TestCircuitStaysClosed(t *testing.T) {
	for name, test := range map[string]struct {
		does    int
		fetches int
		pause   time.Duration // between them
		user    func(i int) jid.JID
		cancel  time.Duration // of each; 0: never
		maximum int64
	}{
		"too few":             {does: refuse, fetches: tripFetches - 1},
		"too slowly":          {does: refuse, fetches: 100, pause: 600 * time.Millisecond},
		"404":                 {does: 404, fetches: 100},
		"429":                 {does: 429, fetches: 100},
		"not JSON":            {does: garbage, fetches: 100},
		"hung up":             {does: hangUp, fetches: 100},
		"too large":           {does: 200, fetches: 100, maximum: 10},
		"canceled":            {does: hang, fetches: 100, cancel: 10 * time.Millisecond},
		"one user's 500":      {does: 500, fetches: 100, pause: 100 * time.Millisecond, user: func(int) jid.JID { return juliet }},
		"one user's timeout":  {does: hang, fetches: 100, user: func(int) jid.JID { return juliet }},
		"nine users' trouble": {does: 500, fetches: 300, user: func(i int) jid.JID { return numbered(i % 9) }},
	} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				s, b := newFake(t, always(test.does), func(o *Options) {
					o.Timeout = 50 * time.Millisecond
					if test.maximum != 0 {
						o.MaxBytes = test.maximum
					}
				})
				if test.user == nil {
					test.user = numbered
				}
				for i := range test.fetches {
					ctx, cancel := context.WithCancel(t.Context())
					if test.cancel != 0 {
						time.AfterFunc(test.cancel, cancel)
					}
					if _, err := b.Fetch(ctx, test.user(i)); err == nil {
						t.Fatal("no failure")
					}
					cancel()
					time.Sleep(test.pause)
				}
				if s.count() != test.fetches || b.open() != 0 || b.log.String() != "" {
					t.Errorf("%d requests for %d fetches, logged %s", s.count(), test.fetches, b.log)
				}
			})
		})
	}
}

// A timeout longer than the window counts when it ends. Fetches that wait for
// a slot when the circuit opens do not ask any more.
func TestCircuitOpensForThoseWhoWait(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		const timeout = 3 * tripWindow
		s, b := newFake(t, always(hang), func(o *Options) { o.Timeout, o.MaxInFlight = timeout, tripFetches })
		began := time.Now()
		var wg sync.WaitGroup
		for i := range 1000 {
			wg.Go(func() { b.Fetch(inHurry(t.Context()), numbered(i)) })
		}
		wg.Wait()
		// When the first ones end, all at once, as many may begin before the last of
		// them has been counted. The one more is the probe.
		if time.Since(began) > 2*timeout || s.count() > 2*tripFetches {
			t.Errorf("failed after %v and %d requests", time.Since(began), s.count())
		}
		if b.fetches(resultTimeout) >= 2*tripFetches || b.fetches(resultOpen) <= 1000-2*tripFetches {
			t.Errorf("metrics: %s", b.exposed(t))
		}
	})
}

// They fail at once, even if fetches from other backends take all the slots.
func TestCircuitOpenWithoutSlot(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s, b := newFake(t, nil, func(o *Options) { o.MaxInFlight = 1 })
		s.open(t, b)
		if err := b.slots.Acquire(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if got := b.result(ctx, juliet); got != resultOpen {
			t.Errorf("a fetch comes to %s", got)
		}
		b.slots.Release(1)
	})
}

// It opens a second time as it did the first time.
func TestCircuitOpensAgain(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s, b := newFake(t, always(500))
		for range 2 {
			for i := range tripFetches {
				if got := b.result(t.Context(), numbered(i)); got != resultStatus {
					t.Fatalf("the fetch %d comes to %s", i, got)
				}
			}
			if b.open() != 1 {
				t.Fatal("the circuit is not open")
			}
			s.now(200)
			time.Sleep(openTime + time.Second)
			if b.open() != 0 {
				t.Fatal("the circuit is not closed")
			}
			s.now(500)
		}
		if b.logged(logOpened) != 2 || b.logged(logClosed) != 2 {
			t.Errorf("logged %s", b.log)
		}
	})
}

// A probe that cannot be made is not the last one.
func TestProbeAfterProbe(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		s, b := newFake(t, nil, func(o *Options) {
			url := o.URL
			o.URL = func(user jid.JID) (string, error) {
				if broken.Load() {
					return "", errors.New("none")
				}
				return url(user)
			}
		})
		s.open(t, b)
		s.now(200)
		broken.Store(true)
		time.Sleep(openTime + time.Second)
		broken.Store(false)
		time.Sleep(openTime)
		if b.open() != 0 {
			t.Error("still open")
		}
	})
}

// When it may be asked again, one request is made, and the herd is not let
// through before that is answered.
func TestHalfOpenIsOneRequest(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s, b := newFake(t, nil)
		var told [][]string
		b.Recovered(func(domains []string) {
			told = append(told, domains)
			if got := b.result(t.Context(), juliet); got != resultOK { // no lock is held, and others may ask
				t.Errorf("a fetch of the one who is told comes to %s", got)
			}
		})
		s.open(t, b)
		b.result(t.Context(), mustParse("romeo@example.net")) // refused, but of a domain that waits
		s.now(hang)
		time.Sleep(openTime - time.Millisecond)
		if got, asked := b.result(t.Context(), juliet), s.count(); got != resultOpen || asked != tripFetches {
			t.Fatalf("a fetch too early comes to %s, with %d requests", got, asked)
		}
		time.Sleep(10 * time.Millisecond) // the probe is under way
		synctest.Wait()
		for i := range 100 {
			if got := b.result(t.Context(), numbered(i)); got != resultOpen {
				t.Errorf("a fetch beside the one comes to %s", got)
			}
		}
		if asked := s.count() - tripFetches; asked != 1 {
			t.Errorf("%d requests", asked)
		}
		s.now(200)
		s.release <- 200
		synctest.Wait()
		if got := b.result(t.Context(), juliet); got != resultOK || b.open() != 0 {
			t.Errorf("afterwards a fetch comes to %s, %v are open", got, b.open())
		}
		if len(told) != 1 || !slices.Equal(told[0], []string{"example.net", "example.org"}) {
			t.Errorf("told %v", told)
		}
		if b.logged(logOpened) != 1 || b.logged(logClosed) != 1 || b.logged("down=5.009s") != 1 {
			t.Errorf("logged %s", b.log)
		}
	})
}

// Nobody asks, and it is found out all the same. As long as it is down, that is
// logged once.
func TestProbe(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s, b := newFake(t, nil)
		recovered := make(chan time.Time, 9)
		b.Recovered(func([]string) { recovered <- time.Now() })
		s.open(t, b)
		opened := time.Now()
		s.mu.Lock()
		s.do = func(n int) int { // 20 requests have opened it
			return map[int]int{21: refuse, 22: hangUp, 23: 502, 24: 404}[n]
		}
		s.mu.Unlock()
		if took := (<-recovered).Sub(opened); took < 4*openTime || took > 4*openTime+100*time.Millisecond {
			t.Errorf("recovered after %v", took)
		}
		time.Sleep(time.Hour)
		if s.count() != tripFetches+4 || b.open() != 0 || len(recovered) != 0 {
			t.Errorf("%d requests, %v open", s.count(), b.open())
		}
		if b.logged(logOpened) != 1 || b.logged(logClosed) != 1 {
			t.Errorf("logged %s", b.log)
		}
		if last := s.requests()[tripFetches+3]; last != "/contacts/user19@example.org" {
			t.Errorf("asked for %s", last)
		}
	})
}

// One whose contacts the backend cannot give does not keep the circuit open for
// the others: the next probe is of another one who asked.
func TestProbeIsForWhoAskedLast(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s, b := newFake(t, nil)
		s.open(t, b)
		b.result(t.Context(), juliet)
		s.now(500)
		time.Sleep(openTime + time.Second)
		s.now(200)
		b.result(t.Context(), mustParse("nurse@example.org"))
		time.Sleep(openTime)
		want := []string{"/contacts/juliet@example.org", "/contacts/nurse@example.org"}
		if got := s.requests()[tripFetches:]; !slices.Equal(got, want) || b.open() != 0 {
			t.Errorf("asked for %v, want %v", got, want)
		}
	})
}

// A probe that is not answered in time is not the last one, and nobody else asks
// while it is under way.
func TestProbeWithoutAnswer(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s, b := newFake(t, nil)
		s.open(t, b)
		s.now(hang)
		time.Sleep(openTime + patience - time.Second)
		if got := b.result(t.Context(), juliet); got != resultOpen || s.count() != tripFetches+1 {
			t.Errorf("a fetch comes to %s, with %d requests", got, s.count()-tripFetches)
		}
		s.now(200)
		time.Sleep(openTime)
		if b.open() != 1 {
			t.Error("closed without an answer")
		}
		time.Sleep(2 * time.Second)
		if b.open() != 0 || s.count() != tripFetches+2 {
			t.Errorf("not probed any more, %d requests", s.count()-tripFetches)
		}
	})
}

// What was under way when the circuit opened neither closes nor opens it later.
func TestUnderWayWhenItOpened(t *testing.T) {
	for _, does := range []int{200, 500} {
		t.Run(fmt.Sprint(does), func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				s, b := newFake(t, always(hang), func(o *Options) { o.Timeout = time.Minute })
				var wg sync.WaitGroup
				for i := range 3 * tripFetches {
					wg.Go(func() { b.Fetch(t.Context(), numbered(100+i)) })
				}
				synctest.Wait()
				for step, test := range []struct {
					before func()
					open   float64
				}{
					{func() { s.open(t, b) }, 1},
					{func() { time.Sleep(openTime + time.Second) }, 1}, // it was probed in vain
					{func() { s.now(200); time.Sleep(openTime) }, 0},
				} {
					test.before()
					for range tripFetches {
						s.release <- does
					}
					synctest.Wait()
					if b.open() != test.open {
						t.Errorf("step %d: %v open", step, b.open())
					}
				}
				wg.Wait()
			})
		})
	}
}

// One application that is down does not cut another one off.
func TestCircuitsApart(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s, b := newFake(t, nil, func(o *Options) {
			o.URL = func(user jid.JID) (string, error) {
				return "https://key:" + secret + "@" + strings.ToUpper(user.Domain()) + "/" + user.Local() + "?key=" + secret, nil
			}
		})
		s.open(t, b)
		s.now(refuse)
		if got := b.result(t.Context(), mustParse("juliet@example.net")); got != resultRefused {
			t.Errorf("a fetch from another backend comes to %s", got)
		}
		if got := b.result(t.Context(), juliet); got != resultOpen {
			t.Errorf("a fetch comes to %s", got)
		}
		if len(b.breakers) != 2 || b.logged("backend=example.org:443") != 1 || strings.Contains(b.log.String(), secret) {
			t.Errorf("%d breakers, logged %s", len(b.breakers), b.log)
		}
	})
}

// Close ends a probe under way, and there are no more.
func TestCloseEndsProbes(t *testing.T) {
	for name, wait := range map[string]time.Duration{"waiting": time.Second, "under way": openTime + time.Second} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				s, b := newFake(t, nil)
				s.open(t, b)
				s.now(hang)
				time.Sleep(wait)
				began := time.Now()
				b.Close()
				asked := s.count()
				if time.Since(began) != 0 || b.inFlight() != 0 {
					t.Errorf("took %v, %v fetches are under way", time.Since(began), b.inFlight())
				}
				time.Sleep(time.Hour)
				if s.count() != asked {
					t.Errorf("%d requests after the end", s.count()-asked)
				}
			})
		})
	}
}
