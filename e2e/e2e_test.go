// Package e2e tests the built rosterd on a real Prosody with real clients.
// It is skipped, with one line that says why, where these are not installed.
package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"rosterd/e2e/harness"
)

// binary builds rosterd once for all tests, with the race detector if the
// tests have it. The file is removed by TestMain.
var binary = sync.OnceValues(func() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	file := filepath.Join(buildDir, "rosterd")
	return file, harness.Build(ctx, "..", file, raceEnabled)
})

// buildDir is set by TestMain before any test runs.
var buildDir string

func TestMain(m *testing.M) {
	var err error
	if buildDir, err = os.MkdirTemp("", "rosterd-e2e-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(buildDir)
	os.Exit(code)
}

// world is a Prosody, a contacts backend and rosterd, connected.
type world struct {
	prosody *harness.Prosody
	backend *harness.Backend
	rosterd *harness.Rosterd
}

// password is every user's.
const password = "secret"

// start starts a world with the users juliet, romeo and mercutio, whose
// contacts the test has yet to set, and waits until rosterd is ready.
func start(t *testing.T, prosody harness.ProsodyOptions, settings map[string]any) *world {
	t.Helper()
	harness.Require(t.Context(), t)
	ctx := bounded(t)
	w := &world{}
	file, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	if prosody.Users == nil {
		prosody.Users = map[string]string{"juliet": password, "romeo": password, "mercutio": password}
	}
	if w.prosody, err = harness.StartProsody(ctx, prosody); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.prosody.Close)
	if w.backend, err = harness.StartBackend(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.backend.Close)
	w.rosterd, err = harness.StartRosterd(harness.RosterdOptions{
		Binary: file, Prosody: w.prosody, ContactsURL: w.backend.URL(), Settings: settings,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("rosterd's log:\n%s\nprosody's log:\n%s", w.rosterd.Log(), w.prosody.Log())
		}
		w.rosterd.Close()
	})
	if err := w.rosterd.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	return w
}

// bounded is a context that bounds all waiting of a test.
func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// libraries are the client libraries under test.
var libraries = []struct {
	name string
	open func(harness.ClientOptions) (harness.Client, error)
}{
	{"gosrc", harness.NewGosrcClient},
	{"slixmpp", harness.NewSlixmppClient},
}

// login logs a client in; jid is full.
func (w *world) login(ctx context.Context, t *testing.T, open func(harness.ClientOptions) (harness.Client, error), jid string) harness.Client {
	t.Helper()
	client, err := open(harness.ClientOptions{Address: w.prosody.ClientAddress(), JID: jid, Password: password})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if err := client.Login(ctx); err != nil {
		t.Fatal(err)
	}
	return client
}
