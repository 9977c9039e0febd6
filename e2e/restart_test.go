package e2e

import (
	"fmt"
	"path/filepath"
	"testing"
)

// Clients stay logged in while rosterd is restarted. It knows them afterwards,
// though neither server may tell of them again, and brings them in line though
// nobody reports what has changed meanwhile.
func TestRestart(t *testing.T) { onServers(t, testRestart) }

func testRestart(t *testing.T, srv server) {
	for _, test := range []struct {
		state string
		kill  bool
	}{{"state.path", false}, {"state.path", true}, {"state.url", false}, {"state.url", true}} {
		kill := test.kill
		t.Run(fmt.Sprintf("%s, killed %v", test.state, kill), func(t *testing.T) {
			t.Parallel()
			ctx := bounded(t)
			where := filepath.Join(t.TempDir(), "state.db")
			if test.state == "state.url" {
				where = stateURL(ctx, t)
			}
			w := start(t, setup{server: srv, own: true, settings: map[string]any{test.state: where}})
			w.backend.Set("juliet", contacts("Romeo", "Paris"))
			w.backend.Set("mercutio", contacts("Romeo"))
			juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
			wantRoster(ctx, t, juliet, item("Romeo"), item("Paris"))
			mercutio := w.login(ctx, t, slixmpp, "mercutio@example.org/street")
			wantRoster(ctx, t, mercutio, item("Romeo"))
			// What is told last of all is known to whoever comes next.
			w.backend.Set("juliet", contacts("Romeo", "Paris", "Nurse"))
			w.refresh(ctx, t, "juliet")
			wantPushes(ctx, t, juliet, item("Nurse"))
			if kill {
				w.rosterd.Kill()
				<-w.rosterd.Done()
			} else if code, err := w.rosterd.Stop(ctx); code != 0 || err != nil {
				t.Fatalf("exit code %d, %v", code, err)
			}
			w.backend.Set("juliet", contacts("Romeo", "Tybalt"))
			w.backend.Set("mercutio", contacts("Romeo", "Nurse"))
			w.rosterd = run(t, w.opts)
			waitBrought(ctx, t, juliet, item("Tybalt"), removed("Nurse"), removed("Paris"))
			waitBrought(ctx, t, mercutio, item("Nurse"))
			waitMetric(ctx, t, w.rosterd, "rosterd_sessions", 2)
			wantRoster(ctx, t, juliet, item("Romeo"), item("Tybalt"))
		})
	}
}
