package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rosterd/config"
	"rosterd/internal/leak"
	"rosterd/internal/testcert"
	"rosterd/jid"
	"rosterd/refresh"
)

// accepting is a refresher that says yes.
type accepting struct{}

func (accepting) Refresh(context.Context, []jid.JID) (map[jid.JID]error, error) { return nil, nil }
func (accepting) RefreshLater(context.Context, []jid.JID) error                 { return nil }
func (accepting) RefreshAll(context.Context, string) (int, error)               { return 1, nil }

// The endpoint of the configuration is called, with its token and, where it wants one, a
// client certificate. Nobody else is shown the token.
func TestReporterWithTLS(t *testing.T) {
	leak.Check(t)
	ca := testcert.New(t, "authority")
	dir := t.TempDir()
	files := map[string][]byte{"ca.pem": ca.PEM}
	for name, pair := range map[string]testcert.Pair{"own": ca.Issue(t, "endpoint", time.Now().Add(time.Hour)), "other": ca.Issue(t, "endpoint", time.Now().Add(time.Hour)),
		"client": ca.Issue(t, "client", time.Now().Add(time.Hour))} {
		files[name+".pem"], files[name+".key"] = pair.Cert, pair.Key
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	for name, data := range files {
		if err := os.WriteFile(in(name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// endpoint is one that shows a certificate.
	endpoint := func(name string) string {
		certificates, err := refresh.LoadCertificates(in(name+".pem"), in(name+".key"), in("ca.pem"), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		m := newMetrics(prometheus.NewRegistry())
		o := refresh.Options{Hosts: []string{"example.org"}, Tokens: refresh.NewTokens("hunter2"), MaxBytes: 1000, Certificates: certificates,
			Logger: slog.New(slog.DiscardHandler), Requests: m.RefreshRequests, Users: m.RefreshedUsers}
		server := &http.Server{Handler: refresh.Handler(o, accepting{})}
		listener := refresh.Protect(server, l, o)
		ended := make(chan struct{})
		go func() { defer close(ended); _ = server.Serve(listener) }()
		t.Cleanup(func() { server.Close(); <-ended })
		return l.Addr().String()
	}
	call := func(listen, cert string) (refresh.Answer, error) {
		cfg := config.Default()
		cfg.Refresh = config.Refresh{Listen: listen, Tokens: []config.Secret{"hunter2"}, TLS: config.RefreshTLS{Cert: in("own.pem"), Key: in("own.key"), ClientCA: in("ca.pem")}}
		key := ""
		if cert != "" {
			cert, key = in(cert+".pem"), in(cert+".key")
		}
		r, err := newReporter(cfg, cert, key)
		if err != nil {
			t.Fatal(err)
		}
		defer r.http.CloseIdleConnections()
		return r.post(t.Context(), "", []byte(`["juliet"]`), false)
	}
	own := endpoint("own")
	if a, err := call(own, "client"); err != nil || a.Updated != 1 {
		t.Errorf("%+v, %v", a, err)
	}
	if a, err := call(own, ""); err == nil {
		t.Errorf("without a certificate: %+v", a)
	}
	if a, err := call(endpoint("other"), "client"); err == nil || !strings.Contains(err.Error(), "another certificate") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("somebody else: %+v, %v", a, err)
	}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	heard := make(chan string, 1)
	go func() {
		conn, err := plain.Accept()
		if err != nil {
			return
		}
		data := make([]byte, 1000)
		n, _ := conn.Read(data)
		conn.Close()
		heard <- string(data[:n])
	}()
	if _, err := call(plain.Addr().String(), "client"); err == nil {
		t.Error("somebody without TLS")
	}
	if text := <-heard; strings.Contains(text, "hunter2") {
		t.Errorf("sent %q", text)
	}
}

// Each command has its page.
func TestManPages(t *testing.T) {
	dir := t.TempDir()
	if code := run(t.Context(), nil, []string{"man", dir}, io.Discard, io.Discard); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	for _, name := range []string{"rosterd", "rosterd-check", "rosterd-user", "rosterd-refresh", "rosterd-approve", "rosterd-reject", "rosterd-held", "rosterd-health"} {
		page, err := os.ReadFile(filepath.Join(dir, name+".8"))
		if err != nil || !strings.Contains(string(page), "\n.SH OPTIONS") || !strings.Contains(string(page), `config`) {
			t.Errorf("%s: %v\n%s", name, err, page)
		}
	}
}
