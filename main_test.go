package main

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"

	"rosterd/internal/leak"
)

func TestCommandLine(t *testing.T) {
	t.Chdir(t.TempDir()) // no config.yaml
	tests := []struct {
		args           []string
		code           int
		stdout, stderr string // regular expressions for all of it
	}{
		{[]string{"version"}, 0, `^rosterd \S+, commit \S+, ` + regexp.QuoteMeta(runtime.Version()) + `\n$`, `^$`},
		{[]string{"--version"}, 0, `^rosterd \S+, commit \S+, go\S+\n$`, `^$`},
		{[]string{"-version", "--config", "missing.yaml"}, 0, `^rosterd \S+, commit \S+, go\S+\n$`, `^$`},
		{[]string{"--help"}, 0, `^rosterd serves XMPP rosters`, `^$`},
		{[]string{"-h"}, 0, `^rosterd serves XMPP rosters`, `^$`},
		{[]string{"help"}, 0, `^rosterd serves XMPP rosters`, `^$`},
		{[]string{"help", "check"}, 0, `^check goes through the whole installation`, `^$`},
		{[]string{"--nonsense"}, 2, `^$`, `^unknown flag: --nonsense\n\nUsage:\n  rosterd`},
		{[]string{"-nonsense"}, 2, `^$`, `^unknown flag: --nonsense\n\nUsage:\n  rosterd`},
		{[]string{"nonsense"}, 2, `^$`, `^unknown command "nonsense" for "rosterd"\n\nUsage:\n  rosterd`},
		{[]string{"version", "x"}, 2, `^$`, `^unknown command "x" for "rosterd version"\n\nUsage:\n  rosterd`},
		{[]string{"--config", "missing.yaml"}, 1, `^$`, `^rosterd: [^\n]*missing\.yaml[^\n]*\n$`},
		{[]string{"--config", "bad.yaml"}, 1, `^$`, `^rosterd: [^\n]*xmpp\.secert[^\n]*\n$`},
		{[]string{"-config", "missing.yaml"}, 1, `^$`, `^rosterd: [^\n]*missing\.yaml[^\n]*\n$`},
		{[]string{"-config=missing.yaml"}, 1, `^$`, `^rosterd: [^\n]*missing\.yaml[^\n]*\n$`},
		{nil, 1, `^$`, `^rosterd: [^\n]*xmpp\.domain[^\n]*\n$`},
	}
	if err := os.WriteFile("bad.yaml", []byte("xmpp:\n  secert: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			wantRun(t, tt.args, tt.code, tt.stdout, tt.stderr)
		})
	}
}

// logs is where rosterd writes its log; a line can be waited for.
type logs struct {
	mu    sync.Mutex
	text  strings.Builder
	lines chan string
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	l.text.Write(p)
	l.mu.Unlock()
	select {
	case l.lines <- string(p):
	default:
	}
	return len(p), nil
}

// TestWithoutServer runs rosterd where nothing answers: it says so, goes on
// trying, and stops in order.
func TestWithoutServer(t *testing.T) {
	file := configured(t, `
xmpp: {address: "127.0.0.1:1", domain: contacts.example.org, secret: hunter2, hosts: [example.org]}
contacts: {url: "http://127.0.0.1:1/contacts/%s", token: hunter3, headers: {X-Api-Key: hunter4}}
refresh: {listen: "127.0.0.1:0", token: hunter5}
metrics: {listen: "127.0.0.1:0"}
log: {level: debug}
`)
	log := &logs{lines: make(chan string, 100)}
	stop := begin(t, file, log)

	first := <-log.lines
	address := func(key string) string {
		m := regexp.MustCompile(key + `=(\S+)`).FindStringSubmatch(first)
		if m == nil {
			t.Fatalf("no %s address in %q", key, first)
		}
		return "http://" + m[1]
	}
	refreshURL, metricsURL := address("refresh"), address("metrics")
	ask := func(method, url string, header ...string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(`["juliet"]`))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	if code, _ := ask("GET", metricsURL+"/healthz"); code != 200 {
		t.Errorf("/healthz: %d", code)
	}
	if code, body := ask("GET", metricsURL+"/readyz"); code != 503 || !strings.Contains(body, "not connected to the XMPP server") {
		t.Errorf("/readyz: %d %s", code, body)
	}
	if code, body := ask("POST", refreshURL+"/roster_admin/refresh"); code != 401 {
		t.Errorf("refresh without token: %d %s", code, body)
	}
	if code, body := ask("POST", refreshURL+"/roster_admin/refresh", "Authorization", "Bearer hunter5"); code != 503 || !strings.Contains(body, "not connected") {
		t.Errorf("refresh: %d %s", code, body)
	}
	_, metrics := ask("GET", metricsURL+"/metrics")
	for _, want := range []string{"rosterd_connected 0", `rosterd_queries_total{result="ok"} 0`, `rosterd_edits_total{result="refused"} 0`, `rosterd_fetches_total{result="ok"} 0`,
		`rosterd_refresh_requests_total{code="401"} 1`, `rosterd_refreshed_users_total{result="updated"} 0`,
		`rosterd_pushes_total{action="added",result="ok"} 0`, `rosterd_items_skipped_total{reason="jid"} 0`, `rosterd_fields_ignored_total{field="ask"} 0`, "rosterd_build_info{", "rosterd_component_info{domain="} {
		if !strings.Contains(metrics, "\n"+want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	if code := stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if text := log.text.String() + metrics; strings.Contains(text, "hunter") || !strings.Contains(text, "is the server running") {
		t.Errorf("log:\n%s", text)
	}
}

// A start that fails leaves nothing behind of the parts that were made already.
func TestListenerInUse(t *testing.T) {
	leak.Check(t)
	for key, settings := range map[string]string{
		"refresh.listen": "refresh: {listen: \"192.0.2.1:1\", token: x}\nmetrics: {listen: \"127.0.0.1:0\"}",
		"metrics.listen": "refresh: {listen: \"127.0.0.1:0\"}\nmetrics: {listen: \"192.0.2.1:1\"}",
	} {
		file := configured(t, "xmpp: {domain: contacts.example.org, secret: x, hosts: [example.org]}\ncontacts: {url: \"http://127.0.0.1:1/%s\"}\n"+settings+"\nstate: {path: "+filepath.Join(t.TempDir(), "rosterd.db")+"}")
		var stderr bytes.Buffer
		if code := run(t.Context(), nil, []string{"--config", file}, io.Discard, &stderr); code != 1 || !strings.HasPrefix(stderr.String(), "rosterd: "+key+": ") {
			t.Errorf("exit code %d, %s", code, stderr.String())
		}
	}
}
