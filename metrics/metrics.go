// Package metrics has the collectors for Prometheus, and the HTTP handler of
// /metrics, /healthz, /readyz and /status.
package metrics

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics are the collectors of one rosterd. The fields are set by [New] and
// safe for concurrent use. The values of a label come from fixed sets in the
// packages that count, never from remote input.
type Metrics struct {
	Connected  prometheus.Gauge
	Reconnects prometheus.Counter
	Active     prometheus.Gauge // of a pair, or alone
	Takeovers  prometheus.Counter

	Queries       *prometheus.CounterVec // result
	QueryDuration prometheus.Histogram

	Edits *prometheus.CounterVec // result

	Fetches       *prometheus.CounterVec // result
	FetchDuration prometheus.Histogram
	FetchInFlight prometheus.Gauge
	StateErrors   prometheus.Counter     // failures to write the state
	CircuitsOpen  prometheus.Gauge       // how many are
	BulkFetches   *prometheus.CounterVec // result
	ItemsSkipped  *prometheus.CounterVec // reason
	FieldsIgnored *prometheus.CounterVec // field

	RefreshRequests *prometheus.CounterVec // code
	RefreshedUsers  *prometheus.CounterVec // result

	Pushes *prometheus.CounterVec // action, result

	RepliesDropped prometheus.Counter
	Presences      prometheus.Counter

	ServerRosterItems   *prometheus.CounterVec // result
	ServerRosterWaiting prometheus.Gauge
	ServerRosterSeconds prometheus.Counter
}

// New makes the collectors and registers them with reg, together with those of
// the Go runtime and of the process. It panics if one is registered already.
func New(reg prometheus.Registerer) *Metrics {
	auto := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return auto.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return auto.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return auto.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	histogram := func(name, help string) prometheus.Histogram {
		return auto.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help,
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 25}})
	}
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return &Metrics{
		Connected:       gauge("rosterd_connected", "Whether the stream to the XMPP server is up (1) or not (0)."),
		Reconnects:      counter("rosterd_reconnects_total", "Times the stream was established again after it had been lost."),
		Active:          gauge("rosterd_active", "Whether this instance serves (1), or stands by for another one (0)."),
		Takeovers:       counter("rosterd_takeovers_total", "Times this instance of a pair became the active one."),
		Queries:         counters("rosterd_queries_total", "Delegated roster queries answered, by result.", "result"),
		QueryDuration:   histogram("rosterd_query_duration_seconds", "Time from a delegated roster get to its answer."),
		Edits:           counters("rosterd_edits_total", "Edits that users made of their own contacts and that were passed to the backend, by result.", "result"),
		Fetches:         counters("rosterd_fetches_total", "Fetches from the contacts URL, by result.", "result"),
		FetchDuration:   histogram("rosterd_fetch_duration_seconds", "Time of a fetch from the contacts URL, waiting for a free place not included."),
		FetchInFlight:   gauge("rosterd_fetches_in_flight", "Fetches from the contacts URL under way."),
		StateErrors:     counter("rosterd_state_errors_total", "Failures to write the state to its file. What failed is written again."),
		CircuitsOpen:    gauge("rosterd_backend_circuit_open", "Backends, each a host and port of the contacts URLs, that are down and asked only once every 5 s."),
		BulkFetches:     counters("rosterd_bulk_fetches_total", "Requests for the contacts of several users at once, by result. Each of these users counts in rosterd_fetches_total.", "result"),
		ItemsSkipped:    counters("rosterd_items_skipped_total", "Entries of the backend's answers that were no usable roster item, by reason.", "reason"),
		FieldsIgnored:   counters("rosterd_fields_ignored_total", "Fields of the backend's contacts that could not be understood and have their defaults, by field.", "field"),
		RefreshRequests: counters("rosterd_refresh_requests_total", "Requests to the refresh endpoint, by status code of the answer.", "code"),
		RefreshedUsers:  counters("rosterd_refreshed_users_total", "Users that refresh requests named, by result.", "result"),
		Pushes:          counters("rosterd_pushes_total", "Roster pushes, one for each changed item and resource, by action and result.", "action", "result"),
		RepliesDropped:  counter("rosterd_replies_dropped_total", "Answers not given because the server did not read what was queued for it."),
		Presences:       counter("rosterd_presences_relayed_total", "Presence stanzas relayed to contacts."),

		ServerRosterItems:   counters("rosterd_server_roster_items_total", "Items written to the server's own rosters, by result.", "result"),
		ServerRosterWaiting: gauge("rosterd_server_roster_waiting_users", "Users whose roster on the server is still to be looked at or brought in step."),
		ServerRosterSeconds: counter("rosterd_server_roster_write_seconds_total", "Time that the server took to read and write its own rosters."),
	}
}

// RegisterBuildInfo registers rosterd_build_info, which is 1.
func RegisterBuildInfo(reg prometheus.Registerer, version, commit string) {
	promauto.With(reg).NewGauge(prometheus.GaugeOpts{Name: "rosterd_build_info",
		Help:        "1, with the version, the commit and the Go version of this build as labels.",
		ConstLabels: prometheus.Labels{"version": version, "commit": commit, "goversion": runtime.Version()}}).Set(1)
}

// RegisterComponent registers rosterd_component_info, which is 1: instances with the same domain
// are a pair.
func RegisterComponent(reg prometheus.Registerer, domain string) {
	promauto.With(reg).NewGauge(prometheus.GaugeOpts{Name: "rosterd_component_info",
		Help: "1, with the domain of the component as a label. The two instances of a pair have the same one.", ConstLabels: prometheus.Labels{"domain": domain}}).Set(1)
}

// RegisterSessions registers how many resources are connected and interested.
// counts is called at each scrape.
func RegisterSessions(reg prometheus.Registerer, counts func() (connected, interested int)) {
	gauge(reg, "rosterd_sessions", "Connected resources of the served domains, as far as the server told.",
		func() int { connected, _ := counts(); return connected })
	gauge(reg, "rosterd_interested_resources", "Connected resources that asked for their roster and are sent roster pushes.",
		func() int { _, interested := counts(); return interested })
}

// Rosters are the figures of a users.Manager.
type Rosters struct {
	Marked, Resync, Waiting int
	Retries, Held           uint64
}

// RegisterRosters registers these figures. counts is called at each scrape.
func RegisterRosters(reg prometheus.Registerer, counts func() Rosters) {
	gauge(reg, "rosterd_users_marked", "Users whose last refresh failed: they are tried again until it is done.",
		func() int { return counts().Marked })
	gauge(reg, "rosterd_resync_users", "Users that are still to be brought in line after a restart, a lost stream or a report while they were offline, without the marked ones.",
		func() int { return counts().Resync })
	gauge(reg, "rosterd_users_held", "Users whose roster from the backend is not applied, as it would remove most of their contacts: it waits for contacts.confirm_after, or for rosterd approve or reject.",
		func() int { return counts().Waiting })
	counter(reg, "rosterd_refresh_retries_total", "Refreshes of marked users that were tried again.",
		func() uint64 { return counts().Retries })
	counter(reg, "rosterd_removals_held_total", "Rosters from the backend that were not applied at once, as they would remove most of a user's contacts.",
		func() uint64 { return counts().Held })
}

func gauge(reg prometheus.Registerer, name, help string, value func() int) {
	promauto.With(reg).NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
}

func counter(reg prometheus.Registerer, name, help string, value func() uint64) {
	promauto.With(reg).NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
}

// RegisterWays registers how each host is served, see component.Routes. ways is
// called at each scrape, and calls add for each host.
func RegisterWays(reg prometheus.Registerer, ways func(add func(host, query, push, presence, serverRoster string))) {
	reg.MustRegister(wayCollector(ways))
}

type wayCollector func(add func(host, query, push, presence, serverRoster string))

var wayDesc = prometheus.NewDesc("rosterd_host_way",
	"1, with the ways that the server leaves for a host as labels.", []string{"host", "query", "push", "presence", "server_roster"}, nil)

func (c wayCollector) Describe(ch chan<- *prometheus.Desc) { ch <- wayDesc }

func (c wayCollector) Collect(ch chan<- prometheus.Metric) {
	c(func(host, query, push, presence, serverRoster string) {
		ch <- prometheus.MustNewConstMetric(wayDesc, prometheus.GaugeValue, 1, host, query, push, presence, serverRoster)
	})
}
