package e2e

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/ncruces/go-sqlite3/driver"

	"rosterd/e2e/harness"
)

// aState makes the state of a rosterd that has told two users their rosters and
// was stopped, and returns its bytes.
func aState(t *testing.T) []byte {
	t.Helper()
	ctx := bounded(t)
	path := filepath.Join(t.TempDir(), "state.db")
	w := start(t, setup{settings: map[string]any{"state.path": path}})
	for _, user := range []string{"juliet", "mercutio"} {
		w.backend.Set(user, contacts("Romeo", "Nurse", "Paris"))
		wantRoster(ctx, t, w.login(ctx, t, gosrc, user+"@example.org/balcony"), item("Romeo"), item("Nurse"), item("Paris"))
	}
	if code, err := w.rosterd.Stop(ctx); code != 0 || err != nil {
		t.Fatalf("exit code %d, %v", code, err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// A state file that cannot be used stops the start with one line that names it,
// and stays as it is, with all that is beside it.
func TestUnusableState(t *testing.T) {
	t.Parallel()
	good := aState(t)
	const page = 4096
	for _, c := range []struct {
		name string
		make func(t *testing.T, path string)
		want string // in the line
	}{
		{"overwritten in the middle", func(t *testing.T, path string) {
			data := bytes.Clone(good)
			for i := 2 * page; i < len(data)-page; i++ { // the head and the end are whole
				data[i] = 0xa5
			}
			write(t, path, data)
		}, "is damaged"},
		{"zeros in the middle", func(t *testing.T, path string) {
			data := bytes.Clone(good)
			clear(data[2*page : len(data)-page])
			write(t, path, data)
		}, "is damaged"},
		{"truncated to half", func(t *testing.T, path string) { write(t, path, good[:len(good)/2/page*page]) }, "is damaged"},
		{"truncated in a page", func(t *testing.T, path string) { write(t, path, good[:2*page+100]) }, "is damaged"},
		{"a text", func(t *testing.T, path string) {
			write(t, path, []byte(strings.Repeat("xmpp: {domain: contacts.example.org}\n", 500)))
		}, "is not a file of rosterd's"},
		{"a directory", func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "is not a file of rosterd's"},
		{"another program's database", func(t *testing.T, path string) {
			inDatabase(t, path, "CREATE TABLE blobs (name text)")
		}, "is not a file of rosterd's"},
		{"of a newer format", func(t *testing.T, path string) {
			write(t, path, good)
			inDatabase(t, path, "PRAGMA user_version = 9")
		}, "was written by a newer rosterd (format 9"},
		{"of an earlier rosterd", func(t *testing.T, path string) {
			data := make([]byte, 4*page)
			copy(data[16:], "\xed\xda\x0c\xed") // bbolt's, on a little-endian machine
			write(t, path, data)
			write(t, path+"-journal.00000001", []byte("rosterdj"))
		}, "was written by an earlier rosterd before its first release"},
		{"no directory", func(t *testing.T, path string) {
			if err := os.Remove(filepath.Dir(path)); err != nil {
				t.Fatal(err)
			}
		}, "there is no directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "state")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "rosterd.db")
			c.make(t, path)
			before := files(t, dir)
			wantNoStart(t, run(t, offline(path)), path, c.want)
			if after := files(t, dir); !maps.Equal(before, after) {
				t.Errorf("the files have changed: %v", changed(before, after))
			}
		})
	}
}

// A state file that another rosterd uses is left to it. The other goes on, and
// when it is gone the next can have the file.
func TestLockedState(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "rosterd.db")
	w := start(t, setup{settings: map[string]any{"state.path": path}})
	w.backend.Set("juliet", contacts("Romeo"))
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, juliet, item("Romeo"))

	wantNoStart(t, run(t, offline(path)), path, "is in use by another process")
	w.backend.Set("juliet", contacts("Nurse"))
	w.refresh(ctx, t, "juliet")
	wantPushes(ctx, t, juliet, item("Nurse"), removed("Romeo"))
	wantOneStream(ctx, t, w)
	if n := metric(ctx, t, w.rosterd, "rosterd_state_errors_total"); n != 0 {
		t.Errorf("%v state errors", n)
	}
	if code, err := w.rosterd.Stop(ctx); code != 0 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
	w.rosterd = run(t, w.opts)
	w.backend.Set("juliet", contacts("Tybalt"))
	waitBrought(ctx, t, juliet, item("Tybalt"), removed("Nurse"))
}

// Damage that only one user's record has does not keep rosterd from starting. It
// knows nothing of that user then, which is no empty roster; others are not
// concerned.
func TestDamagedRecord(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	path := filepath.Join(t.TempDir(), "rosterd.db")
	w := start(t, setup{settings: map[string]any{"state.path": path}})
	w.backend.Set("juliet", contacts("Romeo", "Paris"))
	w.backend.Set("mercutio", contacts("Romeo"))
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, juliet, item("Romeo"), item("Paris"))
	mercutio := w.login(ctx, t, gosrc, "mercutio@example.org/street")
	wantRoster(ctx, t, mercutio, item("Romeo"))
	if code, err := w.rosterd.Stop(ctx); code != 0 || err != nil {
		t.Fatalf("exit code %d, %v", code, err)
	}
	inDatabase(t, path, "UPDATE rosters SET roster = CAST('another' AS blob) WHERE jid = 'juliet@example.org'")

	w.backend.Refuse()
	w.connect(ctx, t)
	wantNoRoster(ctx, t, juliet)
	wantRoster(ctx, t, mercutio, item("Romeo"))
	wantQuiet(ctx, t, juliet)
	w.waitLog(ctx, t, "state file "+path+" is damaged")
	w.backend.Set("juliet", contacts("Romeo", "Nurse"))
	if err := w.backend.Accept(); err != nil {
		t.Fatal(err)
	}
	waitBrought(ctx, t, juliet, item("Romeo"), item("Nurse"))
	wantRoster(ctx, t, juliet, item("Romeo"), item("Nurse"))
	wantQuiet(ctx, t, mercutio)
}

// With a full disk rosterd does not begin a new state that it could not keep.
func TestFullDiskAtStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "rosterd.db")
	opts := offline(path)
	opts.Binary = onFullDisk(t)
	wantNoStart(t, run(t, opts), path, "file too large") // what the played full disk says
	if left := files(t, dir); len(left) > 0 {
		t.Errorf("left behind: %v", changed(nil, left))
	}
}

// With a full disk and a state, it starts, for clients know more than nobody: it
// serves, and says what it lacks. When there is room, everything is written.
func TestFullDiskAtStartWithState(t *testing.T) { onServers(t, testFullDiskAtStartWithState) }

func testFullDiskAtStartWithState(t *testing.T, srv server) {
	ctx := bounded(t)
	w, juliet := startOnDisk(ctx, t, srv)
	w.rosterd.Kill()
	w.backend.Set("juliet", contacts("Romeo", "Nurse"))
	opts := w.opts
	opts.Binary = onFullDisk(t)
	w.rosterd = run(t, opts)
	waitBrought(ctx, t, juliet, item("Nurse"), removed("Paris"))
	wantLostToDisk(ctx, t, w)
	w.afterFullDisk(ctx, t, juliet)
}

// While the disk is full, everything goes on. When there is room again, what was
// told meanwhile is written: rosterd may be killed then.
func TestFullDisk(t *testing.T) { onServers(t, testFullDisk) }

func testFullDisk(t *testing.T, srv server) {
	ctx := bounded(t)
	w, juliet := startOnDisk(ctx, t, srv)
	if err := w.rosterd.FullDisk(true); err != nil {
		t.Fatal(err)
	}
	w.backend.Set("juliet", contacts("Romeo", "Nurse"))
	w.refresh(ctx, t, "juliet")
	waitBrought(ctx, t, juliet, item("Nurse"), removed("Paris"))
	w.backend.Set("mercutio", contacts("Romeo"))
	mercutio := w.login(ctx, t, gosrc, "mercutio@example.org/street")
	wantRoster(ctx, t, mercutio, item("Romeo"))
	wantLostToDisk(ctx, t, w)
	wantRoster(ctx, t, juliet, item("Romeo"), item("Nurse"))
	wantOneStream(ctx, t, w)
	w.backend.Set("mercutio", contacts("Tybalt"))
	w.afterFullDisk(ctx, t, juliet)
	waitBrought(ctx, t, mercutio, item("Tybalt"), removed("Romeo"))
}

// startOnDisk starts a world with a disk that can be full, and a client that was
// told two contacts, Romeo and Paris.
func startOnDisk(ctx context.Context, t *testing.T, srv server) (*world, harness.Client) {
	t.Helper()
	w := start(t, setup{server: srv, own: true, settings: map[string]any{"state.path": filepath.Join(t.TempDir(), "rosterd.db")}})
	if code, err := w.rosterd.Stop(ctx); code != 0 || err != nil {
		t.Fatalf("exit code %d, %v", code, err)
	}
	file, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	if w.opts.Binary, err = harness.TakesFullDisk(t.TempDir(), file); err != nil {
		t.Fatal(err)
	}
	w.connect(ctx, t)
	w.backend.Set("juliet", contacts("Romeo", "Paris"))
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, juliet, item("Romeo"), item("Paris"))
	return w, juliet
}

// wantLostToDisk waits until rosterd says that it cannot write its state.
func wantLostToDisk(ctx context.Context, t *testing.T, w *world) {
	t.Helper()
	path := w.opts.Settings["state.path"].(string)
	w.waitLog(ctx, t, "state cannot be written")
	poll(ctx, t, func() bool { return metric(ctx, t, w.rosterd, "rosterd_state_errors_total") > 1 },
		func() string { return "no error of the state is counted" })
	answer, err := w.rosterd.Metrics("/status").Get(ctx)
	if err != nil || answer.Status != http.StatusOK || !strings.Contains(string(answer.Body), path) {
		t.Errorf("/status does not name the file: %v, %s", err, answer.Body)
	}
	if answer, err := w.rosterd.Metrics("/readyz").Get(ctx); err != nil || answer.Status != http.StatusOK {
		t.Errorf("/readyz: %v, %d %s", err, answer.Status, answer.Body)
	}
}

// afterFullDisk makes room, and kills rosterd as soon as all is said to be
// written. juliet, who was told of the nurse while there was none, is told that
// the nurse is gone.
func (w *world) afterFullDisk(ctx context.Context, t *testing.T, juliet harness.Client) {
	t.Helper()
	if err := w.rosterd.FullDisk(false); err != nil {
		t.Fatal(err)
	}
	if err := w.rosterd.WaitWritten(ctx); err != nil {
		t.Fatal(err)
	}
	w.waitLog(ctx, t, "state is written again")
	w.rosterd.Kill()
	w.backend.Set("juliet", contacts("Romeo"))
	w.rosterd = run(t, w.opts)
	waitBrought(ctx, t, juliet, removed("Nurse"))
	wantRoster(ctx, t, juliet, item("Romeo"))
}

// onFullDisk is a rosterd that starts while the disk is full.
func onFullDisk(t *testing.T) string {
	t.Helper()
	file, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	program, err := harness.StartsOnFullDisk(t.TempDir(), file)
	if err != nil {
		t.Skip(err)
	}
	return program
}

// offline are the options of a rosterd that needs no server and no backend.
func offline(path string) harness.RosterdOptions {
	return harness.RosterdOptions{ContactsURL: "http://127.0.0.1:1/contacts/%s", Settings: map[string]any{
		"xmpp.address": "127.0.0.1:1", "xmpp.domain": domain, "xmpp.secret": "component secret",
		"xmpp.hosts": []string{"example.org"}, "state.path": path,
	}}
}

// wantNoStart wants that rosterd ends with one line that names the state file.
func wantNoStart(t *testing.T, rosterd *harness.Rosterd, path, want string) {
	t.Helper()
	code, err := rosterd.WaitExit(bounded(t))
	line := rosterd.Log()
	if code != 1 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
	if strings.Count(line, "\n") != 0 || !strings.HasPrefix(line, "rosterd: state.path: state file "+path) || !strings.Contains(line, want) {
		t.Errorf("wrote %q, want one line that names %s and has %q", line, path, want)
	}
	if strings.Count(line, path) != 1 {
		t.Errorf("the file is named more than once: %s", line)
	}
}

// inDatabase changes an SQLite database, or makes one.
func inDatabase(t *testing.T, path, statements string) {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+path+"?_pragma=journal_mode(delete)")
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Exec(statements)
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// files are the contents of the files in a folder, by name; none if there is no
// folder.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	contents := map[string]string{}
	for _, entry := range entries {
		name := filepath.Join(dir, entry.Name())
		if contents[name] = "a directory"; entry.IsDir() {
			continue
		}
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		contents[name] = string(data)
	}
	return contents
}

// changed says which files differ.
func changed(before, after map[string]string) []string {
	var names []string
	for name, now := range after {
		if was, there := before[name]; !there || was != now {
			names = append(names, fmt.Sprintf("%s (%d bytes, was %d)", name, len(now), len(was)))
		}
	}
	for name := range before {
		if _, there := after[name]; !there {
			names = append(names, name+" is gone")
		}
	}
	return names
}
