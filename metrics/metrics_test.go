package metrics

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

func get(t *testing.T, h http.Handler, method, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	body, _ := io.ReadAll(w.Result().Body)
	return w.Code, string(body)
}

func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	m := New(registry)
	RegisterBuildInfo(registry, "1.0", "abc")
	RegisterComponent(registry, "contacts.example.org")
	RegisterSessions(registry, func() (int, int) { return 3, 2 })
	RegisterWays(registry, func(add func(host, query, push, presence, serverRoster string)) {
		add("example.org", "delegated", "privileged", "server", "privilege")
	})
	for _, vec := range []*prometheus.CounterVec{m.Queries, m.Fetches, m.ItemsSkipped, m.FieldsIgnored, m.RefreshRequests, m.RefreshedUsers, m.ServerRosterItems} {
		vec.WithLabelValues("x").Inc()
	}
	m.Pushes.WithLabelValues("added", "ok").Inc()
	code, body := get(t, Handler(registry, func() (string, []string, error) { return "ok", nil, nil }, nil, Page{}), "GET", "/metrics")
	if code != 200 {
		t.Fatalf("%d %s", code, body)
	}
	for _, want := range []string{
		"rosterd_connected 0", "rosterd_reconnects_total 0", `rosterd_queries_total{result="x"} 1`, "rosterd_query_duration_seconds_count 0",
		`rosterd_fetches_total{result="x"} 1`, "rosterd_fetch_duration_seconds_count 0", "rosterd_fetches_in_flight 0", "rosterd_backend_circuit_open 0",
		`rosterd_refresh_requests_total{code="x"} 1`, `rosterd_refreshed_users_total{result="x"} 1`,
		`rosterd_pushes_total{action="added",result="ok"} 1`, `rosterd_items_skipped_total{reason="x"} 1`,
		`rosterd_host_way{host="example.org",presence="server",push="privileged",query="delegated",server_roster="privilege"} 1`, "rosterd_presences_relayed_total 0",
		`rosterd_server_roster_items_total{result="x"} 1`, "rosterd_server_roster_waiting_users 0", "rosterd_server_roster_write_seconds_total 0",
		"rosterd_sessions 3", "rosterd_interested_resources 2", `rosterd_build_info{commit="abc",goversion="go`, `rosterd_component_info{domain="contacts.example.org"} 1`,
		"go_goroutines ", "process_open_fds ",
	} {
		if !strings.Contains(body, "\n"+want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	problems, err := promlint.New(strings.NewReader(body)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v, %v", problems, err)
	}
}

func TestHealth(t *testing.T) {
	var why error
	notes := []string{"a note", "another"}
	h := Handler(prometheus.NewRegistry(), func() (string, []string, error) { return "ok", notes, why }, func() any { return map[string]int{"x": 1} }, Page{})
	if code, _ := get(t, h, "GET", "/healthz"); code != 200 {
		t.Errorf("/healthz: %d", code)
	}
	if code, body := get(t, h, "GET", "/readyz"); code != 200 || body != "ok\nnote: a note\nnote: another\n" {
		t.Errorf("/readyz: %d %q", code, body)
	}
	if code, body := get(t, h, "GET", "/status"); code != 200 || body != "{\"x\":1}\n" {
		t.Errorf("/status: %d %q", code, body)
	}
	why = errors.New("not connected")
	if code, body := get(t, h, "GET", "/readyz"); code != 503 || body != "not connected\n" {
		t.Errorf("/readyz: %d %q", code, body)
	}
	if code, _ := get(t, h, "GET", "/healthz"); code != 200 {
		t.Errorf("/healthz while not ready: %d", code)
	}
	if code, _ := get(t, h, "POST", "/metrics"); code != 405 {
		t.Errorf("POST /metrics: %d", code)
	}
	if code, _ := get(t, h, "GET", "/nothing"); code != 404 {
		t.Errorf("/nothing: %d", code)
	}
}
