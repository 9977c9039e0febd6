package users

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"rosterd/store"
)

// What an instance takes over is older than what it does itself, and nothing of it counts for
// longer than it would, though the clock of the one before was wrong.
func TestTakeoverWithAnotherClock(t *testing.T) {
	const juliet = "juliet@example.org"
	leave := func(w *world) {
		a := mustJID(w.t, juliet+"/a")
		w.sessions.Gone(a)
		w.Gone(a)
	}
	told := func(w *world, resource string) store.Told {
		synctest.Wait()
		all := w.kept.row(juliet).Told
		i := slices.IndexFunc(all, func(t store.Told) bool { return t.Resource == resource })
		if i < 0 {
			w.t.Fatalf("nothing is known of %s", resource)
		}
		return all[i]
	}
	tests := map[string]func(t *testing.T, w *world, lose func()){
		"a report before": func(t *testing.T, w *world, lose func()) {
			w.backend.set("juliet", "romeo@example.org R")
			leave(w)
			w.refreshJuliet()
			lose()
			w.ask("b")
			w.expect("reply b romeo R")
		},
		"a report after": func(t *testing.T, w *world, lose func()) {
			leave(w)
			lose()
			w.backend.set("juliet", "romeo@example.org R")
			w.refreshJuliet()
			if u := w.kept.row(juliet); !w.reports.since(mustJID(t, juliet), u.Fetched) {
				t.Error("what is kept is younger than the report")
			}
			w.ask("b")
			w.expect("reply b romeo R")
		},
		"confirmed": func(t *testing.T, w *world, lose func()) {
			lose()
			fetched := w.backend.fetches()
			if w.Confirmed(mustJID(t, juliet)) {
				t.Error("confirmed, and nothing was fetched")
			}
			synctest.Wait()
			if !w.Confirmed(mustJID(t, juliet)) || w.backend.fetches() != fetched+1 {
				t.Error("not confirmed by the fetch")
			}
		},
		"max_age": func(t *testing.T, w *world, lose func()) {
			lose()
			w.backend.set("juliet", "romeo@example.org R")
			w.ask("b")
			w.took()
			w.backend.set("juliet", "romeo@example.org Romeo")
			time.Sleep(59 * time.Minute)
			w.ask("b")
			w.expect("reply b romeo R")
			time.Sleep(time.Minute)
			w.ask("b")
			if sent := w.took(); !slices.Contains(sent, "reply b romeo Romeo") {
				t.Errorf("sent %q", sent)
			}
		},
		"a lost answer": func(t *testing.T, w *world, lose func()) {
			time.Sleep(2 * time.Minute)
			w.ask("b") // by the former's clock, the last one to be answered
			w.took()
			time.Sleep(2 * time.Minute)
			lose()
			w.Resume("example.org")
			w.took()
			time.Sleep(2 * time.Minute)
			w.kept.flush(-1)
			w.ask("a")
			w.took()
			w.restart(true)
			if s, _ := w.read(mustJID(t, juliet)); !s.told[mustJID(t, juliet+"/a")].doubt {
				t.Error("an answer of the last moment is not in doubt")
			}
		},
		"a removal while in doubt": func(t *testing.T, w *world, lose func()) {
			w.backend.set("juliet", "romeo@example.org R", "tybalt@example.org T")
			w.refreshJuliet()
			w.took()
			lose()
			w.backend.set("juliet", "romeo@example.org R")
			w.set(func() { w.refuse = errors.New("no stream") })
			w.ask("b")
			w.expect("reply b romeo R")
			w.set(func() { w.refuse = nil })
			w.Resume("example.org")
			if sent := w.took(); !slices.Contains(sent, "push a removed tybalt ") {
				t.Errorf("sent %q", sent)
			}
		},
		"the session before": func(t *testing.T, w *world, lose func()) {
			lose()
			if w.sameSession(mustJID(t, juliet), told(w, "a").Asked) {
				t.Error("who was answered before is the same session for sure")
			}
		},
		"an answer that is not confirmed": func(t *testing.T, w *world, lose func()) {
			time.Sleep(2 * time.Minute)
			lose()
			w.backend.set("juliet", "romeo@example.org R")
			w.refreshJuliet()
			w.took()
			if told(w, "a").Since.IsZero() {
				t.Error("it counts as confirmed after 2 min")
			}
		},
	}
	for name, test := range tests {
		for _, ahead := range []time.Duration{10 * time.Minute, -10 * time.Minute} {
			t.Run(fmt.Sprintf("%s, ahead by %v", name, ahead), func(t *testing.T) {
				inKept(t, func(t *testing.T, w *world) {
					w.rules.MaxAge = time.Hour
					w.Close()
					w.kept = newDisk()
					w.kept.clock = clockAhead(ahead, time.Time{})
					w.begin()
					time.Sleep(time.Second)
					w.login("a", "romeo@example.org Romeo")
					w.kept.flush(-1)
					test(t, w, func() {
						w.kept.flush(-1)
						w.takeOver(true, 0)
						w.took()
						time.Sleep(time.Second)
					})
				})
			})
		}
	}
}
