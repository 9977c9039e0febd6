package store

import (
	"fmt"
	"slices"
	"testing"
)

// Which domains' users are all to be refreshed, and how far that has come, outlasts a restart.
func TestSweeps(t *testing.T) {
	for _, store := range stores {
		t.Run(store.name, func(t *testing.T) {
			s := store.open(t)
			defer func() { s.Close() }()
			want := func(want ...string) {
				t.Helper()
				var all []string
				if err := s.Sweeps(func(domain string, s Sweep) error { all = append(all, fmt.Sprint(domain, s)); return nil }); err != nil {
					t.Error(err)
				}
				if slices.Sort(all); !slices.Equal(all, want) {
					t.Errorf("%q, want %q", all, want)
				}
			}
			s.Reject("juliet@example.org", "v")
			want()
			s.PutSweep("example.org", Sweep{})
			s.PutSweep("example.net", Sweep{After: "juliet@example.net", Again: true})
			store.next(s)
			want("example.net{juliet@example.net true}", "example.org{ false}")
			s.PutSweep("example.org", Sweep{After: "romeo@example.org"})
			s.DeleteSweep("example.net")
			store.next(s)
			want("example.org{romeo@example.org false}")
		})
	}
}

// Users are found of whom a roster is known, a few at a time.
func TestUsersWithRoster(t *testing.T) {
	for _, store := range stores {
		t.Run(store.name, func(t *testing.T) {
			s := store.open(t)
			defer func() { s.Close() }()
			for jid, version := range map[string]string{"a": "v1", "b": "", "c": "v1", "d": "v2", "e": ""} {
				s.PutUser(User{JID: jid, Version: version}, false, nil)
			}
			store.next(s)
			s.sync()
			for limit := 1; limit < 7; limit++ {
				var all []string
				for after, calls := "", 0; calls == 0 || after != ""; calls++ {
					users, next, err := s.UsersWithRoster(after, limit)
					if err != nil || len(users) > limit || calls > 6 {
						t.Fatalf("%q, %v", users, err)
					}
					all, after = append(all, users...), next
				}
				if want := []string{"a", "c", "d"}; !slices.Equal(all, want) {
					t.Errorf("%d at a time: %q, want %q", limit, all, want)
				}
			}
		})
	}
}
