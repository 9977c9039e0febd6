package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

const (
	sampleEvery = 10 * time.Second
	maxSamples  = int(time.Hour / sampleEvery)
)

// series are what the status page draws.
var series = []struct {
	title, unit string
	families    []string          // their sum
	labels      map[string]string // that a metric has to have
	rate        bool              // of a counter, by the second
}{
	{title: "Connected resources", families: []string{"rosterd_sessions"}},
	{title: "Roster queries", unit: "/s", families: []string{"rosterd_queries_total"}, rate: true},
	{title: "Fetches from the backend", unit: "/s", families: []string{"rosterd_fetches_total"}, rate: true},
	{title: "Roster pushes", unit: "/s", families: []string{"rosterd_pushes_total"}, rate: true},
	{title: "Refresh requests", unit: "/s", families: []string{"rosterd_refresh_requests_total"}, rate: true},
	{title: "Users marked or to be looked at", families: []string{"rosterd_users_marked", "rosterd_resync_users"}},
	{title: "Items written to the server's own rosters", unit: "/s", families: []string{"rosterd_server_roster_items_total"}, labels: map[string]string{"result": "written"}, rate: true},
}

// History keeps what the status page draws: a sample each 10 s, for an hour. It is safe for
// concurrent use.
type History struct {
	gatherer prometheus.Gatherer
	stop     chan struct{}
	stopped  sync.WaitGroup

	mu      sync.Mutex // guards both
	samples [maxSamples]sample
	n       int // ever
}

// sample has a value for each of series.
type sample struct {
	at     time.Time
	values []float64
}

// NewHistory begins to take samples. [History.Close] ends that.
func NewHistory(g prometheus.Gatherer) *History {
	h := &History{gatherer: g, stop: make(chan struct{})}
	h.sample(time.Now())
	h.stopped.Go(func() {
		ticker := time.NewTicker(sampleEvery)
		defer ticker.Stop()
		for {
			select {
			case at := <-ticker.C:
				h.sample(at)
			case <-h.stop:
				return
			}
		}
	})
	return h
}

// Close ends what [NewHistory] began, and waits for that.
func (h *History) Close() {
	close(h.stop)
	h.stopped.Wait()
}

func (h *History) sample(at time.Time) {
	families, err := h.gatherer.Gather()
	if err != nil {
		return // /metrics shows it
	}
	byName := make(map[string]*dto.MetricFamily, len(families))
	for _, f := range families {
		byName[f.GetName()] = f
	}
	s := sample{at: at, values: make([]float64, len(series))}
	for i, of := range series {
		for _, name := range of.families {
			for _, m := range byName[name].GetMetric() {
				if hasLabels(m, of.labels) {
					s.values[i] += m.GetCounter().GetValue() + m.GetGauge().GetValue()
				}
			}
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.samples[h.n%maxSamples] = s
	h.n++
}

func hasLabels(m *dto.Metric, labels map[string]string) bool {
	found := 0
	for _, l := range m.GetLabel() {
		if want, ok := labels[l.GetName()]; ok && want == l.GetValue() {
			found++
		}
	}
	return found == len(labels)
}

// point is a value of a series at a time.
type point struct {
	at    time.Time
	value float64
}

// points are those of a series, the oldest first: of a counter, its rate since the sample
// before.
func (h *History) points(i int) []point {
	h.mu.Lock()
	defer h.mu.Unlock()
	var points []point
	var before *sample
	for n := max(0, h.n-maxSamples); n < h.n; n++ {
		s := &h.samples[n%maxSamples]
		switch {
		case !series[i].rate:
			points = append(points, point{s.at, s.values[i]})
		case before != nil:
			if took := s.at.Sub(before.at).Seconds(); took > 0 {
				points = append(points, point{s.at, max(0, s.values[i]-before.values[i]) / took})
			}
		}
		before = s
	}
	return points
}
