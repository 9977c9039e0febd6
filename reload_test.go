package main

import (
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"rosterd/config"
	"rosterd/internal/leak"
	"rosterd/metrics"
)

// Somebody may look at the page while the configuration is read again.
func TestReloadWhileThePageIsShown(t *testing.T) {
	leak.Check(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(file, []byte(`
xmpp: {address: "127.0.0.1:1", domain: contacts.example.org, secret: hunter2, hosts: [example.org]}
contacts: {url: "http://127.0.0.1:1/contacts/%s"}
refresh: {listen: "127.0.0.1:0"}
metrics: {listen: "127.0.0.1:0"}
state: {path: "`+filepath.Join(dir, "rosterd.db")+`"}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, _, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	a, err := assemble(cfg, slog.New(slog.NewTextHandler(t.Output(), nil)), new(metrics.Events))
	if err != nil {
		t.Fatal(err)
	}
	defer a.stop()
	a.level = new(slog.LevelVar)
	asked := make(chan error)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	go func() {
		resp, err := client.Get("http://" + a.metrics.Addr + "/")
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		asked <- err
	}()
	for done := false; !done; {
		if err := a.tryReload(file); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-asked:
			if done = true; err != nil {
				t.Error(err)
			}
		default:
		}
	}
}
