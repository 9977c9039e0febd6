package users

import (
	"errors"
	"fmt"
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
}

func (s *server) Keeps(domain string) bool { return domain == "example.org" }

func (s *server) Resume(string) {}

func (s *server) Keep(user jid.JID, ready func(bool)) {
	now, _ := s.m.Known(user)
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
		w.kept = w.kept.next(w.started)
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
