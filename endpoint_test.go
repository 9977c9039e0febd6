package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"rosterd/internal/leak"
	"rosterd/internal/testcert"
)

// secured is the configuration of a rosterd whose refresh endpoint has TLS, and
// whose server is not there.
func secured(t *testing.T, dir string, pair testcert.Pair) (file string) {
	t.Helper()
	file = filepath.Join(dir, "config.yaml")
	for name, data := range map[string][]byte{"cert.pem": pair.Cert, "key.pem": pair.Key, "config.yaml": fmt.Appendf(nil, `
xmpp: {address: "127.0.0.1:1", domain: contacts.example.org, secret: hunter2, hosts: [example.org]}
contacts: {url: "http://127.0.0.1:1/contacts/%%s"}
refresh: {listen: "127.0.0.1:0", token: hunter3, tokens: [hunter4], tls: {cert: %q, key: %q}}
metrics: {listen: "127.0.0.1:0"}
state: {path: ""}
`, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return file
}

// TestMetricsWhileRefreshIsAttacked holds as many connections to the refresh
// endpoint as it takes, and more, of callers without end: the metrics and the
// health checks answer, and so does the endpoint, with each of its tokens.
func TestMetricsWhileRefreshIsAttacked(t *testing.T) {
	leak.Check(t)
	ca := testcert.New(t, "authority")
	file := secured(t, t.TempDir(), ca.Issue(t, "endpoint", time.Now().Add(time.Hour)))
	log := &logs{lines: make(chan string, 100)}
	stop := begin(t, file, log)
	first := <-log.lines
	found := regexp.MustCompile(`refresh=(\S+) metrics=(\S+)`).FindStringSubmatch(first)
	if found == nil {
		t.Fatalf("no addresses in %q", first)
	}
	var attack []net.Conn
	for i := range 1500 {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, byte(1+i/100), 1)}, Timeout: time.Minute}
		conn, err := d.DialContext(t.Context(), "tcp", found[1])
		if err != nil {
			t.Fatal(err)
		}
		attack = append(attack, conn)
		_, _ = io.WriteString(conn, "\x16\x03\x01") // it may be closed already
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool}}
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	ask := func(method, url, token string) int {
		req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(`["juliet"]`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := client.Do(req)
		if err != nil {
			t.Error(err)
			return 0
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode
	}
	for path, want := range map[string]int{"/metrics": 200, "/healthz": 200, "/readyz": 503} {
		if code := ask("GET", "http://"+found[2]+path, ""); code != want {
			t.Errorf("%s: %d", path, code)
		}
	}
	for token, want := range map[string]int{"hunter3": 503, "hunter4": 503, "hunter2": 401, "": 401} { // there is no server
		if code := ask("POST", "https://"+found[1]+"/roster_admin/refresh", token); code != want {
			t.Errorf("refresh with %q: %d", token, code)
		}
	}
	transport.CloseIdleConnections()
	if code := stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, conn := range attack {
		conn.Close()
	}
	log.mu.Lock()
	defer log.mu.Unlock()
	if text := log.text.String(); strings.Contains(text, "hunter") || strings.Count(text, "too many connections") != 1 {
		t.Errorf("log:\n%s", text)
	}
}

func TestBrokenCertificate(t *testing.T) {
	leak.Check(t)
	ca := testcert.New(t, "authority")
	good, other := ca.Issue(t, "endpoint", time.Now().Add(time.Hour)), ca.Issue(t, "endpoint", time.Now().Add(time.Hour))
	for name, tt := range map[string]struct {
		pair testcert.Pair
		want string
	}{
		"no certificate": {testcert.Pair{Cert: []byte("x"), Key: good.Key}, `refresh\.tls\.cert: \S+/cert\.pem, with .* in certificate input`},
		"another's key":  {testcert.Pair{Cert: good.Cert, Key: other.Key}, `refresh\.tls\.cert: \S+/cert\.pem, with refresh\.tls\.key: \S+/key\.pem: `},
	} {
		var stderr bytes.Buffer
		code := run(t.Context(), nil, []string{"--config", secured(t, t.TempDir(), tt.pair)}, io.Discard, &stderr)
		if code != 1 || !regexp.MustCompile(`^rosterd: `+tt.want+`[^\n]*\n$`).MatchString(stderr.String()) {
			t.Errorf("%s: exit code %d, %s", name, code, stderr.String())
		}
	}
}
