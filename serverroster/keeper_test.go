package serverroster

import (
	"testing"
	"time"

	"rosterd/roster"
)

// The roster is in step when the query is answered, and costs nothing from then on.
func TestKept(t *testing.T) {
	test(t, func(w *world) {
		w.server.each = time.Millisecond
		w.server.put(juliet, contacts("romeo@example.org none Other", "paris@example.org"))
		want := contacts("romeo@example.org both Romeo Friends,Work", "nurse@example.org to")
		if took := w.query(juliet, want); took > time.Second {
			t.Errorf("the query waited for %v", took)
		}
		w.equal(juliet, want)
		if w.watcher.told(juliet) == 0 || w.watcher.direct {
			t.Errorf("the watcher was told %d times, of an exchange: %v", w.watcher.told(juliet), w.watcher.direct)
		}
		w.settle()
		gets := w.server.gets
		w.quiet(func() {
			if took := w.ask(juliet); took > 0 {
				t.Errorf("a query waited for %v though nothing differs", took)
			}
			w.keeper.Keep(juliet, nil)
		})
		if w.server.gets != gets {
			t.Error("the server was asked though nothing changed")
		}
		// A change is written without asking.
		want = contacts("romeo@example.org both Romeo Friends,Work")
		w.query(juliet, want)
		w.equal(juliet, want)
		if w.server.gets != gets || w.server.removals != 2 || w.server.sets != 2 {
			t.Errorf("%d gets, %d removals, %d sets", w.server.gets-gets, w.server.removals, w.server.sets)
		}
		if s := w.status(); s.Written != 2 || s.Removed != 2 || s.Waiting != 0 || s.Error != "" || s.Residue != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// What a server has of ask and approved does not count.
func TestOnlyWhatCounts(t *testing.T) {
	test(t, func(w *world) {
		r := roster.New([]roster.Item{{JID: romeo, Subscription: "to", Ask: true, Approved: true}})
		w.query(juliet, r)
		w.equal(juliet, contacts("romeo@example.org to"))
		w.quiet(func() { w.again() })
	})
}
