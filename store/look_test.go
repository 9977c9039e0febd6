package store

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What is in the file can be read while it is written, after an orderly stop and after a
// kill, and nothing is left beside it that was not there.
func TestLook(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rosterd.db")
	if _, err := Look(path); err == nil || !strings.Contains(err.Error(), "there is no state file "+path) {
		t.Errorf("no file: %v", err)
	}
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.PutUser(User{JID: "juliet@example.org", Version: "1", Items: 1, Roster: []byte("r")}, true, nil)
	s.PutServerRoster(ServerRoster{JID: "juliet@example.org", Items: 7}, nil)
	s.PutResource(Resource{JID: "juliet@example.org/balcony", Connected: true}, false)
	s.Mark("juliet@example.org", "the backend answered 500")
	s.Reject("juliet@example.org", "v")
	if why, since, err := s.MarkOf("juliet@example.org"); why != "the backend answered 500" || since.IsZero() || err != nil {
		t.Errorf("marked: %q since %v, %v", why, since, err)
	}
	written := make(chan struct{})
	s.Sync(func() { close(written) })
	<-written
	look := func(when string) {
		t.Helper()
		before := names(t, filepath.Dir(path))
		r, err := Look(path)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		u, err := r.User("juliet@example.org")
		if err != nil || u.Version != "1" || string(u.Roster) != "r" {
			t.Errorf("%s: %+v, %v", when, u, err)
		}
		if u, err := r.User("romeo@example.org"); err != nil || u.JID != "" {
			t.Errorf("%s: somebody else: %+v, %v", when, u, err)
		}
		if kept, err := r.ServerRoster("juliet@example.org"); err != nil || kept.Items != 7 {
			t.Errorf("%s: %+v, %v", when, kept, err)
		}
		if why, since, err := r.MarkOf("juliet@example.org"); why != "the backend answered 500" || since.IsZero() || err != nil {
			t.Errorf("%s: marked: %q since %v, %v", when, why, since, err)
		}
		n := 0
		if err := r.Resources(func(Resource) error { n++; return nil }); err != nil || n != 1 {
			t.Errorf("%s: %d resources, %v", when, n, err)
		}
		if err := r.Close(); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		if after := names(t, filepath.Dir(path)); after != before {
			t.Errorf("%s: files %s, before %s", when, after, before)
		}
	}
	look("while it is written")
	s.PutUser(User{JID: "nurse@example.org"}, false, nil)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	look("after an orderly stop")
	if got := names(t, filepath.Dir(path)); got != "rosterd.db" {
		t.Errorf("files: %s", got)
	}
	c := start(t, path, "open")
	c.do("put juliet@example.org 1")
	c.kill()
	before := names(t, filepath.Dir(path))
	r, err := Look(path)
	if err != nil {
		t.Fatal(err)
	}
	u, err := r.User("juliet@example.org")
	if err != nil || string(u.Roster) != "1" {
		t.Errorf("after a kill: %+v, %v", u, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if after := names(t, filepath.Dir(path)); after != before || before == "rosterd.db" {
		t.Errorf("after a kill: files %s, before %s", after, before)
	}
	if s, err = Open(path, Options{}); err != nil { // it can go on
		t.Fatal(err)
	}
	rejected := ""
	if err := s.Rejections(func(user, version string) error { rejected += user + " " + version; return nil }); err != nil || rejected != "juliet@example.org v" {
		t.Errorf("rejected: %q, %v", rejected, err)
	}
	s.Unreject("juliet@example.org")
	if why, _, err := s.MarkOf("juliet@example.org"); why == "" || err != nil {
		t.Errorf("the mark is lost: %v", err)
	}
	s.Unmark("juliet@example.org")
	if why, _, err := s.MarkOf("juliet@example.org"); why != "" || err != nil {
		t.Errorf("still marked: %q, %v", why, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// Whoever looks keeps nobody from starting.
func TestLookIsNoLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rosterd.db")
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := Look(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if s, err = Open(path, Options{}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	s.PutUser(User{JID: "juliet@example.org", Fetched: time.Now()}, false, func() { close(done) })
	<-done
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return strings.Join(list, " ")
}
