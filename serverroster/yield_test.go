package serverroster

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"rosterd/jid"
)

// What a server pushes by itself is not written while the clients are being told something,
// and they are told nothing meanwhile. Nobody else waits for that.
func TestNothingIsWrittenWhileClientsAreTold(t *testing.T) {
	onDisk(t, func(w *world) {
		tell := func(now bool) {
			w.rosters.mu.Lock()
			w.rosters.telling = map[jid.JID]bool{juliet: now}
			w.rosters.mu.Unlock()
		}
		w.server.do(func() {
			w.name = "api"
			w.server.onSet = func(user jid.JID) {
				w.rosters.mu.Lock()
				defer w.rosters.mu.Unlock()
				if w.rosters.locked != 1 || w.rosters.telling[user] {
					t.Errorf("it is written with %d locks", w.rosters.locked)
				}
			}
		})
		first := contacts("nurse@example.org both Nurse")
		w.keep(juliet, first)
		w.settle()
		w.equal(juliet, first)

		tell(true)
		second := contacts("paris@example.org both Paris", "romeo@example.org both Romeo")
		w.keep(juliet, second)
		w.keep(romeo, first)
		w.sleep(time.Second)
		w.equal(juliet, first)
		w.equal(romeo, first)
		if took := w.ask(juliet); took > time.Second {
			t.Errorf("a query waits for %v", took)
		}
		tell(false)
		w.keeper.Keep(juliet, nil)
		w.settle()
		w.equal(juliet, second)

		// As soon as somebody is to be told something, the rest of the items wait.
		w.server.do(func() {
			before := w.server.onSet
			w.server.onSet = func(user jid.JID) {
				before(user)
				tell(true)
			}
		})
		w.keep(juliet, contacts())
		w.sleep(time.Second)
		if n := w.server.has(juliet).Len(); n != 1 {
			t.Errorf("the server has %d contacts", n)
		}
		tell(false)
		w.settle() // nobody says that it is over
		w.equal(juliet, contacts())
		if w.rosters.locked != 0 {
			t.Errorf("%d locks are left", w.rosters.locked)
		}
	})
}

// Who failed before, and whose clients are being told something, is looked at again when some
// time has passed, not over and over.
func TestYieldAfterAFailure(t *testing.T) {
	test(t, func(w *world) {
		var failing bool
		w.server.do(func() {
			w.name = "api"
			w.server.fails = func(jid.JID, string) error {
				if failing {
					return errors.New("500")
				}
				return nil
			}
		})
		w.keep(juliet, contacts("nurse@example.org both Nurse"))
		w.settle()
		w.server.do(func() { failing = true })
		w.keep(juliet, contacts("nurse@example.org both N"))
		w.sleep(time.Millisecond)
		w.server.do(func() { failing = false })
		w.rosters.mu.Lock()
		w.rosters.telling = map[jid.JID]bool{juliet: true}
		w.rosters.asks = 0
		w.rosters.mu.Unlock()
		w.sleep(3 * time.Second)
		w.rosters.mu.Lock()
		if w.rosters.asks > 2 {
			t.Errorf("it is tried %d times within 3 s", w.rosters.asks)
		}
		w.rosters.telling = nil
		w.rosters.mu.Unlock()
		w.settle()
		w.equal(juliet, contacts("nurse@example.org both N"))
	})
}

// A way that lies is found out, though the clients are told something again and again.
func TestWayThatLiesToThoseWhoYield(t *testing.T) {
	onDisk(t, func(w *world) {
		w.server.do(func() {
			w.name, w.server.lies = "api", true
			w.server.onSet = func(user jid.JID) {
				w.rosters.mu.Lock()
				w.rosters.telling = map[jid.JID]bool{juliet: true}
				w.rosters.mu.Unlock()
			}
		})
		w.keep(juliet, many(100))
		for len(w.broken) == 0 && w.server.written() < 100 {
			w.sleep(time.Second)
			w.rosters.mu.Lock()
			w.rosters.telling = nil
			w.rosters.mu.Unlock()
			w.keeper.Keep(juliet, nil)
			synctest.Wait()
		}
		if n := w.server.written(); n > 2*manyUndone {
			t.Errorf("%d items were written", n)
		}
	})
}
