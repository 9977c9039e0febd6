package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// rules is a file of alerts.
type rules struct {
	Groups []struct {
		Name  string
		Rules []rule
	}
}

type rule struct {
	Alert       string
	Expr        string
	For         string
	Labels      map[string]string
	Annotations map[string]string `yaml:",omitempty"`
}

// alertCase is what an alert fires on, and what looks alike and is nothing to worry about.
// Series have a value each minute, as promtool takes them.
type alertCase struct {
	fires, quiet []string // `series values`
	labels       string   // of the alert, besides instance and severity: name="value", …; "" is none
	at           string   // when both are looked at
}

var alertCases = map[string]alertCase{
	"RosterdDown": {[]string{`up{job="rosterd"} 1 0x9`}, []string{`up{job="rosterd"} 1 0 1x8`, `up{job="prosody"} 0x10`}, `job="rosterd"`, "5m"},
	"RosterdNotConnected": {
		[]string{`rosterd_connected 1 0x9`, `rosterd_active 1x10`},
		[]string{`rosterd_connected 0x10`, `rosterd_active 0x10`}, "", "5m"}, // it stands by
	"RosterdGone": {
		[]string{`rosterd_component_info{job="one",domain="b"} 1x3 stale`},
		[]string{ // of a pair in the same job one is left, and one that was started again
			`rosterd_component_info{job="one",domain="a"} 1x20`, `rosterd_component_info{instance="other",job="one",domain="a"} 1x3 stale`,
			`rosterd_component_info{job="one",domain="c"} 1x3 stale _ 1x20`},
		`instance="", job="one", domain="b"`, "15m"},
	"RosterdNobodyActive": {
		[]string{`rosterd_active{job="one"} 1 0x9`, `rosterd_component_info{job="one",domain="b"} 1x10`},
		[]string{ // another pair in the same job, and one in another
			`rosterd_active{job="one"} 0x10`, `rosterd_component_info{job="one",domain="a"} 1x10`,
			`rosterd_active{instance="other",job="one"} 1x10`, `rosterd_component_info{instance="other",job="one",domain="a"} 1x10`,
			`rosterd_active{job="two"} 0x10`, `rosterd_component_info{job="two",domain="b"} 1x10`,
			`rosterd_active{instance="other",job="two"} 1x10`, `rosterd_component_info{instance="other",job="two",domain="b"} 1x10`},
		`job="one", domain="b"`, "5m"},
	"RosterdTwoServe": {
		[]string{`rosterd_host_way{job="one",host="example.org",pod="a"} 1x10`, `rosterd_host_way{job="one",host="example.org",pod="b"} _ 1x9`},
		[]string{ // a takeover, and another pair
			`rosterd_host_way{job="two",host="example.org",pod="a"} 1x5 stale`, `rosterd_host_way{job="two",host="example.org",pod="b"} _ _ _ _ 1x9`,
			`rosterd_host_way{job="two",host="example.net",pod="c"} 1x10`},
		`instance="", job="one", host="example.org"`, "5m"},
	"RosterdNotDelegated": {
		[]string{`rosterd_host_way{host="example.org",query="plain"} 1x10`},
		[]string{`rosterd_host_way{host="example.org",query="delegated"} 1x10`, `rosterd_host_way{host="example.net",query="server"} 1x10`}, `host="example.org", query="plain"`, "5m"},
	"RosterdContactsOffline": {
		[]string{`rosterd_host_way{host="example.org",presence="server",server_roster="none"} 1x10`},
		[]string{`rosterd_host_way{host="example.org",presence="relayed",server_roster="none"} 1x10`, `rosterd_host_way{host="example.net",presence="server",server_roster="privilege"} 1x10`},
		`host="example.org", presence="server", server_roster="none"`, "5m"},
	"RosterdReconnectsOften": {[]string{`rosterd_reconnects_total 0+1x20`}, []string{`rosterd_reconnects_total 0x10 2x10`}, "", "16m"},
	"RosterdQueriesFail": {
		[]string{`rosterd_queries_total{result="ok"} 0+10x20`, `rosterd_queries_total{result="timeout"} 0+5x20`},
		[]string{`rosterd_queries_total{result="ok"} 0x20`, `rosterd_queries_total{result="error"} 0+1x20`}, "", "15m"}, // the only user who is there
	"RosterdBackendCircuitOpen": {[]string{`rosterd_backend_circuit_open 0 1x9`}, []string{`rosterd_backend_circuit_open 0 1 0x8`}, "", "5m"},
	"RosterdAnswersStale": {
		[]string{`rosterd_queries_total{result="ok"} 0+10x30`, `rosterd_queries_total{result="stale"} 0+5x30`},
		[]string{`rosterd_queries_total{result="ok"} 0x30`, `rosterd_queries_total{result="stale"} 0+1x30`}, "", "25m"},
	"RosterdUsersMarked": {[]string{`rosterd_users_marked 3x40`}, []string{`rosterd_users_marked 1x40`}, "", "30m"},
	"RosterdUserMarked":  {[]string{`rosterd_users_marked 1x200`}, []string{`rosterd_users_marked 1x100 0x100`}, "", "180m"},
	"RosterdRemovalsHeld": {[]string{`rosterd_users_held 0 1x9`, `rosterd_removals_held_total 0 1x9`},
		[]string{`rosterd_users_held 0x40`, `rosterd_removals_held_total 7x40`}, "", "2m"}, // of long ago
	"RosterdManyRemovalsHeld": {[]string{`rosterd_users_held 0 30x9`}, []string{`rosterd_users_held 0 1x9`, `rosterd_removals_held_total 0 1x9`}, "", "2m"},
	"RosterdResyncStuck":      {[]string{`rosterd_resync_users 50x40`}, []string{`rosterd_resync_users 1000-50x20 0x20`}, "", "25m"},
	"RosterdStateErrors":      {[]string{`rosterd_state_errors_total 0 1x9`}, []string{`rosterd_state_errors_total 4x10`}, "", "5m"},
	"RosterdQueriesLimited":   {[]string{`rosterd_queries_total{result="limited"} 0+120x30`}, []string{`rosterd_queries_total{result="limited"} 0+1x30`}, "", "20m"},
	"RosterdNamesAmbiguous":   {[]string{`rosterd_queries_total{result="ambiguous"} 0 1x9`}, []string{`rosterd_queries_total{result="ambiguous"} 1x10`, `rosterd_queries_total{result="ok"} 0+1x10`}, `result="ambiguous"`, "5m"},
	"RosterdFetchesFail": {
		[]string{`rosterd_fetches_total{result="ok"} 0+10x30`, `rosterd_fetches_total{result="status"} 0+3x30`, `rosterd_refresh_retries_total 0x30`},
		// One user whom the backend does not know, among few others, tried every 30 s.
		[]string{`rosterd_fetches_total{result="ok"} 0+1x30`, `rosterd_fetches_total{result="status"} 0+2x30`, `rosterd_refresh_retries_total 0+2x30`}, "", "25m"},
	"RosterdBulkFetchesFail": {[]string{`rosterd_bulk_fetches_total{result="failed"} 0+1x40`}, []string{`rosterd_bulk_fetches_total{result="failed"} 0x5 1x35`}, `result="failed"`, "35m"},
	"RosterdEditsFail": {
		[]string{`rosterd_edits_total{result="ok"} 0+1x40`, `rosterd_edits_total{result="failed"} 0+1x40`},
		[]string{`rosterd_edits_total{result="ok"} 0x40`, `rosterd_edits_total{result="failed"} 0x20 1x20`}, "", "35m"},
	"RosterdFetchesSlow": {
		[]string{`rosterd_fetch_duration_seconds_bucket{le="2.5"} 0x30`, `rosterd_fetch_duration_seconds_bucket{le="5"} 0+10x30`, `rosterd_fetch_duration_seconds_bucket{le="+Inf"} 0+10x30`, `rosterd_fetch_duration_seconds_count 0+10x30`},
		[]string{`rosterd_fetch_duration_seconds_bucket{le="2.5"} 0x30`, `rosterd_fetch_duration_seconds_bucket{le="5"} 0+1x30`, `rosterd_fetch_duration_seconds_bucket{le="+Inf"} 0+1x30`, `rosterd_fetch_duration_seconds_count 0+1x30`}, "", "25m"},
	"RosterdFetchesQueue": {[]string{`rosterd_fetches_in_flight 64x10`}, []string{`rosterd_fetches_in_flight 64 64 3 64x7`}, "", "7m"},
	"RosterdPushesRefused": {
		[]string{`rosterd_pushes_total{result="ok"} 0+1x30`, `rosterd_pushes_total{result="refused"} 0+5x30`},
		[]string{`rosterd_pushes_total{result="ok"} 0x30`, `rosterd_pushes_total{result="refused"} 0+1x30`}, "", "25m"},
	"RosterdRefreshesFail": {
		[]string{`rosterd_refresh_requests_total{code="200"} 0+5x40`, `rosterd_refresh_requests_total{code="503"} 0+1x40`},
		[]string{`rosterd_refresh_requests_total{code="200"} 0x40`, `rosterd_refresh_requests_total{code="500"} 0x20 1x20`}, "", "30m"}, // a user whom the backend does not know
	"RosterdRefreshesUnauthorized": {[]string{`rosterd_refresh_requests_total{code="401"} 0 1x9`}, []string{`rosterd_refresh_requests_total{code="404"} 0+1x10`}, "", "5m"},
	"RosterdRepliesDropped":        {[]string{`rosterd_replies_dropped_total 0 1x9`}, []string{`rosterd_replies_dropped_total 1x10`}, "", "5m"},
	"RosterdContactsSkipped":       {[]string{`rosterd_items_skipped_total{reason="jid"} 0+1x130`}, []string{`rosterd_items_skipped_total{reason="jid"} 0x9 1x120`}, `reason="jid"`, "120m"},
	"RosterdFieldsIgnored":         {[]string{`rosterd_fields_ignored_total{field="name"} 0+1x130`}, []string{`rosterd_fields_ignored_total{field="name"} 0x9 1x120`}, `field="name"`, "120m"},
}

// Each alert fires on what it is for, and is quiet on a small site where one user has trouble.
func TestAlerts(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("E2E") == "required" {
			t.Fatal(err)
		}
		t.Skip("there is no promtool: install prometheus")
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", "alerts.yml").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var all rules
	decodeYAML(t, "alerts.yml", &all)
	for g := range all.Groups {
		for r := range all.Groups[g].Rules {
			rule := &all.Groups[g].Rules[r]
			if rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" || rule.Labels["severity"] == "" {
				t.Errorf("%s lacks a summary, a description or a severity", rule.Alert)
			}
			rule.Annotations = nil // promtool would compare them
		}
	}
	file := filepath.Join(t.TempDir(), "rules.yml")
	write(t, file, map[string]any{"groups": groupsOf(all)})
	var names []string
	for _, group := range all.Groups {
		for _, rule := range group.Rules {
			names = append(names, rule.Alert)
			t.Run(rule.Alert, func(t *testing.T) {
				t.Parallel() // promtool waits most of its time
				testAlert(t, promtool, file, rule)
			})
		}
	}
	for name := range alertCases {
		if !slices.Contains(names, name) {
			t.Errorf("there is no %s", name)
		}
	}
}

// testAlert has two instances, of which one fires.
func testAlert(t *testing.T, promtool, file string, rule rule) {
	c, ok := alertCases[rule.Alert]
	if !ok {
		t.Fatal("it is not tested")
	}
	var series []map[string]string
	for instance, lines := range map[string][]string{"fires": c.fires, "quiet": c.quiet} {
		for _, line := range lines {
			name, values, _ := strings.Cut(line, " ")
			base, labels, _ := strings.Cut(name, "{")
			if labels == "" {
				labels = "}"
			}
			if !strings.HasPrefix(labels, "instance=") { // a third one
				labels = `instance="` + instance + `",` + labels
			}
			series = append(series, map[string]string{"series": base + "{" + labels, "values": values})
		}
	}
	labels := map[string]string{"severity": rule.Labels["severity"], "instance": "fires"}
	for label := range strings.SplitSeq(c.labels, ", ") {
		if name, value, ok := strings.Cut(label, "="); ok {
			if labels[name] = strings.Trim(value, `"`); labels[name] == "" {
				delete(labels, name)
			}
		}
	}
	test := filepath.Join(t.TempDir(), "test.yml")
	write(t, test, map[string]any{"rule_files": []string{file}, "evaluation_interval": "1m", "tests": []any{map[string]any{
		"interval": "1m", "input_series": series,
		"alert_rule_test": []any{map[string]any{"eval_time": c.at, "alertname": rule.Alert, "exp_alerts": []any{map[string]any{"exp_labels": labels}}}},
	}}})
	if out, err := exec.CommandContext(t.Context(), promtool, "test", "rules", test).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func decodeYAML(t *testing.T, file string, value any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(read(t, file)), value); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

func write(t *testing.T, file string, value any) {
	t.Helper()
	data, err := yaml.Marshal(value)
	if err == nil {
		err = os.WriteFile(file, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// groupsOf is rules as promtool reads them.
func groupsOf(all rules) (groups []map[string]any) {
	for _, g := range all.Groups {
		var list []map[string]any
		for _, r := range g.Rules {
			one := map[string]any{"alert": r.Alert, "expr": r.Expr, "labels": r.Labels}
			if r.For != "" {
				one["for"] = r.For
			}
			list = append(list, one)
		}
		groups = append(groups, map[string]any{"name": g.Name, "rules": list})
	}
	return groups
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
