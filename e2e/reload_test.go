package e2e

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rosterd/internal/freeport"
	"rosterd/internal/testcert"
)

// TestReload changes everything that SIGHUP has read again, and then breaks it:
// what was right last stays, and the stream goes on all the time.
func TestReload(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	dir := t.TempDir()
	file := func(name, content string) string {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	first, second, callers := testcert.New(t, "first"), testcert.New(t, "second"), testcert.New(t, "callers")
	certificate := func(ca *testcert.Authority, name string) (cert, key string) {
		pair := ca.Issue(t, "endpoint", time.Now().Add(time.Hour))
		return file(name+".crt", string(pair.Cert)), file(name+".key", string(pair.Key))
	}
	cert, key := certificate(first, "first")
	refreshToken, contactsToken := file("refresh-token", "old-refresh-5ecret\n"), file("contacts-token", "old-contacts-5ecret\n")
	w := start(t, setup{settings: map[string]any{
		"refresh.token_file": refreshToken, "refresh.tokens": []string{"second-5ecret"}, "refresh.tls": map[string]any{"cert": cert, "key": key},
		"contacts.token_file": contactsToken, "contacts.headers": map[string]string{"X-Api-Key": "old-key-5ecret"}, "log.level": "info",
	}})
	w.backend.Set("juliet", contacts("Romeo"))
	w.backend.RequireHeader("Authorization", "Bearer old-contacts-5ecret")
	w.backend.RequireHeader("X-Api-Key", "old-key-5ecret")
	wantRoster(ctx, t, w.login(ctx, t, gosrc, "juliet@example.org/balcony"), item("Romeo"))

	want := func(ca *testcert.Authority, token string, code int, certificates ...tls.Certificate) {
		t.Helper()
		wantCode(ctx, t, &tls.Config{RootCAs: ca.Pool, Certificates: certificates}, strings.Replace(w.rosterd.RefreshURL(), "http:", "https:", 1), token, code)
	}
	want(first, "old-refresh-5ecret", http.StatusOK)
	want(first, "second-5ecret", http.StatusOK)
	want(first, "new-refresh-5ecret", http.StatusUnauthorized)
	hangup := func(ctx context.Context, says string) string {
		t.Helper()
		before := len(w.rosterd.Log())
		w.rosterd.Signal(syscall.SIGHUP)
		var log string
		poll(ctx, t, func() bool {
			log = w.rosterd.Log()[before:]
			return strings.Contains(log, says)
		}, func() string { return "no log of the reload:\n" + log })
		return log
	}

	file("refresh-token", "new-refresh-5ecret\n")
	file("contacts-token", "new-contacts-5ecret\n")
	cert, key = certificate(second, "second")
	ownCertificate := callers.Issue(t, "backend", time.Now().Add(time.Hour)).TLS(t)
	if err := w.rosterd.Configure(map[string]any{
		"refresh.tokens": []string{"third-5ecret"}, "contacts.headers": map[string]string{"X-Api-Key": "new-key-5ecret"}, "log.level": "debug",
		"refresh.tls":    map[string]any{"cert": cert, "key": key, "client_ca": file("callers.crt", string(callers.PEM))},
		"metrics.listen": freeport.Of(t), "contacts.max_age": "1h",
	}); err != nil {
		t.Fatal(err)
	}
	if log := w.rosterd.Log(); strings.Contains(log, "level=DEBUG") {
		t.Errorf("debug lines before:\n%s", log)
	}
	log := hangup(ctx, "that take a restart")
	for _, line := range []string{
		`msg="the configuration is read again" changed="[contacts.headers contacts.token refresh.token refresh.tokens refresh.tls.cert refresh.tls.key refresh.tls.client_ca log.level]"`,
		`level=WARN msg="settings have changed that take a restart" keys="[contacts.max_age metrics.listen]"`,
	} {
		if !strings.Contains(log, line) {
			t.Errorf("the log lacks %s:\n%s", line, log)
		}
	}
	w.backend.RequireHeader("Authorization", "Bearer new-contacts-5ecret")
	w.backend.RequireHeader("X-Api-Key", "new-key-5ecret")
	after := func() {
		t.Helper()
		want(second, "new-refresh-5ecret", http.StatusOK, ownCertificate)
		want(second, "third-5ecret", http.StatusOK, ownCertificate)
		want(second, "old-refresh-5ecret", http.StatusUnauthorized, ownCertificate)
		want(second, "second-5ecret", http.StatusUnauthorized, ownCertificate)
	}
	after()
	w.waitLog(ctx, t, "level=DEBUG")

	broken := func(says string, settings map[string]any) {
		t.Helper()
		if err := w.rosterd.Configure(settings); err != nil {
			t.Fatal(err)
		}
		if log := hangup(ctx, "all stays as it was"); !strings.Contains(log, says) || !strings.Contains(log, "level=ERROR") {
			t.Errorf("the log does not say %s:\n%s", says, log)
		}
		after()
	}
	broken("contacts.timeout", map[string]any{"contacts.timeout": "soon", "refresh.tokens": []string{"fourth-5ecret"}})
	broken("refresh.tls.key", map[string]any{"contacts.timeout": nil, "refresh.tls": map[string]any{"cert": cert, "key": refreshToken}})
	if err := w.rosterd.Configure(map[string]any{"refresh.tls": map[string]any{"cert": cert, "key": key}, "log.level": "warn"}); err != nil {
		t.Fatal(err)
	}
	hangup(ctx, "the configuration is read again")
	want(second, "fourth-5ecret", http.StatusOK) // and no certificate
	wantOneStream(ctx, t, w)
	if code, err := w.rosterd.Stop(ctx); code != 0 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
	if log := w.rosterd.Log(); strings.Contains(log, "5ecret") || strings.Contains(log, "rosterd stops") {
		t.Errorf("a secret in the log, or a line of level info:\n%s", log)
	}
}

// TestLogIsNotRead starts rosterd with a standard error that is full, which is read
// later, and then never more.
func TestLogIsNotRead(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fd := int(w.Fd())
	if err := syscall.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	filled := 0
	for chunk := make([]byte, 4096); ; { // as long as it takes whole ones
		n, err := syscall.Write(fd, chunk)
		if err != nil {
			break
		}
		filled += n
	}
	if err := syscall.SetNonblock(fd, false); err != nil {
		t.Fatal(err)
	}
	program, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	metrics := freeport.Of(t)
	cmd := exec.CommandContext(ctx, program)
	cmd.Dir, cmd.Stderr = t.TempDir(), w
	cmd.Env = append(os.Environ(), "ROSTERD_XMPP_ADDRESS=127.0.0.1:1", "ROSTERD_XMPP_DOMAIN="+domain, "ROSTERD_XMPP_SECRET=x", "ROSTERD_XMPP_HOSTS=example.org",
		"ROSTERD_CONTACTS_URL=http://127.0.0.1:1/%s", "ROSTERD_REFRESH_LISTEN="+freeport.Of(t), "ROSTERD_METRICS_LISTEN="+metrics)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	works := func() bool { // what is past the first lines of the log
		resp, err := http.Get("http://" + metrics + "/readyz")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return strings.Contains(string(text), "connection refused")
	}
	poll(ctx, t, works, func() string { return "it does not try to connect" })
	text := make([]byte, filled+4096)
	for n := 0; !strings.Contains(string(text[:n]), "rosterd starts"); {
		got, err := r.Read(text[n:])
		if n += got; err != nil || n == len(text) {
			t.Fatalf("no line of the start: %v, %q", err, text[filled:n])
		}
	}
	r.Close()
	for range 3 { // each is a line of the log, or more
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		if !works() {
			t.Error("it does not go on")
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the end: %v", err)
	}
}
