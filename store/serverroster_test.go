package store

import (
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"
)

// hers is the server's roster of juliet.
func hers() ServerRoster {
	return ServerRoster{JID: "juliet@example.org", Version: "v1", Items: 200, Checked: moment0, Writing: true, Residue: "r1", Roster: noise(3, 3000)}
}

func (s *state) wantServer(jid string, want ServerRoster) {
	s.t.Helper()
	got, err := s.ServerRoster(jid)
	if len(got.Roster) == 0 {
		got.Roster = nil
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		s.t.Fatalf("got  %.500v, %v\nwant %.500v", fmt.Sprintf("%+v", got), err, fmt.Sprintf("%+v", want))
	}
}

func TestServerRoster(t *testing.T) {
	other := ServerRoster{JID: "juliet@example.org", Version: "v2", Checked: moment0.Add(time.Hour)}
	put := func(r ServerRoster) func(*state) { return func(s *state) { s.PutServerRoster(r, nil) } }
	forget := func(s *state) { s.DeleteUser("juliet@example.org") }
	for _, test := range []struct {
		name  string
		steps []func(*state)
		want  ServerRoster
	}{
		{"nothing", nil, ServerRoster{}},
		{"all", []func(*state){put(hers())}, hers()},
		{"replaced", []func(*state){put(hers()), put(other)}, other},
		{"beside the user", []func(*state){put(hers()), func(s *state) { s.PutUser(juliet(), true, nil) }}, hers()},
		{"forgotten", []func(*state){put(hers()), forget}, ServerRoster{}},
		{"forgotten and back", []func(*state){put(hers()), forget, put(other)}, other},
	} {
		for _, store := range stores {
			t.Run(test.name+"/"+store.name, func(t *testing.T) {
				s := store.open(t)
				defer func() { s.Close() }()
				for _, step := range test.steps {
					step(s)
					store.next(s)
				}
				for range 2 {
					s.wantServer("juliet@example.org", test.want)
					store.next(s)
				}
			})
		}
	}
}

// The store finds whose server roster may differ, also of users whose was never written, a
// few at a time.
func TestServerRostersBehind(t *testing.T) {
	for _, store := range stores {
		t.Run(store.name, func(t *testing.T) {
			s := store.open(t)
			defer func() { s.Close() }()
			row := func(jid, version string, checked time.Time, writing bool) {
				s.PutServerRoster(ServerRoster{JID: jid, Version: version, Checked: checked, Writing: writing}, nil)
			}
			for _, jid := range []string{"a", "b", "c", "d", "e", "f"} {
				s.PutUser(User{JID: jid, Version: "v1"}, false, nil)
			}
			s.PutUser(User{JID: "nothing is known"}, false, nil)
			row("a", "v1", moment0, false)
			row("b", "v0", moment0, false)
			row("c", "v1", moment0, true)
			row("d", "v1", moment0.Add(-time.Nanosecond), false)
			row("e", "", moment0, false)
			row("no user", "v1", moment0, true)
			store.next(s)
			s.sync()
			for _, test := range []struct {
				before time.Time
				want   []string
			}{
				{time.Time{}, []string{"b", "c", "e", "f"}},
				{moment0, []string{"b", "c", "d", "e", "f"}},
				{moment0.Add(1), []string{"a", "b", "c", "d", "e", "f"}},
			} {
				for limit := 1; limit < 10; limit++ {
					var all []string
					for after, calls := "", 0; ; calls++ {
						users, next, err := s.ServerRostersBehind(test.before, after, limit)
						if err != nil || len(users) > limit || calls > 8 {
							t.Fatalf("%q, %v", users, err)
						}
						if all = append(all, users...); next == "" {
							break
						}
						after = next
					}
					if !slices.Equal(all, test.want) {
						t.Errorf("checked before %v, %d at a time: %q, want %q", test.before, limit, all, test.want)
					}
				}
			}
		})
	}
}

// What was said to be written survives a kill.
func TestServerRosterKilled(t *testing.T) {
	path := newPath(t)
	p := start(t, path, "open", "server juliet@example.org v7")
	p.kill()
	s := opened(t, path)
	defer func() { s.Close() }()
	s.wantServer("juliet@example.org", ServerRoster{JID: "juliet@example.org", Version: "v7", Writing: true, Roster: []byte("v7")})
}

// alter executes SQL in a file that no store has open.
func alter(t *testing.T, path, statements string) {
	t.Helper()
	pool, err := sql.Open("sqlite3", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = pool.Exec(statements)
	if err = errors.Join(err, pool.Close()); err != nil {
		t.Fatal(err)
	}
}

// A roster that is not the one that was put is an error, never another roster.
func TestServerRosterDamaged(t *testing.T) {
	for name, statement := range map[string]string{
		"zeros":     "UPDATE server_rosters SET roster = zeroblob(3000)",
		"shorter":   "UPDATE server_rosters SET roster = substr(roster, 1, 2999)",
		"another's": "UPDATE server_rosters SET jid = 'romeo@example.net' WHERE jid = 'juliet@example.org'",
	} {
		t.Run(name, func(t *testing.T) {
			s := openState(t)
			s.PutServerRoster(hers(), nil)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			alter(t, s.path, statement)
			s.Store = open(t, s.path)
			defer func() { s.Close() }()
			for _, jid := range []string{"juliet@example.org", "romeo@example.net"} {
				if r, err := s.ServerRoster(jid); r.JID != "" || err != nil && !errors.Is(err, ErrDamaged) || err == nil && name != "another's" && jid == "juliet@example.org" {
					t.Errorf("%s: %+v, %v", jid, r.Version, err)
				}
			}
			s.PutServerRoster(hers(), nil)
			s.sync()
			s.wantServer("juliet@example.org", hers())
		})
	}
}

// A file of version 1 has no such table yet, and all else stays.
func TestVersion1(t *testing.T) {
	s := openState(t)
	s.PutUser(juliet(), true, nil)
	s.Mark("juliet@example.org", "why")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	alter(t, s.path, "DROP TABLE server_rosters; PRAGMA user_version = 1")
	for range 2 {
		s.Store = open(t, s.path)
		s.want(juliet())
		if all := s.all(); len(all) != 1 {
			t.Errorf("%q", all)
		}
		s.PutServerRoster(hers(), nil)
		s.again()
		s.wantServer("juliet@example.org", hers())
		s.Close()
	}
	// A damaged one is left as it is.
	alter(t, s.path, "DROP TABLE server_rosters; DROP TABLE marks; PRAGMA user_version = 1")
	before := contents(t, s.path)
	if _, err := Open(s.path, Options{}); !errors.Is(err, ErrDamaged) {
		t.Errorf("%v", err)
	}
	if !slices.Equal(contents(t, s.path), before) {
		t.Error("the files have changed")
	}
}
