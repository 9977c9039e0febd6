// Package e2e tests the built rosterd on a real Prosody and a real ejabberd
// with real clients.
// It is skipped, with one line that says why, where these are not installed.
package e2e

import (
	"context"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"rosterd/e2e/harness"
	"rosterd/internal/leak"
)

// binary is rosterd as it is tested.
var binary, _, removeBuilds = harness.Builds("..")

func TestMain(m *testing.M) {
	flag.Parse()
	// These tests wait for other processes most of the time.
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		_ = parallel.Value.Set("8")
	}
	// For rosterd: the race detector's runtime sleeps for a second at the end.
	_ = os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	code := leak.Main(func() int {
		defer shared.close()
		defer closePostgres()
		return m.Run()
	}, "gosrc.io/xmpp.(*Client).recv(", "gosrc.io/xmpp.keepalive(") // of its clients whose stream the server has closed
	removeBuilds()
	os.Exit(code)
}

// The component's own domain, and the secrets of every world.
const (
	domain   = "contacts.example.org"
	password = "secret" // every user's
)

// setup says what differs from an ordinary world.
type setup struct {
	server   server // default prosody
	options  harness.ServerOptions
	settings map[string]any // of rosterd
	env      []string       // of rosterd
	path     string         // of the contacts URL, default /contacts/%s
	link     bool           // rosterd connects through world.link
	own      bool           // no server that other tests have used: it is stopped
	counts   bool           // the test counts fetches: none are made for presence, or for the server's own rosters
	unready  bool           // do not wait until rosterd is ready: it will not be
	later    bool           // do not start rosterd: see world.connect
}

// world is an XMPP server, a contacts backend and rosterd, connected.
type world struct {
	kind    server
	server  *harness.Server
	backend *harness.Backend
	rosterd *harness.Rosterd
	link    *link // nil without setup.link
	opts    harness.RosterdOptions
}

// start starts a world with the users of everybody, whose contacts the test has
// yet to set, and waits until rosterd is ready.
func start(t *testing.T, s setup) *world {
	t.Helper()
	harness.Require(t.Context(), t)
	ctx := bounded(t)
	if s.server.name == "" {
		s.server = prosody
	}
	if s.options.Users == nil {
		s.options.Users = everybody
	}
	s.options.OwnRosters = s.options.OwnRosters || s.server.rosters == rostersKept
	s.options.AnyFromAddress = s.options.AnyFromAddress || s.server.unrestricted
	w := &world{kind: s.server, server: startServer(ctx, t, s), backend: startBackend(t)}
	settings := map[string]any{}
	if s.server.unrestricted {
		settings["xmpp.unrestricted"] = true
	}
	if s.server.rosters == rostersOff {
		settings["xmpp.server_roster"] = "off"
	}
	if s.counts {
		settings["xmpp.presence"], settings["xmpp.server_roster"] = "off", "off"
	}
	if s.link {
		w.link = newLink(t, w.server.ComponentAddress())
		settings["xmpp.address"] = w.link.address()
	}
	if s.options.OwnRosters && s.server.name == "ejabberd" {
		settings["ejabberd.api"] = map[string]any{"url": w.server.APIURL()}
	}
	for key, value := range s.settings {
		settings[key] = value
	}
	url := w.backend.URL()
	if s.path != "" {
		url = w.backend.BaseURL() + s.path
	}
	w.opts = harness.RosterdOptions{Server: w.server, ContactsURL: url, Settings: settings, Env: s.env}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s's log:\n%s", w.kind.name, tail(w.server.Log()))
		}
	})
	switch {
	case s.later:
	case s.unready:
		w.rosterd = run(t, w.opts)
	default:
		w.connect(ctx, t)
	}
	return w
}

// startBackend starts a backend that ends with the test.
func startBackend(t *testing.T) *harness.Backend {
	t.Helper()
	backend, err := harness.StartBackend()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(backend.Close)
	return backend
}

// runProsody starts a Prosody of a test's own, which ends with it.
func runProsody(t *testing.T, opts harness.ProsodyOptions) *harness.Server {
	t.Helper()
	server, err := harness.StartProsody(bounded(t), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	return server
}

// connect starts rosterd, and waits until it is ready.
func (w *world) connect(ctx context.Context, t *testing.T) {
	t.Helper()
	w.rosterd = run(t, w.opts)
	if err := w.rosterd.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
}

// run starts a rosterd that ends with the test, and without a data race: the one
// that binary builds, unless the options name another.
func run(t *testing.T, opts harness.RosterdOptions) *harness.Rosterd {
	t.Helper()
	if opts.Binary == "" {
		var err error
		if opts.Binary, err = binary(); err != nil {
			t.Fatal(err)
		}
	}
	rosterd, err := harness.StartRosterd(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		rosterd.Close()
		log := rosterd.Log()
		if strings.Contains(log, "WARNING: DATA RACE") || strings.Contains(log, "panic: ") {
			t.Errorf("rosterd has a data race or a panic:\n%s", log)
		} else if t.Failed() {
			t.Logf("rosterd's log:\n%s", tail(log))
		}
	})
	return rosterd
}

// tail is the end of a log, its lines cut to what can be read.
func tail(log string) string {
	lines := strings.Split(log, "\n")
	lines = lines[max(0, len(lines)-60):]
	for i, line := range lines {
		lines[i] = line[:min(len(line), 400)]
	}
	return strings.Join(lines, "\n")
}

// bounded is a context that bounds all waiting of a test.
func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// library is a client library under test.
type library struct {
	name string
	open func(harness.ClientOptions) (harness.Client, error)
}

var (
	gosrc     = library{"gosrc", harness.NewGosrcClient}
	slixmpp   = library{"slixmpp", harness.NewSlixmppClient}
	libraries = []library{gosrc, slixmpp}
)

// login logs a client in; jid is full.
func (w *world) login(ctx context.Context, t *testing.T, lib library, jid string) harness.Client {
	t.Helper()
	return w.loginAs(ctx, t, lib, harness.ClientOptions{JID: jid})
}

// enter logs in, asks for the roster and then sends its presence, as clients do; gosrc.io/xmpp
// sends its presence at the login.
func (w *world) enter(ctx context.Context, t *testing.T, lib library, jid string) harness.Client {
	t.Helper()
	invisible := lib.name != gosrc.name
	client := w.loginAs(ctx, t, lib, harness.ClientOptions{JID: jid, Invisible: invisible})
	roster(ctx, t, client)
	if invisible {
		show(t, client, "")
	}
	return client
}

// loginAs is login with options, of which address and password are set here.
func (w *world) loginAs(ctx context.Context, t *testing.T, lib library, opts harness.ClientOptions) harness.Client {
	t.Helper()
	opts.Address, opts.Password = w.server.ClientAddress(), password
	client, err := lib.open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if err := client.Login(ctx); err != nil {
		t.Fatal(err)
	}
	return client
}
