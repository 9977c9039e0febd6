package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"rosterd/e2e/harness"
)

// With clients logged in and a backend that hangs, SIGTERM and SIGINT end
// rosterd in order: what waits is answered, the stream is closed.
func TestStop(t *testing.T) { onServers(t, testStop) }

func testStop(t *testing.T, srv server) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			ctx := bounded(t)
			w := start(t, setup{server: srv, counts: true, link: true, settings: map[string]any{"contacts.timeout": "1m"}})
			w.backend.Set("romeo", contacts("Nurse"))
			romeo := w.login(ctx, t, slixmpp, "romeo@example.org/street")
			wantRoster(ctx, t, romeo, item("Nurse"))
			w.backend.SetFault("", harness.Fault{Hang: true})
			juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
			send(t, juliet, iq("get", "held", "", rosterQuery))
			waitRequests(ctx, t, w, "juliet", 1)
			refreshed := make(chan struct{})
			go func() {
				defer close(refreshed)
				_, _ = w.post(ctx, "romeo") // is answered, or cut off
			}()
			waitRequests(ctx, t, w, "romeo", 2)

			began := time.Now()
			w.rosterd.Signal(signal)
			code, err := w.rosterd.WaitExit(ctx)
			if took := time.Since(began); code != 0 || err != nil || took > 10*time.Second {
				t.Errorf("exit code %d after %v, %v", code, took, err)
			}
			if answer := answerTo(ctx, t, juliet, "held"); !strings.Contains(answer.XML, "type='wait'") && !strings.Contains(answer.XML, `type="wait"`) {
				t.Errorf("answer %s, want an error of type wait", answer.XML)
			}
			if sent := w.link.written(); !strings.HasSuffix(sent, "</stream:stream>") {
				t.Errorf("the stream was not closed: …%s", sent[max(0, len(sent)-200):])
			}
			<-refreshed
		})
	}
}

// A second signal ends rosterd at once, though it still waits for a refresh.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	w := start(t, setup{settings: map[string]any{"contacts.timeout": "1m"}})
	w.backend.Set("juliet", contacts("Nurse"))
	wantRoster(ctx, t, w.login(ctx, t, gosrc, "juliet@example.org/balcony"), item("Nurse"))
	w.backend.SetFault("juliet", harness.Fault{Hang: true})
	go func() { _, _ = w.post(ctx, "juliet") }()
	waitRequests(ctx, t, w, "juliet", 2)
	w.rosterd.Signal(syscall.SIGTERM)
	w.waitLog(ctx, t, "rosterd stops")

	// The log does not tell when the second signal is no longer caught.
	poll(ctx, t, func() bool {
		w.rosterd.Signal(syscall.SIGTERM)
		select {
		case <-w.rosterd.Done():
			return true
		default:
			return false
		}
	}, func() string { return "rosterd still runs" })
	code, err := w.rosterd.WaitExit(ctx)
	if code != -1 || err != nil {
		t.Errorf("exit code %d, %v, want the end by the signal", code, err)
	}
}

// A bad configuration stops the start with one line that names the key.
func TestBadConfiguration(t *testing.T) {
	t.Parallel()
	good := map[string]any{
		"xmpp.domain": domain, "xmpp.secret": "component secret", "xmpp.hosts": []string{"example.org"},
		"contacts.url": "http://127.0.0.1:8000/contacts/%s",
	}
	for _, c := range []struct {
		name, key string
		settings  map[string]any
	}{
		{"unknown key", "xmpp.sekret", map[string]any{"xmpp.sekret": "component secret"}},
		{"unknown section", "server", map[string]any{"server.address": "127.0.0.1:5347"}},
		{"no secret", "xmpp.secret", map[string]any{"xmpp.secret": ""}},
		{"no hosts", "xmpp.hosts", map[string]any{"xmpp.hosts": []string{}}},
		{"a host that is none", "xmpp.hosts", map[string]any{"xmpp.hosts": []string{"example.org", "juliet@example.org"}}},
		{"URL without a user", "contacts.url", map[string]any{"contacts.url": "http://127.0.0.1:8000/contacts"}},
		{"URL of another scheme", "contacts.url", map[string]any{"contacts.url": "ftp://127.0.0.1/%s"}},
		{"timeout without a unit", "contacts.timeout", map[string]any{"contacts.timeout": 5}},
		{"no fetches", "contacts.max_in_flight", map[string]any{"contacts.max_in_flight": 0}},
		{"a string for a number", "refresh.max_bytes", map[string]any{"refresh.max_bytes": "many"}},
		{"open to the world without a token", "refresh.token", map[string]any{"refresh.listen": "0.0.0.0:0"}},
		{"an address that is not ours", "metrics.listen", map[string]any{"metrics.listen": "192.0.2.1:9590"}},
		{"log level", "log.level", map[string]any{"log.level": "loud"}},
		{"headers that are none", "contacts.headers", map[string]any{"contacts.headers": "X-Api-Key: component secret"}},
		{"two secrets", "xmpp.secret", map[string]any{"xmpp.secret_file": "/dev/null"}},
		{"authorities that are not there", "contacts.tls.ca", map[string]any{"contacts.tls": map[string]string{"ca": "/nonexistent"}}},
		{"a secret file that is not there", "contacts.token_file", map[string]any{"contacts.token_file": "/nonexistent"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			settings := map[string]any{}
			for _, from := range []map[string]any{good, c.settings} {
				for key, value := range from {
					settings[key] = value
				}
			}
			rosterd := run(t, harness.RosterdOptions{Settings: settings})
			code, err := rosterd.WaitExit(bounded(t))
			if code != 1 || err != nil {
				t.Errorf("exit code %d, %v", code, err)
			}
			line := rosterd.Log()
			if strings.Count(line, "\n") != 0 || !strings.HasPrefix(line, "rosterd: ") || !strings.Contains(line, c.key) {
				t.Errorf("wrote %q, want one line that names %s", line, c.key)
			}
			if strings.Contains(line, "component secret") {
				t.Errorf("the line tells a secret: %q", line)
			}
		})
	}
}

// Two rosterds cannot listen at one address.
func TestAddressInUse(t *testing.T) {
	t.Parallel()
	w := start(t, setup{})
	taken := strings.TrimPrefix(strings.TrimSuffix(w.rosterd.Metrics("/").URL, "/"), "http://")
	for _, key := range []string{"refresh.listen", "metrics.listen"} {
		second := run(t, harness.RosterdOptions{
			Server: w.server, ContactsURL: w.backend.URL(), Settings: map[string]any{key: taken},
		})
		code, err := second.WaitExit(bounded(t))
		line := second.Log()
		if code != 1 || err != nil || strings.Count(line, "\n") != 0 || !strings.Contains(line, key) {
			t.Errorf("exit code %d, %v: %q", code, err, line)
		}
	}
	wantOneStream(bounded(t), t, w)
}

// The environment goes before the file.
func TestEnvironment(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	w := start(t, setup{
		settings: map[string]any{"xmpp.secret": "not the secret", "log.format": "text"},
		env:      []string{"ROSTERD_XMPP_SECRET=component secret", "ROSTERD_LOG_FORMAT=json"},
	})
	w.backend.Set("juliet", contacts("Romeo"))
	wantRoster(ctx, t, w.login(ctx, t, gosrc, "juliet@example.org/balcony"), item("Romeo"))
	if code, err := w.rosterd.Stop(ctx); code != 0 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
	for _, line := range strings.Split(w.rosterd.Log(), "\n") {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %q", line)
		}
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	file, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(bounded(t), file, "version").Output()
	want := regexp.MustCompile(`^rosterd \S+, commit \S+, ` + regexp.QuoteMeta(runtime.Version()) + `\n$`)
	if err != nil || !want.Match(out) {
		t.Errorf("%q, %v", out, err)
	}
}

// Secrets appear nowhere: not in the log at its most talkative, not in a metric,
// not in an answer, not in a stanza, whatever goes wrong.
func TestSecretsStaySecret(t *testing.T) { onServers(t, testSecretsStaySecret) }

func testSecretsStaySecret(t *testing.T, srv server) {
	ctx := bounded(t)
	secrets := []string{"component secret", "contactsToken5ecret", "apiKey5ecret", "refreshToken5ecret", "query5ecret", "wrongToken5ecret"}
	w := start(t, setup{
		server:  srv,
		options: harness.ServerOptions{Secret: secrets[0]},
		path:    "/contacts/%s?key=" + secrets[4],
		settings: map[string]any{
			"contacts.token": secrets[1], "contacts.headers": map[string]string{"X-Api-Key": secrets[2]},
			"contacts.timeout": "1s", "contacts.max_stale": "1ms", "refresh.token": secrets[3],
		},
		link: true,
	})
	var seen strings.Builder
	post := func(token, body string) {
		call := w.rosterd.Refresh(refreshPath)
		call.Method, call.Body = http.MethodPost, []byte(body)
		call.Header.Set("Authorization", "Bearer "+token)
		answer, err := call.Do(ctx)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&seen, "%v %s\n", answer.Header, answer.Body)
	}
	w.backend.Set("juliet", contacts("Romeo"))
	juliet := w.login(ctx, t, slixmpp, "juliet@example.org/balcony")
	wantRoster(ctx, t, juliet, item("Romeo"))
	echo := []byte(`{"error": "bad key", "key": "` + strings.Join(secrets, " ") + `"}`)
	for _, fault := range []harness.Fault{
		{Status: http.StatusUnauthorized, Body: echo}, {Body: echo}, {Cut: true}, {Hang: true}, {Body: []byte("<" + secrets[2])},
	} {
		w.backend.SetFault("juliet", fault)
		wantNoRoster(ctx, t, juliet)
		post(secrets[3], `["juliet"]`)
	}
	w.backend.Refuse()
	wantNoRoster(ctx, t, juliet)
	post(secrets[3], `["juliet"]`)
	post(secrets[5], `["juliet"]`)
	w.link.cut()
	waitReadyz(ctx, t, w.rosterd, http.StatusServiceUnavailable, "not connected")
	post(secrets[3], `["juliet"]`)

	for _, path := range []string{"/metrics", "/readyz", "/healthz"} {
		answer, err := w.rosterd.Metrics(path).Get(ctx)
		if err != nil {
			t.Fatal(err)
		}
		seen.Write(answer.Body)
	}
	for _, s := range juliet.Stanzas() {
		seen.WriteString(s.XML)
	}
	if code, err := w.rosterd.Stop(ctx); code != 0 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
	seen.WriteString(w.rosterd.Log() + w.link.written())
	for _, secret := range secrets {
		if i := strings.Index(seen.String(), secret); i >= 0 {
			t.Errorf("%s appears: …%s", secret, seen.String()[max(0, i-200):i+len(secret)])
		}
	}
}
