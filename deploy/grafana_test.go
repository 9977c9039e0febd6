package deploy

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"rosterd/metrics"
)

// dashboard is what Grafana imports, as far as it is looked at here.
type dashboard struct {
	UID           string
	Title         string
	SchemaVersion int
	Templating    struct{ List []struct{ Name, Type string } }
	Panels        []struct {
		ID          int
		Type, Title string
		Description string
		Datasource  struct{ Type, UID string }
		GridPos     struct{ X, Y, W, H int }
		Targets     []struct{ RefID, Expr string }
	}
}

// The dashboard can be imported, and asks for nothing that there is not.
func TestDashboard(t *testing.T) {
	var d dashboard
	if err := json.Unmarshal([]byte(read(t, "grafana.json")), &d); err != nil {
		t.Fatal(err)
	}
	if d.UID == "" || d.Title == "" || d.SchemaVersion < 36 {
		t.Errorf("%+v", d)
	}
	variables := map[string]bool{"__rate_interval": true}
	for _, v := range d.Templating.List {
		variables[v.Name] = true
	}
	known := collected(t)
	ids, taken := make(map[int]bool), make(map[[2]int]string)
	var rules []any
	for _, p := range d.Panels {
		if ids[p.ID] || p.ID == 0 {
			t.Errorf("%s: the id %d", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, is := taken[[2]int{x, y}]; is || x >= 24 {
					t.Errorf("%s lies over %s, or beyond the edge", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Datasource.UID != "${datasource}" || p.Description == "" || len(p.Targets) == 0 {
			t.Errorf("%s: %+v", p.Title, p)
		}
		for _, target := range p.Targets {
			for _, m := range regexp.MustCompile(`\$\{?(\w+)`).FindAllStringSubmatch(target.Expr, -1) {
				if !variables[m[1]] {
					t.Errorf("%s: there is no variable %s", p.Title, m[1])
				}
			}
			wantMetrics(t, p.Title, target.Expr, known)
			expr := strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*", "$job", ".*").Replace(target.Expr)
			rules = append(rules, map[string]any{"record": fmt.Sprintf("panel_%d_%s", p.ID, target.RefID), "expr": expr})
		}
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("E2E") == "required" {
			t.Fatal(err)
		}
		t.Skip("there is no promtool, which parses the expressions")
	}
	file := filepath.Join(t.TempDir(), "rules.yml")
	write(t, file, map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	if out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestAlertsAskForMetrics(t *testing.T) {
	known := collected(t)
	var all rules
	decodeYAML(t, "alerts.yml", &all)
	for _, g := range all.Groups {
		for _, r := range g.Rules {
			wantMetrics(t, r.Alert, r.Expr, known)
			for _, text := range r.Annotations {
				wantMetrics(t, r.Alert, text, known)
			}
		}
	}
}

// collected are the names of all metrics.
func collected(t *testing.T) map[string]bool {
	t.Helper()
	registry := prometheus.NewRegistry()
	metrics.New(registry)
	metrics.RegisterBuildInfo(registry, "", "")
	metrics.RegisterComponent(registry, "")
	metrics.RegisterSessions(registry, func() (int, int) { return 0, 0 })
	metrics.RegisterRosters(registry, func() metrics.Rosters { return metrics.Rosters{} })
	metrics.RegisterWays(registry, func(func(host, query, push, presence, serverRoster string)) {})
	descs := make(chan *prometheus.Desc, 1000)
	registry.Describe(descs)
	close(descs)
	names := make(map[string]bool)
	for desc := range descs {
		_, rest, _ := strings.Cut(desc.String(), `fqName: "`)
		name, _, _ := strings.Cut(rest, `"`)
		names[name] = true
	}
	return names
}

var metricName = regexp.MustCompile(`\b(rosterd|process|go)_\w+`)

func wantMetrics(t *testing.T, where, text string, known map[string]bool) {
	t.Helper()
	for _, name := range metricName.FindAllString(text, -1) {
		base := name
		for _, suffix := range []string{"_bucket", "_count", "_sum"} {
			base = strings.TrimSuffix(base, suffix)
		}
		if !known[name] && !known[base] {
			t.Errorf("%s: there is no metric %s", where, name)
		}
	}
}
