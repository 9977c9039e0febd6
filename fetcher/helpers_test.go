package fetcher

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"rosterd/internal/locked"
	"rosterd/jid"
	"rosterd/roster"
)

// Planted in the URL, the headers and the bodies of the tests: neither may be
// seen in an error, a log line or a metric.
const (
	secret     = "s3cr3t-k3y"
	bodySecret = "b0dy-s3cr3t"
)

const good = `{"romeo@example.org": {"name": "Romeo"}}`

// bench is a Fetcher under test with everything around it.
type bench struct {
	*Fetcher
	log       *locked.Buffer
	collected *prometheus.Registry
	observed  atomic.Int32 // fetches whose duration was observed
	requests  int32        // how many are to have been, for check
}

// Fetch is [Fetcher.Fetch] for one who knows nothing, in a hurry if ctx says so.
func (b *bench) Fetch(ctx context.Context, user jid.JID) (*roster.Roster, error) {
	fetched, err := b.Fetcher.Fetch(ctx, roster.Request{User: user, Hurry: ctx.Value(hurryKey{}) != nil})
	return fetched.Roster, err
}

type hurryKey struct{}

func inHurry(ctx context.Context) context.Context { return context.WithValue(ctx, hurryKey{}, true) }

// patience is contacts.timeout where a test does not say otherwise.
const patience = time.Minute

// newBench makes a bench whose backend is at base. The options can be changed
// before the Fetcher is made.
func newBench(t *testing.T, base string, change ...func(*Options)) *bench {
	t.Helper()
	b := &bench{log: &locked.Buffer{}, requests: 1, collected: prometheus.NewPedanticRegistry()}
	o := Options{
		URL: func(user jid.JID) (string, error) {
			return base + "/contacts/" + user.String() + "?key=" + secret, nil
		},
		Timeout:     patience,
		MaxInFlight: 4,
		MaxBytes:    1 << 16,
		Header:      http.Header{"X-Key": {secret}, "Authorization": {"Bearer " + secret}},
		UserAgent:   "rosterd/test",
		Logger:      slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Metrics: Metrics{
			Fetches:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fetches"}, []string{"result"}),
			Duration: prometheus.ObserverFunc(func(float64) { b.observed.Add(1) }),
			InFlight: prometheus.NewGauge(prometheus.GaugeOpts{Name: "in_flight"}),
			Skipped:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "skipped"}, []string{"reason"}),
			Ignored:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ignored"}, []string{"field"}),

			CircuitsOpen: prometheus.NewGauge(prometheus.GaugeOpts{Name: "circuits_open"}),
			BulkFetches:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "bulk"}, []string{"result"}),
		},
	}
	b.collected.MustRegister(o.Metrics.Fetches, o.Metrics.InFlight, o.Metrics.Skipped, o.Metrics.Ignored)
	for _, c := range change {
		c(&o)
	}
	b.Fetcher = New(o)
	t.Cleanup(b.Close)
	return b
}

// fetches is how many fetches ended with result.
func (b *bench) fetches(result string) float64 {
	return testutil.ToFloat64(b.options.Metrics.Fetches.WithLabelValues(result))
}

// skipped is how many entries were skipped by reason.
func (b *bench) skipped(reason string) int {
	return int(testutil.ToFloat64(b.options.Metrics.Skipped.WithLabelValues(reason)))
}

// ignored is how many times a field was ignored.
func (b *bench) ignored(field string) int {
	return int(testutil.ToFloat64(b.options.Metrics.Ignored.WithLabelValues(field)))
}

func (b *bench) inFlight() float64 { return testutil.ToFloat64(b.options.Metrics.InFlight) }

// exposed is all that left the Fetcher but its results: logs and metrics.
func (b *bench) exposed(t *testing.T) string {
	t.Helper()
	families, err := b.collected.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, f := range families {
		all.WriteString(f.String())
	}
	return all.String() + b.log.String()
}

// serve starts a backend that answers with handler.
func serve(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// answer is a handler that always answers with body.
func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		w.Write([]byte(body))
	}
}
