package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"rosterd/e2e/harness"
)

// Two more rosterds of the same domain: a Prosody refuses them. They come back each
// second, and never take the place of the first, which serves all the time, until
// it is gone.
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
	const attempts = 5
	for n := 1; n <= attempts; n++ { // which takes 4 s at least
		for _, other := range others {
			poll(ctx, t, func() bool { return refusals(other) >= n }, func() string { return fmt.Sprintf("no attempt %d", n) })
		}
		names := []string{"Nurse", "Paris", "Tybalt", "Mercutio", "Benvolio"}[:n]
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

	w.rosterd.Kill()
	next, cancel := context.WithTimeout(ctx, atOnce)
	defer cancel()
	ready := make(chan *harness.Rosterd, len(others))
	for _, other := range others {
		go func() {
			if other.WaitReady(next) == nil {
				ready <- other
			}
		}()
	}
	select {
	case w.rosterd = <-ready:
	case <-next.Done():
		t.Fatal("nobody has taken the place of the first")
	}
	waitBest(ctx, t, w)
	wantRoster(next, t, juliet, item("Romeo"), item("Nurse"), item("Paris"), item("Tybalt"), item("Mercutio"), item("Benvolio"))
}

// refusals are how often a rosterd was refused because of another: the log has
// them at level debug, but for the first.
func refusals(r *harness.Rosterd) int {
	return strings.Count(r.Log(), "the server refused the handshake: conflict")
}
