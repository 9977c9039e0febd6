package chaos

import (
	"context"
	"testing"
	"time"
)

// What an instance told that could not write it, and was killed, its clients keep until they
// log in anew: that is counted, and no violation. Whatever else they show otherwise is one.
// A client that asked meanwhile need not log in anew: by the server the next instance learns
// of it, or the server pushes to it.
func TestWhatAnInstanceCouldNotWrite(t *testing.T) {
	t.Parallel()
	const there, added = "c0@example.org", "new@example.org"
	add := func(a *account) string { a.put("u0", added, chance(1, "forgot")); return "one more" }
	remove := func(contact string) func(*account) string {
		return func(a *account) string { delete(a.now, contact); return "one less" }
	}
	logIn := func(_ context.Context, w *world) { w.devices[0].order(order{online: true}) }
	for name, tt := range map[string]struct {
		kind   Kind
		before func(context.Context, *world) // the database goes
		away   func(*account) string         // a change while it is away, which clients are told
		after  func(*account) string         // a change that they are not
		want   int
	}{
		"what it told": {LikeProsody, logIn, add, remove(added), 1},
		"that a client asked, which its presence tells":  {LikeProsody, nil, remove(there), add, 0},
		"that a client asked, whom the server pushes to": {LikeEjabberd, nil, remove(there), add, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			change := func(w *world, f func(*account) string) {
				w.truth.change("u0", f)
				w.reports.changed("u0")
			}
			p := &plan{users: []string{"u0"}, contacts: map[string]int{"u0": 2}, devices: []place{{"u0", "phone"}}, tracks: map[string][]step{}}
			p.tracks["u0"] = []step{
				{do: func(ctx context.Context, w *world) { // one of the two is active, however long that takes
					if err := w.awaitUp(ctx, 2*patience); err != nil {
						t.Error(err)
					}
					if tt.before != nil {
						tt.before(ctx, w)
					}
				}},
				{do: awaitLine},
				{do: func(ctx context.Context, w *world) {
					if err := w.database.Stop(); err != nil {
						t.Error(err)
					}
					change(w, tt.away)
					if tt.before == nil {
						logIn(ctx, w)
					}
				}},
				{do: awaitLine},
				{do: func(ctx context.Context, w *world) {
					for _, d := range w.daemons {
						d.kill()
					}
					change(w, tt.after)
					if err := w.database.Resume(); err != nil {
						t.Error(err)
					}
					for _, d := range w.daemons {
						w.startAgain(ctx, d, 0)
					}
				}},
			}
			report, err := Run(t.Context(), Options{Binary: built(t), Kind: tt.kind, Seed: 1, Logs: t.TempDir(), Pair: true, plan: p, patience: 15 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			if len(report.Violations) > 0 || report.Figures.Anew != tt.want {
				t.Errorf("%d clients logged in anew, want %d; violations %q", report.Figures.Anew, tt.want, report.Violations)
			}
		})
	}
}
