// Package admin is what a person on the machine asks of the rosterd that runs: what it
// knows of a user, and to decide what the removal guard holds. It is HTTP on a Unix socket
// beside the state file, which whoever may write the state file may connect to, and nobody
// else: what is told here is as confidential as the contacts.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"rosterd/jid"
	"rosterd/store"
	"rosterd/users"
)

// Path is the socket beside a state file.
func Path(state string) string { return state + ".sock" }

// User is what is known of a user.
type User struct {
	Source string `json:"source"` // the rosterd that runs, or the state file
	users.View
	Sessions     []Session     `json:"sessions"`
	ServerRoster *ServerRoster `json:"server_roster"` // null: nothing is known of it
}

// The values of User.Source.
const (
	Running   = "the rosterd that runs"
	StateFile = "the state file"
)

// Session is a resource that is connected, as far as the server told.
type Session struct {
	Resource   string `json:"resource"`
	Interested bool   `json:"interested"` // it asked for the roster, and is sent pushes
	Available  bool   `json:"available"`  // its presence was reported
	Stamped    string `json:"stamped"`    // the user's address as the server stamps it; "": as it is
}

// ServerRoster is the server's own roster of the user, as it was read and written.
type ServerRoster struct {
	InStep  bool       `json:"in_step"` // with the last known one
	Items   int        `json:"items"`
	Checked *time.Time `json:"checked"` // when the server was asked for it
	Writing bool       `json:"writing"` // something was on its way to the server
}

// failure is the body of an answer that is none.
type failure struct {
	Error string `json:"error"`
}

// Manager is a users.Manager.
type Manager interface {
	View(ctx context.Context, user jid.JID) (users.View, error)
	Held() []users.Held
	Approve(ctx context.Context, user jid.JID) error
	Reject(ctx context.Context, user jid.JID) error
}

// Sessions is a session.Table.
type Sessions interface {
	Of(user jid.JID) []store.Resource
}

// Store is a store.Store.
type Store interface {
	User(jid string) (store.User, error)
	ServerRoster(jid string) (store.ServerRoster, error)
}

// Handler answers the methods of [Client]. It is safe for concurrent use.
func Handler(m Manager, sessions Sessions, s Store) http.Handler {
	mux := http.NewServeMux()
	named := func(pattern string, answer func(ctx context.Context, user jid.JID) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			user, err := jid.Parse(r.URL.Query().Get("user"))
			if err != nil || !user.IsBare() {
				reply(w, http.StatusBadRequest, failure{"user wants a bare JID"})
				return
			}
			switch value, err := answer(r.Context(), user); {
			case errors.Is(err, users.ErrNothingHeld):
				reply(w, http.StatusNotFound, failure{err.Error()})
			case err != nil:
				reply(w, http.StatusInternalServerError, failure{err.Error()})
			default:
				reply(w, http.StatusOK, value)
			}
		})
	}
	named("GET /user", func(ctx context.Context, user jid.JID) (any, error) {
		view, err := m.View(ctx, user)
		if err != nil {
			return nil, err
		}
		return compose(Running, view, sessions.Of(user), s, user)
	})
	named("POST /approve", func(ctx context.Context, user jid.JID) (any, error) { return struct{}{}, m.Approve(ctx, user) })
	named("POST /reject", func(ctx context.Context, user jid.JID) (any, error) { return struct{}{}, m.Reject(ctx, user) })
	mux.HandleFunc("GET /held", func(w http.ResponseWriter, _ *http.Request) {
		held := m.Held()
		if held == nil {
			held = []users.Held{}
		}
		reply(w, http.StatusOK, held)
	})
	return mux
}

func reply(w http.ResponseWriter, code int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(value) // fails only if the caller has gone
}

// compose adds to a view what others know.
func compose(source string, view users.View, sessions []store.Resource, s Store, user jid.JID) (User, error) {
	u := User{Source: source, View: view, Sessions: []Session{}}
	for _, r := range sessions {
		if full, err := jid.ParseStamped(r.JID); err == nil && r.Connected {
			u.Sessions = append(u.Sessions, Session{full.Resource(), r.Interested, r.Available, r.Stamped})
		}
	}
	kept, err := s.ServerRoster(user.String())
	if err != nil || kept.JID == "" {
		return u, err
	}
	u.ServerRoster = &ServerRoster{Items: kept.Items, Writing: kept.Writing}
	if !kept.Checked.IsZero() {
		at := kept.Checked.UTC()
		u.ServerRoster.Checked = &at
	}
	known, err := s.User(user.String())
	u.ServerRoster.InStep = !kept.Writing && kept.Version != "" && kept.Version == known.Version
	return u, err
}

// Look is what a state file has of a user, for when no rosterd runs.
func Look(file string, user jid.JID) (u User, err error) {
	kept, err := store.Look(file)
	if err != nil {
		return User{}, err
	}
	defer func() { err = errors.Join(err, kept.Close()) }()
	view, err := users.ViewKept(kept, user)
	if err != nil {
		return User{}, err
	}
	var sessions []store.Resource
	err = kept.Resources(func(r store.Resource) error {
		if full, err := jid.ParseStamped(r.JID); err == nil && full.Bare() == user {
			sessions = append(sessions, r)
		}
		return nil
	})
	if err != nil {
		return User{}, err
	}
	return compose(StateFile, view, sessions, kept, user)
}

// maxPath is how long the name of a socket may be: sun_path of unix(7), and a NUL.
const maxPath = 107

// Listen makes the socket at path. One that is there is replaced, unless a process listens on
// it: an instance of a pair has no state file, the lock of which would keep others away.
func Listen(path string) (net.Listener, error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("the name of the socket %s is longer than %d bytes", path, maxPath)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		c, err := net.Dial("unix", path)
		if err == nil {
			c.Close()
			return nil, fmt.Errorf("another process listens on the socket %s: each rosterd wants a directory of its own", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		// On Linux this is the mode that bind gives the socket: at no time may others
		// connect to it. Elsewhere it fails, and the mode comes a moment later.
		return c.Control(func(fd uintptr) { _ = syscall.Fchmod(int(fd), 0o600) })
	}}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}
