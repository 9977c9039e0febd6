package store

import (
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

// What clients were told while what is kept could not be read is put together with that by
// whoever can: the end, or the instance that it is handed to. A record that is put is newer.
func TestUnread(t *testing.T) {
	at := func(minute int) time.Time { return time.Date(2026, 11, 29, 12, minute, 0, 0, time.UTC) }
	kept := User{JID: "juliet@example.org", Roster: []byte("r"), Items: 1, Version: "v", Epoch: 3, Missed: []string{"a@example.org"},
		Told: []Told{{Resource: "sure", Asked: at(1)}, {Resource: "unsure", Doubt: true, Since: at(2)}, {Resource: "other"}}}
	told := User{JID: kept.JID, Epoch: 7, Missed: []string{"a@example.org", "b@example.org"},
		Told: []Told{{Resource: "sure", Versioned: true, Doubt: true, Since: at(5)}, {Resource: "unsure", Doubt: true, Since: at(5)}, {Resource: "new", Doubt: true, Since: at(5)}}}
	want := kept
	want.Outdated, want.Epoch, want.Missed = true, 8, []string{"a@example.org", "b@example.org"}
	want.Told = []Told{{Resource: "sure", Versioned: true, Doubt: true, Since: at(5)}, {Resource: "unsure", Doubt: true, Since: at(2)},
		{Resource: "other"}, {Resource: "new", Doubt: true, Since: at(5)}}
	has := func(t *testing.T, s *Store, want User) {
		t.Helper()
		got, err := s.User(kept.JID)
		if got.Unsure = false; err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got\n%+v, %v\nwant\n%+v", got, err, want)
		}
	}
	open := func(t *testing.T, path string) *Store {
		t.Helper()
		s, err := Open(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for name, test := range map[string]struct {
		do   func(s *Store)
		want User
	}{
		"at the end":     {func(s *Store) { s.PutUnread(told) }, want},
		"read meanwhile": {func(s *Store) { s.PutUnread(told); s.PutUser(kept, false, nil) }, kept},
		"several times":  {func(s *Store) { s.PutUnread(User{JID: kept.JID}); s.PutUnread(told) }, want},
		"nothing is kept": {func(s *Store) {
			s.DeleteUser(kept.JID)
			s.PutUnread(User{JID: kept.JID, Missed: []string{"a@example.org"}})
		}, User{JID: kept.JID, Outdated: true, Epoch: 1, Missed: []string{"a@example.org"}}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state")
			s := open(t, path)
			s.PutUser(kept, true, nil)
			test.do(s)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, path)
			has(t, s, test.want)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
	t.Run("handed over", func(t *testing.T) {
		before, now := open(t, ""), open(t, "")
		now.PutUser(kept, true, nil)
		before.PutUnread(told)
		before.Abandon()
		left, err := before.Unwritten()
		if err == nil {
			err = now.adopt(left)
		}
		if err != nil {
			t.Fatal(err)
		}
		has(t, now, want)
		if err := now.Close(); err != nil {
			t.Error(err)
		}
		if err := before.Close(); err != ErrSuperseded {
			t.Error(err)
		}
	})
}
