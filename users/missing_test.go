package users

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"rosterd/jid"
)

// That the backend does not know a user is not believed at once, however few
// contacts he has; and when it is, he is looked at again until it says something
// else.
func TestMissingUser(t *testing.T) {
	for _, n := range []int{1, 4, 30} {
		inWorld(t, Limits{}, func(t *testing.T, w *world) {
			w.login("a", many(n)...)
			w.backend.lose(true)
			if err := w.refreshJuliet(); err == nil {
				t.Errorf("%d contacts: believed at once", n)
			}
			w.expect()
			w.ask("b")
			w.expect("reply b " + names(n)) // the last known roster
			time.Sleep(2 * w.Rules.ConfirmAfter)
			if sent := w.took(); len(sent) != 2*n {
				t.Errorf("%d contacts: %d pushes", n, len(sent))
			}
			if c := w.Counts(); c.Held != 1 || c.Marked != 0 || c.Resync != 0 {
				t.Errorf("%+v", c)
			}
			w.backend.lose(false)
			time.Sleep(maxRecheck)
			if sent := w.took(); len(sent) != 2*n {
				t.Errorf("%d contacts: %d pushes when they are back", n, len(sent))
			}
			before := w.backend.fetches()
			time.Sleep(24 * time.Hour)
			if n := w.backend.fetches() - before; n != 0 {
				t.Errorf("%d more looks", n)
			}
		})
	}
}

// For a moment nobody is known: clients notice nothing.
func TestMissingForAMoment(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.login("a", "romeo@example.org Romeo")
		w.backend.lose(true)
		w.refreshJuliet()
		w.backend.lose(false)
		time.Sleep(time.Hour)
		w.expect()
		if c := w.Counts(); c.Marked != 0 || c.Resync != 0 {
			t.Errorf("%+v", c)
		}
	})
}

// Who was never known has an empty roster, and is looked at less and less often,
// as long as he is there.
func TestMissingUserIsLookedAtAgain(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		time.Sleep(time.Second)
		w.Rules.MaxAge = time.Hour
		w.backend.lose(true)
		w.ask("a")
		w.expect("reply a ")
		looks := func(d time.Duration) int {
			before := w.backend.fetches()
			time.Sleep(d)
			synctest.Wait()
			return w.backend.fetches() - before
		}
		if n := looks(10 * time.Minute); n < 3 || n > 6 {
			t.Errorf("%d looks in the first 10 minutes", n)
		}
		if n := looks(10 * time.Hour); n < 45 || n > 85 {
			t.Errorf("%d looks in 10 hours", n)
		}
		if c := w.Counts(); c.Marked != 0 || c.Resync != 0 || c.Retries != 0 {
			t.Errorf("%+v", c)
		}
		before := w.backend.fetches()
		for range 60 { // who asks puts no look off, and is not given what is young, but empty
			w.ask("a")
			time.Sleep(time.Minute)
			w.took()
		}
		if n := w.backend.fetches() - before - 60; n < 4 {
			t.Errorf("%d looks in an hour of queries", n)
		}
		w.backend.set("juliet", "romeo@example.org Romeo")
		w.backend.lose(false)
		w.ask("b")
		w.expect("reply b romeo Romeo", "push a added romeo Romeo")
		w.backend.lose(true)
		w.backend.set("juliet")
		w.refreshJuliet()
		time.Sleep(time.Hour)
		for _, resource := range []string{"a", "b"} {
			full := mustJID(t, "juliet@example.org/"+resource)
			w.sessions.Gone(full)
			w.Gone(full)
		}
		w.took()
		if n := looks(10 * time.Hour); n != 0 {
			t.Errorf("%d looks at somebody who is not there", n)
		}
	})
}

// A look that fails is a failure as any other: it is tried again until it is done.
func TestLookThatFails(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.backend.lose(true)
		w.ask("a")
		w.took()
		w.backend.fail(errors.New("down"))
		time.Sleep(time.Minute)
		if c := w.Counts(); c.Marked != 1 || c.Resync != 0 {
			t.Errorf("%+v", c)
		}
		w.backend.set("juliet", "romeo@example.org Romeo")
		w.backend.lose(false)
		w.backend.fail(nil)
		time.Sleep(time.Minute)
		w.expect("push a added romeo Romeo")
		if c := w.Counts(); c.Marked != 0 || c.Resync != 0 {
			t.Errorf("%+v", c)
		}
	})
}

// The source is told when the backend may have said that a roster changed, be it
// while nobody was there to be told.
func TestReported(t *testing.T) {
	inKept(t, func(t *testing.T, w *world) {
		full := mustJID(t, "juliet@example.org/a")
		asks := func(why string, want ...bool) {
			t.Helper()
			synctest.Wait()
			w.ask("a")
			w.took()
			if got := w.backend.reported(); !slices.Equal(got, want) {
				t.Errorf("%s: reported %v, want %v", why, got, want)
			}
		}
		time.Sleep(time.Second)
		w.backend.set("juliet", "romeo@example.org Romeo")
		asks("the first query", true) // nothing is known
		asks("the second query", false)
		w.refreshJuliet()
		asks("a refresh, and a query after it", true, false)
		w.sessions.Gone(full)
		w.Gone(full)
		w.refreshJuliet()
		asks("after a refresh of somebody who was not there", true)
		asks("and then", false)
		w.Refresh(t.Context(), []jid.JID{mustJID(t, "nurse@example.org")})
		asks("after a refresh of somebody else", false)
		w.backend.fail(errors.New("down"))
		w.refreshJuliet()
		w.backend.fail(nil)
		asks("after a refresh that failed", true, true)
		time.Sleep(time.Millisecond)
		w.restart(false)
		asks("after a restart", true)
	})
}
