package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"rosterd/e2e/harness"
)

// Two more rosterds of the same domain: the server refuses them. They try again
// each second, and never take the place of the first, which serves all the time.
func TestConflict(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	w := start(t, setup{counts: true})
	w.backend.Set("juliet", contacts("Romeo"))
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, juliet, item("Romeo"))
	began := time.Now()
	others := []*harness.Rosterd{
		run(t, harness.RosterdOptions{Server: w.server, ContactsURL: w.backend.URL()}),
		run(t, harness.RosterdOptions{Server: w.server, ContactsURL: w.backend.URL()}),
	}
	const attempts = 3
	for n := 1; n <= attempts; n++ { // which takes 3 s at least
		for _, other := range others {
			poll(ctx, t, func() bool { return refusals(other) >= n }, func() string { return fmt.Sprintf("no attempt %d", n) })
		}
		names := []string{"Nurse", "Paris", "Tybalt"}[:n]
		w.backend.Set("juliet", contacts(append(names, "Romeo")...))
		w.refresh(ctx, t, "juliet")
		wantPushes(ctx, t, juliet, item(names[n-1]))
	}
	for i, other := range others {
		if n, took := refusals(other), time.Since(began); n > 1+int(took/time.Second) {
			t.Errorf("%d attempts of rosterd %d within %v", n, i, took.Round(time.Millisecond))
		}
		if strings.Contains(other.Log(), "connected to the XMPP server") {
			t.Errorf("rosterd %d was let in", i)
		}
	}
	wantOneStream(ctx, t, w)
	wantRequests(t, w, "juliet", 1+attempts)
}

// refusals are how often a rosterd was refused because of another: the log has
// them at level debug, but for the first.
func refusals(r *harness.Rosterd) int {
	return strings.Count(r.Log(), "the server refused the handshake: conflict")
}
