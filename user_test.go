package main

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"rosterd/admin"
	"rosterd/config"
	"rosterd/jid"
)

// An instance of a pair has no state file, and one that is left of the time before says
// nothing of today. The socket of one that systemd runs is found by root.
func TestAskAPair(t *testing.T) {
	service := filepath.Join(t.TempDir(), "rosterd.db")
	serviceState, service = service, serviceState
	defer func() { serviceState = service }()
	t.Chdir(t.TempDir())
	t.Setenv("STATE_DIRECTORY", "")
	cfg := config.Default()
	cfg.State.URL = "postgres://db/rosterd"
	juliet, err := jid.Parse("juliet@example.org")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{cfg.State.Path, serviceState} {
		if err := os.WriteFile(file, nil, 0o600); err != nil { // an empty one is a good one
			t.Fatal(err)
		}
	}
	if known, err := lookAt(t.Context(), cfg, juliet); !errors.Is(err, errStandby) {
		t.Errorf("%+v, %v", known, err)
	}
	l, err := admin.Listen(admin.Path(serviceState))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"source": "the rosterd that runs"}`))
	})}
	served := make(chan error)
	go func() { served <- server.Serve(l) }()
	defer func() { server.Close(); <-served }()
	if known, err := lookAt(t.Context(), cfg, juliet); err != nil || known.Source != admin.Running {
		t.Errorf("%+v, %v", known, err)
	}
}
