package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"rosterd/config"
	"rosterd/metrics"
)

// wantRun runs a command line, and wants an exit code and regular expressions of what is
// printed.
func wantRun(t *testing.T, args []string, code int, stdout, stderr string) {
	t.Helper()
	var out, errors bytes.Buffer
	if got := run(t.Context(), nil, args, &out, &errors); got != code {
		t.Errorf("exit code %d, want %d", got, code)
	}
	for got, want := range map[string]string{out.String(): stdout, errors.String(): stderr} {
		if !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("printed %q, want %s", got, want)
		}
	}
}

// configured is a configuration file.
func configured(t *testing.T, text string) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// begin runs rosterd until stop is called, which returns its exit code.
func begin(t *testing.T, file string, log io.Writer) (stop func() int) {
	ctx, cancel := context.WithCancel(t.Context())
	exit := make(chan int, 1)
	go func() { exit <- run(ctx, nil, []string{"--config", file}, io.Discard, log) }()
	return func() int { cancel(); return <-exit }
}

// assembled is a rosterd that does not run yet. The caller has to stop it.
func assembled(t *testing.T, file string, log slog.Handler) *app {
	t.Helper()
	cfg, _, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	a, err := assemble(cfg, slog.New(log), new(metrics.Events))
	if err != nil {
		t.Fatal(err)
	}
	return a
}
