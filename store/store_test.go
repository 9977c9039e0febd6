package store

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rosterd/internal/bubble"
	"rosterd/internal/leak"
)

func open(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(path, Options{Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// state is a store under test, in place of which another may go on: the same after a
// restart.
type state struct {
	*Store
	t    *testing.T
	path string // "": memory, or PostgreSQL

	reopen func() *Store // after it was closed; nil: it is gone then
}

// The contract is tested on each of these, which differ in what happens between
// two steps.
var stores = []struct {
	name string
	open func(t *testing.T) *state
	next func(s *state)
}{
	{"memory", openMemory, func(*state) {}},
	{"memory, after a while", openMemory, func(s *state) { s.sync() }},
	{"disk", openState, func(*state) {}},
	{"disk, written between steps", openState, func(s *state) { s.sync() }},
	{"disk, opened anew between steps", openState, func(s *state) { s.again() }},
	{"postgres", openPostgres, func(*state) {}},
	{"postgres, written between steps", openPostgres, func(s *state) { s.sync() }},
	{"postgres, opened anew between steps", openPostgres, func(s *state) { s.again() }},
}

func openMemory(t *testing.T) *state { return &state{Store: open(t, ""), t: t} }

func openState(t *testing.T) *state {
	return opened(t, filepath.Join(t.TempDir(), "rosterd.db"))
}

// opened is the store in a file.
func opened(t *testing.T, path string) *state {
	return &state{Store: open(t, path), t: t, path: path, reopen: func() *Store { return open(t, path) }}
}

// openPostgres opens the store of a pair of its own.
func openPostgres(t *testing.T) *state {
	t.Helper()
	p := newPair(t, fmt.Sprintf("contacts%d.example.org", pairs.Add(1)))
	var l *Lease
	t.Cleanup(func() { l.Release(false) })
	open := func() *Store {
		if l != nil {
			l.Release(true)
		}
		var s *Store
		l, s = become(t, p, false)
		return s
	}
	return &state{Store: open(), t: t, reopen: open}
}

// sync waits until all is written.
func (s *state) sync() {
	done := make(chan struct{})
	s.Sync(func() { close(done) })
	<-done
}

// again is a restart.
func (s *state) again() {
	s.t.Helper()
	if err := s.Close(); err != nil {
		s.t.Fatal(err)
	}
	s.Store = s.reopen()
}

func (s *state) want(want User) {
	s.t.Helper()
	got, err := s.User(want.JID)
	if err != nil {
		s.t.Fatalf("%s: %v", want.JID, err)
	}
	if got.Unsure = false; !reflect.DeepEqual(got, want) { // see TestUnsure
		s.t.Fatalf("got  %.500v\nwant %.500v", fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want))
	}
}

// none wants nothing to be kept of a user.
func (s *state) none(jid string) {
	s.t.Helper()
	if got, err := s.User(jid); err != nil || !reflect.DeepEqual(got, User{}) {
		s.t.Fatalf("%s: got %.200v, %v", jid, got, err)
	}
}

// all are the resources and marks.
func (s *state) all() (all []string) {
	s.t.Helper()
	calls := func() { s.Unmark("nobody") } // is allowed
	if err := s.Resources(func(r Resource) error {
		calls()
		all = append(all, fmt.Sprintf("%+v", r))
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
	if err := s.Marks(func(user, why string, since time.Time) error {
		calls()
		if age := time.Since(since); age < -time.Second || age > time.Minute {
			s.t.Errorf("marked %v ago", age)
		}
		all = append(all, user+": "+why)
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

var moment0 = time.Date(2026, 11, 28, 22, 0, 0, int(123*time.Millisecond), time.UTC)

// juliet is a user of whom there is all.
func juliet() User {
	return User{
		JID: "juliet@example.org", Roster: noise(1, 3000), Items: 200, Version: "v1", Fetched: moment0, Validator: "\"etag\" \x00'é",
		NotFound: true, Outdated: true, Epoch: 1<<63 + 5, Answered: moment0.Add(time.Second),
		Told: []Told{
			{Resource: "balcony", Versioned: true, Doubt: true, Asked: moment0.Add(2 * time.Second), Since: moment0.Add(3 * time.Second)},
			{Resource: "\"chamber\" é\u2028<>&"},
		},
		Missed: []string{"romeo@example.net", "nurse@example.org"},
		Former: []Former{{Contact: "paris@example.net", Removed: moment0.Add(4 * time.Second)}},
	}
}

func TestUser(t *testing.T) {
	with := func(f func(u *User)) User {
		u := juliet()
		f(&u)
		return u
	}
	other := with(func(u *User) { *u = User{JID: u.JID, Version: "v2", Epoch: 2} })
	otherRoster := with(func(u *User) { u.Roster = noise(2, 100) })
	put := func(u User, withRoster bool) func(*state) { return func(s *state) { s.PutUser(u, withRoster, nil) } }
	remove := func(s *state) { s.DeleteUser("juliet@example.org") }
	for _, test := range []struct {
		name  string
		steps []func(*state)
		want  User // JID "": none
	}{
		{"nothing", nil, User{}},
		{"nothing deleted", []func(*state){remove}, User{}},
		{"all", []func(*state){put(juliet(), true)}, juliet()},
		{"replaced", []func(*state){put(juliet(), true), put(otherRoster, true)}, otherRoster},
		{"without a roster", []func(*state){put(juliet(), false)}, with(func(u *User) { u.Roster = nil })},
		{"the roster stays", []func(*state){put(juliet(), true), put(other, false)}, with(func(u *User) { other := other; other.Roster = u.Roster; *u = other })},
		{"the roster stays for long", []func(*state){put(juliet(), true), put(other, false), put(otherRoster, false), put(juliet(), false)}, juliet()},
		{"a new roster", []func(*state){put(juliet(), true), put(other, false), put(otherRoster, true), put(juliet(), false)},
			with(func(u *User) { u.Roster = otherRoster.Roster })},
		{"no roster any more", []func(*state){put(juliet(), true), put(other, true)}, other},
		{"deleted", []func(*state){put(juliet(), true), remove}, User{}},
		{"deleted and back", []func(*state){put(juliet(), true), remove, put(other, false)}, other},
		{"deleted and back again", []func(*state){put(juliet(), true), remove, put(other, false), remove, put(juliet(), false), put(otherRoster, true)}, otherRoster},
		{"and deleted", []func(*state){put(juliet(), true), remove, put(other, true), remove}, User{}},
	} {
		for _, store := range stores {
			t.Run(test.name+"/"+store.name, func(t *testing.T) {
				leak.Check(t)
				s := store.open(t)
				defer func() { s.Close() }()
				romeo := User{JID: "romeo@example.net", Roster: []byte{1}}
				s.PutUser(romeo, true, nil)
				for _, step := range test.steps {
					step(s)
					store.next(s)
				}
				for range 2 {
					if test.want.JID == "" {
						s.none("juliet@example.org")
					} else {
						s.want(test.want)
					}
					s.want(romeo)
					if err := s.Err(); err != nil {
						t.Error(err)
					}
					store.next(s)
				}
			})
		}
	}
}

// What is put is kept as it was then, and what is read is the reader's.
func TestUsersShareNothing(t *testing.T) {
	s := openState(t)
	u := juliet()
	s.PutUser(u, true, nil)
	u.Told[0].Doubt, u.Missed[0], u.Former[0].Contact = false, "tybalt@example.org", "tybalt@example.org"
	got, _ := s.User(u.JID)
	got.Told[0].Doubt, got.Missed[0], got.Former[0].Contact = false, "tybalt@example.org", "tybalt@example.org"
	s.want(juliet())
	s.again()
	s.want(juliet())
}

func TestResourcesAndMarks(t *testing.T) {
	balcony := Resource{JID: "juliet@example.org/balcony", Connected: true, Interested: true, Available: true, Stamped: "JULIET@example.org", Left: moment0}
	chamber := Resource{JID: "juliet@example.org/chamber/of // hers é"}
	for _, store := range stores {
		t.Run(store.name, func(t *testing.T) {
			s := store.open(t)
			defer func() { s.Close() }()
			want := func(all ...any) {
				t.Helper()
				store.next(s)
				var texts []string
				for _, one := range all {
					if r, is := one.(Resource); is {
						one = fmt.Sprintf("%+v", r)
					}
					texts = append(texts, one.(string))
				}
				if slices.Sort(texts); !slices.Equal(s.all(), texts) {
					t.Fatalf("got %q, want %q", s.all(), texts)
				}
			}
			want()
			s.PutResource(balcony, true)
			s.PutResource(chamber, false)
			s.Mark("romeo@example.net", "no route to host")
			want(balcony, chamber, "romeo@example.net: no route to host")
			s.PutResource(chamber, false)
			s.DeleteResource(balcony.JID)
			s.DeleteResource("nurse@example.org/x")
			s.Mark("romeo@example.net", "timeout")
			s.Mark("nurse@example.org", "")
			want(chamber, "romeo@example.net: timeout", "nurse@example.org: ")
			s.Unmark("romeo@example.net")
			balcony.Interested = false
			s.PutResource(balcony, false)
			want(balcony, chamber, "nurse@example.org: ")
			s.Unmark("romeo@example.net")
			s.Unmark("nurse@example.org")
			s.DeleteResource(balcony.JID)
			s.DeleteResource(chamber.JID)
			want()
		})
	}
}

// A mark is as old as the first one.
func TestMarkedSince(t *testing.T) {
	for _, store := range stores {
		t.Run(store.name, func(t *testing.T) {
			s := store.open(t)
			defer func() { s.Close() }()
			since := func() (at time.Time) {
				if err := s.Marks(func(_, _ string, since time.Time) error { at = since; return nil }); err != nil {
					t.Fatal(err)
				}
				return at
			}
			s.Mark("romeo@example.net", "a")
			first := since()
			store.next(s)
			s.Mark("romeo@example.net", "b")
			s.sync()
			if got := since(); !got.Equal(first) {
				t.Errorf("marked %v, then %v", first, got)
			}
			s.Unmark("romeo@example.net")
			s.Mark("romeo@example.net", "c")
			s.sync()
			if got := since(); !got.After(first) {
				t.Errorf("marked %v, then anew %v", first, got)
			}
		})
	}
}

func TestEachStopsAtAnError(t *testing.T) {
	for _, store := range stores {
		t.Run(store.name, func(t *testing.T) {
			s := store.open(t)
			defer func() { s.Close() }()
			for n := range 10 {
				s.PutResource(Resource{JID: fmt.Sprint("juliet@example.org/", n)}, false)
				s.Mark(fmt.Sprint("user", n), "")
			}
			store.next(s)
			calls, enough := 0, errors.New("enough")
			if err := s.Resources(func(Resource) error { calls++; return enough }); err != enough || calls != 1 {
				t.Errorf("resources: %v after %d calls", err, calls)
			}
			if err := s.Marks(func(_, _ string, _ time.Time) error { calls++; return enough }); err != enough || calls != 2 {
				t.Errorf("marks: %v after %d calls", err, calls-1)
			}
		})
	}
}

func TestMany(t *testing.T) {
	const many = 2*maxBatch + 10
	for _, store := range stores {
		t.Run(store.name, func(t *testing.T) {
			s := store.open(t)
			defer func() { s.Close() }()
			for n := range many {
				s.PutUser(User{JID: fmt.Sprint("user", n), Items: n}, false, nil)
				s.PutResource(Resource{JID: fmt.Sprintf("user%d/r", n), Stamped: fmt.Sprint(n)}, false)
			}
			store.next(s)
			s.DeleteResource("user1/r")
			s.PutResource(Resource{JID: "user2/r", Stamped: "new"}, false)
			got := make(map[string]string)
			if err := s.Resources(func(r Resource) error {
				if _, twice := got[r.JID]; twice {
					t.Errorf("%s came twice", r.JID)
				}
				got[r.JID] = r.Stamped
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if len(got) != many-1 || got["user2/r"] != "new" || got["user2000/r"] != "2000" {
				t.Errorf("%d resources, user2 %q, user2000 %q", len(got), got["user2/r"], got["user2000/r"])
			}
			for n := range many {
				s.want(User{JID: fmt.Sprint("user", n), Items: n})
			}
		})
	}
}

func TestClosed(t *testing.T) {
	for _, store := range stores {
		t.Run(store.name, func(t *testing.T) {
			leak.Check(t)
			s := store.open(t)
			s.PutUser(juliet(), true, nil)
			for range 2 {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			done := make(chan struct{}, 2)
			s.PutUser(User{JID: juliet().JID}, true, func() { done <- struct{}{} })
			s.Sync(func() { done <- struct{}{} })
			<-done
			<-done
			s.PutResource(Resource{JID: "juliet@example.org/x"}, true)
			s.Mark("juliet@example.org", "")
			if _, err := s.User("juliet@example.org"); !errors.Is(err, ErrClosed) {
				t.Errorf("user: %v", err)
			}
			if err := s.Resources(func(Resource) error { return nil }); !errors.Is(err, ErrClosed) {
				t.Errorf("resources: %v", err)
			}
			if err := s.Marks(func(_, _ string, _ time.Time) error { return nil }); !errors.Is(err, ErrClosed) {
				t.Errorf("marks: %v", err)
			}
			if s.reopen != nil {
				s.Store = s.reopen()
				s.want(juliet())
				s.Close()
			}
		})
	}
}

// Who reads while it is closed gets what is kept, or that it is closed.
func TestClosedWhileRead(t *testing.T) {
	for _, store := range slices.Concat(stores[:3], stores[5:6]) {
		t.Run(store.name, func(t *testing.T) {
			leak.Check(t)
			s := store.open(t)
			s.PutUser(juliet(), true, nil)
			s.sync()
			var reading, begun sync.WaitGroup
			begun.Add(20)
			for range 20 {
				reading.Go(func() {
					for first := true; ; first = false {
						u, err := s.User(juliet().JID)
						if first {
							begun.Done()
						}
						if errors.Is(err, ErrClosed) {
							return
						}
						if err != nil || u.Version != juliet().Version {
							t.Errorf("%+v, %v", u, err)
							return
						}
					}
				})
			}
			begun.Wait()
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			reading.Wait()
			if files, _ := filepath.Glob(s.path + "-*"); s.path != "" && len(files) > 0 {
				t.Errorf("left behind: %q", files)
			}
		})
	}
}

// Many goroutines write and read, each user by one. What a reader sees is what one
// of the puts said, with the roster that it had.
func TestConcurrentUse(t *testing.T) {
	const writers, rounds = 4, 300
	for _, store := range slices.Concat(stores[:3], stores[5:6]) {
		t.Run(store.name, func(t *testing.T) {
			leak.Check(t)
			s := store.open(t)
			ended := make(chan struct{})
			var writing, reading sync.WaitGroup
			for w := range writers {
				jid := fmt.Sprint("user", w)
				writing.Go(func() {
					for n := range rounds {
						if n%7 == 6 {
							s.DeleteUser(jid)
						}
						u := User{JID: jid, Items: n, Epoch: uint64(n / 3), Missed: []string{fmt.Sprint(n)}, Roster: fmt.Append(nil, n/3)}
						if n%3 > 0 && n%7 < 6 { // the same roster as before
							u.Roster = nil
							s.PutUser(u, false, nil)
							continue
						}
						done := make(chan struct{})
						s.PutUser(u, true, func() { close(done) })
						if n%2 == 0 {
							<-done
						}
						s.PutResource(Resource{JID: jid + "/r"}, n%2 == 0)
					}
				})
				reading.Go(func() {
					for last := 0; ; {
						select {
						case <-ended:
							return
						default:
						}
						u, err := s.User(jid)
						if err != nil {
							t.Errorf("user: %v", err)
							return
						}
						if u.JID == "" {
							continue
						}
						if u.Missed[0] != fmt.Sprint(u.Items) || string(u.Roster) != fmt.Sprint(u.Epoch) || u.Items < last {
							t.Errorf("after %d: %+v with the roster %s", last, u, u.Roster)
							return
						}
						last = u.Items
					}
				})
			}
			reading.Go(func() {
				for {
					select {
					case <-ended:
						return
					default:
						s.all()
					}
				}
			})
			writing.Wait()
			close(ended)
			reading.Wait()
			for w := range writers {
				s.want(User{JID: fmt.Sprint("user", w), Items: rounds - 1, Epoch: (rounds - 1) / 3, Missed: []string{fmt.Sprint(rounds - 1)},
					Roster: fmt.Append(nil, (rounds-1)/3)})
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWrittenWithinASecond(t *testing.T) {
	path := newPath(t)
	bubble.Test(t, func(t *testing.T) {
		s := open(t, path)
		defer s.Close()
		for round := range 3 {
			s.PutUser(User{JID: "k", Items: round}, false, nil)
			time.Sleep(300 * time.Millisecond)
			s.PutUser(User{JID: "k", Items: 100 + round}, false, nil) // does not put it off
			time.Sleep(700 * time.Millisecond)
			synctest.Wait()
			if u, err := s.db.user("k"); err != nil || u.Items != 100+round {
				t.Errorf("round %d: %d in the file, %v", round, u.Items, err)
			}
		}
	})
}

// Who waits does not wait for the others, and what was put before is written then.
func TestDoneIsCalledAtOnce(t *testing.T) {
	path := newPath(t)
	bubble.Test(t, func(t *testing.T) {
		s := open(t, path)
		defer s.Close()
		for n := range 3 * maxBatch {
			s.PutUser(User{JID: fmt.Sprint("user", n), Items: n}, false, nil)
		}
		begun := time.Now()
		var order []string
		done := make(chan struct{})
		s.PutUser(User{JID: "k"}, false, func() {
			order = append(order, "put")
			if u, err := s.db.user(fmt.Sprint("user", 3*maxBatch-1)); err != nil || u.JID == "" {
				t.Errorf("what was put before is not written: %v", err)
			}
		})
		s.PutUser(User{JID: "k", Items: 1}, false, nil)
		s.Sync(func() { order = append(order, "sync"); close(done) })
		<-done
		if u, err := s.db.user("k"); err != nil || u.JID == "" {
			t.Errorf("it is not written: %v", err)
		}
		if waited := time.Since(begun); waited > 0 || !slices.Equal(order, []string{"put", "sync"}) {
			t.Errorf("after %v: %q", waited, order)
		}
		s.PutResource(Resource{JID: "k/r"}, true)
		synctest.Wait()
		n := 0
		if s.db.each(resources, func(string, any) error { n++; return nil }); n != 1 || time.Since(begun) > 0 {
			t.Errorf("a resource is not written soon")
		}
		s.Sync(nil)
	})
}

// Of a user who is put many times, little is written.
func TestPutsCoalesce(t *testing.T) {
	path := newPath(t)
	bubble.Test(t, func(t *testing.T) {
		s := open(t, path)
		defer s.Close()
		time.Sleep(time.Second) // until it is written that it is alive
		synctest.Wait()
		for n := range 1000 {
			s.PutUser(User{JID: "k", Items: n, Roster: noise(n, 1000)}, n == 500, nil)
		}
		if batch := s.queue.take(); len(batch) != 1 || batch[0].value.(User).Items != 999 || !batch[0].roster {
			t.Errorf("%d changes", len(batch))
		} else {
			s.queue.failed(batch)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if u, err := s.db.user("k"); err != nil || u.Items != 999 || !slices.Equal(u.Roster, noise(500, 1000)) {
			t.Errorf("%+v, %v", u, err)
		}
		if n := waiting(s); n != 0 || len(s.queue.order) != 0 {
			t.Errorf("%d wait", n)
		}
	})
}

func TestUnsure(t *testing.T) {
	path := newPath(t)
	bubble.Test(t, func(t *testing.T) {
		s := open(t, path)
		if !s.Ended().IsZero() {
			t.Errorf("a new store ended %v", s.Ended())
		}
		put := func(jid string, ago time.Duration) {
			s.PutUser(User{JID: jid, Answered: time.Now().Add(-ago)}, false, nil)
		}
		put("early", time.Hour)
		put("never", 0)
		s.PutUser(User{JID: "never"}, false, nil)
		time.Sleep(time.Hour)
		put("61 s", 61*time.Second)
		put("59 s", 59*time.Second)
		put("now", 0)
		ended := time.Now()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		s = open(t, path)
		if late := s.Ended().Sub(ended); late < 0 || late > time.Microsecond {
			t.Errorf("ended %v, want %v", s.Ended(), ended)
		}
		for jid, want := range map[string]bool{"early": false, "never": false, "61 s": false, "59 s": true, "now": true} {
			if u, err := s.User(jid); err != nil || u.JID != jid || u.Unsure != want {
				t.Errorf("%s: %+v, %v", jid, u, err)
			}
		}
		s.PutUser(User{JID: "now", Answered: time.Now()}, false, nil) // is sure
		if u, _ := s.User("now"); u.Unsure {
			t.Error("still unsure")
		}
		s.Close()
		s = open(t, path)
		defer s.Close()
		if u, _ := s.User("59 s"); !u.Unsure {
			t.Error("not unsure any more")
		}
	})
}

func TestAliveIsWritten(t *testing.T) {
	path := newPath(t)
	bubble.Test(t, func(t *testing.T) {
		s := open(t, path)
		defer s.Close()
		begun := time.Now()
		time.Sleep(time.Hour + time.Second)
		synctest.Wait()
		if alive, err := s.db.lastAlive(); err != nil || alive.Sub(begun.Add(time.Hour)).Abs() > time.Second {
			t.Errorf("alive %v, %v, want %v", alive, err, begun.Add(time.Hour))
		}
	})
}

func TestForgetAfter(t *testing.T) {
	const hour = time.Hour
	for _, test := range []struct{ name, path string }{{"memory", ""}, {"disk", newPath(t)}} {
		t.Run(test.name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				s, err := Open(test.path, Options{ForgetAfter: 9 * hour})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { s.Close() }()
				for _, jid := range []string{"gone", "connected", "left", "busy"} {
					s.PutUser(User{JID: jid, Roster: []byte{1}}, true, nil)
					s.Mark(jid, "why")
				}
				s.PutResource(Resource{JID: "connected/r", Connected: true}, false)
				s.PutResource(Resource{JID: "left/r", Connected: true}, false)
				want := func(all ...string) {
					t.Helper()
					time.Sleep(2 * time.Second)
					synctest.Wait()
					var got []string
					for _, jid := range []string{"busy", "connected", "gone", "left"} {
						u, err := s.User(jid)
						if err != nil {
							t.Fatal(err)
						}
						if u.JID != "" {
							got = append(got, jid)
						}
					}
					var marked []string
					if err := s.Marks(func(user, _ string, _ time.Time) error { marked = append(marked, user); return nil }); err != nil {
						t.Fatal(err)
					}
					if slices.Sort(marked); !slices.Equal(got, all) || !slices.Equal(marked, all) {
						t.Errorf("kept %q, marked %q, want %q", got, marked, all)
					}
				}
				time.Sleep(8*hour + 58*time.Minute)
				s.PutUser(User{JID: "busy"}, false, nil)
				s.DeleteResource("left/r")
				want("busy", "connected", "gone", "left")
				time.Sleep(2 * hour)
				want("busy", "connected", "left")
				time.Sleep(8*hour + 58*time.Minute)
				want("connected")
				if test.path == "" {
					return
				}
				var n int
				if err := s.db.query(func(r row) error { return r(&n) }, "SELECT count(*) FROM rosters"); err != nil || n != 1 {
					t.Errorf("%d rosters, %v", n, err)
				}
				s.DeleteResource("connected/r")
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * hour)
				if s, err = Open(test.path, Options{ForgetAfter: 9 * hour}); err != nil {
					t.Fatal(err)
				}
				want() // at once
			})
		})
	}
}

// In memory, what is kept of users who are gone is bounded: the longest gone go.
func TestMemoryForgets(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s := open(t, "")
		defer s.Close()
		put := func(jid string) {
			s.PutUser(User{JID: jid, Roster: make([]byte, 2<<20)}, true, nil)
			time.Sleep(time.Second)
		}
		known := func(jid string) bool {
			u, err := s.User(jid)
			if err != nil {
				t.Fatal(err)
			}
			return u.JID != ""
		}
		put("connected")
		s.PutResource(Resource{JID: "connected/r"}, false)
		put("again")
		s.PutResource(Resource{JID: "again/r"}, false)
		for n := range 30 {
			put(fmt.Sprint("user", n))
		}
		s.DeleteResource("again/r") // is the newest now
		s.PutUser(User{JID: "user0"}, false, nil)
		for n := range 20 {
			put(fmt.Sprint("user", 30+n))
		}
		time.Sleep(shrinkEvery + time.Second)
		synctest.Wait()
		for jid, want := range map[string]bool{"connected": true, "again": true, "user0": true, "user1": false, "user18": false, "user21": true, "user49": true} {
			if known(jid) != want {
				t.Errorf("%s is known: %v", jid, !want)
			}
		}
		gone, err := s.db.gone(time.Time{}, 0)
		if n := len(gone); err != nil || n < 30 || n > 32 {
			t.Errorf("%d users are kept who are gone, %v", n, err)
		}
	})
}
