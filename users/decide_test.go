package users

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rosterd/internal/bubble"
	"rosterd/jid"
	"rosterd/roster"
)

// inHeld is inWorld with juliet connected, who has 20 contacts of which the backend has lost
// all but romeo.
func inHeld(t *testing.T, confirm time.Duration, f func(t *testing.T, w *world, juliet jid.JID)) {
	t.Helper()
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, Limits{Cache: 1 << 20})
		w.rules.ConfirmAfter = confirm
		w.restart(false)
		w.Resume("example.org")
		w.login("a", append(many(19), "romeo@example.org Romeo")...)
		w.backend.set("juliet", "romeo@example.org Romeo")
		if err := w.refreshJuliet(); !strings.Contains(err.Error(), "would remove 19 of 20 contacts") {
			t.Fatal(err)
		}
		w.expect()
		f(t, w, mustJID(t, "juliet@example.org"))
	})
}

func TestApproved(t *testing.T) {
	for _, confirm := range []time.Duration{time.Hour, Never} {
		inHeld(t, confirm, func(t *testing.T, w *world, juliet jid.JID) {
			if held := w.Held(); len(held) != 1 || held[0].User != "juliet@example.org" || held[0].Removed != 19 || held[0].Of != 20 || (held[0].Until == nil) != (confirm == Never) {
				t.Errorf("held: %+v", held)
			}
			time.Sleep(30 * time.Minute)
			w.expect()
			if err := w.Approve(t.Context(), juliet); err != nil {
				t.Error(err)
			}
			if sent := w.took(); len(sent) != 19 {
				t.Errorf("%d pushes", len(sent))
			}
			if c := w.Counts(); c.Waiting != 0 || c.Held != 1 || c.Marked != 0 || len(w.Held()) != 0 {
				t.Errorf("%+v", c)
			}
			if err := w.Approve(t.Context(), juliet); !errors.Is(err, ErrNothingHeld) {
				t.Errorf("approved twice: %v", err)
			}
		})
	}
}

// What was approved is applied only if the backend still says it.
func TestApprovedAndChanged(t *testing.T) {
	inHeld(t, Never, func(t *testing.T, w *world, juliet jid.JID) {
		w.backend.set("juliet", "nurse@example.org Nurse")
		if err := w.Approve(t.Context(), juliet); err == nil || !strings.Contains(err.Error(), "would remove 20 of 20 contacts") {
			t.Errorf("another roster: %v", err)
		}
		w.expect()
	})
}

func TestNeverTakesAPerson(t *testing.T) {
	inHeld(t, Never, func(t *testing.T, w *world, juliet jid.JID) {
		before := w.backend.fetches()
		time.Sleep(30 * 24 * time.Hour)
		w.expect()
		if n := w.backend.fetches() - before; n < 10 || n > 30*24*60 {
			t.Errorf("%d more looks", n)
		}
		w.backend.set("juliet", append(many(19), "romeo@example.org R")...) // all is well again
		time.Sleep(maxRecheck)
		w.expect("push a changed romeo R")
		if c := w.Counts(); c.Waiting != 0 || c.Marked != 0 {
			t.Errorf("%+v", c)
		}
	})
}

// A rejection holds until the backend says something else, also over a restart.
func TestRejected(t *testing.T) {
	inHeld(t, 30*time.Second, func(t *testing.T, w *world, juliet jid.JID) {
		if err := w.Reject(t.Context(), juliet); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		w.expect()
		w.restart(true)
		w.Resume("example.org")
		time.Sleep(time.Hour)
		w.expect()
		if held := w.Held(); len(held) != 1 || !held[0].Rejected || held[0].Until != nil {
			t.Errorf("held: %+v", held)
		}
		if err := w.refreshJuliet(); err == nil || !strings.Contains(err.Error(), "rejected") {
			t.Error(err)
		}
		w.backend.set("juliet", many(19)...) // not much is removed
		time.Sleep(maxRecheck)
		if sent := w.took(); !slices.Equal(sent, []string{"push a removed romeo "}) {
			t.Errorf("sent %q", sent)
		}
		w.backend.set("juliet", "romeo@example.org Romeo") // what was rejected once
		if err := w.refreshJuliet(); err == nil || strings.Contains(err.Error(), "rejected") {
			t.Errorf("of long ago: %v", err)
		}
	})
}

func TestRejectedAndApproved(t *testing.T) {
	inHeld(t, 30*time.Second, func(t *testing.T, w *world, juliet jid.JID) {
		if err := w.Reject(t.Context(), juliet); err != nil {
			t.Fatal(err)
		}
		if err := w.Approve(t.Context(), juliet); err != nil {
			t.Fatal(err)
		}
		if sent := w.took(); len(sent) != 19 {
			t.Errorf("%d pushes", len(sent))
		}
		w.restart(false)
		if len(w.guarded.rejected) != 0 {
			t.Error("still rejected after a restart")
		}
	})
}

// A rejection that cannot be kept is said to be none.
func TestRejectedWithAFullDisk(t *testing.T) {
	inHeld(t, 30*time.Second, func(t *testing.T, w *world, juliet jid.JID) {
		w.kept.set(true, 0)
		if err := w.Reject(t.Context(), juliet); err == nil {
			t.Error("rejected, though a restart forgets it")
		}
		w.kept.set(false, 0)
	})
}

func TestRefreshLater(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		juliet, romeo := mustJID(t, "juliet@example.org"), mustJID(t, "romeo@example.org")
		w.login("a", "romeo@example.org Romeo")
		w.backend.set("juliet", "romeo@example.org R")
		w.backend.hold = make(chan struct{})
		if err := w.RefreshLater(t.Context(), []jid.JID{juliet, romeo}); err != nil { // though the backend hangs
			t.Fatal(err)
		}
		if v, err := w.View(t.Context(), juliet); err != nil || v.Mark == nil || v.Mark.Why != promised || v.Resources[0].Resource != "a" || v.Roster.Contacts[0].Name != "Romeo" {
			t.Errorf("%+v, %v", v, err)
		}
		if c := w.Counts(); c.Marked != 0 { // nothing has failed
			t.Errorf("%+v", c)
		}
		go func() { w.backend.hold <- struct{}{} }()
		w.expect("push a changed romeo R")
		if len(w.kept.now.marks) != 0 {
			t.Errorf("still marked: %v", w.kept.now.marks)
		}
	})
}

// What was promised is done after a kill, and after a loss of the stream.
func TestRefreshLaterIsKept(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		juliet := mustJID(t, "juliet@example.org")
		w.login("a", "romeo@example.org Romeo")
		w.set(func() { w.down = true })
		w.backend.set("juliet", "romeo@example.org R")
		if err := w.RefreshLater(t.Context(), []jid.JID{juliet}); err != nil {
			t.Fatal(err)
		}
		w.restart(true)
		if w.kept.now.marks["juliet@example.org"] != promised {
			t.Errorf("marks: %v", w.kept.now.marks)
		}
		w.set(func() { w.down = false })
		w.Resume("example.org")
		time.Sleep(time.Second)
		if sent := w.took(); len(sent) != 1 || sent[0] != "push a changed romeo R" {
			t.Errorf("sent %q", sent)
		}
		if len(w.kept.now.marks) != 0 {
			t.Errorf("still marked: %v", w.kept.now.marks)
		}
		w.kept.set(true, 0)
		if err := w.RefreshLater(t.Context(), []jid.JID{juliet}); err == nil {
			t.Error("promised, though the disk is full")
		}
		w.kept.set(false, 0)
	})
}

func TestRefreshAll(t *testing.T) {
	inWorld(t, Limits{Resync: 1}, func(t *testing.T, w *world) {
		for _, user := range []string{"juliet", "nurse", "tybalt"} {
			w.backend.set(user, "romeo@example.org Romeo")
			if err := w.Get(mustJID(t, user+"@example.org/a"), nil, func(a roster.Answer) []roster.Item { return nil }); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		before := w.backend.fetches()
		if n, err := w.RefreshAll(t.Context(), "example.net"); n != 0 || err != nil {
			t.Errorf("%d users of another domain, %v", n, err)
		}
		time.Sleep(10 * time.Second)
		if n, err := w.RefreshAll(t.Context(), "example.org"); n != 3 || err != nil {
			t.Errorf("%d users, %v", n, err)
		}
		synctest.Wait()
		if n := w.backend.fetches() - before; n != 1 { // one a second
			t.Errorf("%d fetches at once", n)
		}
		time.Sleep(3 * time.Second)
		if n := w.backend.fetches() - before; n != 3 {
			t.Errorf("%d fetches in 3 s", n)
		}
	})
}

// What is known of a user is the same while the process runs and from the store.
func TestView(t *testing.T) {
	inHeld(t, Never, func(t *testing.T, w *world, juliet jid.JID) {
		v, err := w.View(t.Context(), juliet)
		if err != nil || v.Held == nil || len(v.Held.Removes) != 19 || v.Error == nil || !strings.Contains(v.Error.Text, "would remove") || v.Mark == nil || v.Mark.Next == nil ||
			len(v.Roster.Contacts) != 20 {
			t.Errorf("%+v, %v", v, err)
		}
		kept, err := ViewKept(w.kept, juliet)
		if err != nil || len(kept.Roster.Contacts) != 20 || kept.Roster.Version != v.Roster.Version || kept.Mark.Why != v.Mark.Why || len(kept.Resources) != 1 {
			t.Errorf("%+v, %v", kept, err)
		}
		if v, err := w.View(t.Context(), mustJID(t, "nobody@example.org")); err != nil || v.Roster != nil || v.Mark != nil || v.Held != nil {
			t.Errorf("%+v, %v", v, err)
		}
		w.Sessions.(interface{ Gone(jid.JID) }).Gone(mustJID(t, "juliet@example.org/a"))
		w.Gone(mustJID(t, "juliet@example.org/a"))
		synctest.Wait()
		if c := w.Counts(); c.Waiting != 0 || c.Marked != 0 { // nobody fetches her again for that
			t.Errorf("%+v", c)
		}
	})
}
