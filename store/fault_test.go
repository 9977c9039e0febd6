package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"rosterd/internal/leak"
)

func newPath(t *testing.T) string {
	leak.Check(t)
	return filepath.Join(t.TempDir(), "rosterd.db")
}

func TestKilled(t *testing.T) {
	path := newPath(t)
	p := start(t, path)
	p.do("open")
	p.do("put written old")
	p.do("note written 1")
	p.do("put deleted old")
	p.do("wait written")
	p.do("note noted 1")
	p.do("note noted 2")
	p.do("note written 2")
	before := time.Now()
	p.kill()

	s := &state{open(t, path), t, path}
	defer s.Close()
	s.want(Users, "written", "old", "1", "2")
	s.want(Users, "deleted", "old")
	s.want(Users, "noted", "none", "1", "2")
	if ended := s.Ended(); ended.After(before.Add(time.Second)) || before.Sub(ended) > beatAfter+patience {
		t.Errorf("ended %v, want about %v", ended, before)
	}
	if got := s.noted(Users); !slices.Equal(got, []string{`noted: ["1" "2"]`, `written: ["1" "2"]`}) {
		t.Errorf("noted: %q", got)
	}
}

// What is lost with a kill is the records of the last second, and then their
// keys have what they had before, notes included.
func TestKilledBeforeARecordIsWritten(t *testing.T) {
	path := newPath(t)
	p := start(t, path)
	p.do("open")
	p.do("put k old")
	p.do("note k 1")
	p.do("close")
	p = start(t, path)
	p.do("open")
	p.do("put k new")
	p.do("note k 2")
	p.kill()
	s := &state{open(t, path), t, path}
	defer s.Close()
	e, err := s.Get(Users, "k")
	if err != nil {
		t.Fatal(err)
	}
	// The machine may have been so slow that it is written.
	if got := show(e); got != show(entry("old", "1", "2")) && got != show(entry("new", "2")) {
		t.Errorf("got %s", got)
	}
}

// Whenever it is killed, there is a record, and all notes that came after it.
func TestKilledAtAnyTime(t *testing.T) {
	path := newPath(t)
	for round := range 5 {
		p := start(t, path)
		p.do("open")
		fmt.Fprintf(p.in, "churn round%d\n", round)
		last := -1
		for begun := time.Now(); time.Since(begun) < time.Duration(round)*450*time.Millisecond; last++ {
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
		d := open(t, path)
		e, err := d.Get(Users, fmt.Sprint("round", round))
		if err != nil {
			t.Fatal(err)
		}
		next := 0
		if e.Record != nil {
			n, err := strconv.Atoi(string(e.Record))
			if err != nil {
				t.Fatal(err)
			}
			next = n + 1
		}
		t.Logf("noted %d, the record has %d", last+1, next)
		for _, note := range e.Notes {
			if !strings.HasPrefix(string(note), fmt.Sprint(next, " ")) {
				t.Fatalf("note %.20q, want %d", note, next)
			}
			next++
		}
		if next <= last {
			t.Errorf("the last note is %d, want %d", next-1, last)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDiskFull(t *testing.T) {
	path := newPath(t)
	p := start(t, path)
	p.do("open")
	p.do("put k old")
	p.do("limit 40000")
	p.do("fill user")
	p.do("note k 1")
	if said := p.do("wait error"); !strings.Contains(said, path) {
		t.Errorf("the error does not name the file: %s", said)
	}
	p.do("put k new")
	p.do("note k 2")
	p.do("wait counted 8") // it is tried again, and fails again
	p.do("limit 0")
	p.do("wait well")
	p.do("wait written")
	log := p.do("log")
	count, text, _ := strings.Cut(log, " ")
	if n, _ := strconv.Atoi(count); n < 8 {
		t.Errorf("%s errors were counted", count)
	}
	for _, what := range []string{whatRecords, whatNotes} { // once each, however often it is tried
		if n := strings.Count(text, "what="+what); n != 2 || strings.Count(text, "again\\\" what="+what) != 1 {
			t.Errorf("%d lines of %s in the log: %s", n, what, text)
		}
	}
	p.kill() // nothing waits any more

	s := &state{open(t, path), t, path}
	defer s.Close()
	s.want(Users, "k", "new", "2")
	for n := range 200 {
		s.want(Users, fmt.Sprint("user", n), string(noise(n, 5000)), string(noise(n, 500)))
	}
}

func TestDiskFullAtClose(t *testing.T) {
	path := newPath(t)
	p := start(t, path)
	p.do("open")
	p.do("put k old")
	p.do("note k 1")
	p.do("limit 40000")
	p.do("fill user")
	if _, failed := p.try("close"); !strings.Contains(failed, path) {
		t.Errorf("close: %q", failed)
	}
	s := &state{open(t, path), t, path}
	defer s.Close()
	if e, err := s.Get(Users, "k"); err != nil || len(e.Notes) != 1 {
		t.Errorf("%s, %v", show(e), err)
	}
}

func TestDiskFullAtStart(t *testing.T) {
	t.Run("of a new file", func(t *testing.T) {
		path := newPath(t)
		p := start(t, path)
		p.do("limit 100")
		if _, failed := p.try("open"); !strings.Contains(failed, path) || !strings.Contains(failed, "too large") {
			t.Errorf("open: %q", failed)
		}
		if left, _ := filepath.Glob(path + "*"); len(left) != 0 {
			t.Errorf("left behind: %q", left)
		}
	})
	t.Run("of an old file", func(t *testing.T) {
		path := newPath(t)
		p := start(t, path)
		p.do("open")
		p.do("note k 1")
		p.kill()
		p = start(t, path)
		p.do("limit 20")
		p.do("open")
		p.do("note k 2")
		p.do("wait error")
		p.do("limit 0")
		p.do("wait well")
		p.kill()
		s := &state{open(t, path), t, path}
		s.want(Users, "k", "none", "1", "2")
	})
}

func TestLocked(t *testing.T) {
	path := newPath(t)
	d := open(t, path)
	d.Put(Users, "k", []byte("a"))
	_, err := Open(path, Options{})
	wantError(t, err, errLocked, path)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, path).Close()
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
	update := func(f func(tx *bbolt.Tx) error) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			db, err := bbolt.Open(path, 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(db.Update(f), db.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	journal := func(change func(segment []byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			p := start(t, path)
			p.do("open")
			for n := range 10 {
				p.do("note k some-note-%d", n)
			}
			p.kill()
			segments, _ := filepath.Glob(path + journalInfix + "*")
			if len(segments) != 1 {
				t.Fatalf("segments %q", segments)
			}
			data, err := os.ReadFile(segments[0])
			if err != nil {
				t.Fatal(err)
			}
			write(string(change(data)))(t, segments[0])
		}
	}
	damage := func(f func(t *testing.T, data []byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			d := open(t, path)
			for n := range 200 {
				d.Put(Users, fmt.Sprint("user", n), noise(n, 1000))
			}
			d.Close()
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			write(string(f(t, data)))(t, path)
		}
	}
	for _, test := range []struct {
		name    string
		prepare func(t *testing.T, path string)
		want    error
	}{
		{"a text", write("people's contacts\n"), errNotOurs},
		{"a long text", write(strings.Repeat("people's contacts\n", 10000)), errNotOurs},
		{"a directory", func(t *testing.T, path string) { os.Mkdir(path, 0o700) }, errNotOurs},
		{"another program's database", update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("mail")); return err }), errNotOurs},
		{"another program's meta", update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket(bucketMeta); return err }), errNotOurs},
		{"a newer format", func(t *testing.T, path string) {
			open(t, path).Close()
			update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyFormat, []byte("2")) })(t, path)
		}, errNewer},
		{"a format that is none", func(t *testing.T, path string) {
			open(t, path).Close()
			update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyFormat, []byte("x")) })(t, path)
		}, errDamaged},
		{"both meta pages", damage(func(t *testing.T, data []byte) []byte {
			data[magicAt+20] ^= 1
			data[os.Getpagesize()+magicAt+20] ^= 1
			return data
		}), errDamaged},
		{"the first page only", damage(func(t *testing.T, data []byte) []byte { return data[:os.Getpagesize()] }), errDamaged},
		{"half a page", damage(func(t *testing.T, data []byte) []byte { return data[:100] }), errDamaged},
		{"the meta pages only", damage(func(t *testing.T, data []byte) []byte { return data[:2*os.Getpagesize()] }), errDamaged},
		{"nothing but the meta pages", damage(func(t *testing.T, data []byte) []byte {
			clear(data[2*os.Getpagesize():])
			return data
		}), errDamaged},
		{"garbage in all other pages", damage(func(t *testing.T, data []byte) []byte {
			copy(data[2*os.Getpagesize():], noise(1, len(data)))
			return data
		}), errDamaged},
		{"a journal of a newer version", journal(func(b []byte) []byte {
			header := append([]byte(segmentMagic), 0, 0, 0, 2)
			return append(binary.BigEndian.AppendUint32(header, crc32.Checksum(header, castagnoli)), b[len(header)+4:]...)
		}), errNewer},
		{"damage in the journal's header", journal(func(b []byte) []byte { b[9] ^= 1; return b }), errDamaged},
		{"damage in the journal", journal(func(b []byte) []byte { b[len(b)/2] ^= 1; return b }), errDamaged},
		{"damage in a length in the journal", journal(func(b []byte) []byte { b[segmentHeader] = 0x10; return b }), errDamaged},
		{"no journal", journal(func(b []byte) []byte { return []byte("notes of mine") }), errNotOurs},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := newPath(t)
			test.prepare(t, path)
			before := contents(t, path)
			d, err := Open(path, Options{})
			if err == nil {
				d.Close()
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

// contents are the names and the contents of all files of a store.
func contents(t *testing.T, path string) []string {
	paths, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, path := range paths {
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
		{"to make a journal", func(path string) error {
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
	d := open(t, path)
	defer d.Close()
	d.Note(Users, "k", []byte("1"))
	paths, _ := filepath.Glob(path + "*")
	if len(paths) != 2 {
		t.Errorf("files %q, want the store and a journal", paths)
	}
	for _, path := range paths {
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

// Damage in the middle of the file is an error of who reads or writes there.
func TestDamageFoundLater(t *testing.T) {
	path := newPath(t)
	d := open(t, path)
	for n := range 200 {
		d.Put(Users, fmt.Sprintf("user%03d", n), noise(n, 1000))
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	opened, found := 0, 0
	for seed := range 40 {
		data := slices.Clone(whole)
		switch at := 2*page + int(binary.BigEndian.Uint32(noise(seed+1, 9)[5:]))%(len(data)-3*page); seed % 4 {
		case 0:
			copy(data[at:], noise(seed, page))
		case 1:
			clear(data[at/page*page : at/page*page+page])
		case 2:
			data = data[:at]
		case 3:
			copy(data[at/page*page:], noise(seed, 32)) // the header of a page
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := Open(path, Options{})
		if err != nil {
			found++
			wantError(t, err, errDamaged, path)
			continue
		}
		opened++
		for n := range 200 {
			e, err := d.Get(Users, fmt.Sprintf("user%03d", n))
			if err != nil {
				found++
				wantError(t, err, errDamaged, path)
			} else if e.Record != nil && string(e.Record) != string(noise(n, 1000)) {
				t.Fatalf("seed %d: user%03d has another's record", seed, n)
			}
		}
		if err := d.Each(Users, func(string, Entry) error { return nil }); err != nil {
			wantError(t, err, errDamaged, path)
		}
		for n := range 200 {
			d.Put(Users, fmt.Sprintf("user%03d", n), []byte("new"))
		}
		if err := d.Close(); err != nil {
			wantError(t, err, errDamaged, path)
		}
	}
	if opened < 5 || found < 30 {
		t.Errorf("damage was found %d times, %d of 40 files could be opened: this tests little", found, opened)
	}
}
