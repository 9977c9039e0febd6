package users

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rosterd/roster"
)

var errUnknown = fmt.Errorf("404: %w", roster.ErrUnknownUser)

// inHeldOwn is inWorldWithServer with juliet offline, of whose roster on the server nothing
// was known: the backend would remove all of its 20 contacts but one, which is held.
func inHeldOwn(t *testing.T, confirm time.Duration, f func(t *testing.T, w *world, s *server)) {
	t.Helper()
	inWorldWithServer(t, func(t *testing.T, w *world, s *server) {
		w.Rules.ConfirmAfter = confirm
		w.rules.ConfirmAfter = confirm
		s.own = contacts(t, many(20)...)
		w.backend.set("juliet", many(1)...)
		if err := w.refreshJuliet(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if held := w.Held(); len(held) != 1 || held[0].Removed != 19 {
			t.Fatalf("held: %+v", held)
		}
		f(t, w, s)
	})
}

// A rejection protects the server's own roster after a restart, too, though the last known
// roster is the one that was rejected.
func TestRejectedForTheServersRoster(t *testing.T) {
	inHeldOwn(t, 30*time.Second, func(t *testing.T, w *world, s *server) {
		juliet := mustJID(t, "juliet@example.org")
		if err := w.Reject(t.Context(), juliet); err != nil {
			t.Fatal(err)
		}
		w.restart(false)
		s.m = w.Manager
		w.KeepServerRosters(s)
		w.Resume("example.org")
		time.Sleep(time.Minute)
		synctest.Wait()
		s.Keep(juliet, nil) // the keeper looks at her again
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := s.own.Len(); n != 20 {
			t.Errorf("the server has %d contacts", n)
		}
		if held := w.Held(); len(held) != 1 || !held[0].Rejected {
			t.Errorf("held: %+v", held)
		}
		if err := w.Approve(t.Context(), juliet); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if n := s.own.Len(); n != 1 {
			t.Errorf("approved, the server has %d contacts", n)
		}
	})
}

// What a person approves is done when they are told so, also of who is offline.
func TestApprovedOffline(t *testing.T) {
	inHeldOwn(t, Never, func(t *testing.T, w *world, s *server) {
		juliet := mustJID(t, "juliet@example.org")
		w.backend.set("juliet", "romeo@example.org Romeo", "nurse@example.org Nurse")
		if err := w.Approve(t.Context(), juliet); err == nil || !strings.Contains(err.Error(), "would remove 20 of 20") {
			t.Errorf("another roster: %v", err)
		}
		if err := w.Approve(t.Context(), juliet); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if n := s.own.Len(); n != 2 {
			t.Errorf("the server has %d contacts", n)
		}
	})
}

// What is held of who is offline outlasts the cache: it is confirmed, or approved, once.
func TestHeldOfflineStaysInMemory(t *testing.T) {
	for _, confirm := range []time.Duration{30 * time.Second, Never} {
		inWorldWithServer(t, func(t *testing.T, w *world, s *server) {
			juliet := mustJID(t, "juliet@example.org")
			w.Rules.ConfirmAfter = confirm
			w.cache.max = 0 // others have taken it
			w.backend.set("juliet", many(20)...)
			w.refreshJuliet()
			synctest.Wait()
			w.backend.set("juliet", many(1)...)
			w.refreshJuliet()
			synctest.Wait()
			if confirm == Never {
				if err := w.Approve(t.Context(), juliet); err != nil {
					t.Error(err)
				}
			}
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			if n := s.has(juliet).Len(); n != 1 {
				t.Errorf("%v: the server has %d contacts", confirm, n)
			}
			if c := w.Counts(); c.Held != 1 || c.Waiting != 0 || c.Marked != 0 || c.Loaded != 0 {
				t.Errorf("%v: %+v", confirm, c)
			}
		})
	}
}

// Whom the backend does not know any more, nothing is held of: they are asked for again.
func TestHeldOfflineAndUnknown(t *testing.T) {
	inHeldOwn(t, 30*time.Second, func(t *testing.T, w *world, s *server) {
		w.backend.fail(errUnknown)
		time.Sleep(time.Hour)
		synctest.Wait()
		if c := w.Counts(); c.Waiting != 0 || c.Marked != 1 {
			t.Errorf("%+v", c)
		}
		if n := s.own.Len(); n != 20 {
			t.Errorf("the server has %d contacts", n)
		}
	})
}
