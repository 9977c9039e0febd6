package users

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// Another session comes in a resource's name and is told to go on with what it has, of
// which nobody knows: no push names the roster's version for it.
func TestNoVersionForAClientThatWasToldToGoOn(t *testing.T) {
	inWorld(t, Limits{PerUser: 1}, func(t *testing.T, w *world) {
		var named []string // by pushes
		w.Pusher = pusher{w, func(changes []roster.Change) {
			for _, c := range changes {
				w.set(func() { named = append(named, c.Version) })
			}
		}}
		w.Resume("example.org")
		w.backend.set("juliet", "romeo@example.org Romeo", "tybalt@example.org T")
		full := mustJID(t, "juliet@example.org/a")
		var given string
		none, other := "", "of-long-ago"
		ask := func(version *string) error {
			return w.Get(full, version, func(a roster.Answer) []roster.Item { given = a.Version; return nil })
		}
		if err := ask(&none); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		w.backend.hold = make(chan struct{})
		w.ask("b") // takes the only place
		if err := ask(&other); err == nil {
			t.Fatal("not busy")
		}
		w.set(func() { named = nil })
		close(w.backend.hold)
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(named) == 0 || strings.Contains(strings.Join(named, " ")+" ", given+" ") {
			t.Errorf("pushes named %q, the roster is %q", named, given)
		}
	})
}

type pusher struct {
	*world
	see func([]roster.Change)
}

func (p pusher) Push(to []jid.JID, changes []roster.Change, settled func(roster.Outcome)) error {
	p.see(changes)
	return p.world.Push(to, changes, settled)
}
