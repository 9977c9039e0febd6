package users

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// edits lets the backend do what it is told, unless take is nil: it notes what that is, one
// line for each edit, and that edits of one user are never passed on together.
func (w *world) edits(take func(c roster.Change) error) (passed *[]string) {
	passed = new([]string)
	busy := false
	w.backend.edit = func(ctx context.Context, user jid.JID, c roster.Change) error {
		w.set(func() {
			if busy {
				w.t.Error("two edits at a time")
			}
			busy = true
			*passed = append(*passed, fmt.Sprintf("%s %s %s %s", user.Local(), c.Action, c.Item.JID.Local(), c.Item.Name))
		})
		defer w.set(func() { busy = false })
		return take(c)
	}
	return passed
}

// changeContact is an edit of juliet's from a resource, whose answer is noted as sent.
func (w *world) changeContact(resource, line string, remove bool) error {
	item := contacts(w.t, line).Items()[0]
	return w.Edit(mustJID(w.t, "juliet@example.org/"+resource), roster.Edit{Contact: item, Remove: remove, Confirm: true}, func(err error) {
		w.set(func() { w.sent = append(w.sent, fmt.Sprintf("edited %s %s %v", resource, item.JID.Local(), err)) })
	})
}

// What a user changes is passed on in order, answered, and told to all their clients by the
// refresh that follows.
func TestEdits(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		known := map[string]string{"nurse": "Angelica"}
		lines := func() (list []string) {
			for name, full := range known {
				list = append(list, name+"@example.org "+full)
			}
			return list
		}
		w.backend.set("juliet", lines()...)
		passed := w.edits(func(c roster.Change) error {
			if c.Action == roster.Removed {
				delete(known, c.Item.JID.Local())
			} else {
				known[c.Item.JID.Local()] = c.Item.Name
			}
			w.backend.set("juliet", lines()...)
			return nil
		})
		w.ask("balcony")
		w.ask("garden")
		w.took()
		w.changeContact("balcony", "paris@example.org P", false)
		w.changeContact("balcony", "paris@example.org Paris", false)
		w.changeContact("garden", "nurse@example.org N", false)
		got := w.took()
		answers := slices.DeleteFunc(slices.Clone(got), func(s string) bool { return strings.HasPrefix(s, "push") })
		if want := []string{"edited balcony paris <nil>", "edited balcony paris <nil>", "edited garden nurse <nil>"}; !slices.Equal(answers, want) {
			t.Errorf("answered %q", got)
		}
		for _, want := range []string{"push balcony changed nurse N", "push garden changed nurse N", "push garden added paris Paris"} {
			if !slices.Contains(got, want) && !slices.Contains(got, strings.Replace(want, "added", "changed", 1)) {
				t.Errorf("sent %q, not %q", got, want)
			}
		}
		w.changeContact("balcony", "paris@example.org", true)
		w.expect("edited balcony paris <nil>", "push balcony removed paris ", "push garden removed paris ")
		w.changeContact("balcony", "paris@example.org P", false)
		w.took()
		if want := []string{"juliet added paris P", "juliet changed paris Paris", "juliet changed nurse N", "juliet removed paris ", "juliet added paris P"}; !slices.Equal(*passed, want) {
			t.Errorf("passed on %q", *passed)
		}
	})
}

// The backend says that it has taken an edit, and leaves the contact as it was: the client that
// edited it is told so. Where a push is a suggestion, it is not suggested again.
func TestEditThatChangesNothing(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.backend.set("juliet", "nurse@example.org Angelica")
		w.edits(func(roster.Change) error { return nil })
		w.ask("balcony")
		w.took()
		w.changeContact("balcony", "nurse@example.org N", false)
		w.expect("edited balcony nurse <nil>", "push balcony changed nurse Angelica")
		w.changeContact("balcony", "paris@example.org P", false)
		w.expect("edited balcony paris <nil>", "push balcony removed paris ")
		err := w.Edit(mustJID(t, "juliet@example.org/balcony"), roster.Edit{Contact: contacts(t, "nurse@example.org N").Items()[0]}, func(error) {})
		if err != nil {
			t.Error(err)
		}
		w.expect()
	})
}

// A fetch that began before the edit was taken does not undo it for the client.
func TestEditDuringAFetch(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.backend.set("juliet", "nurse@example.org Angelica")
		w.edits(func(roster.Change) error { return nil })
		w.ask("balcony")
		w.took()
		hold := make(chan struct{})
		w.backend.mu.Lock()
		w.backend.hold = hold
		w.backend.mu.Unlock()
		w.ask("garden")
		w.took()
		w.changeContact("balcony", "nurse@example.org N", false)
		w.expect("edited balcony nurse <nil>")
		hold <- struct{}{}
		w.expect("reply garden nurse Angelica")
		w.backend.set("juliet", "nurse@example.org N")
		close(hold)
		w.took() // it may have begun before that
		if err := w.refreshJuliet(); err != nil {
			t.Error(err)
		}
		r, _ := w.Known(mustJID(t, "juliet@example.org"))
		if item, _ := r.Item(mustJID(t, "nurse@example.org")); item.Name != "N" {
			t.Errorf("known is %+v", item)
		}
	})
}

// What is refused changes nothing, and nothing is fetched for it. After any other failure the
// backend may have taken the edit: the user is refreshed.
func TestEditsThatFail(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.backend.set("juliet", "nurse@example.org Angelica")
		err := error(&roster.NotAllowedError{Message: "no"})
		w.edits(func(roster.Change) error { return err })
		w.ask("balcony")
		w.took()
		before := w.backend.fetches()
		w.changeContact("balcony", "nurse@example.org N", false)
		w.expect("edited balcony nurse the backend does not permit it")
		if n := w.backend.fetches() - before; n != 0 {
			t.Errorf("%d fetches", n)
		}
		err = errors.New("connection reset")
		w.backend.set("juliet", "nurse@example.org N")
		w.changeContact("balcony", "nurse@example.org N", false)
		w.expect("edited balcony nurse connection reset", "push balcony changed nurse N")
	})
}

// An edit that the backend does not answer is answered in time, and so are those behind it.
func TestEditsThatHang(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.backend.set("juliet", "nurse@example.org Angelica")
		w.backend.edit = func(ctx context.Context, _ jid.JID, _ roster.Change) error { <-ctx.Done(); return ctx.Err() }
		w.ask("balcony")
		w.took()
		for range maxEdits {
			if err := w.changeContact("balcony", "nurse@example.org N", false); err != nil {
				t.Error(err)
			}
		}
		if err := w.changeContact("balcony", "nurse@example.org N", false); err != roster.ErrBusy {
			t.Errorf("one more: %v", err)
		}
		w.expect()
		time.Sleep(25 * time.Second)
		if got := w.took(); len(got) != maxEdits || got[maxEdits-1] != "edited balcony nurse "+roster.ErrOverdue.Error() {
			t.Errorf("sent %q", got)
		}
		if n := w.Manager.edits.Load(); n != 0 {
			t.Errorf("%d edits left", n)
		}
	})
}

// A stop answers the edits that wait.
func TestEditsAtAStop(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.backend.set("juliet", "nurse@example.org Angelica")
		passed := 0
		w.backend.edit = func(ctx context.Context, _ jid.JID, _ roster.Change) error { passed++; <-ctx.Done(); return ctx.Err() }
		w.ask("balcony")
		w.took()
		w.changeContact("balcony", "nurse@example.org N", false)
		w.changeContact("balcony", "paris@example.org P", false)
		w.took()
		w.Close()
		stopping := roster.ErrStopping.Error()
		w.expect("edited balcony nurse "+stopping, "edited balcony paris "+stopping)
		if passed != 1 {
			t.Errorf("%d edits passed on", passed)
		}
		if err := w.changeContact("balcony", "nurse@example.org N", false); err != roster.ErrStopping {
			t.Errorf("afterwards: %v", err)
		}
	})
}
