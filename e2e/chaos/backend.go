package chaos

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// backend serves the truth, or what a fault makes of it, as the contacts
// backend. Its methods may be called by several goroutines.
type backend struct {
	truth   *truth
	journal *journal
	figures *Figures
	// mayLie says whether a sudden empty answer for a user is one that rosterd
	// promises to see through.
	mayLie   func(user string) bool
	happened func(occasion)

	server   *http.Server
	listener net.Listener
	closing  chan struct{}

	mu    sync.Mutex
	rng   *rand.Rand      // guarded by mu, as all below
	fault *backendFault   // nil: none
	lied  map[string]bool // users about whom it has lied
	pace  time.Duration   // each right answer takes so long
	busy  int             // requests that it is working on
	most  int             // that it has ever been working on at a time
}

// backendFault is what the backend does wrong.
type backendFault struct {
	kind  string
	user  string  // the only one concerned; "": all are
	share float64 // of the requests
}

// backendFaults are the kinds, each with what it does to an answer. false means
// that the connection is broken.
var backendFaults = map[string]func(b *backend, w http.ResponseWriter, r *http.Request, body []byte) bool{
	"500":       status(http.StatusInternalServerError, `{}`),
	"503":       status(http.StatusServiceUnavailable, ""),
	"404":       status(http.StatusNotFound, `{"error":"no such user"}`),
	"html":      status(http.StatusOK, "<!DOCTYPE html><html><body>Please log in</body></html>"),
	"not json":  status(http.StatusOK, `{"romeo@example.org": `),
	"no object": status(http.StatusOK, `"ok"`),
	"error 200": status(http.StatusOK, `{"error":{"message":"database is locked"}}`),
	"no body":   status(http.StatusOK, ""),
	"redirect": func(_ *backend, w http.ResponseWriter, r *http.Request, _ []byte) bool {
		http.Redirect(w, r, r.URL.Path, http.StatusFound)
		return true
	},
	"half body": func(_ *backend, w http.ResponseWriter, _ *http.Request, body []byte) bool {
		half(w, body)
		return false
	},
	"stalled body": func(b *backend, w http.ResponseWriter, r *http.Request, body []byte) bool {
		half(w, body)
		b.hold(r, time.Hour)
		return false
	},
	"slow": func(b *backend, w http.ResponseWriter, r *http.Request, body []byte) bool {
		b.hold(r, b.chance(20*time.Millisecond, 400*time.Millisecond)) // and tells what was true before
		whole(w, body)
		return true
	},
	"silent": func(b *backend, _ http.ResponseWriter, r *http.Request, _ []byte) bool {
		b.hold(r, time.Hour)
		return false
	},
	"reset": func(*backend, http.ResponseWriter, *http.Request, []byte) bool { return false },
}

func status(code int, body string) func(*backend, http.ResponseWriter, *http.Request, []byte) bool {
	return func(_ *backend, w http.ResponseWriter, _ *http.Request, _ []byte) bool {
		w.WriteHeader(code)
		_, _ = w.Write([]byte(body))
		return true
	}
}

func whole(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body)
}

func half(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	_, _ = w.Write(body[:len(body)/2])
	_ = http.NewResponseController(w).Flush()
}

// startBackend starts a backend on any free port.
func startBackend(t *truth, j *journal, f *Figures, rng *rand.Rand) (*backend, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &backend{truth: t, journal: j, figures: f, rng: rng, listener: l, closing: make(chan struct{}), lied: map[string]bool{}}
	b.server = &http.Server{Handler: b, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = b.server.Serve(l) }()
	return b, nil
}

func (b *backend) address() string { return b.listener.Addr().String() }

func (b *backend) close() {
	close(b.closing)
	_ = b.server.Close()
}

// setFault begins a fault; nil ends it.
func (b *backend) setFault(f *backendFault) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fault = f
}

// ServeHTTP implements http.Handler.
func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, _ := url.PathUnescape(strings.TrimPrefix(r.URL.EscapedPath(), "/contacts/"))
	kind := b.faultFor(user)
	body, contacts, version := b.truth.answer(user)
	if body == nil {
		http.NotFound(w, r)
		return
	}
	b.figures.count(&b.figures.Fetches)
	b.happened(backendAsked)
	switch {
	case kind == "":
		b.work(r)
		b.journal.note("backend: %s: version %d, %d contacts", user, version, contacts)
		whole(w, body)
		b.happened(backendAnswered)
	case kind == suddenlyEmpty:
		b.journal.note("backend: %s: suddenly empty, in place of version %d, %d contacts", user, version, contacts)
		whole(w, []byte(`{}`))
		b.happened(backendAnswered)
	default:
		b.journal.note("backend: %s: %s, in place of version %d, %d contacts", user, kind, version, contacts)
		if !backendFaults[kind](b, w, r, body) {
			panic(http.ErrAbortHandler)
		}
	}
}

const suddenlyEmpty = "suddenly empty"

// faultFor is the kind of the fault that an answer has, or "".
func (b *backend) faultFor(user string) string {
	b.mu.Lock()
	f := b.fault
	concerned := f != nil && (f.user == "" || f.user == user) && b.rng.Float64() < f.share
	b.mu.Unlock()
	if !concerned {
		return ""
	}
	if f.kind == suddenlyEmpty {
		// Once, for the second answer that says the same counts.
		if !b.mayLie(user) {
			return ""
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.lied[user] {
			return ""
		}
		b.lied[user] = true
	}
	b.figures.fault("the backend's answer: " + f.kind)
	return f.kind
}

// setPace makes each right answer take so long from now on.
func (b *backend) setPace(pace time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pace = pace
}

// mostAtOnce is how many requests it has ever been working on at a time.
func (b *backend) mostAtOnce() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.most
}

// work is what a right answer takes. It is over before anything of the answer is
// written: who has read it may ask again at once.
func (b *backend) work(r *http.Request) {
	b.mu.Lock()
	pace := b.pace
	b.busy++
	b.most = max(b.most, b.busy)
	b.mu.Unlock()
	if pace > 0 {
		b.hold(r, pace)
	}
	b.mu.Lock()
	b.busy--
	b.mu.Unlock()
}

// hold waits, but not longer than the caller.
func (b *backend) hold(r *http.Request, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
	case <-b.closing:
	}
}

func (b *backend) chance(from, to time.Duration) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return from + time.Duration(b.rng.Int64N(int64(to-from)))
}
