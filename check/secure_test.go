package check

import (
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rosterd/component"
	"rosterd/internal/testcert"
	"rosterd/metrics"
	"rosterd/refresh"
)

// write makes a file.
func write(t *testing.T, dir, name string, data []byte) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// endpoint is the refresh endpoint of a rosterd that runs.
func endpoint(t *testing.T, certificates *refresh.Certificates) string {
	t.Helper()
	o := refresh.Options{Tokens: refresh.NewTokens(secret), Certificates: certificates, Logger: slog.New(slog.DiscardHandler),
		Requests: metrics.New(prometheus.NewRegistry()).RefreshRequests}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: refresh.Handler(o, nil)}
	guarded := refresh.Protect(server, l, o)
	go server.Serve(guarded)
	t.Cleanup(func() { server.Close() })
	return l.Addr().String()
}

func TestRefreshTLS(t *testing.T) {
	ca := testcert.New(t, "authority")
	tomorrow, later := time.Now().Add(24*time.Hour), time.Now().Add(100*24*time.Hour)
	good, soon, past := ca.Issue(t, "x", later), ca.Issue(t, "x", tomorrow), ca.Issue(t, "x", time.Now().Add(-time.Hour))
	type is int
	const (
		absent  is = iota // no rosterd runs
		plain             // one without TLS
		secure            // one with the same certificate
		another           // one with another certificate
	)
	for name, tt := range map[string]struct {
		pair     *testcert.Pair // of the configuration; nil: no TLS
		key      []byte         // in place of the pair's
		clientCA bool
		running  is
		want     string // how the complaint begins; "": none
		line     string // in the output
	}{
		"good":                     {pair: &good, line: "is free, callers need TLS and refresh.token"},
		"client certificates":      {pair: &good, clientCA: true, line: "callers need TLS and a certificate of refresh.tls.client_ca and refresh.token"},
		"expires":                  {pair: &soon, want: "warn refresh.tls.cert: "},
		"expired":                  {pair: &past, want: "FAIL refresh.tls.cert: "},
		"another key":              {pair: &good, key: soon.Key, want: "FAIL refresh.tls.cert: ", line: ", with refresh.tls.key: "},
		"no key":                   {pair: &good, key: []byte(secret), want: "FAIL refresh.tls.cert: ", line: ", with refresh.tls.key: "},
		"no certificate":           {pair: &testcert.Pair{Cert: []byte(secret), Key: good.Key}, want: "FAIL refresh.tls.cert: "},
		"runs":                     {pair: &good, running: secure, line: "held by the rosterd that runs, callers need TLS"},
		"runs, no certificate":     {pair: &good, clientCA: true, running: secure, line: "held by the rosterd that runs, callers need TLS"},
		"runs with another":        {pair: &good, running: another, want: "FAIL refresh.listen: the rosterd that runs shows another certificate"},
		"runs without TLS":         {pair: &good, running: plain, want: "FAIL refresh.listen: ", line: "without TLS"},
		"runs with TLS, is to not": {running: secure, want: "FAIL refresh.listen: ", line: "refresh.tls is not set"},
		"runs, both without":       {running: plain, line: "held by the rosterd that runs, callers need refresh.token"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			server := listen(t, speaks(announced("example.org", nsRoster, permIQ+permPresence)))
			s := settings(t, server.address())
			if tt.pair != nil {
				key := tt.pair.Key
				if tt.key != nil {
					key = tt.key
				}
				settings := map[string]string{"cert": write(t, dir, "cert.pem", tt.pair.Cert), "key": write(t, dir, "key.pem", key)}
				if tt.clientCA {
					settings["client_ca"] = write(t, dir, "ca.pem", ca.PEM)
				}
				s["refresh"]["tls"] = settings
			}
			if tt.running != absent {
				s["metrics"]["listen"] = status(t, component.Status{Connected: true, Domain: "contacts.example.org", Address: server.address(),
					Hosts: []component.Routes{{Host: "example.org", Query: component.QueryDelegated, Push: component.PushPrivileged,
						Presence: component.PresenceServer, Delegation: true, Privileges: "urn:xmpp:privilege:2", PushPermitted: true, PresencePermitted: true, ServerRoster: component.ServerRosterOff}}})
				var certificates *refresh.Certificates
				if tt.running != plain {
					shown, clientCA := good, ""
					if tt.running == another {
						shown = ca.Issue(t, "x", later)
					}
					if tt.clientCA {
						clientCA = filepath.Join(dir, "ca.pem")
					}
					var err error
					certificates, err = refresh.LoadCertificates(write(t, dir, "shown.pem", shown.Cert), write(t, dir, "shown.key", shown.Key), clientCA, slog.New(slog.DiscardHandler))
					if err != nil {
						t.Fatal(err)
					}
				}
				s["refresh"]["listen"] = endpoint(t, certificates)
			}
			output, ok := run(t, s, "juliet")
			got := complaints(output)
			if ok == strings.HasPrefix(tt.want, "FAIL") || len(got) != min(1, len(tt.want)) || len(got) == 1 && !strings.HasPrefix(got[0], tt.want) ||
				!strings.Contains(output, tt.line) {
				t.Errorf("%v, want %q and %q:\n%s", ok, tt.want, tt.line, output)
			}
		})
	}
}

func TestCallers(t *testing.T) {
	var c checker
	if got, want := c.callers(), "without refresh.token, which it does not need on loopback"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	c.cfg.Refresh.TLS.Cert = "x"
	if got, want := c.callers(), "TLS, without refresh.token, which it does not need on loopback"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	c.cfg.Refresh.Tokens = append(c.cfg.Refresh.Tokens, "x")
	if got, want := c.callers(), "callers need TLS and one of refresh.tokens"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	c.cfg.Refresh.Token = "x"
	if got, want := c.callers(), "callers need TLS and refresh.token or one of refresh.tokens"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
