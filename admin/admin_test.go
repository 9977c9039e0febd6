package admin

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rosterd/internal/leak"
	"rosterd/jid"
	"rosterd/store"
	"rosterd/users"
)

// fake is a manager, sessions and a store.
type fake struct {
	decided []string
	err     error
}

func (f *fake) View(_ context.Context, user jid.JID) (users.View, error) {
	return users.View{User: user.String()}, f.err
}
func (f *fake) Held() []users.Held {
	return []users.Held{{User: "juliet@example.org", Removed: 3, Of: 4}}
}
func (f *fake) Approve(_ context.Context, user jid.JID) error {
	f.decided = append(f.decided, "approve "+user.String())
	return f.err
}
func (f *fake) Reject(_ context.Context, user jid.JID) error {
	f.decided = append(f.decided, "reject "+user.String())
	return f.err
}
func (f *fake) Of(user jid.JID) []store.Resource {
	return []store.Resource{{JID: user.String() + "/a b", Connected: true, Interested: true}}
}
func (f *fake) User(name string) (store.User, error) {
	return store.User{JID: name, Version: "1"}, nil
}
func (f *fake) ServerRoster(name string) (store.ServerRoster, error) {
	return store.ServerRoster{JID: name, Version: "1", Items: 4}, nil
}

// serve serves f on a socket until the end of the test.
func serve(t *testing.T, f *fake) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("the socket: %v, %v", info, err)
	}
	server := &http.Server{Handler: Handler(f, f, f)}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		<-ended
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket is left: %v", err)
		}
	})
	return NewClient(path)
}

func TestClient(t *testing.T) {
	leak.Check(t)
	f := &fake{}
	c := serve(t, f)
	juliet, err := jid.Parse("juliet+x@example.org")
	if err != nil {
		t.Fatal(err)
	}
	u, err := c.User(t.Context(), juliet)
	if err != nil || u.View.User != "juliet+x@example.org" || u.Source != Running || len(u.Sessions) != 1 || u.Sessions[0].Resource != "a b" || u.ServerRoster == nil || !u.ServerRoster.InStep {
		t.Errorf("%+v, %v", u, err)
	}
	if held, err := c.Held(t.Context()); err != nil || len(held) != 1 || held[0].Of != 4 {
		t.Errorf("%+v, %v", held, err)
	}
	if err := errors.Join(c.Approve(t.Context(), juliet), c.Reject(t.Context(), juliet)); err != nil {
		t.Error(err)
	}
	if got := strings.Join(f.decided, ", "); got != "approve juliet+x@example.org, reject juliet+x@example.org" {
		t.Errorf("decided: %s", got)
	}
	f.err = users.ErrNothingHeld
	if err := c.Approve(t.Context(), juliet); err == nil || err.Error() != users.ErrNothingHeld.Error() {
		t.Errorf("nothing held: %v", err)
	}
}

func TestNobodyListens(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, "left") // as by a kill
	l, err := Listen(left)
	if err != nil {
		t.Fatal(err)
	}
	l.(interface{ SetUnlinkOnClose(bool) }).SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "none"), left} {
		if _, err := NewClient(path).Held(t.Context()); !errors.Is(err, ErrNotRunning) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if l, err = Listen(left); err != nil { // it is replaced
		t.Fatal(err)
	}
	if _, err := Listen(left); err == nil || !strings.Contains(err.Error(), "another process listens") {
		t.Errorf("taken from who listens: %v", err)
	}
	if c, err := net.Dial("unix", left); err != nil {
		t.Errorf("who listens is not there any more: %v", err)
	} else {
		c.Close()
	}
	l.Close()

	file := filepath.Join(dir, "file") // somebody's
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(file); err == nil {
		t.Error("a file was replaced")
	}
	if _, err := Listen(filepath.Join(dir, strings.Repeat("x", 100))); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Error(err)
	}
}
