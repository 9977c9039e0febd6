package store

import (
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "github.com/ncruces/go-sqlite3/driver" // as anybody opens it

	"rosterd/internal/leak"
)

func newPath(t *testing.T) string {
	leak.Check(t)
	return filepath.Join(t.TempDir(), "rosterd.db")
}

// kept is a user as the child puts them.
func kept(jid, data string) User { return User{JID: jid, Version: data, Roster: []byte(data)} }

func TestKilled(t *testing.T) {
	path := newPath(t)
	p := start(t, path, "open")
	p.do("later before old") // is written with the next one
	p.do("put written old")
	p.do("put written new")
	p.do("resource juliet@example.org/balcony soon")
	p.do("wait written")
	before := time.Now()
	p.kill()

	s := opened(t, path)
	defer s.Close()
	s.want(kept("before", "old"))
	s.want(kept("written", "new"))
	if got := s.all(); len(got) != 1 || !strings.Contains(got[0], "juliet@example.org/balcony") {
		t.Errorf("resources %q", got)
	}
	if ended := s.Ended(); ended.After(before.Add(time.Second)) || before.Sub(ended) > aliveEvery+patience {
		t.Errorf("ended %v, want about %v", ended, before)
	}
}

// What is lost with a kill is what nobody waited for, of the last second, and then
// there is what was before.
func TestKilledBeforeItIsWritten(t *testing.T) {
	path := newPath(t)
	p := start(t, path, "open", "put k old")
	p.do("later k new")
	p.kill()
	s := opened(t, path)
	defer s.Close()
	if u, err := s.User("k"); err != nil || u.Version != "old" && u.Version != "new" || u.Version != string(u.Roster) {
		t.Errorf("got %+v, %v", u, err) // the machine may have been so slow that it is written
	}
}

// Whenever it is killed, all is there of which it was said that it is written, what
// was put before included, and each roster is one that was put with its user.
func TestKilledAtAnyTime(t *testing.T) {
	path := newPath(t)
	for round := range 10 {
		p := start(t, path, "open")
		fmt.Fprintf(p.in, "churn round%d-\n", round)
		last := -1
		for begun := time.Now(); time.Since(begun) < time.Duration(round)*250*time.Millisecond; last++ {
			if line, err := p.out.ReadString('\n'); err != nil || line != fmt.Sprintln(last+1) {
				t.Fatalf("%q, %v", line, err)
			}
		}
		if said := strings.Split(p.kill(), "\n"); len(said) > 1 {
			var err error
			if last, err = strconv.Atoi(said[len(said)-2]); err != nil { // the line after it is not complete
				t.Fatal(err)
			}
		}
		s := open(t, path)
		version := func(jid string) (n, roster int) {
			u, err := s.User(jid)
			if err != nil {
				t.Fatal(err)
			}
			if n, err = strconv.Atoi(u.Version); err != nil {
				return -1, -1
			}
			if roster, err = strconv.Atoi(string(u.Roster[min(2000, len(u.Roster)):])); err != nil {
				roster = -1
			}
			return n, roster
		}
		for n := max(0, last-19); n <= last; n++ {
			got, roster := version(fmt.Sprintf("round%d-%d", round, n%20))
			if got < n || roster > got || n%3 == 0 && roster < n {
				t.Errorf("round %d, written up to %d: %d has version %d and roster %d", round, last, n, got, roster)
			}
			if got, _ := version(fmt.Sprint("later", n%50)); got < n {
				t.Errorf("round %d, written up to %d: what was put before has version %d", round, n, got)
			}
		}
		t.Logf("round %d: written up to %d", round, last)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Whenever the first start is killed, the next one works.
func TestKilledWhileItIsMade(t *testing.T) {
	for round := range 30 {
		path := newPath(t)
		p := start(t, path)
		fmt.Fprintln(p.in, "open")
		for begun := time.Now(); time.Since(begun) < patience; { // the file is there, with more or less in it
			if info, err := os.Stat(path); err == nil && info.Size() >= int64(round%3*4096) {
				break
			}
		}
		time.Sleep(time.Duration(round) * 100 * time.Microsecond)
		p.kill()
		s := opened(t, path)
		s.PutUser(juliet(), true, nil)
		s.again()
		s.want(juliet())
		s.Close()
	}
}

func TestDiskFull(t *testing.T) {
	path := newPath(t)
	p := start(t, path, "open", "put k old", "limit 80000", "fill user")
	p.do("put k new") // is called back, though it is not written
	if said := p.do("wait error"); !strings.Contains(said, path) || !strings.Contains(said, syscall.EFBIG.Error()) {
		t.Errorf("the error does not name the file and the cause: %s", said)
	}
	p.do("put k newer")
	p.do("wait counted 4") // it is tried again, and fails again
	p.do("limit 0")
	p.do("wait well")
	p.do("wait written")
	log := p.do("log")
	count, text, _ := strings.Cut(log, " ")
	if n, _ := strconv.Atoi(count); n < 4 {
		t.Errorf("%s errors were counted", count)
	}
	// Once, however often it is tried.
	if n := strings.Count(text, "what="+whatChanges); n != 2 || strings.Count(text, "again\\\" what="+whatChanges) != 1 {
		t.Errorf("%d lines in the log: %s", n, text)
	}
	p.kill() // nothing waits any more

	s := opened(t, path)
	defer s.Close()
	s.want(kept("k", "newer"))
	for n := range 200 {
		s.want(User{JID: fmt.Sprint("user", n), Roster: noise(n, 5000)})
	}
}

// That a checkpoint fails is said, but keeps nothing from being written.
func TestCheckpointFails(t *testing.T) {
	path := newPath(t)
	s := opened(t, path)
	defer s.Close()
	s.sync()
	s.trouble.set(whatCheckpoint, errors.New("the checkpoint"))
	if err := s.Err(); err == nil || err.Error() != "the checkpoint" {
		t.Errorf("the error is %v", err)
	}
	s.PutUser(juliet(), true, nil)
	s.sync()
	if u, err := s.db.user(juliet().JID); err != nil || u.JID == "" {
		t.Errorf("it is not written: %v", err)
	}
}

func TestDiskFullAtClose(t *testing.T) {
	path := newPath(t)
	p := start(t, path, "open", "put k old", "limit 80000", "fill user")
	if _, failed := p.try("close"); !strings.Contains(failed, path) {
		t.Errorf("close: %q", failed)
	}
	s := opened(t, path)
	defer s.Close()
	s.want(kept("k", "old"))
}

func TestDiskFullAtStart(t *testing.T) {
	t.Run("of a new file", func(t *testing.T) {
		path := newPath(t)
		p := start(t, path, "limit 100")
		if _, failed := p.try("open"); !strings.Contains(failed, path) || !strings.Contains(failed, "too large") {
			t.Errorf("open: %q", failed)
		}
		if left, _ := filepath.Glob(path + "*"); len(left) != 0 {
			t.Errorf("left behind: %q", left)
		}
	})
	t.Run("of an old file", func(t *testing.T) {
		path := newPath(t)
		p := start(t, path, "open", "put k 1")
		p.kill()
		p = start(t, path, "limit 20", "open")
		p.do("put k 2")
		p.do("wait error")
		p.do("limit 0")
		p.do("wait well")
		p.kill()
		s := opened(t, path)
		s.want(kept("k", "2"))
	})
}

func TestLocked(t *testing.T) {
	path := newPath(t)
	s := open(t, path)
	s.PutUser(juliet(), true, nil)
	_, err := Open(path, Options{})
	wantError(t, err, errLocked, path)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, path).Close()
}

// Others can look into the file meanwhile, and commits go on.
func TestLookedInto(t *testing.T) {
	path := newPath(t)
	s := opened(t, path)
	defer s.Close()
	s.PutUser(juliet(), true, nil)
	s.sync()
	pool, err := sql.Open("sqlite3", "file:"+path+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	tx, err := pool.BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true}) // and look for long
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	var jid, told string
	var items int
	if err := tx.QueryRow("SELECT jid, items, told FROM users").Scan(&jid, &items, &told); err != nil || jid != juliet().JID || items != 200 ||
		!strings.HasPrefix(told, `[{"resource":"balcony","versioned":true,"doubt":true,"asked":"2026-11-28T22:00:02.123Z"`) {
		t.Errorf("%s, %d, %s, %v", jid, items, told, err)
	}
	s.PutUser(User{JID: juliet().JID, Items: 3}, true, nil)
	s.sync()
	if err := errors.Join(s.db.checkpoint(true), s.Err()); err != nil {
		t.Error(err)
	}
}

// wantError wants an error that names the file.
func wantError(t *testing.T, err, want error, path string) {
	t.Helper()
	if !errors.Is(err, want) || !strings.Contains(err.Error(), path) {
		t.Errorf("got the error %v, want %v of %s", err, want, path)
	}
}

// What cannot be opened is left as it is.
func TestCannotBeOpened(t *testing.T) {
	write := func(data string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	execute := func(statements string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			pool, err := sql.Open("sqlite3", "file:"+path+"?_pragma=journal_mode(delete)")
			if err != nil {
				t.Fatal(err)
			}
			_, err = pool.Exec(statements)
			if err = errors.Join(err, pool.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	damage := func(f func(data []byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			s := open(t, path)
			for n := range 200 {
				s.PutUser(User{JID: fmt.Sprint("user", n), Roster: noise(n, 1000)}, true, nil)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			write(string(f(data)))(t, path)
		}
	}
	const page = 4096
	bolt := make([]byte, 4*page)
	binary.NativeEndian.PutUint32(bolt[16:], boltMagic)
	for _, test := range []struct {
		name    string
		prepare func(t *testing.T, path string)
		want    error
	}{
		{"a text", write("people's contacts\n"), errNotOurs},
		{"a long text", write(strings.Repeat("people's contacts\n", 10000)), errNotOurs},
		{"a directory", func(t *testing.T, path string) { os.Mkdir(path, 0o700) }, errNotOurs},
		{"another program's database", execute("CREATE TABLE contacts (name text)"), errNotOurs},
		{"of an earlier rosterd", func(t *testing.T, path string) {
			write(string(bolt))(t, path)
			write("rosterdj")(t, path+"-journal.00000001")
		}, errEarlier},
		{"a newer format", func(t *testing.T, path string) {
			open(t, path).Close()
			execute("PRAGMA user_version = 3")(t, path)
		}, ErrNewer},
		{"a missing table", func(t *testing.T, path string) {
			open(t, path).Close()
			execute("DROP TABLE marks")(t, path)
		}, ErrDamaged},
		{"the header only", damage(func(data []byte) []byte { return data[:100] }), ErrDamaged},
		{"half a page", damage(func(data []byte) []byte { return data[:page/2] }), ErrDamaged},
		{"half of it", damage(func(data []byte) []byte { return data[:len(data)/2/page*page] }), ErrDamaged},
		{"truncated in a page", damage(func(data []byte) []byte { return data[:2*page+100] }), ErrDamaged},
		{"garbage in the first page", damage(func(data []byte) []byte {
			copy(data[100:page], noise(1, page))
			return data
		}), ErrDamaged},
		{"zeros in all other pages", damage(func(data []byte) []byte {
			clear(data[page:])
			return data
		}), ErrDamaged},
		{"garbage in all other pages", damage(func(data []byte) []byte {
			copy(data[page:], noise(1, len(data)))
			return data
		}), ErrDamaged},
		{"damage after a kill", func(t *testing.T, path string) {
			p := start(t, path, "open", "put k old")
			p.kill()
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			copy(data[100:page], noise(1, page))
			write(string(data))(t, path)
		}, ErrDamaged},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := newPath(t)
			test.prepare(t, path)
			before := contents(t, path)
			s, err := Open(path, Options{})
			if err == nil {
				s.Close()
			}
			wantError(t, err, test.want, path)
			if err != nil && strings.Contains(err.Error(), "contacts") {
				t.Errorf("the error has what is in the file: %v", err)
			}
			if after := contents(t, path); !slices.Equal(after, before) {
				t.Error("the files have changed")
			}
		})
	}
}

// What is empty is a store that is new.
func TestEmptyFile(t *testing.T) {
	path := newPath(t)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := opened(t, path)
	defer func() { s.Close() }()
	s.PutUser(juliet(), true, nil)
	s.again()
	s.want(juliet())
}

// A file of any content is opened, or refused with an error that names it.
func FuzzOpen(f *testing.F) {
	path := filepath.Join(f.TempDir(), "rosterd.db")
	s := open(f, path)
	s.PutUser(juliet(), true, nil)
	s.PutResource(Resource{JID: "juliet@example.org/balcony", Connected: true}, false)
	s.Mark("juliet@example.org", "why")
	s.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(0, []byte(nil), len(whole))
	f.Add(0, []byte("garbage"), 7)
	f.Add(100, []byte{0xff, 0xff}, len(whole))
	f.Add(4096, make([]byte, 4096), len(whole))
	f.Fuzz(func(t *testing.T, at int, garbage []byte, size int) {
		data := slices.Clone(whole)
		if at >= 0 && at < len(data) {
			copy(data[at:], garbage)
		}
		data = data[:max(0, min(size, len(data)))]
		path := filepath.Join(t.TempDir(), "rosterd.db")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		defer time.AfterFunc(patience, func() { panic("it does not return") }).Stop()
		s, err := Open(path, Options{})
		if err == nil {
			var u User
			if u, err = s.User("juliet@example.org"); err == nil && u.Roster != nil && !slices.Equal(u.Roster, juliet().Roster) {
				t.Errorf("the roster is another: %q", u.Roster)
			}
			for _, err := range []error{
				s.Resources(func(Resource) error { return nil }),
				s.Marks(func(_, _ string, _ time.Time) error { return nil }),
			} {
				if err != nil && !strings.Contains(err.Error(), path) {
					t.Errorf("%v", err)
				}
			}
			s.PutUser(juliet(), true, nil)
			s.DeleteUser("romeo@example.net")
			if closed := s.Close(); err == nil {
				err = closed
			}
		}
		if err != nil && !strings.Contains(err.Error(), path) {
			t.Errorf("%v", err)
		}
	})
}

// contents are the names and the contents of all files of a store.
func contents(t *testing.T, path string) []string {
	paths, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, path := range paths {
		if strings.HasSuffix(path, "-shm") {
			continue // SQLite's index of the log, which is made of it
		}
		data, _ := os.ReadFile(path)
		all = append(all, path, string(data))
	}
	return all
}

func TestNoDirectory(t *testing.T) {
	path := filepath.Join(filepath.Dir(newPath(t)), "missing", "rosterd.db")
	_, err := Open(path, Options{})
	if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "there is no directory") {
		t.Errorf("got the error %v", err)
	}
}

func TestPermissionDenied(t *testing.T) {
	for _, test := range []struct {
		name    string
		prepare func(path string) error
	}{
		{"to make a file", func(path string) error { return os.Chmod(filepath.Dir(path), 0o555) }},
		{"to read the file", func(path string) error { return os.WriteFile(path, nil, 0o000) }},
		{"to write the file", func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o444), os.Chmod(path, 0o444))
		}},
		{"to make a log", func(path string) error {
			d, err := Open(path, Options{})
			if err != nil {
				return err
			}
			return errors.Join(d.Close(), os.Chmod(path, 0o666), os.Chmod(filepath.Dir(path), 0o555))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := newPath(t)
			dir := filepath.Dir(path)
			if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755), test.prepare(path)); err != nil {
				t.Fatal(err)
			}
			defer os.Chmod(dir, 0o700)
			p := start(t, path)
			if os.Getuid() == 0 {
				p.do("nobody") // root is denied nothing
			}
			if _, failed := p.try("open"); !strings.Contains(failed, path) || !strings.Contains(failed, syscall.EACCES.Error()) {
				t.Errorf("open: %q", failed)
			}
		})
	}
}

func TestModeOfTheFiles(t *testing.T) {
	path := newPath(t)
	s := opened(t, path)
	defer s.Close()
	s.PutUser(juliet(), true, nil)
	s.sync()
	paths, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	if len(paths) != 3 {
		t.Errorf("files %q, want the store, its log and its index", paths)
	}
	for _, path := range paths {
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

func TestLinkToTheFile(t *testing.T) {
	path := newPath(t)
	open(t, path).Close()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	s := open(t, link)
	if _, err := os.Lstat(path + "-shm"); err != nil {
		t.Error(err)
	}
	s.Close()
	if paths, _ := filepath.Glob(link + "*"); len(paths) != 1 {
		t.Errorf("files %q", paths)
	}
}

func TestCleanStopLeavesOneFile(t *testing.T) {
	path := newPath(t)
	for range 2 {
		p := start(t, path, "open", "put k old")
		p.kill()
		s := open(t, path)
		s.PutUser(juliet(), true, nil)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if paths, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); len(paths) != 1 {
			t.Errorf("files %q", paths)
		}
	}
}

// However long it is written without a pause, the log stays small.
func TestLogIsBounded(t *testing.T) {
	path := newPath(t)
	s := opened(t, path)
	defer s.Close()
	largest, written := int64(0), int64(0)
	roster := noise(1, 50000)
	for n := 0; written < 12*maxLog*4096/4; n++ {
		for k := range 50 {
			s.PutUser(User{JID: fmt.Sprint("user", (n*50+k)%1000), Roster: roster}, true, nil)
			written += int64(len(roster))
		}
		s.sync()
		if info, err := os.Stat(path + "-wal"); err == nil {
			largest = max(largest, info.Size())
		}
	}
	t.Logf("%d MiB were written, the log had %d MiB at most", written>>20, largest>>20)
	if largest > 3*maxLog*4096 || largest < 1<<20 {
		t.Errorf("the log had %d bytes", largest)
	}
}

// Damage in the middle of the file is an error of who reads or writes there.
func TestDamageFoundLater(t *testing.T) {
	path := newPath(t)
	s := open(t, path)
	for n := range 200 {
		s.PutUser(User{JID: fmt.Sprintf("user%03d", n), Version: fmt.Sprint(n), Roster: noise(n, 1000)}, true, nil)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const page = 4096
	opened, found, read := 0, 0, 0
	for seed := range 40 {
		data := slices.Clone(whole)
		switch at := page + int(binary.BigEndian.Uint32(noise(seed+1, 9)[5:]))%(len(data)-2*page); seed % 4 {
		case 0:
			copy(data[at:], noise(seed, page))
		case 1:
			clear(data[at/page*page : at/page*page+page])
		case 2:
			for k := range 20 {
				data[at+k*50] ^= 1 << (k % 8) // single bits
			}
		case 3:
			copy(data[at/page*page:], noise(seed, 32)) // the header of a page
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(path, Options{})
		if err != nil {
			found++
			wantError(t, err, ErrDamaged, path)
			continue
		}
		opened++
		for n := range 200 {
			u, err := s.User(fmt.Sprintf("user%03d", n))
			if err != nil {
				found++
				wantError(t, err, ErrDamaged, path)
			} else if u.JID != "" && u.Roster != nil {
				if read++; u.Version != fmt.Sprint(n) || !slices.Equal(u.Roster, noise(n, 1000)) {
					t.Fatalf("seed %d: user%03d has what is another's", seed, n)
				}
			}
		}
		for n := range 200 {
			s.PutUser(User{JID: fmt.Sprintf("user%03d", n)}, true, nil)
		}
		if err := s.Close(); err != nil {
			wantError(t, err, ErrDamaged, path)
		}
	}
	if opened < 5 || found < 30 || read < 1000 {
		t.Errorf("damage was found %d times, %d of 40 files could be opened, %d users read: this tests little", found, opened, read)
	}
}
