package fetcher

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rosterd/jid"
	"rosterd/roster"
)

// benchFetcher is a Fetcher and the backend whose users all have the same
// contacts, which costs the backend nothing.
func benchFetcher(b *testing.B, contacts, bulkSize int) *Fetcher {
	b.Helper()
	body := rosterOf(contacts)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			var names []string
			_ = json.NewDecoder(r.Body).Decode(&names)
			for i, name := range names {
				io.WriteString(w, map[bool]string{true: "{", false: ","}[i == 0]+`"`+name+`":`)
				w.Write(body)
			}
			io.WriteString(w, "}")
			return
		}
		w.Header().Set("ETag", `"v1"`)
		if r.Header.Get("If-None-Match") == `"v1"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Write(body)
	}))
	b.Cleanup(backend.Close)
	o := Options{
		URL:     func(user jid.JID) (string, error) { return backend.URL + "/contacts/" + user.Local(), nil },
		Timeout: time.Minute, MaxInFlight: 64, MaxBytes: 16 << 20, UserAgent: "rosterd", Logger: slog.New(slog.DiscardHandler),
		Metrics: Metrics{
			Fetches:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fetches"}, []string{"result"}),
			Duration: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "duration"}),
			InFlight: prometheus.NewGauge(prometheus.GaugeOpts{Name: "in_flight"}),
			Skipped:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "skipped"}, []string{"reason"}),
			Ignored:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ignored"}, []string{"field"}),

			CircuitsOpen: prometheus.NewGauge(prometheus.GaugeOpts{Name: "circuits_open"}),
			BulkFetches:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "bulk"}, []string{"result"}),
		},
	}
	if bulkSize > 0 {
		o.BulkSize, o.BulkURL = bulkSize, func(string) (string, bool) { return backend.URL + "/bulk", true }
	}
	f := New(o)
	b.Cleanup(f.Close)
	return f
}

// One fetch after the other, of a user who changed and of one who did not. One who
// comes alone is asked for alone, whether the domain has a bulk URL or not.
func BenchmarkFetch(b *testing.B) {
	for _, bulkSize := range []int{0, 100} {
		f := benchFetcher(b, 200, bulkSize)
		first, err := f.Fetch(b.Context(), roster.Request{User: juliet, Hurry: true})
		if err != nil {
			b.Fatal(err)
		}
		for name, r := range map[string]roster.Request{"200": {User: juliet}, "304": {User: juliet, Validator: first.Validator}} {
			b.Run(fmt.Sprintf("%s/bulk=%d", name, bulkSize), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					f.FetchMany(b.Context(), []roster.Request{r}, func(_ int, got roster.Fetched, err error) {
						if err != nil || (got.Roster == nil) != (name == "304") {
							b.Error(got, err)
						}
					})
				}
			})
		}
	}
}

// Many users, as in a refresh of all: as many at once as FetchMany is best given. A
// user is one operation.
func BenchmarkRefresh(b *testing.B) {
	users := make([]roster.Request, 1000)
	for i := range users {
		users[i].User = numbered(i)
	}
	for _, contacts := range []int{2, 20, 200} {
		for _, bulkSize := range []int{0, 100} {
			b.Run(fmt.Sprintf("contacts=%d/bulk=%d", contacts, bulkSize), func(b *testing.B) {
				f := benchFetcher(b, contacts, bulkSize)
				size, atOnce := f.BatchSize("example.org"), 48
				if size > 1 {
					atOnce = bulkRequests
				}
				slots := make(chan struct{}, atOnce)
				b.ReportAllocs()
				b.ResetTimer()
				var wg sync.WaitGroup
				for i := 0; i < b.N; i += size {
					slots <- struct{}{}
					wg.Go(func() {
						defer func() { <-slots }()
						begin := i % len(users)
						f.FetchMany(b.Context(), users[begin:begin+min(size, b.N-i)], func(_ int, got roster.Fetched, err error) {
							if err != nil || got.Roster.Len() != contacts {
								b.Error(got, err)
							}
						})
					})
				}
				wg.Wait()
			})
		}
	}
}
