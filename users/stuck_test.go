package users

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"rosterd/jid"
)

// A user goes while their refresh waits for room: whoever waits for it is answered.
func TestRefreshOfAUserWhoGoes(t *testing.T) {
	inWorld(t, Limits{Background: 1}, func(t *testing.T, w *world) {
		w.backend.hold = make(chan struct{})
		romeo, juliet := mustJID(t, "romeo@example.org/a"), mustJID(t, "juliet@example.org/a")
		w.sessions.Connected(romeo)
		w.sessions.Connected(juliet)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		go w.Refresh(ctx, []jid.JID{romeo.Bare()}) // takes the only place
		synctest.Wait()
		done := make(chan error, 1)
		go func() { _, err := w.Refresh(ctx, []jid.JID{juliet.Bare()}); done <- err }()
		synctest.Wait()
		w.sessions.Gone(juliet)
		w.Gone(juliet)
		synctest.Wait()
		close(w.backend.hold)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A user goes, and is reported when the fetch for something before has just been permitted.
func TestRefreshBehindAPermission(t *testing.T) {
	inWorld(t, Limits{Background: 1}, func(t *testing.T, w *world) {
		juliet := mustJID(t, "juliet@example.org/a")
		permit := w.queue.permit
		c := &call{left: 1, failed: make(map[jid.JID]error), done: make(chan struct{})}
		w.queue.permit = func(b *batch) {
			w.queue.permit = permit
			w.sessions.Gone(juliet)
			w.Manager.mu.Lock() // so that both events wait before one is handled
			u := w.user(juliet.Bare())
			first := u.enqueue(permittedEvent{b})
			u.enqueue(refreshEvent{c})
			w.Manager.mu.Unlock()
			w.queue.refresh(juliet.Bare())
			if first {
				u.wake()
			}
		}
		w.sessions.Connected(juliet)
		w.Want(juliet.Bare())
		time.Sleep(time.Minute)
		select {
		case <-c.done:
		default:
			t.Error("nobody fetched")
		}
	})
}

// Clients that come and go under ever new names leave nothing while nothing is fetched.
func TestResourcesThatAreGoneAreForgotten(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.backend.set("juliet", "romeo@example.org Romeo")
		for i := range 10 {
			full := mustJID(t, fmt.Sprintf("juliet@example.org/%d", i))
			w.ask(full.Resource())
			synctest.Wait()
			w.backend.fail(errors.New("down"))
			w.sessions.Gone(full)
			w.Gone(full)
		}
		synctest.Wait()
		if u, _ := w.kept.User("juliet@example.org"); len(u.Told) != 1 {
			t.Errorf("%d resources are kept", len(u.Told))
		}
	})
}

// A user who is reported again and again is fetched when their turn comes.
func TestRefreshKeepsItsPlace(t *testing.T) {
	inWorld(t, Limits{Background: 1}, func(t *testing.T, w *world) {
		w.backend.hold = make(chan struct{})
		juliet := mustJID(t, "juliet@example.org/a")
		w.sessions.Connected(juliet)
		report := func(user jid.JID) {
			go w.Refresh(t.Context(), []jid.JID{user})
			synctest.Wait()
			time.Sleep(time.Millisecond)
		}
		for i := range 3 {
			romeo := mustJID(t, fmt.Sprintf("romeo%d@example.org/a", i))
			w.sessions.Connected(romeo)
			report(romeo.Bare())
			report(juliet.Bare())
		}
		w.backend.hold <- struct{}{}
		synctest.Wait()
		if asked := w.backend.asked; asked[1].User != juliet.Bare() {
			t.Errorf("asked for %v", asked)
		}
		w.Resume("example.org")
		if n := w.Counts().Resync; n != 2 {
			t.Errorf("%d users wait as if they were not reported, want the two who have been fetched", n)
		}
		close(w.backend.hold)
	})
}
