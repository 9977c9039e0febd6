package users

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// A refresh that came while there was no stream, and a stream that began, leave
// nothing to do when the roster turns out to be the one that was just saved.
func TestNothingChangedWhileThereWasNoStream(t *testing.T) {
	for name, act := range map[string]func(w *world){
		"refresh": func(w *world) {
			w.set(func() { w.down = true })
			if err := w.refreshJuliet(); !errors.Is(err, roster.ErrNotConnected) {
				w.t.Errorf("refresh: %v", err)
			}
			if c := w.Counts(); c.Marked != 1 {
				w.t.Errorf("without a stream: %+v", c)
			}
			w.set(func() { w.down = false })
		},
		"resume":       func(w *world) {},
		"fetch failed": func(w *world) { w.backend.fail(errors.New("down")); w.refreshJuliet(); w.backend.fail(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, Limits{}, func(t *testing.T, w *world) {
				w.login("a", "nurse@example.org Nurse")
				time.Sleep(17 * time.Second)
				act(w)
				w.Resume("example.org")
				time.Sleep(20 * time.Second) // within the minute in which a roster of the same age need not be saved again
				w.expect()
				if c := w.Counts(); c.Marked != 0 || c.Resync != 0 {
					t.Errorf("%+v", c)
				}
				if marks := w.kept.now.marks; len(marks) > 0 {
					t.Errorf("marks in the store: %v", marks)
				}
			})
		})
	}
}

// halfDown is a Source that fails for all users of a domain but some, at once or after
// a while.
type halfDown struct {
	backend *backend
	bad     string        // the domain
	hangs   time.Duration // 0: it fails at once

	mu      sync.Mutex
	good    string         // how the localparts begin of those for whom it works; "": nobody's
	fetched map[string]int // by domain, and by good
}

func (h *halfDown) Fetch(ctx context.Context, r roster.Request) (roster.Fetched, error) {
	h.mu.Lock()
	h.fetched[r.User.Domain()]++
	good := h.good != "" && strings.HasPrefix(r.User.Local(), h.good)
	if good {
		h.fetched[h.good]++
	}
	h.mu.Unlock()
	if good || r.User.Domain() != h.bad {
		return h.backend.Fetch(ctx, r)
	}
	select {
	case <-time.After(h.hangs):
	case <-ctx.Done():
	}
	return roster.Fetched{}, errors.New("down")
}

func (h *halfDown) FetchMany(ctx context.Context, rs []roster.Request, done func(int, roster.Fetched, error)) {
	each(ctx, h, rs, done)
}

func (h *halfDown) BatchSize(string) int { return 1 }

// Users of a domain whose backend fails, or hangs, do not keep those of another one
// from being brought in line, be they marked or not.
func TestRetriesAreFairByDomain(t *testing.T) {
	for name, hangs := range map[string]time.Duration{"fails": 0, "hangs": 13 * time.Second} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, Limits{Background: 8, Resync: 20}, func(t *testing.T, w *world) {
				source := &halfDown{backend: w.backend, bad: "down.example", hangs: hangs, fetched: make(map[string]int)}
				w.Manager.Source = source
				for _, domain := range []string{"down.example", "example.net"} {
					w.Resume(domain) // nobody is there yet
				}
				for i := range 1500 {
					w.sessions.Connected(mustJID(t, fmt.Sprintf("user%d@down.example/x", i)))
				}
				w.Resume("down.example")
				time.Sleep(10 * time.Minute)
				if hangs == 0 && w.Counts().Marked < 1000 {
					t.Fatalf("%+v", w.Counts())
				}
				var marked []jid.JID
				for i := range 12 {
					full := mustJID(t, fmt.Sprintf("user%d@example.net/x", i))
					w.sessions.Connected(full)
					if i < 6 {
						marked = append(marked, full.Bare())
					}
				}
				w.set(func() { w.down = true })
				if _, err := w.Refresh(t.Context(), marked); err != roster.ErrNotConnected {
					t.Fatal(err)
				}
				w.set(func() { w.down = false })
				w.Resume("example.net")
				time.Sleep(5 * time.Second)
				synctest.Wait()
				source.mu.Lock()
				defer source.mu.Unlock()
				if n := source.fetched["example.net"]; n != 12 {
					t.Errorf("%d of 12 users fetched within 5 s", n)
				}
			})
		})
	}
}

// Refreshes of a domain whose backend hangs do not hold up those of another one, which
// has a place as soon as one is free.
func TestRefreshesAreFairByDomain(t *testing.T) {
	inWorld(t, Limits{Background: 6}, func(t *testing.T, w *world) {
		w.Manager.Source = &halfDown{backend: w.backend, bad: "down.example", hangs: 11 * time.Second, fetched: make(map[string]int)}
		users := func(domain string, n int) (users []jid.JID) {
			for i := range n {
				full := mustJID(t, fmt.Sprintf("user%d@%s/x", i, domain))
				w.sessions.Connected(full)
				users = append(users, full.Bare())
			}
			return users
		}
		go w.Refresh(t.Context(), users("down.example", 700))
		synctest.Wait()
		began := time.Now()
		failed, err := w.Refresh(t.Context(), users("example.net", 30))
		if took := time.Since(began); err != nil || len(failed) > 0 || took > 11*time.Second {
			t.Errorf("%v after %v: %v", failed, took, err)
		}
	})
}

// Within a domain, those who are marked, and fail again and again, do not keep the
// others from being brought in line.
func TestRetriesDoNotHoldUpTheOthers(t *testing.T) {
	inWorld(t, Limits{Resync: 10}, func(t *testing.T, w *world) {
		source := &halfDown{backend: w.backend, bad: "example.net", fetched: make(map[string]int)}
		w.Manager.Source = source
		for i := range 800 {
			w.sessions.Connected(mustJID(t, fmt.Sprintf("user%d@example.net/x", i)))
		}
		w.Resume("example.net")
		time.Sleep(5 * time.Minute)
		source.mu.Lock()
		source.good = "nurse"
		source.mu.Unlock()
		for i := range 20 {
			w.sessions.Connected(mustJID(t, fmt.Sprintf("nurse%d@example.net/x", i)))
			w.queue.resync("example.net", []jid.JID{mustJID(t, fmt.Sprintf("nurse%d@example.net", i))})
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		source.mu.Lock()
		defer source.mu.Unlock()
		if n := source.fetched["nurse"]; n != 20 {
			t.Errorf("%d of 20 users fetched within 10 s", n)
		}
	})
}

// tries counts how often it is tried to push juliet a change in a time, while each push has
// an outcome.
func (w *world) tries(o roster.Outcome, d time.Duration) int {
	w.login("a", "nurse@example.org Nurse")
	w.set(func() { w.outcome = o })
	w.backend.set("juliet", "nurse@example.org N")
	w.refreshJuliet()
	before := w.backend.fetches()
	time.Sleep(d)
	synctest.Wait()
	return w.backend.fetches() - before
}

// Who refuses what is pushed is tried less and less often, once an hour at last; a
// new stream, or a refresh, tries at once.
func TestRefusedPushIsTriedLessAndLessOften(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		if n := w.tries(roster.Outcome{Err: errors.New("blocked"), Refused: true}, 72*time.Hour); n < 72 || n > 120 {
			t.Errorf("tried %d times in three days", n)
		}
		if c := w.Counts(); c.Marked != 1 {
			t.Errorf("%+v", c)
		}
		w.took()
		w.set(func() { w.outcome = roster.Outcome{} })
		w.Resume("example.org")
		time.Sleep(time.Second)
		w.expect("push a changed nurse N")
		if c := w.Counts(); c.Marked != 0 || c.Resync != 0 {
			t.Errorf("%+v", c)
		}
	})
}

// What is lost, or finds no room, is tried as before.
func TestLostPushIsTriedOften(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		if n := w.tries(roster.Outcome{Err: errors.New("no room")}, 2*time.Hour); n < 240 || n > 400 {
			t.Errorf("tried %d times in two hours", n)
		}
	})
}
