package e2e

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rosterd/e2e/harness"
	"rosterd/internal/freeport"
	"rosterd/internal/testcert"
)

// pythonServes serves a folder with Python's own server, as docs/prosody.md
// does, and returns its URL.
func pythonServes(ctx context.Context, t *testing.T, dir string) string {
	t.Helper()
	address := freeport.Of(t)
	host, port, _ := net.SplitHostPort(address)
	cmd := exec.Command("python3", "-m", "http.server", port, "--bind", host)
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	poll(ctx, t, func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, func() string { return "python3 -m http.server does not listen" })
	return "http://" + address
}

// dated writes contacts into a file that was changed at a time.
func dated(t *testing.T, path string, at time.Time, names ...string) {
	t.Helper()
	entries := make([]string, len(names))
	for i, name := range names {
		entries[i] = `"` + strings.ToLower(name) + `@example.org": {"name": "` + name + `"}`
	}
	write(t, path, []byte("{"+strings.Join(entries, ",")+"}"))
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

// A folder of files, whose server knows no ETag and dates in seconds: whatever a
// refresh reports is seen, be it the second change in a second, or an older file
// put in place of a newer one.
func TestFolderOfFiles(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	dir := t.TempDir()
	for _, name := range []string{"contacts", "moved"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	url, file := pythonServes(ctx, t, dir), filepath.Join(dir, "contacts", "juliet")
	now := time.Now()
	dated(t, file, now, "Romeo")
	w := start(t, setup{own: true, counts: true, settings: map[string]any{
		"contacts.url": url + "/contacts/%s", "state.path": filepath.Join(t.TempDir(), "state.db"),
	}})
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, juliet, item("Romeo"))

	dated(t, file, now, "Romeo", "Nurse")
	w.refresh(ctx, t, "juliet")
	wantPushes(ctx, t, juliet, item("Nurse"))
	dated(t, file, now, "Romeo", "Paris")
	wantRoster(ctx, t, juliet, item("Romeo"), item("Paris")) // nor is it lost to a query
	dated(t, file, now.Add(-time.Hour), "Romeo", "Tybalt")
	w.refresh(ctx, t, "juliet")
	wantPushes(ctx, t, juliet, item("Tybalt"), removed("Paris"))
	dated(t, file, now.Add(-2*time.Hour), "Romeo", "Benvolio")
	w.refresh(ctx, t, "juliet")
	wantPushes(ctx, t, juliet, item("Benvolio"), removed("Tybalt"))

	// What is old enough spares a query the file.
	if n := metric(ctx, t, w.rosterd, `rosterd_fetches_total{result="not_modified"}`); n != 0 {
		t.Errorf("%v fetches found nothing modified", n)
	}
	wantRoster(ctx, t, juliet, item("Romeo"), item("Benvolio"))
	waitMetric(ctx, t, w.rosterd, `rosterd_fetches_total{result="not_modified"}`, 1)

	// Another URL has other contacts, whatever their date.
	dated(t, filepath.Join(dir, "moved", "juliet"), now.Add(-3*time.Hour), "Romeo", "Mercutio")
	if code, err := w.rosterd.Stop(ctx); code != 0 || err != nil {
		t.Fatalf("exit code %d, %v", code, err)
	}
	w.opts.Settings["contacts.url"] = url + "/moved/%s"
	w.rosterd = run(t, w.opts)
	waitBrought(ctx, t, juliet, item("Mercutio"), removed("Benvolio"))
	wantRoster(ctx, t, juliet, item("Romeo"), item("Mercutio"))
}

// Something before the backend says for a while that nobody is known: a short
// roster is not emptied at once, and an emptied one comes back by itself.
func TestNotFoundForAWhile(t *testing.T) { onServers(t, testNotFoundForAWhile) }

func testNotFoundForAWhile(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv, settings: map[string]any{"contacts.not_found": "empty", "contacts.confirm_after": "1s"}})
	w.backend.Set("juliet", contacts("Romeo", "Nurse"))
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, juliet, item("Romeo"), item("Nurse"))

	w.backend.SetFault("juliet", harness.Fault{Status: http.StatusNotFound})
	if reason := w.wantFailedRefresh(ctx, t, "juliet"); !strings.HasPrefix(reason, "would remove 2 of 2 contacts: ") {
		t.Errorf("reason %q", reason)
	}
	waitBrought(ctx, t, juliet, removed("Romeo"), removed("Nurse")) // it has said so twice
	wantRoster(ctx, t, juliet)
	for _, gauge := range []string{"rosterd_users_marked", "rosterd_resync_users"} {
		waitMetric(ctx, t, w.rosterd, gauge, 0)
	}
	w.backend.Set("juliet", contacts("Romeo", "Paris"))
	w.backend.ClearFault("juliet")
	waitBrought(ctx, t, juliet, item("Romeo"), item("Paris"))
}

// A proxy of the environment that answers in place of the backend is named, and
// its password is not.
func TestProxyOfTheEnvironment(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	var broken atomic.Bool
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if broken.Load() || r.URL.Host != "backend.example.net:8000" {
			w.WriteHeader(http.StatusGatewayTimeout)
			return
		}
		io.WriteString(w, `{"romeo@example.org": {"name": "Romeo"}}`)
	}))
	t.Cleanup(proxy.Close)
	address := proxy.Listener.Addr().String()
	env := []string{"HTTP_PROXY=http://user:planted@" + address, "NO_PROXY=", "no_proxy="}
	const url = "http://backend.example.net:8000/contacts/%s"
	w := start(t, setup{settings: map[string]any{"contacts.url": url}, env: env})
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, juliet, item("Romeo"))
	broken.Store(true)
	if reason := w.wantFailedRefresh(ctx, t, "juliet"); reason != "the backend answered 504, through the proxy "+address+" (HTTP_PROXY)" {
		t.Errorf("reason %q", reason)
	}
	settings := map[string]any{"xmpp.address": freeport.Of(t), "xmpp.domain": domain, "xmpp.secret": "component secret", "xmpp.hosts": []string{"example.org"},
		"contacts.url": url, "refresh.listen": freeport.Of(t), "metrics.listen": freeport.Of(t)}
	var said string
	for _, args := range [][]string{nil, {"--user", "juliet"}} { // who answers for nobody in particular is not known to be the backend
		output, _ := checkIn(t, env, settings, args...)
		if !strings.Contains(output, "answered 504, through the proxy "+address+" (HTTP_PROXY)\n") || !strings.Contains(output, "NO_PROXY") {
			t.Errorf("check %q:\n%s", args, output)
		}
		said += output
	}
	if strings.Contains(w.rosterd.Log()+said, "planted") {
		t.Error("the proxy's password is told")
	}
}

// A backend whose certificate is of an authority of one's own.
func TestOwnAuthority(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	authority := testcert.New(t, "authority")
	issued := authority.Issue(t, "backend", time.Now().Add(time.Hour))
	pair, err := tls.X509KeyPair(issued.Cert, issued.Key)
	if err != nil {
		t.Fatal(err)
	}
	backend := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"romeo@example.org": {"name": "Romeo"}}`)
	}))
	backend.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	backend.StartTLS()
	t.Cleanup(backend.Close)
	file := filepath.Join(t.TempDir(), "ca.pem")
	write(t, file, authority.PEM)
	w := start(t, setup{settings: map[string]any{"contacts.url": backend.URL + "/contacts/%s", "contacts.tls": map[string]string{"ca": file}}})
	wantRoster(ctx, t, w.login(ctx, t, gosrc, "juliet@example.org/balcony"), item("Romeo"))
}
