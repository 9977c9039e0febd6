package users

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// server has rosters of its own, which are in step when the test says so.
type server struct {
	m       *Manager
	mu      sync.Mutex
	rosters map[jid.JID]*roster.Roster // that it is to have
	ready   []func(bool)               // of queries that wait
	asked   int
	own     *roster.Roster // juliet's, of which nothing is known; nil: it is known
	pushes  bool           // what is written
}

func (s *server) Keeps(domain string) bool { return domain == "example.org" }

func (s *server) Pushes(string) bool { return s.pushes }

func (s *server) Resume(string) {}

func (s *server) Keep(user jid.JID, ready func(bool)) {
	now, _ := s.m.Known(user)
	if s.own != nil && s.m.Believes(user, s.own) {
		s.own = now
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	s.rosters[user] = now
	if ready != nil {
		s.ready = append(s.ready, ready)
	}
}

// answer lets the queries go on that wait, and returns how many did.
func (s *server) answer(inStep bool) int {
	synctest.Wait()
	s.mu.Lock()
	waiting := s.ready
	s.ready = nil
	s.mu.Unlock()
	for _, ready := range waiting {
		ready(inStep)
	}
	return len(waiting)
}

func (s *server) has(user jid.JID) *roster.Roster {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rosters[user]
}

func inWorldWithServer(t *testing.T, f func(t *testing.T, w *world, s *server)) {
	t.Helper()
	inWorld(t, Limits{Cache: 1 << 20}, func(t *testing.T, w *world) {
		s := &server{m: w.Manager, rosters: make(map[jid.JID]*roster.Roster)}
		w.KeepServerRosters(s)
		f(t, w, s)
	})
}

// Presence and PEP go by the server's own roster from the client's first presence on, which
// follows the answer.
func TestAnswerWaitsForTheServersRoster(t *testing.T) {
	inWorldWithServer(t, func(t *testing.T, w *world, s *server) {
		w.backend.set("juliet", "romeo@example.org Romeo")
		w.ask("balcony")
		w.expect()
		if n := s.answer(true); n != 1 {
			t.Errorf("%d queries wait for the server", n)
		}
		w.expect("reply balcony romeo Romeo")
		w.ask("chamber")
		w.expect("reply chamber romeo Romeo") // it is in step
		w.backend.set("juliet", "romeo@example.org R")
		w.ask("orchard")
		w.expect()
		s.answer(false) // it was not worth waiting for
		w.expect("reply orchard romeo R", "push balcony changed romeo R", "push chamber changed romeo R")
		w.ask("orchard")
		w.expect()
		s.answer(true)
		w.expect("reply orchard romeo R")
		time.Sleep(time.Second)
		w.Resume("example.org") // the server may have been restarted
		w.took()
		w.ask("orchard")
		w.expect()
		s.answer(true)
		w.expect("reply orchard romeo R")
	})
}

// What is undone, as nobody could be told, was never given to the server.
func TestUndoneRosterDoesNotReachTheServer(t *testing.T) {
	inWorldWithServer(t, func(t *testing.T, w *world, s *server) {
		juliet := mustJID(t, "juliet@example.org")
		time.Sleep(time.Second) // what is fetched is later than the start
		w.login("balcony", "romeo@example.org Romeo")
		s.answer(true)
		w.took()
		refused := errors.New("the queue is full")
		w.set(func() {
			w.refuse = refused
			w.refusing = func() { // another user's fetch, say, has the keeper look
				if r, known := w.Known(juliet); !known || r.Len() != 1 {
					t.Errorf("%d contacts are known before anybody was told", r.Len())
				}
			}
		})
		w.backend.set("juliet", "romeo@example.org Romeo", "nurse@example.org Nurse")
		if err := w.refreshJuliet(); err != refused {
			t.Errorf("refresh: %v", err)
		}
		if n := s.has(juliet).Len(); n != 1 {
			t.Errorf("the server has %d contacts", n)
		}
		if w.Confirmed(juliet) { // what it has may be later, of another instance
			t.Error("what is not true any more may take the place of what the server has")
		}
		w.set(func() { w.refuse, w.refusing = nil, nil })
		w.refreshJuliet()
		if n := s.has(juliet).Len(); n != 2 || !w.Confirmed(juliet) {
			t.Errorf("the server has %d contacts", n)
		}
	})
}

// The server is not given what a kill could still lose.
func TestServersRosterWaitsForTheStore(t *testing.T) {
	inWorldWithServer(t, func(t *testing.T, w *world, s *server) {
		juliet := mustJID(t, "juliet@example.org")
		w.login("balcony", "romeo@example.org Romeo")
		s.answer(true)
		w.took()
		w.kept.set(false, time.Second)
		w.backend.set("juliet", "romeo@example.org R", "nurse@example.org Nurse")
		w.ask("balcony")
		synctest.Wait()
		if r, _ := w.Known(juliet); r.Len() != 1 || s.has(juliet).Len() != 1 {
			t.Error("the server was given what is not in the store")
		}
		time.Sleep(time.Second)
		if n := s.has(juliet).Len(); n != 2 {
			t.Errorf("the server has %d contacts", n)
		}
		w.expect()
		s.answer(true)
		w.expect("reply balcony nurse Nurse, romeo R")
	})
}

// So does one that needs no fetch.
func TestAnswerWithinMaxAgeWaitsForTheServersRoster(t *testing.T) {
	inWorldWithServer(t, func(t *testing.T, w *world, s *server) {
		w.Rules.MaxAge = time.Hour
		time.Sleep(time.Second)
		w.backend.set("juliet", "romeo@example.org Romeo")
		w.ask("balcony")
		s.answer(false)
		w.expect("reply balcony romeo Romeo")
		w.ask("balcony")
		w.expect()
		s.answer(true)
		w.expect("reply balcony romeo Romeo")
		w.ask("balcony")
		w.expect("reply balcony romeo Romeo")
		if n := w.backend.fetches(); n != 1 {
			t.Errorf("%d fetches", n)
		}
	})
}

// A refresh of a user who is offline changes what the server's roster says at their next
// login. It is not forgotten if rosterd is killed after it has answered.
func TestRefreshOfAnOfflineUserReachesTheServersRoster(t *testing.T) {
	inWorldWithServer(t, func(t *testing.T, w *world, s *server) {
		juliet := mustJID(t, "juliet@example.org")
		w.backend.set("juliet", "romeo@example.org Romeo")
		if err := w.refreshJuliet(); err != nil {
			t.Error(err)
		}
		if n := s.has(juliet).Len(); n != 1 {
			t.Errorf("the server has %d contacts", n)
		}
		w.kept.flush(-1)
		w.backend.set("juliet")
		w.backend.hold = make(chan struct{})
		if err := w.refreshJuliet(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		w.kept.kill()
		w.Close()
		w.backend.hold = nil
		w.kept = w.kept.next(w.kept.Now(), 0)
		w.begin()
		s.m = w.Manager
		w.KeepServerRosters(s)
		w.Resume("example.org")
		if n := s.has(juliet).Len(); n != 0 {
			t.Errorf("the server has %d contacts", n)
		}
		if marked, resyncs := w.queue.counts(); len(marked)+resyncs != 0 {
			t.Errorf("marked %v, %d to be brought in line", marked, resyncs)
		}
	})
}

// Whom the backend does not know any more is not tried for ever.
func TestRefreshOfAnUnknownOfflineUser(t *testing.T) {
	inWorldWithServer(t, func(t *testing.T, w *world, s *server) {
		w.backend.fail(fmt.Errorf("404: %w", roster.ErrUnknownUser))
		for range 2 {
			if err := w.refreshJuliet(); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		}
		if marked, resyncs := w.queue.counts(); len(marked)+resyncs != 0 {
			t.Errorf("marked %v, %d to be brought in line", marked, resyncs)
		}
		w.backend.fail(errors.New("down"))
		w.refreshJuliet()
		synctest.Wait()
		w.backend.fail(nil)
		w.backend.set("juliet", "romeo@example.org Romeo")
		time.Sleep(2 * time.Hour)
		if n := s.has(mustJID(t, "juliet@example.org")).Len(); n != 1 {
			t.Errorf("the server has %d contacts", n)
		}
	})
}

// Of whom contacts are known, a 404 is no last word: it may be a fault of the backend's.
func TestRefreshOfAKnownOfflineUser(t *testing.T) {
	inWorldWithServer(t, func(t *testing.T, w *world, s *server) {
		juliet := mustJID(t, "juliet@example.org")
		w.backend.set("juliet", "romeo@example.org Romeo")
		w.refreshJuliet()
		time.Sleep(time.Minute)
		w.backend.fail(errUnknown)
		w.refreshJuliet()
		synctest.Wait()
		if n := s.has(juliet).Len(); n != 1 {
			t.Errorf("the server has %d contacts", n)
		}
		w.backend.fail(nil)
		w.backend.set("juliet", "romeo@example.org Romeo", "nurse@example.org Nurse")
		time.Sleep(time.Minute)
		if n := s.has(juliet).Len(); n != 2 {
			t.Errorf("the server has %d contacts", n)
		}
	})
}

// What the server has is not removed by the first word of a backend, though nothing is known
// of before: it counts if the backend says so again.
func TestFirstLookIsGuarded(t *testing.T) {
	own := func() *roster.Roster { return contacts(t, many(20)...) }
	for name, test := range map[string]struct {
		says, then []string
		missing    bool // and who is missing has no roster
		small      bool // the server's has but few contacts
		held       bool
		want       int
	}{
		"empty":                 {held: true},
		"much shorter":          {says: many(1), then: many(1), held: true, want: 1},
		"then whole":            {then: many(20), held: true, want: 20},
		"then another":          {says: []string{"romeo@example.org"}, then: many(18), held: true, want: 18},
		"a little shorter":      {says: many(15), then: many(15), want: 15},
		"few are there":         {small: true},
		"few, and nobody known": {small: true, missing: true, held: true},
		"others are there":      {says: []string{"romeo@example.org", "nurse@example.org"}, then: []string{"romeo@example.org", "nurse@example.org"}, held: true, want: 2},
	} {
		for _, online := range []bool{true, false} {
			t.Run(fmt.Sprint(name, " ", online), func(t *testing.T) {
				inWorldWithServer(t, func(t *testing.T, w *world, s *server) {
					juliet := mustJID(t, "juliet@example.org")
					if s.own = own(); test.small {
						s.own = contacts(t, many(3)...)
					}
					before := s.own
					w.backend.set("juliet", test.says...)
					w.backend.lose(test.missing)
					if online {
						w.ask("balcony")
						s.answer(false)
						if sent := w.took(); len(sent) != 1 {
							t.Errorf("sent %q", sent)
						}
					} else if err := w.refreshJuliet(); err != nil {
						t.Error(err)
					}
					synctest.Wait()
					if held := w.Counts().Held; held != map[bool]uint64{true: 1}[test.held] {
						t.Errorf("%d held", held)
					}
					for range 3 { // it is not asked for once more, however often somebody looks
						s.Keep(juliet, nil)
						w.Refresh(t.Context(), []jid.JID{juliet})
						synctest.Wait()
					}
					if got := s.own; test.held && !got.Equal(before) {
						t.Errorf("the server has %d contacts before it was confirmed", got.Len())
					}
					w.backend.set("juliet", test.then...)
					time.Sleep(2 * time.Minute)
					synctest.Wait()
					if got := s.own.Len(); got != test.want {
						t.Errorf("the server has %d contacts", got)
					}
					if held := w.Counts().Held; held > 1 {
						t.Errorf("%d held", held)
					}
					if c := w.Counts(); !test.missing && c.Marked != 0 {
						t.Errorf("%+v", c)
					}
				})
			})
		}
	}
}

// Who is offline comes last: behind connected users of all domains, whether the last try
// failed or not, and after a restart, too.
func TestOfflineUsersComeLast(t *testing.T) {
	inWorldWithServer(t, func(t *testing.T, w *world, s *server) {
		var offline []jid.JID
		for i := range 300 {
			offline = append(offline, mustJID(t, fmt.Sprintf("user%d@example.org", i)))
		}
		juliet, nurse := mustJID(t, "juliet@example.org"), mustJID(t, "nurse@example.net")
		order := func(why string, come func()) {
			t.Helper()
			time.Sleep(time.Millisecond)
			synctest.Wait()
			w.backend.reported()
			come()
			time.Sleep(200 * time.Millisecond) // 100 are fetched a second
			w.backend.mu.Lock()
			defer w.backend.mu.Unlock()
			for _, user := range []jid.JID{juliet, nurse} {
				if i := slices.IndexFunc(w.backend.asked, func(r roster.Request) bool { return r.User == user }); i < 0 {
					t.Errorf("%s, %s was not fetched before %d who are offline", why, user, len(w.backend.asked))
				}
			}
			if len(w.backend.asked) > 100 {
				t.Errorf("%s, %d were fetched", why, len(w.backend.asked))
			}
			w.backend.asked = nil
		}
		w.sessions.Interested(mustJID(t, "juliet@example.org/balcony"))
		w.sessions.Interested(mustJID(t, "nurse@example.net/hall"))
		resume := func() { w.Resume("example.org"); w.Resume("example.net") }
		if _, err := w.Refresh(t.Context(), offline); err != nil {
			t.Error(err)
		}
		order("reported", resume)
		w.backend.fail(errors.New("down"))
		time.Sleep(10 * time.Second)
		if c := w.Counts(); c.Marked+c.Resync < 200 {
			t.Errorf("%+v", c)
		}
		w.backend.fail(nil)
		w.Hasten([]string{"example.org"})
		order("failed", resume)
		w.kept.flush(-1)
		w.restart(false)
		s.m = w.Manager
		w.KeepServerRosters(s)
		w.Resume("example.org")
		time.Sleep(time.Second)
		order("restarted", resume)
		// And who is gone comes behind those who are there.
		time.Sleep(time.Minute)
		for _, user := range offline {
			w.sessions.Interested(mustJID(t, user.String()+"/r"))
		}
		resume()
		for _, user := range offline {
			w.sessions.Gone(mustJID(t, user.String()+"/r"))
			w.Gone(mustJID(t, user.String()+"/r"))
		}
		order("gone", func() {
			w.queue.resync("example.org", []jid.JID{juliet})
			w.queue.resync("example.net", []jid.JID{nurse})
		})
	})
}

// Without a server whose rosters are kept nobody needs to know.
func TestRefreshOfAnOfflineUserFetchesNothing(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		if err := w.refreshJuliet(); err != nil {
			t.Error(err)
		}
		w.expect()
		if n := w.backend.fetches(); n != 0 {
			t.Errorf("%d fetches", n)
		}
	})
}

// What is pushed is what is written, once: the server's roster is looked at when others can
// know what is new, and not before, too.
func TestRefreshHasTheServersRosterKeptOnce(t *testing.T) {
	inWorldWithServer(t, func(t *testing.T, w *world, s *server) {
		w.login("balcony", "romeo@example.org Romeo")
		s.answer(true)
		w.took()
		s.asked = 0
		w.backend.set("juliet", "romeo@example.org R")
		if err := w.refreshJuliet(); err != nil {
			t.Error(err)
		}
		w.expect("push balcony changed romeo R")
		if s.asked != 1 {
			t.Errorf("it is looked at %d times", s.asked)
		}
	})
}

// What the store has of a user who could not be read is not what clients were told since: the
// server is not given it before the backend has said which is true.
func TestServersRosterAfterTheStoreWasAway(t *testing.T) {
	inWorld(t, Limits{Cache: 1 << 20}, func(t *testing.T, w *world) {
		juliet := mustJID(t, "juliet@example.org")
		w.login("a", "romeo@example.org Romeo")
		w.restart(false)
		s := &server{m: w.Manager, rosters: make(map[jid.JID]*roster.Roster)}
		w.KeepServerRosters(s)
		w.kept.lose(errors.New("away"))
		w.backend.set("juliet", "nurse@example.org Nurse", "paris@example.org Paris")
		w.refreshJuliet()
		w.backend.fail(errors.New("down"))
		w.kept.lose(nil)
		time.Sleep(5 * time.Second)
		if r, known := w.Known(juliet); known {
			t.Errorf("%d contacts are known", r.Len())
		}
		w.backend.fail(nil)
		time.Sleep(time.Minute)
		if n := s.has(juliet).Len(); n != 2 {
			t.Errorf("the server has %d contacts", n)
		}
	})
}

// As soon as one client was told, the keeper is not to write what was true before.
func TestKnownWithTheFirstPush(t *testing.T) {
	inWorldWithServer(t, func(t *testing.T, w *world, s *server) {
		none := ""
		w.login("a", "romeo@example.org Romeo")
		s.answer(true)
		w.version = &none // b is told by a push of its own
		w.login("b", "romeo@example.org Romeo")
		s.answer(true)
		var known []int
		w.set(func() {
			w.pushing = func() {
				r, _ := w.Known(mustJID(t, "juliet@example.org"))
				known = append(known, r.Len())
			}
		})
		w.backend.set("juliet", "romeo@example.org Romeo", "nurse@example.org Nurse")
		w.refreshJuliet()
		if !slices.Equal(known, []int{1, 2}) {
			t.Errorf("%d contacts are known at each push", known)
		}
	})
}

// What is to be done later is to be repeated by who reported it, if a kill would forget it.
func TestRefreshThatCannotBeKept(t *testing.T) {
	inWorldWithServer(t, func(t *testing.T, w *world, s *server) {
		w.login("balcony", "romeo@example.org Romeo")
		s.answer(true)
		juliet, nurse := mustJID(t, "juliet@example.org"), mustJID(t, "nurse@example.org")
		both := []jid.JID{juliet, nurse}
		w.kept.set(true, 0)
		if failed, err := w.Refresh(t.Context(), both); err != nil || len(failed) != 1 || failed[nurse] != roster.ErrNotKept {
			t.Errorf("nurse is away: %v, %v", failed, err)
		}
		down := errors.New("down")
		w.backend.fail(down)
		if failed, err := w.Refresh(t.Context(), both); err != nil || !errors.Is(failed[juliet], down) || !errors.Is(failed[juliet], roster.ErrNotKept) {
			t.Errorf("the backend is down: %v, %v", failed, err)
		}
		w.set(func() { w.down = true })
		if _, err := w.Refresh(t.Context(), both); err != roster.ErrNotKept {
			t.Errorf("the server is away: %v", err)
		}
		w.kept.set(false, 0)
		if _, err := w.Refresh(t.Context(), both); err != roster.ErrNotConnected {
			t.Errorf("the server is away: %v", err)
		}
	})
}

// What a process before has kept may be older than what it, or another instance, has given the
// server: it is fetched before it takes the place of that.
func TestWhatWasKnownBeforeIsConfirmed(t *testing.T) {
	inWorld(t, Limits{Cache: 1 << 20}, func(t *testing.T, w *world) {
		juliet, nurse := mustJID(t, "juliet@example.org"), mustJID(t, "nurse@example.org")
		w.backend.set("nurse", "juliet@example.org Juliet")
		w.login("a", "romeo@example.org Romeo")
		if err := w.Get(mustJID(t, "nurse@example.org/a"), nil, func(roster.Answer) []roster.Item { return nil }); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		w.sessions.Gone(mustJID(t, "nurse@example.org/a"))
		time.Sleep(time.Second)
		w.restart(true)
		time.Sleep(time.Second)
		s := &server{m: w.Manager, rosters: make(map[jid.JID]*roster.Roster)}
		w.KeepServerRosters(s)
		before := w.backend.fetches()
		for _, user := range []jid.JID{juliet, nurse} {
			r, known := w.Known(user)
			if confirmed := w.Confirmed(user); !known || r.Len() != 1 || confirmed {
				t.Errorf("%s: known %v, %d contacts, confirmed %v", user, known, r.Len(), confirmed)
			}
		}
		time.Sleep(time.Minute)
		for _, user := range []jid.JID{juliet, nurse} {
			if n, confirmed := s.has(user).Len(), w.Confirmed(user); n != 1 || !confirmed {
				t.Errorf("%s: the server was given %d contacts, confirmed %v", user, n, confirmed)
			}
		}
		if n := w.backend.fetches() - before; n != 2 {
			t.Errorf("%d fetches", n)
		}
	})
}
