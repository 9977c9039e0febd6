package metrics

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Handler serves GET /metrics from g, GET /healthz (200 while the program
// runs), GET /readyz: 200 while ready returns no error, with the state and the notes, a line
// each, else 503 with the reason in one line; GET /status: what status
// returns, as JSON; and GET /: the status page. Both are called at each request, from any
// goroutine.
func Handler(g prometheus.Gatherer, ready func() (state string, notes []string, err error), status func() any, page Page) http.Handler {
	mux := http.NewServeMux()
	page.register(mux)
	mux.Handle("GET /metrics", promhttp.HandlerFor(g, promhttp.HandlerOpts{MaxRequestsInFlight: 8}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		state, notes, err := ready()
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, state)
		for _, note := range notes {
			fmt.Fprintln(w, "note:", note)
		}
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(status()) // fails only if the caller has gone
	})
	return mux
}
