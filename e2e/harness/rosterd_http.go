package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// refreshPath is the endpoint of mod_http_roster_admin.
const refreshPath = "/roster_admin/refresh"

// Call is an HTTP request to rosterd that is to be made. The fields may be
// changed before.
type Call struct {
	Method string
	URL    string
	Header http.Header
	Body   []byte

	client *http.Client
}

// Answer is what rosterd has answered.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// RefreshAnswer is the JSON of the refresh endpoint.
type RefreshAnswer struct {
	Code     int               `json:"-"` // of HTTP
	Status   string            `json:"status"`
	Message  string            `json:"message"`
	Updated  int               `json:"updated"`
	Errors   int               `json:"errors"`
	Accepted int               `json:"accepted"`
	Retry    bool              `json:"retry"`
	Failed   map[string]string `json:"failed"`
}

// Refresh is a call of a path on the refresh listener.
func (r *Rosterd) Refresh(path string) *Call { return r.call(r.refresh, path) }

// Metrics is a call of a path on the metrics listener.
func (r *Rosterd) Metrics(path string) *Call { return r.call(r.metrics, path) }

// RefreshURL is where changed users are reported.
func (r *Rosterd) RefreshURL() string { return r.Refresh(refreshPath).URL }

func (r *Rosterd) call(addr, path string) *Call {
	return &Call{URL: "http://" + addr + path, Header: http.Header{}, client: r.client}
}

// Get makes the call with the method GET.
func (c *Call) Get(ctx context.Context) (Answer, error) {
	c.Method, c.Body = http.MethodGet, nil
	return c.Do(ctx)
}

// Do makes the call.
func (c *Call) Do(ctx context.Context) (Answer, error) {
	req, err := http.NewRequestWithContext(ctx, c.Method, c.URL, bytes.NewReader(c.Body))
	if err != nil {
		return Answer{}, err
	}
	req.Header = c.Header
	resp, err := c.client.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return Answer{Status: resp.StatusCode, Header: resp.Header, Body: body}, err
}

// PostRefresh reports changed users: body is JSON, or what shall be refused.
func (r *Rosterd) PostRefresh(ctx context.Context, body string) (RefreshAnswer, error) {
	call := r.Refresh(refreshPath)
	call.Method, call.Body = http.MethodPost, []byte(body)
	call.Header.Set("Content-Type", "application/json")
	answer, err := call.Do(ctx)
	if err != nil {
		return RefreshAnswer{}, err
	}
	return answer.Refresh()
}

// Refresh reads the answer of the refresh endpoint: every answer is JSON, and
// has no other members than [RefreshAnswer].
func (a Answer) Refresh() (RefreshAnswer, error) {
	refresh := RefreshAnswer{Code: a.Status}
	dec := json.NewDecoder(bytes.NewReader(a.Body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&refresh); err != nil {
		return refresh, fmt.Errorf("answer %d is not as documented: %w: %q", a.Status, err, a.Body)
	}
	return refresh, nil
}

// Scrape reads /metrics. The values are by series, e.g.
// `rosterd_fetches_total{result="ok"}`, the labels sorted by name; of
// histograms and summaries there are the series _count and _sum.
func (r *Rosterd) Scrape(ctx context.Context) (map[string]float64, error) {
	answer, err := r.Metrics("/metrics").Get(ctx)
	if err != nil {
		return nil, err
	}
	if answer.Status != http.StatusOK {
		return nil, errors.New("/metrics answers " + http.StatusText(answer.Status))
	}
	return parseMetrics(answer.Body)
}

func parseMetrics(text []byte) (map[string]float64, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("parsing metrics: %w", err)
	}
	series := map[string]float64{}
	for name, family := range families {
		for _, m := range family.GetMetric() {
			var pairs []string
			for _, label := range m.GetLabel() {
				pairs = append(pairs, fmt.Sprintf("%s=%q", label.GetName(), label.GetValue()))
			}
			labels := labelText(pairs)
			switch {
			case m.Histogram != nil:
				series[name+"_count"+labels] = float64(m.Histogram.GetSampleCount())
				series[name+"_sum"+labels] = m.Histogram.GetSampleSum()
			case m.Summary != nil:
				series[name+"_count"+labels] = float64(m.Summary.GetSampleCount())
				series[name+"_sum"+labels] = m.Summary.GetSampleSum()
			default: // of these three, one is there: the others are 0
				series[name+labels] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue()
			}
		}
	}
	return series, nil
}

func labelText(pairs []string) string {
	if len(pairs) == 0 {
		return ""
	}
	slices.Sort(pairs)
	return "{" + strings.Join(pairs, ",") + "}"
}
