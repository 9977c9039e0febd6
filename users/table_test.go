package users

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"rosterd/jid"
	"rosterd/roster"
	"rosterd/store"
)

// TestTable is the table of the package comment, row by row: what each event has sent, and
// what is on the disk by then, with no fetch under way and with one. The balcony of juliet
// has her roster, of romeo; the backend lists nurse, too, by now.
func TestTable(t *testing.T) {
	contact := func(name string) jid.JID { return mustJID(t, name+"@example.org") }
	balcony := mustJID(t, "juliet@example.org/balcony")
	refresh := func(w *world) { go w.refreshJuliet() }
	deliver := func(o roster.Outcome) func(*world) {
		return func(w *world) {
			w.set(func() { w.outcome = o })
			w.refreshJuliet()
		}
	}
	told := func(u store.User, resource string) store.Told {
		i := slices.IndexFunc(u.Told, func(t store.Told) bool { return t.Resource == resource })
		if i < 0 {
			return store.Told{}
		}
		return u.Told[i]
	}
	lost := errors.New("lost")
	for _, row := range []struct {
		event    string
		fetching bool
		young    bool // the roster is
		do       func(*world)
		sent     []string
		kept     func(store.User, tables) bool // nil: as it was
	}{
		{event: "asked", do: func(w *world) { w.ask("garden") }, sent: []string{"reply garden nurse N, romeo R", "push balcony added nurse N"},
			kept: func(u store.User, _ tables) bool { return u.Items == 2 && !told(u, "garden").Asked.IsZero() }},
		{event: "asked, and the roster is young", young: true, do: func(w *world) { w.ask("garden") }, sent: []string{"reply garden romeo R"},
			kept: func(u store.User, _ tables) bool { return u.Items == 1 && !told(u, "garden").Asked.IsZero() }},
		{event: "asked", fetching: true, do: func(w *world) { w.ask("garden") },
			kept: func(u store.User, _ tables) bool { return u.Items == 1 && !told(u, "garden").Asked.IsZero() }},
		{event: "refresh", do: func(w *world) { w.set(func() { w.silent = true }); refresh(w) }, sent: []string{"push balcony added nurse N"},
			kept: func(u store.User, _ tables) bool {
				return u.Items == 2 && slices.Equal(u.Missed, []string{"nurse@example.org"})
			}},
		{event: "refresh", fetching: true, do: refresh},
		{event: "permitted", fetching: true, do: func(w *world) { w.Resume("example.org") }},
		{event: "fetched", fetching: true, do: func(w *world) { w.set(func() { w.silent = true }); w.backend.hold <- struct{}{} }, sent: []string{"push balcony added nurse N"},
			kept: func(u store.User, _ tables) bool {
				return u.Items == 2 && slices.Equal(u.Missed, []string{"nurse@example.org"})
			}},
		{event: "fetched, and failed", do: func(w *world) { w.backend.fail(lost); w.ask("garden") }, sent: []string{"reply garden romeo R"},
			kept: func(u store.User, all tables) bool { return u.Items == 1 && u.Outdated && all.marks[u.JID] == "lost" }},
		{event: "overdue", fetching: true, do: func(w *world) { w.ask("garden"); time.Sleep(25 * time.Second) }, sent: []string{"reply garden romeo R"},
			kept: func(u store.User, _ tables) bool { return u.Items == 1 }},
		{event: "acknowledged", do: deliver(roster.Outcome{}), sent: []string{"push balcony added nurse N"},
			kept: func(u store.User, all tables) bool {
				return u.Items == 2 && len(u.Missed) == 0 && u.Epoch == 0 && len(all.marks) == 0
			}},
		{event: "acknowledged, and failed", do: deliver(roster.Outcome{Err: lost}), sent: []string{"push balcony added nurse N"},
			kept: func(u store.User, all tables) bool {
				return slices.Equal(u.Missed, []string{"nurse@example.org"}) && u.Epoch == 1 && all.marks[u.JID] == "lost"
			}},
		{event: "undelivered", do: func(w *world) { w.Undelivered(balcony) },
			kept: func(u store.User, all tables) bool { return told(u, "balcony").Doubt && len(all.marks) == 1 }},
		{event: "refused", do: func(w *world) {
			w.set(func() { w.silent = true })
			w.Refused(balcony, []jid.JID{contact("romeo"), contact("paris")})
		}, sent: []string{"push balcony changed romeo R", "push balcony removed paris "},
			kept: func(u store.User, _ tables) bool {
				return u.Epoch == 1 && slices.Equal(u.Missed, []string{"paris@example.org", "romeo@example.org"})
			}},
		{event: "gone", do: func(w *world) { w.sessions.Gone(balcony); w.Gone(balcony) }},
		{event: "gone", fetching: true, do: func(w *world) { w.sessions.Gone(balcony); w.Gone(balcony) }},
		{event: "stopping", fetching: true, do: func(w *world) { w.ask("garden"); w.took(); w.Close() }, sent: []string{"reply garden romeo R"},
			kept: func(u store.User, _ tables) bool { return u.Items == 1 && u.Outdated }},
	} {
		name := row.event
		if row.fetching {
			name += ", with a fetch under way"
		}
		t.Run(name, func(t *testing.T) {
			inWorld(t, Limits{}, func(t *testing.T, w *world) {
				time.Sleep(time.Second) // what is fetched at the start is not young
				w.login("balcony", "romeo@example.org R")
				time.Sleep(2 * time.Minute)
				w.kept.flush(-1)
				before := w.kept.kept.users["juliet@example.org"]
				w.backend.set("juliet", "romeo@example.org R", "nurse@example.org N")
				if row.young {
					w.Rules.MaxAge = time.Hour
				}
				if row.fetching {
					w.backend.hold = make(chan struct{})
					refresh(w)
					synctest.Wait()
				}
				row.do(w)
				w.expectInAnyOrder(row.sent...)
				w.kept.flush(-1)
				after := w.kept.kept.users["juliet@example.org"]
				if row.kept == nil {
					if after.Items != before.Items || after.Epoch != before.Epoch || !slices.Equal(after.Told, before.Told) || len(after.Missed) > 0 || len(w.kept.kept.marks) > 0 {
						t.Errorf("kept %+v, marks %v", after, w.kept.kept.marks)
					}
				} else if !row.kept(after, w.kept.kept) {
					t.Errorf("kept %+v, marks %v", after, w.kept.kept.marks)
				}
			})
		})
	}
}
