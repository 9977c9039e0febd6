package store

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rosterd/internal/leak"
)

// contract is what both stores can do.
type contract interface {
	Get(kind Kind, key string) (Entry, error)
	Put(kind Kind, key string, record []byte)
	Note(kind Kind, key string, note []byte)
	Forgettable(kind Kind, key string, yes bool)
	Each(kind Kind, f func(key string, e Entry) error) error
	Noted(kind Kind, f func(key string, notes [][]byte) error) error
	Ended() time.Time
	Err() error
	Close() error
}

func open(t testing.TB, path string) *Disk {
	t.Helper()
	d, err := Open(path, Options{Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// state is a store under test, in place of which another may go on: the same
// after a restart.
type state struct {
	contract
	t    *testing.T
	path string // "": memory
}

// The contract is tested on each of these, which differ in what happens between
// two steps.
var stores = []struct {
	name string
	open func(t *testing.T) *state
	next func(s *state)
}{
	{"memory", func(t *testing.T) *state { return &state{NewMemory(), t, ""} }, func(*state) {}},
	{"disk", openState, func(*state) {}},
	{"disk, written between steps", openState, func(s *state) { s.flush() }},
	{"disk, opened anew between steps", openState, func(s *state) {
		if err := s.Close(); err != nil {
			s.t.Fatal(err)
		}
		s.contract = open(s.t, s.path)
	}},
}

func openState(t *testing.T) *state {
	path := filepath.Join(t.TempDir(), "rosterd.db")
	return &state{open(t, path), t, path}
}

// flush writes what waits, in the stead of the goroutine that does it.
func (s *state) flush() {
	d := s.contract.(*Disk)
	stopRun(d)
	defer d.goOn()
	if err := d.flush(); err != nil {
		s.t.Fatal(err)
	}
}

// stopRun ends the goroutine that writes, until goOn.
func stopRun(d *Disk) {
	close(d.stop)
	<-d.stopped
	d.stop, d.stopped = make(chan struct{}), make(chan struct{})
}

func (d *Disk) goOn() { go d.run() }

func (s *state) want(kind Kind, key, record string, notes ...string) {
	s.t.Helper()
	e, err := s.Get(kind, key)
	if err != nil {
		s.t.Fatalf("get %c %q: %v", kind, key, err)
	}
	if got := show(e); got != show(entry(record, notes...)) {
		s.t.Fatalf("get %c %q: %s, want %s", kind, key, got, show(entry(record, notes...)))
	}
}

// entry is an Entry; its record is nil if record is "none".
func entry(record string, notes ...string) Entry {
	var e Entry
	if record != "none" {
		e.Record = []byte(record)
	}
	for _, n := range notes {
		e.Notes = append(e.Notes, []byte(n))
	}
	return e
}

func show(e Entry) string {
	if e.Record == nil {
		return fmt.Sprintf("no record, notes %.40q", e.Notes)
	}
	return fmt.Sprintf("record of %d %.40q, notes %.40q", len(e.Record), e.Record, e.Notes)
}

// each is all entries of a kind, by key.
func (s *state) each(kind Kind) []string {
	var all []string
	if err := s.Each(kind, func(key string, e Entry) error {
		all = append(all, key+": "+show(e))
		_, err := s.Get(kind, key) // f may call the store
		s.Note(kind, "of each", nil)
		s.Put(kind, "of each", nil)
		return err
	}); err != nil {
		s.t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

func (s *state) noted(kind Kind) []string {
	var all []string
	if err := s.Noted(kind, func(key string, notes [][]byte) error {
		all = append(all, fmt.Sprintf("%s: %q", key, notes))
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

func TestContract(t *testing.T) {
	long := strings.Repeat("<item jid='juliet@example.org'/>", 1000)
	put := func(record string) func(*state) { return func(s *state) { s.Put(Users, "k", []byte(record)) } }
	note := func(n string) func(*state) { return func(s *state) { s.Note(Users, "k", []byte(n)) } }
	remove := func(s *state) { s.Put(Users, "k", nil) }
	for _, test := range []struct {
		name  string
		steps []func(*state)
		want  Entry
	}{
		{"nothing", nil, entry("none")},
		{"a record", []func(*state){put("a")}, entry("a")},
		{"an empty record", []func(*state){put("")}, entry("")},
		{"a long record", []func(*state){put(long)}, entry(long)},
		{"the second record", []func(*state){put("a"), put("b")}, entry("b")},
		{"a deleted record", []func(*state){put("a"), remove}, entry("none")},
		{"nothing deleted", []func(*state){remove}, entry("none")},
		{"a record after a deletion", []func(*state){put("a"), remove, put("b")}, entry("b")},
		{"notes", []func(*state){note("1"), note("2")}, entry("none", "1", "2")},
		{"the same note twice", []func(*state){note("1"), note("1")}, entry("none", "1", "1")},
		{"an empty note", []func(*state){note("")}, entry("none", "")},
		{"notes after a record", []func(*state){put("a"), note("1"), note("2")}, entry("a", "1", "2")},
		{"a record drops notes", []func(*state){note("1"), put("a")}, entry("a")},
		{"a record drops notes before it", []func(*state){note("1"), put("a"), note("2")}, entry("a", "2")},
		{"a deletion drops notes", []func(*state){put("a"), note("1"), remove}, entry("none")},
		{"a deletion drops old notes", []func(*state){note("1"), put("a"), remove}, entry("none")},
		{"a note after a deletion", []func(*state){put("a"), note("1"), remove, note("2")}, entry("none", "2")},
		{"all at once", []func(*state){note("1"), put("a"), note("2"), put(long), note("3"), note("4")}, entry(long, "3", "4")},
	} {
		for _, store := range stores {
			t.Run(test.name+"/"+store.name, func(t *testing.T) {
				leak.Check(t)
				s := store.open(t)
				defer func() { s.Close() }()
				s.Put(Users, "other", []byte("o"))
				s.Put(Sessions, "k", []byte("s"))
				s.Note(Sessions, "k", []byte("n"))
				for _, step := range test.steps {
					step(s)
					store.next(s)
				}
				want := []string{"k: " + show(test.want), "other: " + show(entry("o"))}
				var wantNoted []string
				if test.want.Empty() {
					want = want[1:]
				}
				if len(test.want.Notes) > 0 {
					wantNoted = []string{fmt.Sprintf("k: %q", test.want.Notes)}
				}
				for range 2 {
					if e, err := s.Get(Users, "k"); err != nil || show(e) != show(test.want) || !bytes.Equal(e.Record, test.want.Record) {
						t.Errorf("got %s, %v, want %s", show(e), err, show(test.want))
					}
					if got := s.each(Users); !slices.Equal(got, want) {
						t.Errorf("each: %q, want %q", got, want)
					}
					if got := s.noted(Users); !slices.Equal(got, wantNoted) {
						t.Errorf("noted: %q, want %q", got, wantNoted)
					}
					s.want(Users, "other", "o")
					s.want(Sessions, "k", "s", "n")
					if err := s.Err(); err != nil {
						t.Error(err)
					}
					store.next(s)
				}
			})
		}
	}
}

func TestKeysAndKinds(t *testing.T) {
	for _, store := range stores {
		t.Run(store.name, func(t *testing.T) {
			s := store.open(t)
			defer func() { s.Close() }()
			for _, key := range []string{"", strings.Repeat("x", MaxKey+1)} {
				s.Put(Users, key, []byte("a"))
				s.Note(Users, key, []byte("1"))
				s.Forgettable(Users, key, true)
				s.want(Users, key, "none")
			}
			keys := []string{strings.Repeat("x", MaxKey), "\x00", "k\x00", "k", "\xff\xff"}
			for _, kind := range []Kind{Users, Sessions, 0, 255} {
				for n, key := range keys {
					s.Put(kind, key, fmt.Append(nil, kind, n))
					s.Note(kind, key, fmt.Append(nil, n, kind))
				}
			}
			store.next(s)
			for _, kind := range []Kind{Users, Sessions, 0, 255} {
				for n, key := range keys {
					s.want(kind, key, fmt.Sprint(kind, n), fmt.Sprint(n, kind))
				}
				if got := len(s.each(kind)); got != len(keys) {
					t.Errorf("each of %d: %d entries, want %d", kind, got, len(keys))
				}
			}
		})
	}
}

func TestEachAndNotedStopAtAnError(t *testing.T) {
	for _, store := range stores {
		t.Run(store.name, func(t *testing.T) {
			s := store.open(t)
			defer func() { s.Close() }()
			for n := range 10 {
				s.Put(Users, fmt.Sprint("user", n), []byte("a"))
				s.Note(Users, fmt.Sprint("user", n), []byte("1"))
			}
			store.next(s)
			calls, enough := 0, errors.New("enough")
			if err := s.Each(Users, func(string, Entry) error { calls++; return enough }); err != enough || calls != 1 {
				t.Errorf("each: %v after %d calls", err, calls)
			}
			if err := s.Noted(Users, func(string, [][]byte) error { calls++; return enough }); err != enough || calls != 2 {
				t.Errorf("noted: %v after %d calls", err, calls-1)
			}
		})
	}
}

func TestEachOfMany(t *testing.T) {
	const many = 2*maxBatch + 10
	for _, store := range stores {
		t.Run(store.name, func(t *testing.T) {
			s := store.open(t)
			defer func() { s.Close() }()
			for n := range many {
				s.Put(Users, fmt.Sprint("user", n), fmt.Append(nil, "record ", n))
			}
			store.next(s)
			s.Put(Users, "user1", nil)
			s.Put(Users, "user2", []byte("new"))
			s.Note(Users, "user3", []byte("1"))
			got := make(map[string]string)
			if err := s.Each(Users, func(key string, e Entry) error {
				if _, twice := got[key]; twice {
					t.Errorf("%s came twice", key)
				}
				got[key] = show(e)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if len(got) != many-1 || got["user2"] != show(entry("new")) || got["user3"] != show(entry("record 3", "1")) ||
				got["user2000"] != show(entry("record 2000")) {
				t.Errorf("%d entries, user2 %s, user3 %s, user2000 %s", len(got), got["user2"], got["user3"], got["user2000"])
			}
		})
	}
}

func TestClosed(t *testing.T) {
	for _, store := range stores {
		t.Run(store.name, func(t *testing.T) {
			leak.Check(t)
			s := store.open(t)
			s.Put(Users, "k", []byte("a"))
			for range 2 {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			s.Put(Users, "k", []byte("b"))
			s.Note(Users, "k", []byte("1"))
			s.Forgettable(Users, "k", true)
			if _, err := s.Get(Users, "k"); !errors.Is(err, ErrClosed) {
				t.Errorf("get: %v", err)
			}
			if err := s.Each(Users, func(string, Entry) error { return nil }); !errors.Is(err, ErrClosed) {
				t.Errorf("each: %v", err)
			}
			if err := s.Noted(Users, func(string, [][]byte) error { return nil }); !errors.Is(err, ErrClosed) {
				t.Errorf("noted: %v", err)
			}
			if s.path != "" {
				s.contract = open(t, s.path)
				s.want(Users, "k", "a")
				s.Close()
			}
		})
	}
}

// Many goroutines write and read, each key by one. What a reader sees of a key
// is a record with the notes of this record, never of another.
func TestConcurrentUse(t *testing.T) {
	const writers, rounds = 4, 300
	for _, store := range stores[:2] {
		t.Run(store.name, func(t *testing.T) {
			leak.Check(t)
			s := store.open(t)
			done := make(chan struct{})
			var writing, reading sync.WaitGroup
			for w := range writers {
				key := fmt.Sprint("user", w)
				writing.Go(func() {
					for n := range rounds {
						mark := fmt.Sprint(n)
						if n%7 == 6 {
							mark = "none"
							s.Put(Users, key, nil)
						} else {
							s.Put(Users, key, []byte(mark+strings.Repeat(" ", n)))
						}
						s.Note(Users, key, []byte(mark))
						s.Note(Users, key, []byte(mark))
						s.Forgettable(Users, key, n%2 == 0)
					}
				})
				reading.Go(func() {
					for {
						select {
						case <-done:
							return
						default:
						}
						e, err := s.Get(Users, key)
						if err != nil {
							t.Errorf("get: %v", err)
							return
						}
						mark := strings.TrimSpace(string(e.Record))
						if e.Record == nil {
							mark = "none"
						}
						for _, note := range e.Notes {
							if string(note) != mark {
								t.Errorf("record %s with a note of %s", mark, note)
								return
							}
						}
					}
				})
			}
			if d, ok := s.contract.(*Disk); ok {
				stopRun(d) // in its place, without a pause:
				go func() {
					defer close(d.stopped)
					for {
						select {
						case <-d.stop:
							return
						default:
						}
						if err := d.flush(); err != nil {
							t.Errorf("flush: %v", err)
						}
					}
				}()
			}
			reading.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
						s.each(Users)
					}
				}
			})
			writing.Wait()
			close(done)
			reading.Wait()
			for w := range writers {
				last := fmt.Sprint(rounds - 1)
				s.want(Users, fmt.Sprint("user", w), last+strings.Repeat(" ", rounds-1), last, last)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestMemoryForgets(t *testing.T) {
	m := NewMemory()
	defer m.Close()
	m.max = 64 << 10
	junk := noise(1, 4<<10) // nothing that can be compressed
	known := func(key string) bool {
		e, err := m.Get(Users, key)
		if err != nil {
			t.Fatal(err)
		}
		return !e.Empty()
	}
	m.Put(Users, "connected", junk)
	m.Put(Users, "again", junk)
	m.Forgettable(Users, "again", true)
	m.Forgettable(Users, "again", false)
	for n := range 20 {
		key := fmt.Sprint("user", n)
		m.Put(Users, key, junk)
		m.Note(Users, key, []byte("1"))
		m.Forgettable(Users, key, true)
		if n == 10 {
			m.Note(Users, "user0", []byte("2")) // is the newest now
		}
	}
	for key, want := range map[string]bool{"connected": true, "again": true, "user0": true, "user1": false, "user5": false, "user6": true, "user19": true} {
		if known(key) != want {
			t.Errorf("%s is known: %v, want %v", key, !want, want)
		}
	}
	size := 0
	for e := m.forgettable.Front(); e != nil; e = e.Next() {
		i := e.Value.(id)
		size += m.entries[i].size(i)
	}
	if m.size != size || size > m.max || len(m.entries) != 2+m.forgettable.Len() {
		t.Errorf("counted %d bytes of %d, %d entries, %d forgettable", m.size, size, len(m.entries), m.forgettable.Len())
	}
	for n := range 20 {
		m.Put(Users, fmt.Sprint("user", n), nil)
	}
	if m.size != 0 || m.notes != 0 || m.forgettable.Len() != 0 || len(m.entries) != 2 {
		t.Errorf("after all: %d bytes, %d of notes, %d forgettable, %d entries", m.size, m.notes, m.forgettable.Len(), len(m.entries))
	}
}
