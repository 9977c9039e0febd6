package users

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rosterd/store"
)

// restart ends the process, cleanly or by a kill, and begins another one, on the same machine.
func (w *world) restart(kill bool) { w.takeOver(kill, 0) }

// takeOver is restart on a machine whose clock is ahead by so much.
func (w *world) takeOver(kill bool, ahead time.Duration) {
	w.t.Helper()
	synctest.Wait()
	if kill {
		w.kept.kill()
	}
	w.Close()
	if !kill {
		w.kept.flush(-1)
	}
	w.kept = w.kept.next(w.kept.Now(), ahead)
	w.begin()
}

// inKept is inWorld with nothing to do.
func inKept(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	inWorld(t, Limits{}, f)
}

func TestRestart(t *testing.T) {
	before := []string{"benvolio@example.org B", "romeo@example.org Romeo"}
	tests := []struct {
		name string
		do   func(w *world)
		now  []string // the backend's roster afterwards
		want []string // pushes, sorted
	}{
		{"nothing changed", func(w *world) {}, before, nil},
		{"changed meanwhile", func(w *world) {}, []string{"romeo@example.org R"},
			[]string{"push a changed romeo R", "push a removed benvolio "}},
		{"told last, and taken back meanwhile", func(w *world) {
			w.backend.set("juliet", append(slices.Clone(before), "nurse@example.org N")...)
			w.refreshJuliet()
		}, before, []string{"push a removed nurse "}},
		{"renamed last, and renamed back meanwhile", func(w *world) {
			w.backend.set("juliet", "benvolio@example.org B", "romeo@example.org R")
			w.refreshJuliet()
		}, before, []string{"push a changed romeo Romeo"}},
		{"logged in last", func(w *world) { w.ask("b") }, []string{"romeo@example.org Romeo"},
			[]string{"push a removed benvolio ", "push b changed romeo Romeo", "push b removed benvolio "}},
		{"logged in last with something new", func(w *world) {
			w.backend.set("juliet", append(slices.Clone(before), "nurse@example.org N")...)
			w.ask("b")
		}, []string{"romeo@example.org Romeo"},
			[]string{"push a removed benvolio ", "push a removed nurse ", "push b changed romeo Romeo", "push b removed benvolio ", "push b removed nurse "}},
		{"asked last and never answered", func(w *world) {
			w.backend.hold = make(chan struct{})
			w.ask("b")
			w.took()
			w.backend.mu.Lock()
			defer w.backend.mu.Unlock()
			w.backend.hold = nil
		}, before, []string{"push b changed benvolio B", "push b changed romeo Romeo"}},
		{"pushed last and never confirmed", func(w *world) {
			w.set(func() { w.silent = true })
			w.backend.set("juliet", "romeo@example.org R")
			go w.refreshJuliet()
			synctest.Wait()
			w.kept.flush(-1)
			w.set(func() { w.silent = false })
		}, []string{"romeo@example.org R"}, []string{"push a changed romeo R", "push a removed benvolio "}},
		{"a reply lost last", func(w *world) {
			w.set(func() { w.lost = true })
			w.ask("b")
			w.took()
			w.set(func() { w.lost = false })
		}, before, []string{"push b changed benvolio B", "push b changed romeo Romeo"}},
	}
	for _, test := range tests {
		for _, kill := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, kill %v", test.name, kill), func(t *testing.T) {
				inKept(t, func(t *testing.T, w *world) {
					w.login("a", before...)
					w.kept.flush(-1)
					time.Sleep(time.Hour)
					test.do(w)
					w.restart(kill)
					w.took()
					w.backend.set("juliet", test.now...)
					w.Resume("example.org")
					sent := w.took()
					if !kill {
						// A clean end knows better what was told; more than needed is
						// no mistake, less is.
						for _, push := range test.want {
							if kind := push[:len("push a")]; !slices.ContainsFunc(sent, func(s string) bool { return s[:len(kind)] == kind }) && kind == "push a" {
								t.Errorf("sent %q, want %q", sent, test.want)
							}
						}
					} else {
						slices.Sort(sent)
						if !slices.Equal(sent, test.want) {
							t.Errorf("sent\n%q, want\n%q", sent, test.want)
						}
					}
					w.Resume("example.org")
					w.expect()
				})
			})
		}
	}
}

// Marks survive, and one of those who have one is the first.
func TestMarksAreKept(t *testing.T) {
	inKept(t, func(t *testing.T, w *world) {
		for i := range 50 {
			w.sessions.Connected(mustJID(t, fmt.Sprintf("user%d@example.org/x", i)))
		}
		w.login("a", "romeo@example.org Romeo")
		w.backend.fail(errors.New("down"))
		w.backend.set("juliet", "romeo@example.org R")
		if err := w.refreshJuliet(); err == nil {
			t.Error("no error")
		}
		if c := w.Counts(); c.Marked != 1 {
			t.Errorf("%+v", c)
		}
		w.kept.flush(-1)
		w.restart(true)
		if c := w.Counts(); c.Marked != 1 || c.Resync != 0 {
			t.Errorf("%+v", c)
		}
		w.backend.fail(nil)
		w.Resume("example.org")
		w.expect("push a changed romeo R")
		if c := w.Counts(); c.Marked != 0 || c.Resync < 20 || c.Retries != 1 {
			t.Errorf("%+v", c)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if c := w.Counts(); c.Resync != 0 {
			t.Errorf("%+v", c)
		}
	})
}

func TestFailedRefreshIsTriedAgain(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.login("a", "romeo@example.org Romeo")
		w.backend.fail(errors.New("down"))
		w.backend.set("juliet", "romeo@example.org R")
		w.refreshJuliet()
		before := w.backend.fetches()
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := w.backend.fetches() - before; n < 100 || n > 200 {
			t.Errorf("tried %d times in an hour", n)
		}
		w.backend.fail(nil)
		w.Hasten([]string{"example.net"})
		w.expect()
		w.Hasten([]string{"example.org"})
		w.expect("push a changed romeo R")
		if c := w.Counts(); c.Marked != 0 {
			t.Errorf("%+v", c)
		}
	})
}

func TestResyncIsBounded(t *testing.T) {
	inWorld(t, Limits{Resync: 10}, func(t *testing.T, w *world) {
		for i := range 100 {
			w.sessions.Connected(mustJID(t, fmt.Sprintf("user%d@example.org/x", i)))
		}
		w.Resume("example.org")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if n := w.backend.fetches(); n < 49 || n > 54 {
			t.Errorf("%d fetches in 5 s", n)
		}
		w.set(func() { w.down = true })
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := w.backend.fetches(); n > 54 {
			t.Errorf("%d fetches while not connected", n)
		}
	})
}

func TestStaleAnswer(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.Rules.MaxStale = time.Hour
		w.login("a", "romeo@example.org Romeo")
		w.sessions.Gone(mustJID(t, "juliet@example.org/a"))
		w.Gone(mustJID(t, "juliet@example.org/a"))
		w.backend.fail(errors.New("down"))
		w.backend.set("juliet", "romeo@example.org R")
		time.Sleep(50 * time.Minute)
		w.ask("b")
		w.expect("reply b romeo Romeo")
		if c := w.Counts(); c.Marked != 1 {
			t.Errorf("%+v", c)
		}
		time.Sleep(20 * time.Minute)
		w.ask("c")
		w.expect("error c down")
		w.backend.fail(nil)
		time.Sleep(soon.most * 2)
		w.expectInAnyOrder("push b changed romeo R", "push c added romeo R")
	})
}

// many are n contacts.
func many(n int) (lines []string) {
	for i := range n {
		lines = append(lines, fmt.Sprintf("c%02d@example.org c", i))
	}
	return lines
}

func TestSuddenlyEmptyIsNotBelieved(t *testing.T) {
	tests := []struct {
		name   string
		before int
		after  []string
		later  []string // what the backend says when it is asked again
		pushes int
		held   bool
	}{
		{"empty, and still so", 100, nil, nil, 100, true},
		{"empty for a moment", 100, nil, many(100), 0, true},
		{"a tenth less one, confirmed", 100, many(9), many(9), 91, true},
		{"twice something else", 100, nil, many(1), 0, true},
		{"just a tenth is left", 100, many(10), nil, 90, false},
		{"a short one", 9, nil, nil, 9, false},
		{"ten", 10, nil, nil, 10, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inWorld(t, Limits{}, func(t *testing.T, w *world) {
				w.login("a", many(test.before)...)
				w.backend.set("juliet", test.after...)
				err := w.refreshJuliet()
				if (err != nil) != test.held {
					t.Errorf("refresh: %v", err)
				}
				if test.held {
					if n := len(w.took()); n != 0 {
						t.Errorf("%d pushes at once", n)
					}
					// Asking before the time is no confirmation.
					time.Sleep(10 * time.Second)
					if err := w.refreshJuliet(); err == nil {
						t.Error("believed too early")
					}
					w.ask("b")
					if sent := w.took(); len(sent) != 1 || !slices.Contains(sent, fmt.Sprintf("reply b %s", names(test.before))) {
						t.Errorf("sent %q", sent)
					}
					w.sessions.Gone(mustJID(t, "juliet@example.org/b"))
					w.backend.set("juliet", test.later...)
					time.Sleep(25 * time.Second)
				}
				if sent := w.took(); len(sent) != test.pushes {
					t.Errorf("%d pushes, want %d", len(sent), test.pushes)
				}
				if c := w.Counts(); (c.Held > 0) != test.held {
					t.Errorf("%+v", c)
				}
			})
		})
	}
}

func names(n int) string {
	s := ""
	for i := range n {
		if i > 0 {
			s += ", "
		}
		s += fmt.Sprintf("c%02d c", i)
	}
	return s
}

// A store that is damaged costs what it knew, and nothing else.
func TestDamagedRecord(t *testing.T) {
	inKept(t, func(t *testing.T, w *world) {
		w.login("a", "romeo@example.org Romeo")
		w.kept.flush(-1)
		w.restart(true)
		kept := w.kept.now.users["juliet@example.org"]
		kept.Roster = []byte{1, 2, 3}
		w.kept.now.users["juliet@example.org"] = kept
		w.sessions.Interested(mustJID(t, "juliet@example.org/a"))
		w.Resume("example.org")
		w.expect("push a added romeo Romeo")
	})
}

// Damage that the store finds itself is the same.
func TestDamagedRow(t *testing.T) {
	inKept(t, func(t *testing.T, w *world) {
		w.login("a", "romeo@example.org Romeo")
		w.kept.flush(-1)
		w.restart(true)
		w.kept.lose(fmt.Errorf("a row %w", store.ErrDamaged))
		w.ask("a")
		w.expect("reply a romeo Romeo")
		if u := w.kept.row("juliet@example.org"); u.Epoch == 0 {
			t.Error("the damaged row is still there")
		}
	})
}

// A store that cannot be read for a while is not damaged: what it has is not replaced by
// what is known without it. Queries are answered meanwhile. Afterwards all clients are told
// what they lack by either, and contacts are removed only as the guard lets them.
func TestStoreAway(t *testing.T) {
	inKept(t, func(t *testing.T, w *world) {
		juliet := "juliet@example.org"
		w.backend.set("juliet", many(20)...)
		w.ask("a")
		w.refreshJuliet()
		w.took()
		w.kept.flush(-1)
		w.restart(true)
		w.sessions.Interested(mustJID(t, juliet+"/a"))
		before := w.kept.row(juliet)
		w.kept.lose(errors.New("the database does not answer"))
		w.backend.set("juliet", "romeo@example.org Romeo")
		w.ask("b")
		if sent := w.took(); !slices.Contains(sent, "reply b romeo Romeo") {
			t.Errorf("told %q", sent)
		}
		time.Sleep(5 * time.Minute)
		if now := w.kept.row(juliet); now.Version != before.Version || len(now.Told) != len(before.Told) || !now.Fetched.Equal(before.Fetched) {
			t.Errorf("the store has %+v, and had %+v", now, before)
		}
		w.took()
		w.kept.lose(nil)
		w.backend.set("juliet") // who is not believed at once
		time.Sleep(20 * time.Second)
		if now := w.kept.row(juliet); now.Version != before.Version {
			t.Errorf("the store has %+v", now)
		}
		for _, s := range w.took() {
			if strings.Contains(s, "removed c") {
				t.Errorf("%q before it was confirmed", s)
			}
		}
		w.backend.set("juliet", many(19)...)
		time.Sleep(2 * time.Minute)
		sent := w.took()
		for _, want := range []string{"push a removed c19 ", "push b removed romeo ", "push b changed c00 c", "push a removed romeo "} {
			if !slices.Contains(sent, want) {
				t.Errorf("nobody was told %q of %q", want, sent)
			}
		}
		if now := w.kept.row(juliet); now.Items != 19 || now.Epoch <= before.Epoch {
			t.Errorf("the store has %+v", now)
		}
	})
}

// What clients were told without what the store has is not lost with the process: they are in
// doubt, and what they may show is missed.
func TestToldWhileTheStoreIsAway(t *testing.T) {
	inKept(t, func(t *testing.T, w *world) {
		w.login("a", "romeo@example.org Romeo")
		w.restart(false)
		w.kept.lose(errors.New("away"))
		w.backend.set("juliet", "nurse@example.org Nurse", "paris@example.org Paris")
		w.refreshJuliet()
		w.backend.set("juliet", "nurse@example.org Nurse")
		w.refreshJuliet()
		w.took()
		got := w.kept.unread
		slices.Sort(got.Missed)
		if len(got.Told) != 1 || got.Told[0].Resource != "a" || !got.Told[0].Doubt || got.Told[0].Since.IsZero() ||
			!slices.Equal(got.Missed, []string{"nurse@example.org", "paris@example.org"}) {
			t.Errorf("%+v", got)
		}
		w.kept.lose(nil)
	})
}

// A version counts for nothing while it is not known whether it is outdated.
func TestStoreAwayVersion(t *testing.T) {
	inKept(t, func(t *testing.T, w *world) {
		w.login("a", "romeo@example.org Romeo")
		version := w.kept.row("juliet@example.org").Version
		for _, err := range []error{errors.New("away"), store.ErrDamaged} {
			w.kept.flush(-1)
			w.restart(true)
			w.kept.lose(err)
			w.version = &version
			w.ask("a")
			w.expect("reply a romeo Romeo")
			w.version = nil
			w.kept.lose(nil)
		}
	})
}

// What is kept is read as it was, and anything else does no harm.
func FuzzRecord(f *testing.F) {
	juliet := mustJID(f, "juliet@example.org")
	f.Add(contacts(f, "romeo@example.org Romeo Friends").Packed(), 1, "v", "a", "tybalt@example.org", "paris@example.org", uint64(3), int64(2))
	f.Add([]byte{1}, -1, "", "", "", "", uint64(0), int64(0))
	f.Fuzz(func(t *testing.T, kept []byte, n int, version, resource, missed, former string, epoch uint64, at int64) {
		r := store.User{
			JID: juliet.String(), Roster: kept, Items: n, Version: version, Epoch: epoch, Fetched: time.UnixMilli(at),
			Told: []store.Told{{Resource: resource, Asked: time.UnixMilli(at)}}, Missed: []string{missed}, Former: []store.Former{{Contact: former, Removed: time.UnixMilli(at)}},
		}
		s, err := stateOf(juliet, r, time.Now())
		if err != nil {
			if s.last != nil || len(s.told) > 0 {
				t.Error("half a state")
			}
			return
		}
		if s.epoch != epoch+1 || s.last.Len() != n && version != "" {
			t.Errorf("%+v", s)
		}
		u := &user{jid: juliet, state: s}
		again, err := stateOf(juliet, u.record(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if !again.last.Equal(s.last) || !maps.Equal(again.told, s.told) || !maps.Equal(again.missed, s.missed) || !slices.Equal(again.former, s.former) {
			t.Errorf("%+v became %+v", s, again)
		}
	})
}

// After a kill the record is not older than what the clients were told: a query is answered
// with that, and a fetch that removes most of it is not believed.
func TestRecordAfterAKill(t *testing.T) {
	inKept(t, func(t *testing.T, w *world) {
		w.login("a", many(2)...)
		w.kept.flush(-1)
		w.backend.set("juliet", many(20)...)
		w.refreshJuliet()
		w.restart(true)
		w.took()
		w.backend.fail(errors.New("down"))
		w.ask("a")
		w.expect("reply a " + names(20))
		w.backend.fail(nil)
		w.backend.set("juliet")
		if err := w.refreshJuliet(); err == nil {
			t.Error("an empty roster was believed")
		}
		w.expect()
		w.backend.set("juliet", many(20)...)
		w.refreshJuliet()
		if removed := slices.ContainsFunc(w.took(), func(s string) bool { return s[:len("push a r")] == "push a r" }); removed {
			t.Error("contacts were removed")
		}
	})
}

// Who surely had everything, and is in doubt as the process before may not have written all,
// is told what is removed, too: they are none of those who were never told anything.
func TestInDoubtAfterAll(t *testing.T) {
	inKept(t, func(t *testing.T, w *world) {
		w.login("a", "romeo@example.org Romeo", "nurse@example.org Nurse")
		time.Sleep(2 * confirmed)
		w.backend.set("juliet", "romeo@example.org Romeo", "nurse@example.org Nurse", "paris@example.org Paris")
		w.refreshJuliet()
		w.took()
		w.kept.flush(-1)
		w.kept.doubt()
		w.backend.set("juliet", "nurse@example.org Nurse")
		w.restart(true)
		w.refreshJuliet()
		w.expectInAnyOrder("push a changed nurse Nurse", "push a removed romeo ", "push a removed paris ")
	})
}

func TestGuardWithoutRecord(t *testing.T) {
	inKept(t, func(t *testing.T, w *world) {
		w.login("a", many(20)...)
		w.restart(true)
		w.backend.set("juliet")
		if err := w.refreshJuliet(); err == nil {
			t.Error("an empty roster was believed")
		}
		w.expect()
	})
}

// What an earlier process fetched is not young: what the backend said of it since
// nobody heard.
func TestYoungRosterOfAnEarlierProcess(t *testing.T) {
	inKept(t, func(t *testing.T, w *world) {
		w.rules.MaxAge, w.Manager.Rules.MaxAge = time.Hour, time.Hour
		time.Sleep(time.Second)
		w.login("a", "romeo@example.org Romeo")
		w.ask("a")
		w.took()
		if n := w.backend.fetches(); n != 1 {
			t.Fatalf("%d fetches", n)
		}
		w.restart(false)
		w.took()
		w.backend.set("juliet", "romeo@example.org R")
		w.ask("a")
		w.expect("reply a romeo R")
	})
}

// While pushes wait for clients that sleep, the state is not written. A resource that got an
// error, asks again and is killed with its answer is told everything all the same.
func TestAnswerLostWhilePushesAreInFlight(t *testing.T) {
	inKept(t, func(t *testing.T, w *world) {
		w.Rules.MaxStale = never
		w.login("a", "romeo@example.org Romeo", "tybalt@example.org T")
		time.Sleep(time.Hour)
		w.set(func() { w.silent = true })
		w.backend.set("juliet", "romeo@example.org R", "tybalt@example.org T")
		go w.refreshJuliet()
		w.took()
		w.backend.fail(errors.New("down"))
		w.ask("b")
		w.expect("error b down")
		time.Sleep(2 * store.Unsent)
		w.backend.fail(nil)
		w.ask("b")
		w.expect("reply b romeo R, tybalt T")
		w.restart(true)
		w.set(func() { w.silent = false })
		w.Resume("example.org")
		sent := w.took()
		if !slices.Contains(sent, "push b changed tybalt T") {
			t.Errorf("sent %q", sent)
		}
	})
}

// What an answer could not hold follows as pushes. A kill while these are not acknowledged
// loses them, however long ago the answer was.
func TestRestOfAnAnswerLostWithTheProcess(t *testing.T) {
	inKept(t, func(t *testing.T, w *world) {
		w.set(func() { w.silent, w.fits = true, 1 })
		w.backend.set("juliet", "romeo@example.org Romeo", "tybalt@example.org T")
		w.ask("a")
		w.expect("reply a romeo Romeo", "push a added tybalt T")
		time.Sleep(3 * store.Unsent)
		w.restart(true)
		w.set(func() { w.silent = false })
		w.Resume("example.org")
		if sent := w.took(); !slices.Contains(sent, "push a changed tybalt T") {
			t.Errorf("sent %q", sent)
		}
	})
}

// The store forgets who was gone for long, be they in the cache or not.
func TestUserWhoWasForgottenComesBack(t *testing.T) {
	inWorld(t, Limits{Cache: 1 << 20}, func(t *testing.T, w *world) {
		full := mustJID(t, "juliet@example.org/a")
		w.login("a", "romeo@example.org Romeo")
		w.sessions.Gone(full)
		w.Gone(full)
		time.Sleep(90 * 24 * time.Hour)
		w.kept.DeleteUser("juliet@example.org")
		w.ask("a")
		w.took()
		w.restart(false)
		w.backend.fail(errors.New("down"))
		w.ask("a")
		w.expect("reply a romeo Romeo")
	})
}
