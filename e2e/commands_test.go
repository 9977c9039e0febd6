package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rosterd/e2e/harness"
)

// known is a part of what rosterd user --json says.
type known struct {
	Source string
	Roster struct {
		Version  string
		Contacts []struct{ JID, Name string }
	}
	Resources []struct {
		Resource string
		Doubt    bool
	}
	Sessions []struct {
		Resource   string
		Interested bool
	}
	Mark *struct{ Why string }
	Held *struct {
		Removes []string
		Until   *time.Time
	}
	Error *struct{ Text string }
	Fetch *struct {
		Error    string
		Held     bool
		Contacts int
		Changes  []struct {
			Action  string
			Contact struct{ JID string }
		}
	}
}

// command runs a command that has to succeed.
func command(t *testing.T, r *harness.Rosterd, args ...string) string {
	t.Helper()
	code, stdout, stderr := r.Command(bounded(t), args...)
	if code != 0 {
		t.Fatalf("rosterd %s: exit code %d: %s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

func lookAt(t *testing.T, r *harness.Rosterd, args ...string) (k known) {
	t.Helper()
	out := command(t, r, append([]string{"user", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &k); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return k
}

// A person looks at a user while rosterd runs and when it does not, refreshes, and decides
// what the removal guard holds.
func TestCommands(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	dir := t.TempDir()
	state := filepath.Join(dir, "rosterd.db")
	w := start(t, setup{counts: true, settings: map[string]any{"state.path": state, "contacts.confirm_after": "never", "refresh.token": planted}})
	w.backend.Set("juliet", contacts("Romeo", "Nurse"))
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, juliet, item("Nurse"), item("Romeo"))

	k := lookAt(t, w.rosterd, "juliet")
	if k.Source != "the rosterd that runs" || len(k.Roster.Contacts) != 2 || k.Roster.Contacts[0].Name != "Nurse" || k.Roster.Version == "" ||
		len(k.Sessions) != 1 || k.Sessions[0].Resource != "balcony" || !k.Sessions[0].Interested || len(k.Resources) != 1 || k.Resources[0].Doubt || k.Mark != nil || k.Held != nil {
		t.Errorf("%+v", k)
	}
	if text := command(t, w.rosterd, "user", "juliet@example.org"); !strings.Contains(text, `session        "balcony": connected`) || !strings.Contains(text, `romeo@example.org "Romeo"`) {
		t.Errorf("in words:\n%s", text)
	}

	// What would change is said, and nobody is told.
	w.backend.Set("juliet", contacts("Paris", "Nurse"))
	if k := lookAt(t, w.rosterd, "--fetch", "juliet"); k.Fetch == nil || k.Fetch.Held || k.Fetch.Contacts != 2 || len(k.Fetch.Changes) != 2 || len(k.Roster.Contacts) != 2 {
		t.Errorf("%+v", k)
	}
	wantQuiet(ctx, t, juliet)
	if out := command(t, w.rosterd, "refresh", "juliet", "mercutio"); !strings.Contains(out, `"updated": 2`) {
		t.Errorf("refresh: %s", out)
	}
	wantPushes(ctx, t, juliet, item("Paris"), removed("Romeo"))
	w.backend.Set("juliet", contacts("Nurse"))
	if out := command(t, w.rosterd, "refresh", "--all", "--host", "example.org"); !strings.Contains(out, `"accepted": 1`) {
		t.Errorf("refresh --all: %s", out)
	}
	wantPushes(ctx, t, juliet, removed("Paris"))
	w.backend.Set("juliet", contacts("Nurse", "Romeo"))
	if out := command(t, w.rosterd, "refresh", "--async", "juliet"); !strings.Contains(out, `"accepted": 1`) {
		t.Errorf("refresh --async: %s", out)
	}
	wantPushes(ctx, t, juliet, item("Romeo"))
	if code, out, _ := w.rosterd.Command(ctx, "refresh", "juliet@evil.example"); code != 1 || !strings.Contains(out, "not a user of a served domain") {
		t.Errorf("a stranger: %d %s", code, out)
	}
	if code, _, err := w.rosterd.Command(ctx, "user", "juliet@evil.example"); code != 1 || !strings.Contains(err, "not served") {
		t.Errorf("a stranger: %d %s", code, err)
	}
	if out := command(t, w.rosterd, "health"); out != "ok\n" {
		t.Errorf("health: %q", out)
	}
	command(t, w.rosterd, "health", "--ready")

	// What the removal guard holds waits for a person.
	var names []string
	var pushes, gone []harness.Item
	for i := range 20 {
		name := fmt.Sprintf("N%02d", i)
		names, pushes, gone = append(names, name), append(pushes, item(name)), append(gone, removed(name))
	}
	w.backend.Set("juliet", contacts(append(names, "Nurse", "Romeo")...))
	command(t, w.rosterd, "refresh", "juliet")
	wantPushes(ctx, t, juliet, pushes...)
	if out := command(t, w.rosterd, "held"); out != "nothing is held\n" {
		t.Errorf("held: %s", out)
	}
	w.backend.Set("juliet", contacts("Nurse", "Romeo"))
	if code, out, _ := w.rosterd.Command(ctx, "refresh", "juliet"); code != 1 || !strings.Contains(out, "would remove 20 of 22 contacts: it counts if somebody approves it") {
		t.Errorf("refresh: %d %s", code, out)
	}
	if k := lookAt(t, w.rosterd, "--fetch", "juliet"); k.Fetch == nil || !k.Fetch.Held || len(k.Fetch.Changes) != 20 {
		t.Errorf("%+v", k)
	}
	if out := command(t, w.rosterd, "held"); !strings.HasPrefix(out, "juliet@example.org: 20 of 22 contacts") {
		t.Errorf("held: %s", out)
	}
	if k := lookAt(t, w.rosterd, "juliet"); k.Held == nil || len(k.Held.Removes) != 20 || k.Held.Until != nil || k.Mark == nil || k.Error == nil {
		t.Errorf("%+v", k)
	}
	if out := command(t, w.rosterd, "reject", "juliet"); out != "juliet@example.org: rejected\n" {
		t.Errorf("reject: %s", out)
	}
	if code, out, _ := w.rosterd.Command(ctx, "refresh", "juliet"); code != 1 || !strings.Contains(out, "rejected") {
		t.Errorf("refresh: %d %s", code, out)
	}
	wantQuiet(ctx, t, juliet)
	if out := command(t, w.rosterd, "approve", "juliet"); out != "juliet@example.org: approved\n" {
		t.Errorf("approve: %s", out)
	}
	wantPushes(ctx, t, juliet, gone...)
	if code, out, err := w.rosterd.Command(ctx, "approve", "juliet"); code != 1 || !strings.Contains(err, "nothing is held") {
		t.Errorf("nothing to approve: %d %s%s", code, out, err)
	}

	// Who may not write the state file may not ask.
	if info, err := os.Stat(state + ".sock"); err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("the socket: %v, %v", info, err)
	}
	if code, err := w.rosterd.Stop(ctx); code != 0 || err != nil {
		t.Fatalf("exit code %d, %v", code, err)
	}
	before, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	if k := lookAt(t, w.rosterd, "juliet"); k.Source != "the state file" || len(k.Roster.Contacts) != 2 || len(k.Resources) != 1 {
		t.Errorf("stopped: %+v", k)
	}
	if code, _, err := w.rosterd.Command(ctx, "approve", "juliet"); code != 1 || !strings.Contains(err, "no rosterd runs") {
		t.Errorf("stopped: %d %s", code, err)
	}
	after, err := os.ReadFile(state)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the state file was changed: %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// A kill leaves the socket: nothing listens there, the state is read, and the next rosterd
// makes a new one.
func TestCommandsAfterAKill(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	state := filepath.Join(t.TempDir(), "rosterd.db")
	w := start(t, setup{counts: true, settings: map[string]any{"state.path": state}})
	w.backend.Set("juliet", contacts("Romeo"))
	wantRoster(ctx, t, w.login(ctx, t, gosrc, "juliet@example.org/balcony"), item("Romeo"))
	if err := w.rosterd.WaitWritten(ctx); err != nil {
		t.Fatal(err)
	}
	w.rosterd.Kill()
	if k := lookAt(t, w.rosterd, "juliet"); k.Source != "the state file" || len(k.Roster.Contacts) != 1 {
		t.Errorf("killed: %+v", k)
	}
	w.connect(ctx, t)
	if k := lookAt(t, w.rosterd, "juliet"); k.Source != "the rosterd that runs" || len(k.Roster.Contacts) != 1 {
		t.Errorf("again: %+v", k)
	}
}
