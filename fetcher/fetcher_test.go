package fetcher

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"rosterd/internal/bubble"
	"rosterd/jid"
	"rosterd/users"
)

var _ users.Source = (*Fetcher)(nil)

func TestFetch(t *testing.T) {
	asked := make(chan *http.Request, 1)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- r
		io.WriteString(w, good)
	})
	b := newBench(t, s.URL, func(o *Options) {
		o.Header["host"] = []string{"backend.example.org"} // as a configuration may spell it
	})
	r, err := b.Fetch(t.Context(), mustParse("juliet@example.org/balcony"))
	if err != nil {
		t.Fatal(err)
	}
	if i, ok := r.Item(mustParse("romeo@example.org")); !ok || i.Name != "Romeo" || r.Len() != 1 {
		t.Errorf("got %+v", r.Items())
	}
	req := <-asked
	if req.Method != "GET" || req.URL.Path != "/contacts/juliet@example.org" || req.Host != "backend.example.org" {
		t.Errorf("asked %s %s of %s", req.Method, req.URL.Path, req.Host)
	}
	for name, want := range map[string]string{"Accept": "application/json", "User-Agent": "rosterd/test",
		"X-Key": secret, "Authorization": "Bearer " + secret, "Accept-Encoding": "gzip"} {
		if got := req.Header.Get(name); got != want {
			t.Errorf("sent %s: %q, want %q", name, got, want)
		}
	}
	if b.fetches(resultOK) != 1 || b.observed.Load() != 1 || b.inFlight() != 0 {
		t.Errorf("metrics: %s", b.exposed(t))
	}
	if b.log.String() != "" {
		t.Errorf("logged %s", b.log)
	}
}

// The user and password of the URL are sent, unless a header says otherwise.
func TestUserinfo(t *testing.T) {
	sent := make(chan string, 1)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		sent <- r.Header.Get("Authorization")
		io.WriteString(w, "[]")
	})
	base := strings.Replace(s.URL, "http://", "http://user:pass@", 1)
	for _, header := range []http.Header{nil, {"Authorization": {"Bearer x"}}} {
		b := newBench(t, base, func(o *Options) { o.Header = header })
		if _, err := b.Fetch(t.Context(), juliet); err != nil {
			t.Fatal(err)
		}
		want := header.Get("Authorization")
		if want == "" {
			want = "Basic dXNlcjpwYXNz"
		}
		if got := <-sent; got != want {
			t.Errorf("sent %q, want %q", got, want)
		}
	}
}

func TestHTTP2(t *testing.T) {
	proto := make(chan string, 1)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proto <- r.Proto
		io.WriteString(w, good)
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	b := newBench(t, s.URL)
	trusted := x509.NewCertPool()
	trusted.AddCert(s.Certificate())
	b.transport.Load().TLSClientConfig = &tls.Config{RootCAs: trusted}
	if _, err := b.Fetch(t.Context(), juliet); err != nil {
		t.Fatal(err)
	}
	if p := <-proto; p != "HTTP/2.0" {
		t.Errorf("spoke %s", p)
	}
}

// Connections are used again, also after an answer that was of no use.
func TestKeepAlive(t *testing.T) {
	var connections, requests atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1)%2 == 0 {
			http.Error(w, strings.Repeat("x", 10_000), http.StatusNotFound)
			return
		}
		io.WriteString(w, good)
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	s.Start()
	defer s.Close()
	b := newBench(t, s.URL)
	for range 6 {
		b.Fetch(t.Context(), juliet)
	}
	if connections.Load() != 1 || b.fetches(resultOK) != 3 || b.fetches(resultStatus) != 3 {
		t.Errorf("%d connections for %d requests", connections.Load(), requests.Load())
	}
}

func TestMaxBytes(t *testing.T) {
	const limit = 1000
	for _, test := range []struct {
		size    int
		chunked bool
		gzip    bool
		want    string
	}{
		{limit, false, false, resultOK},
		{limit, true, false, resultOK},
		{limit, true, true, resultOK},
		{limit + 1, false, false, resultTooLarge},
		{limit + 1, true, false, resultTooLarge},
		{limit + 1, true, true, resultTooLarge},
	} {
		t.Run(fmt.Sprint(test), func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				body := "[" + strings.Repeat(" ", test.size-2) + "]"
				if test.chunked {
					w.(http.Flusher).Flush()
				}
				io.WriteString(w, body)
			})
			if test.gzip {
				s.Config.Handler = zipped(s.Config.Handler)
			}
			b := newBench(t, s.URL, func(o *Options) { o.MaxBytes = limit })
			_, err := b.Fetch(t.Context(), juliet)
			if b.fetches(test.want) != 1 {
				t.Errorf("failed with %v, want result %s", err, test.want)
			}
		})
	}
}

// zipped compresses what h answers.
func zipped(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		defer z.Close()
		h.ServeHTTP(zippedWriter{w, z}, r)
	})
}

type zippedWriter struct {
	http.ResponseWriter
	z *gzip.Writer
}

func (w zippedWriter) Write(p []byte) (int, error) { return w.z.Write(p) }
func (w zippedWriter) Flush()                      { w.z.Flush() }

// Only if it is wished, and only 404, is the user one without contacts.
func TestNotFoundEmpty(t *testing.T) {
	for _, test := range []struct {
		status int
		empty  bool
		want   string
	}{
		{404, true, resultOK},
		{404, false, resultStatus},
		{410, true, resultStatus},
		{403, true, resultStatus},
		{500, true, resultStatus},
		{204, true, resultStatus},
	} {
		t.Run(fmt.Sprint(test), func(t *testing.T) {
			s := serve(t, answer(test.status, good))
			b := newBench(t, s.URL, func(o *Options) { o.NotFoundEmpty = test.empty })
			r, err := b.Fetch(t.Context(), juliet)
			if b.fetches(test.want) != 1 || (err == nil) != (test.want == resultOK) || (r != nil) != (err == nil) || r.Len() != 0 {
				t.Errorf("got %v, %v, want result %s", r, err, test.want)
			}
			if i := b.Inspect(t.Context(), juliet); (i.Err == nil) != (err == nil) || i.Items != 0 {
				t.Errorf("inspected: %+v", i)
			}
		})
	}
}

func TestMaxInFlight(t *testing.T) {
	const limit, fetches = 4, 40
	arrived, leave := make(chan struct{}, fetches), make(chan struct{})
	var now, most atomic.Int32
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		arrived <- struct{}{}
		<-leave
		now.Add(-1)
		io.WriteString(w, good)
	})
	b := newBench(t, s.URL, func(o *Options) { o.MaxInFlight = limit })
	var wg sync.WaitGroup
	for range fetches {
		wg.Go(func() {
			if _, err := b.Fetch(inHurry(t.Context()), juliet); err != nil {
				t.Error(err)
			}
		})
	}
	for range limit {
		<-arrived
	}
	if n := b.inFlight(); n != limit {
		t.Errorf("%v in flight, want %d", n, limit)
	}
	for i := range fetches {
		leave <- struct{}{}
		if i < fetches-limit {
			<-arrived
		}
	}
	wg.Wait()
	if most.Load() != limit {
		t.Errorf("up to %d at once, want %d", most.Load(), limit)
	}
	if b.inFlight() != 0 || b.fetches(resultOK) != fetches || b.observed.Load() != fetches {
		t.Errorf("metrics: %s", b.exposed(t))
	}
}

// A fetch that waits for a slot ends with its context, and has no duration.
// Its own timeout does not run while it waits.
func TestWaitForSlot(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		b := newBench(t, "", func(o *Options) {
			o.MaxInFlight, o.Timeout = 1, time.Second
			o.URL = func(jid.JID) (string, error) { return "gopher://a.slot", nil }
		})
		if err := b.slots.Acquire(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		_, err := b.Fetch(ctx, juliet)
		if time.Since(start) != time.Minute || !errors.Is(err, context.DeadlineExceeded) ||
			err.Error() != "timed out while it waited for other fetches" {
			t.Errorf("failed after %v with %v", time.Since(start), err)
		}
		canceled, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		if _, err := b.Fetch(canceled, juliet); !errors.Is(err, context.Canceled) || err.Error() != "canceled" {
			t.Errorf("failed with %v", err)
		}
		if b.fetches(resultTimeout) != 1 || b.fetches(resultCanceled) != 1 || b.observed.Load() != 0 {
			t.Errorf("metrics: %s", b.exposed(t))
		}
		b.slots.Release(1)
		if _, err := b.Fetch(t.Context(), juliet); err.(*Error).Result != resultOther {
			t.Errorf("failed with %v, want a slot", err)
		}
	})
}

func TestSkippedIsCountedAndLoggedOnce(t *testing.T) {
	for name, test := range map[string]struct{ entry, result string }{
		"others are good": {`, "romeo@example.org": {}`, resultOK},
		"none is good":    {``, resultInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, answer(200, `{"x\nlevel=ERROR \u001b[31m`+strings.Repeat("x", 1000)+`@": {"name": "`+bodySecret+`"}, "@": 5, "nurse@example.org/x": {}, "juliet@example.org": {}`+test.entry+`}`))
			b := newBench(t, s.URL)
			b.Fetch(t.Context(), juliet)
			if b.fetches(test.result) != 1 {
				t.Errorf("not %s: %s", test.result, b.exposed(t))
			}
			for reason, want := range map[string]float64{reasonJID: 2, reasonResource: 1, reasonSelf: 1} {
				if got := testutil.ToFloat64(b.options.Metrics.Skipped.WithLabelValues(reason)); got != want {
					t.Errorf("skipped %v by %s, want %v", got, reason, want)
				}
			}
			log := b.log.String()
			warning, detail, _ := strings.Cut(log, "\n") // which alone names a contact
			if strings.Count(log, "\n") != 2 || !strings.HasSuffix(warning, " user=juliet@example.org skipped.jid=2 skipped.resource=1 skipped.self=1") ||
				!strings.Contains(detail, "level=DEBUG") || !strings.Contains(detail, "xxx") {
				t.Errorf("logged %s", log)
			}
			if strings.Contains(b.exposed(t), bodySecret) || strings.Contains(log, "\x1b") || len(log) > 700 {
				t.Errorf("exposed %s", b.exposed(t))
			}
		})
	}
}
