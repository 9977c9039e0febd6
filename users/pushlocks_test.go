package users

import (
	"testing"
	"testing/synctest"
	"time"

	"rosterd/jid"
)

// inWorldThatPushes is one with a server that pushes by itself what is written; juliet's
// balcony shows romeo.
func inWorldThatPushes(t *testing.T, f func(t *testing.T, w *world, s *server)) {
	t.Helper()
	inWorldWithServer(t, func(t *testing.T, w *world, s *server) {
		s.pushes = true
		w.login("balcony", "romeo@example.org Romeo")
		s.answer(true)
		w.took()
		f(t, w, s)
		synctest.Wait()
		if n := len(w.pushLocks.users); n > 0 {
			t.Errorf("%d locks are left", n)
		}
	})
}

// While the server pushes, nobody is told what has changed since; but not for long.
func TestNothingIsToldWhileTheServerPushes(t *testing.T) {
	inWorldThatPushes(t, func(t *testing.T, w *world, s *server) {
		juliet := mustJID(t, "juliet@example.org")
		unlock, ok := w.LockPushes(juliet)
		if !ok {
			t.Fatal("it is not the server's turn")
		}
		w.backend.set("juliet")
		go w.refreshJuliet()
		w.expect()
		if _, ok := w.LockPushes(juliet); ok {
			t.Error("the server pushes again, before those who wait")
		}
		unlock()
		w.expect("push balcony removed romeo ")
		if r := s.has(juliet); r.Len() != 0 {
			t.Errorf("the server was given %d contacts", r.Len())
		}

		unlock, _ = w.LockPushes(juliet)
		w.backend.set("juliet", "nurse@example.org Nurse")
		go w.refreshJuliet()
		time.Sleep(pushLockWaits - time.Millisecond)
		w.expect()
		time.Sleep(time.Millisecond)
		w.expect("push balcony added nurse Nurse")
		w.backend.set("juliet", "nurse@example.org N")
		go w.refreshJuliet() // it hangs still
		w.expect("push balcony changed nurse N")
		unlock()
	})
}

// The server pushes nothing before the clients have got what they were told before; but not
// for long.
func TestTheServerPushesBehindWhatIsTold(t *testing.T) {
	inWorldThatPushes(t, func(t *testing.T, w *world, s *server) {
		juliet := mustJID(t, "juliet@example.org")
		w.set(func() {
			w.pushing = func() {
				if _, ok := w.LockPushes(juliet); ok {
					t.Error("the server pushes before the clients were told")
				}
			}
		})
		w.backend.set("juliet")
		w.refreshJuliet()
		w.expect("push balcony removed romeo ")
		if r := s.has(juliet); r.Len() != 0 {
			t.Errorf("the server was given %d contacts", r.Len())
		}
		unlock, ok := w.LockPushes(juliet)
		if !ok {
			t.Fatal("the server is never to push again")
		}
		unlock()

		w.set(func() { w.silent = true }) // a client that does not answer
		w.backend.set("juliet", "nurse@example.org Nurse")
		go w.refreshJuliet()
		w.expect("push balcony added nurse Nurse")
		time.Sleep(pushLockWaits - time.Millisecond)
		if _, ok := w.LockPushes(juliet); ok || s.has(juliet).Len() != 0 {
			t.Error("the server pushes though the clients may not have been told")
		}
		time.Sleep(time.Millisecond)
		if r := s.has(juliet); r.Len() != 1 {
			t.Errorf("the server was given %d contacts", r.Len())
		}
		if unlock, ok = w.LockPushes(juliet); ok {
			unlock()
		} else {
			t.Error("the server waits for a client that does not answer")
		}
	})
}

// A call of the server's that hangs is waited for once, from its beginning on: not by each who
// is to tell something, and not by a query that has waited for it already.
func TestServerThatHangsIsWaitedForOnce(t *testing.T) {
	inWorldThatPushes(t, func(t *testing.T, w *world, s *server) {
		unlock, _ := w.LockPushes(mustJID(t, "juliet@example.org"))
		w.backend.set("juliet", "nurse@example.org Nurse")
		w.ask("chamber")
		time.Sleep(pushLockWaits)
		s.answer(false)
		w.expect("reply chamber nurse Nurse", "push balcony added nurse Nurse", "push balcony removed romeo ")
		w.backend.set("juliet", "nurse@example.org N")
		go w.refreshJuliet()
		w.expect("push balcony changed nurse N", "push chamber changed nurse N")
		unlock()
	})
}

// The end does not wait for a call of the server's that hangs.
func TestEndWhileTheServerPushes(t *testing.T) {
	inWorldThatPushes(t, func(t *testing.T, w *world, s *server) {
		unlock, _ := w.LockPushes(mustJID(t, "juliet@example.org"))
		defer unlock()
		w.backend.set("juliet", "nurse@example.org Nurse")
		go w.refreshJuliet()
		synctest.Wait()
		began := time.Now()
		w.Close()
		if took := time.Since(began); took > 0 {
			t.Errorf("it takes %v", took)
		}
	})
}

// That pushes took too long is no word on those that came in the same moment.
func TestTellingEndsItselfAlone(t *testing.T) {
	inWorldThatPushes(t, func(t *testing.T, w *world, s *server) {
		juliet := mustJID(t, "juliet@example.org")
		before, _ := w.pushLocks.tell(juliet)
		now, _ := w.pushLocks.tell(juliet)
		w.pushLocks.told(juliet, before)
		if _, ok := w.LockPushes(juliet); ok {
			t.Error("the server pushes while the clients are being told something")
		}
		w.pushLocks.told(juliet, now)
	})
}

// What is told once more, to correct a client, may be true no more in a moment: the server does
// not push before it has arrived. Only who logs in does not wait for that: what the server does
// by their presence goes by its roster.
func TestTheServerPushesBehindWhatIsToldAgain(t *testing.T) {
	inWorldThatPushes(t, func(t *testing.T, w *world, s *server) {
		juliet := mustJID(t, "juliet@example.org")
		w.backend.set("juliet")
		w.refreshJuliet()
		w.took()
		w.set(func() { w.silent = true })
		w.Refused(mustJID(t, "juliet@example.org/balcony"), []jid.JID{mustJID(t, "romeo@example.org")})
		w.expect("push balcony removed romeo ")
		if _, ok := w.LockPushes(juliet); ok {
			t.Error("the server pushes before the client is told that romeo is gone")
		}
		w.backend.set("juliet", "romeo@example.org Romeo")
		w.ask("chamber")
		if s.has(juliet).Len() != 1 {
			t.Error("the server is not to have romeo")
		}
		unlock, ok := w.LockPushes(juliet)
		if !ok {
			t.Fatal("the server waits, and a query for it")
		}
		unlock()
		s.answer(true)
		w.expect("reply chamber romeo Romeo", "push balcony added romeo Romeo")
		if _, ok := w.LockPushes(juliet); ok {
			t.Error("the server pushes before the client is told that romeo is back")
		}
		time.Sleep(pushLockWaits)
	})
}
