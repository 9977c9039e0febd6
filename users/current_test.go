package users

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// Who has the last known roster, and says so, is answered at once: as long as it
// is young, nothing is known to have changed, and they were surely told it.
func TestCurrent(t *testing.T) {
	balcony := mustJID(t, "juliet@example.org/balcony")
	leave := func(w *world) {
		w.sessions.Gone(balcony)
		w.Gone(balcony)
	}
	for name, tt := range map[string]struct {
		then func(*world)
		want bool
	}{
		"nothing happened":      {func(*world) {}, true},
		"another one asked":     {func(w *world) { w.ask("garden") }, true},
		"it left and came back": {leave, true}, // which the table of sessions keeps
		"too old":               {func(*world) { time.Sleep(2 * time.Hour) }, false},
		"the backend says something else": {func(w *world) {
			w.backend.set("juliet", "romeo@example.org Romeo", "nurse@example.org Nurse")
			w.refreshJuliet()
		}, false},
		"a refresh failed": {func(w *world) {
			w.backend.fail(errors.New("the backend is down"))
			w.refreshJuliet()
		}, false},
		"a refresh was reported while it was away": {func(w *world) {
			leave(w)
			w.refreshJuliet()
		}, false},
		"its answer was lost": {func(w *world) { w.Undelivered(balcony) }, false},
		"a push was lost": {func(w *world) {
			w.set(func() {
				w.outcome = roster.Outcome{Owed: []jid.JID{mustJID(w.t, "nurse@example.org")}, Lost: true, Err: roster.ErrNotConnected}
			})
			w.backend.set("juliet", "romeo@example.org Romeo", "nurse@example.org Nurse")
			w.refreshJuliet()
		}, false},
		"rosterd is stopping": {func(w *world) { w.Close() }, false},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, Limits{Cache: 1 << 20}, func(t *testing.T, w *world) {
				time.Sleep(time.Second) // what was fetched at the start may be older
				w.Rules.MaxAge = time.Hour
				w.backend.set("juliet", "romeo@example.org Romeo")
				version := ""
				w.version = &version
				for range 2 { // that it has no version is no match
					w.ask("balcony")
					if got := w.took(); slices.Contains(got, "same balcony") {
						t.Errorf("got %q", got)
					}
				}
				tt.then(w)
				w.took()
				version = contacts(t, "romeo@example.org Romeo").Version()
				w.ask("balcony")
				if got := w.took(); slices.Contains(got, "same balcony") != tt.want {
					t.Errorf("got %q", got)
				}
				if w.ask("tower"); slices.Contains(w.took(), "same tower") {
					t.Error("somebody who was told nothing is said to have it")
				}
			})
		})
	}
}

// A session is known after a kill though it asked for what it has already, and
// was away a moment before.
func TestSessionThatCameBackIsKnownAfterAKill(t *testing.T) {
	inKept(t, func(t *testing.T, w *world) {
		balcony := mustJID(t, "juliet@example.org/balcony")
		w.backend.set("juliet", "romeo@example.org Romeo")
		none := ""
		w.version = &none
		w.ask("balcony")
		w.took()
		w.kept.flush(-1)
		w.sessions.Gone(balcony)
		w.Gone(balcony)
		w.kept.flush(-1)
		version := contacts(t, "romeo@example.org Romeo").Version()
		w.version = &version
		w.ask("balcony")
		w.took()
		w.restart(true)
		w.backend.set("juliet", "romeo@example.org R")
		w.Resume("example.org")
		w.expect("push balcony changed romeo R")
	})
}

// younger lets rosters that are fetched from now on be young for an hour, and has
// the balcony told juliet's, who uses versions. It returns the version.
func younger(w *world) string {
	time.Sleep(time.Second)
	w.Rules.MaxAge = time.Hour
	w.backend.set("juliet", "romeo@example.org Romeo")
	none := ""
	w.version = &none
	w.ask("balcony")
	w.took()
	return contacts(w.t, "romeo@example.org Romeo").Version()
}

// Who asks while something is being done for the user waits until that is done: the
// roster may be about to change.
func TestCurrentWhileARefreshIsUnderWay(t *testing.T) {
	inWorld(t, Limits{Cache: 1 << 20}, func(t *testing.T, w *world) {
		version := younger(w)
		w.version = &version
		w.backend.set("juliet", "romeo@example.org R")
		w.backend.hold = make(chan struct{})
		go w.refreshJuliet()
		synctest.Wait()
		w.ask("balcony")
		w.expect()
		w.backend.hold <- struct{}{}
		w.expect("reply balcony romeo R", "push balcony changed romeo R")
	})
}

// That a client uses versions from now on is to be known, or its next pushes would
// have none, and what it then has would have the name of what it had before.
func TestCurrentOfWhoUsedNoVersions(t *testing.T) {
	inWorld(t, Limits{Cache: 1 << 20}, func(t *testing.T, w *world) {
		version := younger(w)
		w.version = nil
		w.ask("balcony")
		w.took()
		w.version = &version
		w.ask("balcony")
		if got := w.took(); slices.Contains(got, "same balcony") {
			t.Errorf("got %q", got)
		}
		juliet := mustJID(t, "juliet@example.org")
		if !w.Manager.users[juliet].told[mustJID(t, "juliet@example.org/balcony")].versioned {
			t.Error("it is not known to use versions")
		}
		w.ask("balcony")
		w.expect("same balcony")
	})
}

// Who is answered at once is as much there as who is answered later: he is heard
// of, for what is pushed to him next, and stays at hand.
func TestCurrentIsASignOfLife(t *testing.T) {
	const two = 2*overhead + 1000
	inWorld(t, Limits{Cache: two}, func(t *testing.T, w *world) {
		version := younger(w)
		ask := func(user string) {
			w.Get(mustJID(t, user+"@example.org/x"), nil, func(roster.Answer) []roster.Item { return nil })
			w.took()
		}
		ask("romeo")
		time.Sleep(time.Minute)
		w.version = &version
		w.ask("balcony")
		w.expect("same balcony")
		u := w.Manager.users[mustJID(t, "juliet@example.org")]
		if at := u.told[mustJID(t, "juliet@example.org/balcony")].asked; at.Before(time.Now()) {
			t.Errorf("it asked at %v", at)
		}
		ask("nurse")
		if n := w.Manager.cache.list.Len(); n != 2 {
			t.Fatalf("%d users at hand", n)
		}
		w.ask("balcony")
		w.expect("same balcony")
	})
}

// What is kept at hand of a user for whom there is nothing to do is packed.
func TestUsersThatRestArePacked(t *testing.T) {
	inWorld(t, Limits{Cache: 1 << 20}, func(t *testing.T, w *world) {
		w.backend.set("juliet", many(100)...)
		for range 2 {
			w.ask("a")
			w.took()
			w.refreshJuliet()
			w.took()
			u := w.Manager.users[mustJID(t, "juliet@example.org")]
			if packed := len(u.last.Packed()) - 1; u.last.MemorySize() != packed || w.cache.size != overhead+packed {
				t.Errorf("%d bytes, %d packed, %d counted", u.last.MemorySize(), packed, w.cache.size)
			}
		}
	})
}
