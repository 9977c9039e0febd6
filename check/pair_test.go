package check

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"rosterd/component"
	"rosterd/internal/freeport"
	"rosterd/internal/pgserver"
	"rosterd/metrics"
	"rosterd/refresh"
	"rosterd/store"
)

// Where the database does not say that nobody else is active, nothing connects to the server:
// on ejabberd that would take queries from the active instance.
func TestPair(t *testing.T) {
	database, err := pgserver.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { database.Close() })
	for _, statement := range []string{
		"CREATE ROLE other LOGIN PASSWORD '" + secret + "'", "CREATE DATABASE empty",
		"CREATE DATABASE replica", "ALTER DATABASE replica SET default_transaction_read_only = on",
	} {
		if err := database.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	pooler, err := database.Pooler()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pooler.Close() })
	hold(t, database.URL(), "http://127.0.0.1:1", false)
	own, gone := "http://127.0.0.1:5290", "http://"+freeport.Of(t)
	var heard atomic.Value // what the other one was told
	there := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		heard.Store(r.Method + " " + r.URL.Path + r.Header.Get("Authorization"))
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(there.Close)
	other := there.URL
	held := func(advertise string) string {
		t.Helper()
		name, err := database.Database(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		hold(t, database.At(database.Address(), name), advertise, true)
		return database.At(database.Address(), name)
	}
	for _, tt := range []struct {
		name     string
		url      string
		newer    bool   // the tables are, from then on
		role     string // of the rosterd that runs here; "": none does
		ok       bool
		want     []string // how the complaints begin
		lines    []string
		connects bool // and does the handshake
	}{
		{name: "nobody is active", url: database.URL(), ok: true, lines: []string{"no instance is active", "handshake: connected"}, connects: true},
		{name: "nobody is active, and one runs", url: database.URL(), role: "standby", ok: true, lines: []string{"an instance is about to be connected"}},
		{name: "the other one is active", url: held(other), ok: true, lines: []string{other + " is active since", other + " is connected to it"}},
		{name: "the other one is active, and one runs", url: held(other), role: "standby", ok: true, lines: []string{other + " is connected to it"}},
		{name: "the other one is active, and not reached", url: held(gone), ok: true, want: []string{"warn state.url: "},
			lines: []string{gone + " is active since", "is not reached from here: ", "is refresh.advertise right", gone + " is connected to it"}},
		{name: "this one is active", url: held(own), role: "active", ok: true, lines: []string{"this instance is the active one", "handshake: connected"}},
		{name: "this one is active, as it seems", url: held(own), ok: true, lines: []string{"one with the same refresh.advertise, is connected"}},
		{name: "both have one URL", url: held(own), role: "standby", want: []string{"FAIL refresh.advertise: "}, lines: []string{"each needs its own"}},
		{name: "no database", url: "postgres://rosterd:" + secret + "@" + freeport.Of(t) + "/rosterd", want: []string{"FAIL state.url: "},
			lines: []string{"is PostgreSQL running", "the other instance may be connected"}},
		{name: "no database, and one runs", url: "postgres://rosterd:" + secret + "@" + freeport.Of(t) + "/rosterd", role: "standby", want: []string{"FAIL state.url: "},
			lines: []string{"the other instance may be connected"}},
		{name: "no database, and the active one runs", url: "postgres://rosterd:" + secret + "@" + freeport.Of(t) + "/rosterd", role: "active", want: []string{"FAIL state.url: "},
			lines: []string{"handshake: connected"}},
		{name: "no authority", url: "postgres://rosterd@127.0.0.1/rosterd?sslmode=verify-full&sslrootcert=/nowhere", want: []string{"FAIL state.url: "},
			lines: []string{"open /nowhere: no such file", "able to read the file that sslrootcert", "the other instance may be connected"}},
		{name: "no rights to make the tables", url: "postgres://other:" + secret + "@" + database.Address() + "/empty?sslmode=disable", want: []string{"FAIL state.url: "},
			lines: []string{"GRANT CREATE ON DATABASE", "the other instance may be connected"}},
		{name: "the tables of another role", url: "postgres://other:" + secret + "@" + database.Address() + "/postgres?sslmode=disable", want: []string{"FAIL state.url: "},
			lines: []string{"both instances have to use the same one", "the other instance may be connected"}},
		{name: "a replica", url: database.At(database.Address(), "replica"), want: []string{"FAIL state.url: "},
			lines: []string{"the server is read-only: it is a replica", "the URL has to name the primary", "the other instance may be connected"}},
		{name: "a pooler", url: database.At(pooler.Address(), "postgres"), want: []string{"FAIL state.url: "},
			lines: []string{"a pooler (PgBouncer) stands between", "connect to PostgreSQL itself", "the other instance may be connected"}},
		{name: "a newer rosterd's", url: database.URL(), newer: true, want: []string{"FAIL state.url: "}, lines: []string{"install that version here", "the other instance may be connected"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.newer {
				if err := database.Exec(t.Context(), "UPDATE rosterd.version SET version = 99"); err != nil {
					t.Fatal(err)
				}
			}
			var shaken atomic.Bool
			serve := speaks(announced("example.org", nsRoster, permIQ+permPresence))
			server := listen(t, func(c net.Conn) { serve(&watched{c, &shaken}) })
			s := settings(t, server.address())
			s["state"] = map[string]any{"url": tt.url}
			s["refresh"]["advertise"] = own
			if tt.role != "" {
				s["metrics"]["listen"] = instance(t, tt.role, server.address())
				endpoint := httptest.NewServer(refresh.Handler(refresh.Options{Tokens: refresh.NewTokens(secret), Logger: slog.New(slog.DiscardHandler),
					Requests: metrics.New(prometheus.NewRegistry()).RefreshRequests}, nil))
				t.Cleanup(endpoint.Close)
				s["refresh"]["listen"] = endpoint.Listener.Addr().String()
			}
			output, ok := run(t, s, "juliet")
			got := complaints(output)
			if ok != tt.ok || len(got) != len(tt.want) || len(got) > 0 && !strings.HasPrefix(got[0], tt.want[0]) {
				t.Errorf("%v, want %v and %q:\n%s", ok, tt.ok, tt.want, output)
			}
			for _, line := range tt.lines {
				if !strings.Contains(output, line) {
					t.Errorf("does not say %q:\n%s", line, output)
				}
			}
			if connects := shaken.Load(); connects != tt.connects {
				t.Errorf("connected to the server: %v, want %v:\n%s", connects, tt.connects, output)
			}
		})
	}
	if got := heard.Load(); got != "GET /" {
		t.Errorf("the other one was told %v", got)
	}
}

// An endpoint with TLS is reached, too, whatever its certificate, and another one on its port is not.
func TestReach(t *testing.T) {
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	for url, want := range map[string]bool{
		secure.URL: true, plain.URL: true, plain.URL + "/": true, "https" + strings.TrimPrefix(plain.URL, "http"): false, "http://" + freeport.Of(t): false,
	} {
		if err := reach(t.Context(), url); (err == nil) != want {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// watched is a connection that sees whether there is a handshake.
type watched struct {
	net.Conn
	shaken *atomic.Bool
}

func (w *watched) Read(b []byte) (n int, err error) {
	n, err = w.Conn.Read(b)
	if strings.Contains(string(b[:n]), "<handshake>") {
		w.shaken.Store(true)
	}
	return n, err
}

// hold has an instance be the active one in a database, until the test ends or only for now.
func hold(t *testing.T, url, advertise string, holds bool) {
	t.Helper()
	p, err := store.NewPair(url, "contacts.example.org", advertise, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	l, err := p.Stand(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	release := func() { l.Release(true); p.Close() }
	if holds {
		t.Cleanup(release)
	} else {
		release()
	}
}

// instance is a rosterd of a pair that runs.
func instance(t *testing.T, role, address string) (listen string) {
	t.Helper()
	var s struct {
		component.Status
		Pair struct {
			Role string `json:"role"`
		} `json:"pair"`
	}
	s.Status = component.Status{Connected: role == "active", Reason: "standing by", Domain: "contacts.example.org", Address: address, Hosts: []component.Routes{{Host: "example.org",
		Query: component.QueryDelegated, Push: component.PushPrivileged, Presence: component.PresenceServer, Delegation: true, Privileges: "urn:xmpp:privilege:2",
		PushPermitted: true, PresencePermitted: true, ServerRoster: component.ServerRosterOff}}}
	s.Pair.Role = role
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { json.NewEncoder(w).Encode(s) }))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}
