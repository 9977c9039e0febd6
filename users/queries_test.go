package users

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// release lets fetches end at once from now on, but not those under way.
func (b *backend) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hold = nil
}

// Queries that come while a user is being fetched have their own deadlines each,
// also where no query waited when the fetch began.
func TestQueriesGetOverdueOneByOne(t *testing.T) {
	inWorld(t, Limits{Answer: 25 * time.Second}, func(t *testing.T, w *world) {
		w.backend.set("juliet", "romeo@example.org Romeo")
		w.Rules.MaxStale = never
		w.ask("a")
		w.took()
		w.backend.hold = make(chan struct{})
		go w.refreshJuliet()
		synctest.Wait()
		time.Sleep(10 * time.Second)
		began := time.Now()
		w.ask("b")
		time.Sleep(5 * time.Second)
		w.ask("c")
		w.ask("d")
		time.Sleep(20*time.Second - 1)
		w.expect()
		time.Sleep(time.Nanosecond)
		w.expect("error b " + roster.ErrOverdue.Error())
		time.Sleep(5*time.Second - 1)
		w.expect()
		time.Sleep(time.Nanosecond)
		w.expect("error c "+roster.ErrOverdue.Error(), "error d "+roster.ErrOverdue.Error())
		w.ask("e")
		time.Sleep(25 * time.Second)
		w.expect("error e " + roster.ErrOverdue.Error())
		if d := time.Since(began); d != 55*time.Second {
			t.Errorf("%v", d)
		}
		w.backend.hold <- struct{}{}
		w.took()
	})
}

// A query that comes while a user is being fetched is noted meanwhile, not when
// the fetch ends.
func TestQueryDuringAFetchIsKnownAfterAKill(t *testing.T) {
	inKept(t, func(t *testing.T, w *world) {
		w.backend.set("juliet", "romeo@example.org Romeo")
		w.backend.hold = make(chan struct{})
		w.ask("a")
		w.took()
		w.ask("b")
		w.took()
		w.ask("c") // there was somebody to attend to before
		w.took()
		w.expectAfterKill("push a added romeo Romeo", "push b added romeo Romeo", "push c added romeo Romeo")
	})
}

// expectAfterKill has the backend answer, kills rosterd, and wants these pushes on the next
// stream. "changed" is taken for "added": to who may have nothing they are the same.
func (w *world) expectAfterKill(want ...string) {
	w.t.Helper()
	w.backend.release()
	w.restart(true)
	w.took()
	w.Resume("example.org")
	sent := w.took()
	for i, s := range sent {
		sent[i] = strings.Replace(s, " changed ", " added ", 1)
	}
	slices.Sort(sent)
	if !slices.Equal(sent, want) {
		w.t.Errorf("sent %q, want %q", sent, want)
	}
}

// So is one that comes while the fetch is about to begin.
func TestQueryBeforeAFetchIsKnownAfterAKill(t *testing.T) {
	inKept(t, func(t *testing.T, w *world) {
		w.backend.set("juliet", "romeo@example.org Romeo")
		w.backend.hold = make(chan struct{})
		w.backend.begins = func() { w.ask("b") }
		w.ask("a")
		w.took()
		w.expectAfterKill("push a added romeo Romeo", "push b added romeo Romeo")
	})
}

// A query that came during a fetch, and was answered by it, is no reason for the
// next refresh to go ahead of others.
func TestRefreshAfterAQueryWaitsForItsPlace(t *testing.T) {
	inWorld(t, Limits{Background: 1, Cache: 1 << 20}, func(t *testing.T, w *world) {
		w.backend.hold = make(chan struct{})
		w.ask("a")
		w.took()
		w.ask("b")
		w.took()
		w.backend.hold <- struct{}{}
		w.took()
		w.sessions.Interested(mustJID(t, "romeo@example.org/x"))
		go w.Refresh(t.Context(), []jid.JID{mustJID(t, "romeo@example.org")})
		synctest.Wait()
		go w.refreshJuliet()
		synctest.Wait()
		w.backend.mu.Lock()
		if w.backend.at != 1 {
			t.Errorf("%d fetches at a time", w.backend.at)
		}
		w.backend.mu.Unlock()
		for range 2 {
			w.backend.hold <- struct{}{}
		}
	})
}

// Nothing goes on after Close, though a fetch takes its time to end.
func TestCloseWaitsForAFetch(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.Manager.Source = sourceFunc(func(roster.Request) (roster.Fetched, error) {
			<-w.Manager.ctx.Done()
			time.Sleep(time.Second)
			return roster.Fetched{}, context.Canceled
		})
		w.ask("a")
		synctest.Wait()
		began := time.Now()
		w.Close()
		if time.Since(began) != time.Second {
			t.Errorf("closed after %v", time.Since(began))
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if want := []string{"error a " + roster.ErrStopping.Error()}; !slices.Equal(w.sent, want) {
			t.Errorf("sent %q", w.sent)
		}
	})
}
