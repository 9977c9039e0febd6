package e2e

import (
	"testing"

	"rosterd/e2e/harness"
)

// The main job, once with each library: a roster at login, a contact renamed in
// the backend, its push, the answer, an orderly end.
func TestSmoke(t *testing.T) { onServers(t, testSmoke) }

func testSmoke(t *testing.T, srv server) {
	for _, lib := range libraries {
		t.Run(lib.name, func(t *testing.T) {
			t.Parallel()
			ctx := bounded(t)
			w := start(t, setup{server: srv})
			w.backend.Set("juliet", harness.Contacts{
				"romeo@example.org": {Name: "Romeo", Groups: map[string]bool{"Friends": true}},
			})
			client := w.login(ctx, t, lib, "juliet@example.org/balcony")
			wantRoster(ctx, t, client, harness.Item{
				JID: "romeo@example.org", Name: "Romeo", Subscription: "both", Groups: []string{"Friends"},
			})

			w.backend.Set("juliet", harness.Contacts{"romeo@example.org": {Name: "Montague"}})
			w.refresh(ctx, t, "juliet", "romeo")
			wantPushes(ctx, t, client, harness.Item{JID: "romeo@example.org", Name: "Montague", Subscription: "both"})
			if code, err := w.rosterd.Stop(ctx); code != 0 || err != nil {
				t.Errorf("exit code %d, %v", code, err)
			}
		})
	}
}
