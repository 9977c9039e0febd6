package users

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// What the model found, each in a few lines.

// A fetch for somebody who has left is under way when the backend says that his
// roster changed; whoever comes then is not given what it brings.
func TestRefreshWhileNobodyIsThereAndAFetchIsUnderWay(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		a := mustJID(t, "juliet@example.org/a")
		w.backend.set("juliet", "romeo@example.org Old")
		w.backend.hold = make(chan struct{})
		w.sessions.Connected(a)
		go w.refreshJuliet()
		synctest.Wait()
		w.sessions.Gone(a)
		w.Gone(a)
		w.backend.set("juliet", "romeo@example.org New")
		go w.refreshJuliet()
		synctest.Wait()
		w.ask("b")
		synctest.Wait()
		close(w.backend.hold)
		sent := w.took()
		if len(sent) == 0 || sent[len(sent)-1] != "reply b romeo New" && sent[len(sent)-1] != "push b changed romeo New" {
			t.Errorf("sent %q", sent)
		}
	})
}

// Nor is he given a young roster that somebody said has changed.
func TestYoungRosterThatHasChanged(t *testing.T) {
	tests := []struct {
		name string
		do   func(w *world)
	}{
		{"while nobody was there", func(w *world) { w.refreshJuliet() }},
		{"while the stream was down", func(w *world) {
			w.sessions.Connected(mustJID(w.t, "juliet@example.org/a"))
			w.set(func() { w.down = true })
			w.refreshJuliet()
			w.set(func() { w.down = false })
		}},
		{"and could not be fetched", func(w *world) {
			w.sessions.Connected(mustJID(w.t, "juliet@example.org/a"))
			w.backend.fail(errors.New("down"))
			w.refreshJuliet()
			w.backend.fail(nil)
		}},
	}
	for _, test := range tests {
		for _, cache := range []int{-1, 1 << 20} {
			t.Run(fmt.Sprintf("%s, cache %d", test.name, cache), func(t *testing.T) {
				inWorld(t, Limits{Cache: cache}, func(t *testing.T, w *world) {
					a := mustJID(t, "juliet@example.org/a")
					w.Rules.MaxAge = time.Hour
					w.backend.set("juliet", "romeo@example.org Old")
					time.Sleep(time.Second)
					w.ask("a")
					w.took()
					w.sessions.Gone(a)
					w.Gone(a)
					w.backend.set("juliet", "romeo@example.org New")
					test.do(w)
					synctest.Wait()
					w.sessions.Gone(a)
					w.Gone(a)
					w.ask("b")
					w.expect("reply b romeo New")
				})
			})
		}
	}
}

// An answer that was in the queue when rosterd stopped is in doubt for as long as
// it takes, over any number of processes.
func TestAnswerLostSomeProcessesAgo(t *testing.T) {
	inKept(t, func(t *testing.T, w *world) {
		w.login("a", "romeo@example.org Romeo")
		time.Sleep(time.Second)
		for range 3 {
			w.restart(false)
			time.Sleep(time.Hour)
			w.kept.flush(-1)
		}
		w.Resume("example.org")
		w.expect("push a changed romeo Romeo")
		w.Resume("example.org")
		w.expect()
	})
}

// Who has nothing, or an old roster, is remembered until he can be told.
func TestReplyLostAndNoStreamForLong(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.login("a", "romeo@example.org Romeo", "tybalt@example.org T")
		w.backend.set("juliet", "romeo@example.org Romeo")
		w.set(func() { w.lost = true })
		w.ask("a")
		w.took()
		w.set(func() { w.lost, w.down = false, true })
		time.Sleep(time.Hour)
		w.set(func() { w.down = false })
		w.Resume("example.org")
		w.expectInAnyOrder("push a changed romeo Romeo", "push a removed tybalt ")
	})
}

// A query that is refused is made up for, though nothing changes and the client
// does not ask again.
func TestRefusedQueryIsMadeUpFor(t *testing.T) {
	inWorld(t, Limits{PerUser: 1}, func(t *testing.T, w *world) {
		w.backend.set("juliet", "romeo@example.org Romeo")
		w.ask("b") // by another session of that name
		w.took()
		w.backend.hold = make(chan struct{})
		w.ask("a")
		if err := w.ask("b"); !errors.Is(err, roster.ErrBusy) {
			t.Errorf("%v", err)
		}
		close(w.backend.hold)
		time.Sleep(2 * soon.least)
		if sent := w.took(); !slices.Contains(sent, "push b changed romeo Romeo") {
			t.Errorf("sent %q", sent)
		}
	})
}

// A query that comes while rosterd stops is made up for by the next process.
func TestQueryWhileStopping(t *testing.T) {
	inKept(t, func(t *testing.T, w *world) {
		w.backend.set("juliet", "romeo@example.org Romeo")
		w.Close()
		if err := w.ask("a"); !errors.Is(err, roster.ErrStopping) {
			t.Errorf("%v", err)
		}
		w.sessions.Interested(mustJID(t, "juliet@example.org/b"))
		w.Undelivered(mustJID(t, "juliet@example.org/b"))
		w.kept.flush(-1)
		w.restart(false)
		w.Resume("example.org")
		w.expectInAnyOrder("push a added romeo Romeo", "push b added romeo Romeo")
	})
}

// A user whose roster is not believed yet leaves: nothing of him stays at hand.
func TestSuspectOfAUserWhoLeaves(t *testing.T) {
	inWorld(t, Limits{Cache: -1}, func(t *testing.T, w *world) {
		a := mustJID(t, "juliet@example.org/a")
		w.login("a", many(100)...)
		w.backend.set("juliet")
		w.refreshJuliet()
		w.sessions.Gone(a)
		w.Gone(a)
		synctest.Wait()
		w.Manager.mu.Lock()
		defer w.Manager.mu.Unlock()
		if n := len(w.Manager.users); n != 0 {
			t.Errorf("%d users", n)
		}
	})
}

// sourceFunc is a Source.
type sourceFunc func(roster.Request) (roster.Fetched, error)

func (f sourceFunc) Fetch(_ context.Context, r roster.Request) (roster.Fetched, error) { return f(r) }

func (f sourceFunc) FetchMany(ctx context.Context, rs []roster.Request, done func(int, roster.Fetched, error)) {
	each(ctx, f, rs, done)
}

func (sourceFunc) BatchSize(string) int { return 1 }

// A backend that says "still the same" of nothing has not said "empty".
func TestNotModifiedWithoutARoster(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.Manager.Source = sourceFunc(func(roster.Request) (roster.Fetched, error) { return roster.Fetched{}, nil })
		w.ask("a")
		w.expect("error a " + errNothing.Error())
	})
}

// A version is not trusted if one of its pushes was lost, whatever was told since and
// whether rosterd was killed since.
func TestVersionAfterALostPush(t *testing.T) {
	inKept(t, func(t *testing.T, w *world) {
		none := ""
		w.version = &none
		w.login("a", "romeo@example.org Romeo")
		var lose []func()
		var versions []string
		var well atomic.Bool
		w.Manager.Pusher = pusherFunc(func(to []jid.JID, changes []roster.Change, settled func(roster.Outcome)) error {
			if well.Load() {
				return w.Push(to, changes, settled)
			}
			lose = append(lose, func() {
				settled(roster.Outcome{Owed: []jid.JID{changes[0].Item.JID}, Err: roster.ErrNotConnected})
			})
			versions = append(versions, changes[len(changes)-1].Version)
			return nil
		})
		for _, name := range []string{"R", "S"} {
			w.backend.set("juliet", "romeo@example.org "+name)
			go w.refreshJuliet()
			synctest.Wait()
		}
		check := func(when string) {
			t.Helper()
			s, _ := w.read(mustJID(t, "juliet@example.org"))
			for _, version := range versions {
				if s.trusts(version, s.last) {
					t.Errorf("%s, %s is trusted", when, version)
				}
			}
		}
		check("in flight")
		for _, f := range lose {
			f()
		}
		synctest.Wait()
		check("lost")
		well.Store(true)
		time.Sleep(time.Minute)
		w.took()
		if s, _ := w.read(mustJID(t, "juliet@example.org")); len(s.missed) > 0 || len(versions) != 2 {
			t.Errorf("%d missed, %q", len(s.missed), versions)
		}
		check("told again")
		w.restart(true)
		check("after a kill")
	})
}

// A client that names a version which nobody knows any more, and whose answer is
// lost, is told what its roster may have had.
func TestFormerContacts(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		none, forgotten := "", "forgotten"
		w.version = &none
		w.login("a", "romeo@example.org Romeo", "tybalt@example.org T")
		w.backend.set("juliet", "romeo@example.org Romeo")
		w.refreshJuliet()
		w.took()
		w.version = &forgotten
		w.set(func() { w.lost = true })
		w.ask("b")
		w.took()
		w.set(func() { w.lost = false })
		w.Resume("example.org")
		w.expect("push b changed romeo Romeo", "push b removed tybalt ")
	})
}

// A query that was refused is made up for though rosterd is killed before that is
// on disk.
func TestRefusedQueryBeforeAKill(t *testing.T) {
	inKept(t, func(t *testing.T, w *world) {
		w.Manager.Limits.PerUser = 1
		w.login("a", "romeo@example.org Romeo")
		w.kept.flush(-1)
		w.backend.hold = make(chan struct{})
		w.ask("a")
		w.took()
		if err := w.ask("b"); !errors.Is(err, roster.ErrBusy) {
			t.Errorf("%v", err)
		}
		w.took()
		w.backend.mu.Lock()
		w.backend.hold = nil
		w.backend.mu.Unlock()
		w.restart(true)
		w.took()
		w.Resume("example.org")
		if sent := w.took(); !slices.Contains(sent, "push b changed romeo Romeo") && !slices.Contains(sent, "push b added romeo Romeo") {
			t.Errorf("sent %q", sent)
		}
	})
}

// So is an answer that was lost with the stream, however long before that it was
// sent.
func TestLostAnswerBeforeAKill(t *testing.T) {
	inKept(t, func(t *testing.T, w *world) {
		w.login("a", "romeo@example.org Romeo")
		time.Sleep(31 * time.Second)
		w.kept.flush(-1)
		w.Undelivered(mustJID(t, "juliet@example.org/a"))
		w.took()
		w.restart(true)
		w.took()
		w.Resume("example.org")
		w.expect("push a changed romeo Romeo")
		time.Sleep(31 * time.Second)
		w.kept.flush(-1)
		w.backend.hold = make(chan struct{})
		go w.refreshJuliet()
		synctest.Wait()
		w.Undelivered(mustJID(t, "juliet@example.org/a"))
		w.took()
		w.backend.release()
		w.restart(true)
		w.took()
		w.Resume("example.org")
		w.expect("push a changed romeo Romeo")
	})
}

// Who is there and did not ask here is told everything, from then on as others
// are: with what was fetched a moment ago, or else with another fetch.
func TestUnasked(t *testing.T) {
	for name, wait := range map[string]time.Duration{"a moment ago": time.Second, "long ago": recent} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, Limits{}, func(t *testing.T, w *world) {
				full := mustJID(t, "juliet@example.org/a")
				w.backend.set("juliet", "romeo@example.org R", "nurse@example.org N")
				w.sessions.Connected(full)
				w.Want(full.Bare())
				synctest.Wait()
				w.expect()
				time.Sleep(wait)
				fetched := w.backend.fetches()
				w.Unasked(full)
				time.Sleep(time.Minute)
				w.expect("push a added nurse N", "push a added romeo R")
				if again := w.backend.fetches() - fetched; (again > 0) != (wait == recent) {
					t.Errorf("fetched %d times", again)
				}
				w.backend.set("juliet", "romeo@example.org Romeo", "nurse@example.org N")
				w.refreshJuliet()
				synctest.Wait()
				w.expect("push a changed romeo Romeo")
			})
		})
	}
}
