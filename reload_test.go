package main

import (
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"testing"

	"rosterd/internal/leak"
)

// Somebody may look at the page while the configuration is read again.
func TestReloadWhileThePageIsShown(t *testing.T) {
	leak.Check(t)
	file := configured(t, `
xmpp: {address: "127.0.0.1:1", domain: contacts.example.org, secret: hunter2, hosts: [example.org]}
contacts: {url: "http://127.0.0.1:1/contacts/%s"}
refresh: {listen: "127.0.0.1:0"}
metrics: {listen: "127.0.0.1:0"}
state: {path: "`+filepath.Join(t.TempDir(), "rosterd.db")+`"}
`)
	a := assembled(t, file, slog.NewTextHandler(t.Output(), nil))
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
