package users

import (
	"errors"
	"slices"
	"testing"
	"time"

	"rosterd/roster"
	"rosterd/store"
)

// What another instance told is put together with what this one knows: a client of which it
// did not know is told all, and what it may show and is no more, and so are the others.
func TestToldElsewhere(t *testing.T) {
	shown := roster.New([]roster.Item{
		{JID: mustJID(t, "romeo@example.org"), Name: "Romeo", Subscription: roster.SubscriptionBoth},
		{JID: mustJID(t, "paris@example.org"), Name: "Paris", Subscription: roster.SubscriptionBoth},
	})
	for name, told := range map[string]func(at time.Time) store.User{
		"in its state": func(at time.Time) store.User {
			return store.User{Roster: shown.Packed(), Items: shown.Len(), Version: shown.Version(), Fetched: at,
				Told: []store.Told{{Resource: "street", Asked: at, Since: at}}}
		},
		"without its state": func(at time.Time) store.User {
			return store.User{Told: []store.Told{{Resource: "street", Doubt: true, Since: at}}, Missed: []string{"paris@example.org", "romeo@example.org"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inKept(t, func(t *testing.T, w *world) {
				w.login("balcony", "romeo@example.org Romeo")
				handed := told(w.kept.Now())
				handed.JID = "juliet@example.org"
				time.Sleep(time.Minute)
				if err := w.ToldElsewhere(handed); err != nil {
					t.Fatal(err)
				}
				w.Unasked(mustJID(t, "juliet@example.org/street"))
				time.Sleep(10 * time.Second)
				sent := w.took()
				for _, want := range []string{"push balcony removed paris ", "push street removed paris ", "push street changed romeo Romeo"} {
					if !slices.Contains(sent, want) {
						t.Errorf("%q is not sent:\n%q", want, sent)
					}
				}
			})
		})
	}
	inKept(t, func(t *testing.T, w *world) { // told before this instance began, and removed before that, too
		at := w.kept.Now()
		time.Sleep(time.Minute)
		removed := w.kept.Now()
		time.Sleep(time.Minute)
		w.restart(false)
		w.login("balcony", "romeo@example.org Romeo")
		if err := w.ToldElsewhere(store.User{JID: "juliet@example.org", Told: []store.Told{{Resource: "street", Doubt: true, Since: at}},
			Former: []store.Former{{Contact: "paris@example.org", Removed: removed}}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if sent := w.took(); !slices.Contains(sent, "push street removed paris ") {
			t.Errorf("sent %q", sent)
		}
	})
	inKept(t, func(t *testing.T, w *world) {
		if err := w.ToldElsewhere(store.User{JID: "juliet@example.org", Missed: []string{"@"}}); !errors.Is(err, errRecord) {
			t.Error(err)
		}
	})
}

// While what is kept of a user cannot be read, the backend is asked for them less and less often.
func TestBackoffWhileNothingIsRead(t *testing.T) {
	inKept(t, func(t *testing.T, w *world) {
		w.login("balcony", "romeo@example.org Romeo")
		w.restart(false)
		w.kept.lose(errors.New("away"))
		w.refreshJuliet()
		before := w.backend.fetches()
		time.Sleep(10 * time.Minute)
		if n := w.backend.fetches() - before; n == 0 || n > 40 {
			t.Errorf("asked %d times within 10 min", n)
		}
		w.kept.lose(nil)
	})
}
