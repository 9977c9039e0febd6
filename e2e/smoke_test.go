package e2e

import (
	"fmt"
	"testing"

	"rosterd/e2e/harness"
)

// The main job, once with each library: a roster at login, a contact renamed in
// the backend, its push, the answer, an orderly end.
func TestSmoke(t *testing.T) {
	for _, library := range libraries {
		t.Run(library.name, func(t *testing.T) {
			ctx := bounded(t)
			w := start(t, harness.ProsodyOptions{}, nil)
			w.backend.Set("juliet", harness.Contacts{
				"romeo@example.org": {Name: "Romeo", Groups: map[string]bool{"Friends": true}},
			})
			client := w.login(ctx, t, library.open, "juliet@example.org/balcony")
			items, err := client.Roster(ctx)
			if err != nil || fmt.Sprintf("%+v", items) !=
				"[{JID:romeo@example.org Name:Romeo Subscription:both Ask: Approved:false Groups:[Friends]}]" {
				t.Fatalf("roster %+v, %v", items, err)
			}

			w.backend.Set("juliet", harness.Contacts{"romeo@example.org": {Name: "Montague"}})
			answer, err := w.rosterd.PostRefresh(ctx, `["juliet", "romeo"]`)
			if err != nil || fmt.Sprintf("%+v", answer) !=
				"{Code:200 Status:ok Message:roster update complete Updated:2 Errors:0 Failed:map[]}" {
				t.Fatalf("answer %+v, %v", answer, err)
			}
			item, err := client.WaitPush(ctx)
			if err != nil || item.Name != "Montague" || len(item.Groups) != 0 {
				t.Fatalf("push %+v, %v", item, err)
			}
			if code, err := w.rosterd.Stop(ctx); code != 0 || err != nil {
				t.Errorf("exit code %d, %v", code, err)
			}
		})
	}
}
