package users

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"rosterd/jid"
	"rosterd/roster"
	"rosterd/store"
)

// inWorldOfMany is inWorldWithServer with so many users who are offline and have a roster, and
// whose contacts have all been taken away since, which nobody has said.
func inWorldOfMany(t *testing.T, n int, limits Limits, f func(t *testing.T, w *world, s *server, users []jid.JID)) {
	t.Helper()
	limits.Cache = 1 << 20
	inWorld(t, limits, func(t *testing.T, w *world) {
		s := &server{m: w.Manager, rosters: make(map[jid.JID]*roster.Roster)}
		w.KeepServerRosters(s)
		var users []jid.JID
		for i := range n {
			name := fmt.Sprintf("user%04d", i)
			users = append(users, mustJID(t, name+"@example.org"))
			w.backend.set(name, "romeo@example.org Romeo")
		}
		if _, err := w.Refresh(t.Context(), users); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(n/100+2) * time.Second)
		synctest.Wait()
		w.kept.flush(-1)
		for i := range n {
			w.backend.set(fmt.Sprintf("user%04d", i))
		}
		w.backend.reported()
		w.backend.mu.Lock()
		w.backend.asked = nil
		w.backend.mu.Unlock()
		f(t, w, s, users)
	})
}

// stale is how many of the users have contacts on the server still.
func (s *server) stale(users []jid.JID) (n int) {
	for _, user := range users {
		if s.has(user).Len() > 0 {
			n++
		}
	}
	return n
}

// entered is how many users are in the fetch queue.
func (w *world) entered() int {
	w.queue.mu.Lock()
	defer w.queue.mu.Unlock()
	return len(w.queue.entries)
}

// Everybody is also who is offline: a contact that was removed sees nothing of their next login.
// They are fetched as many a second as may be, some at a time, and a kill forgets none.
func TestRefreshAllOfOfflineUsers(t *testing.T) {
	for _, kill := range []bool{false, true} {
		t.Run(fmt.Sprint("kill ", kill), func(t *testing.T) {
			inWorldOfMany(t, 1300, Limits{}, func(t *testing.T, w *world, s *server, users []jid.JID) {
				if n, err := w.RefreshAll(t.Context(), "example.org"); n != 0 || err != nil {
					t.Errorf("%d are online, %v", n, err)
				}
				for range 4 {
					time.Sleep(time.Second)
					synctest.Wait()
					if n := w.entered(); n > 2*sweepChunk {
						t.Errorf("%d users wait in memory", n)
					}
				}
				if n := 1300 - s.stale(users); n < 300 || n > 500 {
					t.Errorf("%d were fetched in 4 s", n)
				}
				if kill {
					w.set(func() { w.down = true })
					w.restart(true)
					s.m = w.Manager
					w.KeepServerRosters(s)
					w.set(func() { w.down = false })
					w.Resume("example.org")
				}
				time.Sleep(20 * time.Second)
				if n := s.stale(users); n != 0 {
					t.Errorf("%d were not fetched", n)
				}
				w.kept.flush(-1)
				if n := len(w.kept.kept.sweeps) + len(w.kept.kept.marks) + w.entered(); n != 0 {
					t.Errorf("%d are left", n)
				}
			})
		})
	}
}

// Who is reported by name comes before everybody, and who reports everybody again and again
// does not keep the last ones waiting for ever.
func TestRefreshAllGivesWay(t *testing.T) {
	inWorldOfMany(t, 1300, Limits{}, func(t *testing.T, w *world, s *server, users []jid.JID) {
		last := users[len(users)-1]
		all := func() {
			if _, err := w.RefreshAll(t.Context(), "example.org"); err != nil {
				t.Error(err)
			}
		}
		all()
		time.Sleep(time.Second)
		if _, err := w.Refresh(t.Context(), []jid.JID{last}); err != nil {
			t.Error(err)
		}
		time.Sleep(300 * time.Millisecond) // 100 are fetched a second
		if n := s.stale([]jid.JID{last}); n != 0 {
			t.Error("who was reported waits for everybody")
		}
		for range 10 {
			time.Sleep(2 * time.Second)
			all()
		}
		if n := s.stale(users); n != 0 {
			t.Errorf("%d were not fetched", n)
		}
		w.backend.set("user0000", "nurse@example.org Nurse") // all of them were said to have changed once more
		all()
		time.Sleep(time.Minute)
		if n := s.stale(users); n != 1 {
			t.Errorf("%d have contacts", n)
		}
		if n := len(w.kept.now.sweeps); n != 0 {
			t.Errorf("%d domains are being swept", n)
		}
	})
}

// Those whose fetch fails leave room for who is reported by name.
func TestRefreshAllWhileTheBackendIsDown(t *testing.T) {
	inWorldOfMany(t, 1300, Limits{Away: 1000}, func(t *testing.T, w *world, s *server, users []jid.JID) {
		w.backend.fail(errors.New("down"))
		if _, err := w.RefreshAll(t.Context(), "example.org"); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := w.entered(); n >= 1000 {
			t.Errorf("%d users wait", n)
		}
		w.backend.fail(nil)
		w.Hasten([]string{"example.org"})
		time.Sleep(time.Minute)
		if n := s.stale(users); n != 0 {
			t.Errorf("%d were not fetched", n)
		}
	})
}

// What cannot be kept is not accepted.
func TestRefreshAllThatCannotBeKept(t *testing.T) {
	inWorldOfMany(t, 1, Limits{}, func(t *testing.T, w *world, s *server, users []jid.JID) {
		w.kept.set(true, 0)
		if _, err := w.RefreshAll(t.Context(), "example.org"); err != roster.ErrNotKept {
			t.Error(err)
		}
		w.kept.set(false, 0)
		time.Sleep(time.Minute)
		if n := s.stale(users); n != 0 {
			t.Error("not fetched")
		}
	})
}

// Who waits to be brought up to date, and leaves, is not forgotten by a kill.
func TestWhoLeavesIsKept(t *testing.T) {
	inWorldOfMany(t, 1, Limits{}, func(t *testing.T, w *world, s *server, users []jid.JID) {
		w.set(func() { w.down = true })
		full := mustJID(t, users[0].String()+"/a")
		w.sessions.Interested(full)
		if n, err := w.RefreshAll(t.Context(), "example.org"); n != 1 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		synctest.Wait()
		w.sessions.Gone(full)
		w.Gone(full)
		w.kept.flush(-1)
		w.restart(true)
		s.m = w.Manager
		w.KeepServerRosters(s)
		w.set(func() { w.down = false })
		w.Resume("example.org")
		time.Sleep(time.Minute)
		if n := s.stale(users); n != 0 {
			t.Error("not fetched")
		}
	})
}

// A domain that is reported while the last users of another one are entered has its turn.
func TestReportedAtTheEndOfASweep(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.serverRosters = &server{m: w.Manager, rosters: make(map[jid.JID]*roster.Roster)} // and nobody sweeps
		s := w.sweeper
		s.sweeps, s.order = map[string]store.Sweep{"example.org": {}}, []string{"example.org"}
		domain, sweep, _ := s.next()
		s.sweeps["example.net"], s.order = store.Sweep{}, append(s.order, "example.net") // as begin does
		if err := s.enter(domain, sweep); err != nil {
			t.Fatal(err)
		}
		if _, is := s.sweeps["example.net"]; !is || len(s.sweeps) != 1 || len(s.order) != 1 || s.order[0] != "example.net" {
			t.Errorf("%v are left, in the order %q", s.sweeps, s.order)
		}
	})
}

// Users who are offline wait to be fetched, but not without bound, whoever they are.
func TestOfflineUsersAreBounded(t *testing.T) {
	inWorld(t, Limits{Away: 10}, func(t *testing.T, w *world) {
		s := &server{m: w.Manager, rosters: make(map[jid.JID]*roster.Roster)}
		w.KeepServerRosters(s)
		w.set(func() { w.down = true })
		var users []jid.JID
		for i := range 30 {
			users = append(users, mustJID(t, fmt.Sprintf("user%d@example.org", i)))
		}
		juliet := mustJID(t, "juliet@example.org")
		w.sessions.Connected(mustJID(t, "juliet@example.org/a"))
		refresh := func(want error, users ...jid.JID) {
			t.Helper()
			if _, err := w.Refresh(t.Context(), users); err != want {
				t.Errorf("refreshed: %v, want %v", err, want)
			}
			if want == roster.ErrNotConnected {
				want = nil
			}
			if err := w.RefreshLater(t.Context(), users); err != want {
				t.Errorf("refreshed later: %v, want %v", err, want)
			}
		}
		refresh(roster.ErrNotConnected, users[:20]...) // one call is accepted as a whole
		refresh(roster.ErrManyOffline, users[20:]...)
		refresh(roster.ErrManyOffline, users...)
		refresh(roster.ErrNotConnected, users[:20]...) // they wait already
		refresh(roster.ErrNotConnected, juliet)        // who is online
		if n := w.entered(); n != 21 {
			t.Errorf("%d wait", n)
		}
		w.kept.flush(-1)
		if n := len(w.kept.now.marks); n != 21 {
			t.Errorf("%d are kept", n)
		}
		w.backend.hold = make(chan struct{})
		w.set(func() { w.down = false })
		go func() { time.Sleep(time.Second); close(w.backend.hold) }()
		failed, err := w.Refresh(t.Context(), append(users[20:25:25], juliet))
		if err != nil || len(failed) != 5 || failed[users[20]] != roster.ErrManyOffline || failed[juliet] != nil {
			t.Errorf("%v, %v", failed, err)
		}
		time.Sleep(time.Minute)
		all := append(users, juliet)
		if failed, err := w.Refresh(t.Context(), all); err != nil || len(failed) > 0 {
			t.Errorf("%v, %v", failed, err)
		}
		time.Sleep(time.Minute) // until none of them waits
		if err := w.RefreshLater(t.Context(), all); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if n := w.entered(); n != 0 {
			t.Errorf("%d wait", n)
		}
	})
}
