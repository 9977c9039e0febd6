// Package fetcher asks the backend for users' contacts, and makes the JSON of its
// answers into a [roster.Roster] each. docs/backend.md is what a backend has to
// answer: the contract of Prosody's community module mod_http_roster_admin, and other
// spellings of the same.
//
// A failure is never an empty roster (but see [Options.NotFoundEmpty]). Failures are a
// status that is neither 200 nor a 304 that was asked for (redirects are not
// followed: the headers may carry a key), a body that is no JSON object or array, is
// cut off, goes on after the value or is too large, and entries of which none is
// usable.
//
// An entry without a JID that a contact of this user can have is left out, and a field
// that cannot be understood has its default. Both are counted (see [SkipReasons] and
// [Fields]) and logged, all of one fetch in one line.
//
// # Many users at once
//
// [Fetcher.FetchMany] asks for many users of one domain with one POST if
// [Options.BulkURL] has a URL. Whoever is not in the answer, or with something that is
// no contacts, is asked for alone. All are if the whole fails, and so is everybody for
// 5 s, or after a 404, 405 or 501 for five minutes. If the answer is too large, half of
// the users are asked for at once.
//
// # Edits
//
// [Fetcher.Edit] passes on what users change, where [Options.EditURL] has a URL. It is the only
// request that changes something, and is never sent twice.
//
// # A backend that is down
//
// When half of at least 20 fetches within 10 s found no connection, no answer in
// time or a 5xx, nobody is asked at that host and port: fetches fail at once, with
// the result circuit_open. Every 5 s rosterd asks for the user who was asked for
// last, until the backend answers. What may be one user's trouble, a timeout or a
// 5xx, counts once for each user; any other failure does not count at all. Each
// 10 s are counted anew.
package fetcher

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"rosterd/jid"
	"rosterd/roster"
)

const maxHeaderBytes = 64 << 10 // of an answer

// Options are the settings of a [Fetcher]. All fields but Header, UserAgent,
// BulkURL, BulkSize, EditURL and TLS are required.
type Options struct {
	// URL is the contacts URL of a user, given as a bare JID. It is called from
	// many goroutines.
	URL func(user jid.JID) (string, error)
	// Timeout is for one fetch, from dialling to the last byte of the body.
	Timeout time.Duration
	// MaxInFlight is how many fetches are under way at once. Those for whom no query
	// waits have three quarters of that, so that a client that logs in never waits
	// behind all of them.
	MaxInFlight int
	// MaxBytes is the largest body read, decompressed.
	MaxBytes int64
	// NotFoundEmpty says that the status 404 is a roster without contacts. Else
	// it is a failure.
	NotFoundEmpty bool
	// BulkURL is where many users of a domain are asked for at once, if ok. It is
	// called from many goroutines, and may be nil.
	BulkURL func(domain string) (url string, ok bool)
	// BulkSize is how many users are asked for at once at most. Less than 2 is not
	// at all.
	BulkSize int
	// EditURL is where users' edits are POSTed, if ok. It is called from many goroutines,
	// and may be nil.
	EditURL func(domain string) (url string, ok bool)
	// Header is sent with every fetch and edit, and to nobody else. It wins over what the
	// Fetcher sends by itself, UserAgent and the user and password of a URL
	// included.
	Header    http.Header
	UserAgent string
	// TLS is for backends that speak it; nil: the system's authorities are trusted.
	TLS *tls.Config

	Logger  *slog.Logger
	Metrics Metrics
}

// Metrics is what a [Fetcher] observes.
type Metrics struct {
	Fetches  *prometheus.CounterVec // by result, one of Results
	Duration prometheus.Observer    // seconds, from dialling to the last byte, of each request
	InFlight prometheus.Gauge
	Skipped  *prometheus.CounterVec // entries by reason, one of SkipReasons
	Ignored  *prometheus.CounterVec // fields by field, one of Fields
	// CircuitsOpen is how many backends are not asked as they are down.
	CircuitsOpen prometheus.Gauge
	BulkFetches  *prometheus.CounterVec // requests for several users by result, one of BulkResults
}

// Fetcher fetches contacts. It implements users.Source and is safe for
// concurrent use.
type Fetcher struct {
	options    Options                     // Header and TLS are in the next two, as they can be replaced
	header     atomic.Pointer[http.Header] // which is never modified
	transport  atomic.Pointer[http.Transport]
	recovered  func(domains []string) // nil: nobody
	slots      *semaphore.Weighted
	background *semaphore.Weighted // those for whom no query waits need one of these, too
	edits      *semaphore.Weighted // edits need one of these, besides
	buffers    sync.Pool           // of *bytes.Buffer, to read bodies
	decoders   sync.Pool           // of *decoder

	misdirected rate.Sometimes // logs edits that are refused as a wrong URL would be

	mu       sync.Mutex          // guards all below; those in it have locks of their own
	breakers map[string]*breaker // by backend
	bulks    map[string]*bulk    // by domain

	probes sync.WaitGroup
	life   context.Context // of the probes; mu is held while it ends and while one begins
	end    context.CancelFunc
}

// New makes a Fetcher, which starts no goroutine and connects to nobody before
// the first Fetch. [Fetcher.Close] ends it. The proxy is taken from the environment, as
// [http.ProxyFromEnvironment] describes.
func New(o Options) *Fetcher {
	f := &Fetcher{
		options:    o,
		slots:      semaphore.NewWeighted(int64(o.MaxInFlight)),
		background: semaphore.NewWeighted(int64(max(1, o.MaxInFlight*3/4))),
		edits:      semaphore.NewWeighted(int64(max(1, o.MaxInFlight/4))),
		buffers:    sync.Pool{New: func() any { return new(bytes.Buffer) }},
		decoders:   sync.Pool{New: func() any { return newDecoder() }},
		breakers:   make(map[string]*breaker),
		bulks:      make(map[string]*bulk),

		misdirected: rate.Sometimes{Interval: time.Minute},
	}
	f.life, f.end = context.WithCancel(context.Background())
	dialer := &net.Dialer{Timeout: o.Timeout} // a dial may outlive the fetch that began it
	f.transport.Store(&http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		OnProxyConnectResponse: checkConnect,
		TLSClientConfig:        o.TLS,
		DialContext:            dialer.DialContext,
		TLSHandshakeTimeout:    o.Timeout,
		MaxIdleConns:           o.MaxInFlight,
		MaxIdleConnsPerHost:    o.MaxInFlight,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: maxHeaderBytes,
		ForceAttemptHTTP2:      true, // a DialContext of one's own turns it off
		// A connection that died silently would fail one fetch after the other for as long
		// as TCP takes to notice.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: 5 * time.Second},
	})
	f.SetHeader(o.Header)
	return f
}

// Fetch asks the backend for the contacts of a user, of whom the bare JID counts,
// at the contacts URL. It waits for a slot if too many fetches are under way, which
// is not part of the timeout, and returns when ctx ends, whatever the backend does.
// In a hurry, it asks twice if the connection is refused or the answer is 5xx. The
// error is always an [*Error], and fit for everybody's eyes.
func (f *Fetcher) Fetch(ctx context.Context, r roster.Request) (roster.Fetched, error) {
	r.User = r.User.Bare()
	fetched, _, failure := f.fetch(ctx, r)
	return f.count(fetched, failure)
}

// count counts the outcome of a fetch.
func (f *Fetcher) count(fetched roster.Fetched, failure *Error) (roster.Fetched, error) {
	switch {
	case failure != nil:
		f.options.Metrics.Fetches.WithLabelValues(failure.Result).Inc()
		return roster.Fetched{}, failure
	case fetched.Roster == nil:
		f.options.Metrics.Fetches.WithLabelValues(resultNotModified).Inc()
	default:
		f.options.Metrics.Fetches.WithLabelValues(resultOK).Inc()
	}
	return fetched, nil
}

// fetch asks for one user.
func (f *Fetcher) fetch(ctx context.Context, r roster.Request) (fetched roster.Fetched, found Findings, failure *Error) {
	req, failure := f.request(r)
	if failure != nil {
		return fetched, found, failure
	}
	contradicted := false
	failure = f.exchange(ctx, req, r.User, r.Hurry, func(a response) (failure *Error) {
		if a.same {
			fetched.Validator, contradicted = r.Validator, contradicts(req, a.header)
			return nil
		}
		d := f.decoders.Get().(*decoder)
		defer f.putDecoder(d)
		fetched.Validator = validatorOf(req.URL, a.header)
		fetched.Roster, found, failure = d.decode(a.body, r.User)
		f.report(ctx, r.User, found)
		return failure
	})
	switch {
	case contradicted:
		r.Validator = ""
		return f.fetch(ctx, r)
	case failure == nil:
		return fetched, found, nil
	case failure.Status == http.StatusNotFound && f.options.NotFoundEmpty:
		return roster.Fetched{Roster: roster.New(nil), Missing: true}, found, nil
	}
	return roster.Fetched{}, found, failure
}

// report counts and logs what could not be served in one fetch.
func (f *Fetcher) report(ctx context.Context, user jid.JID, found Findings) {
	f.reportFound(ctx, user, found.Skipped, SkipReasons, f.options.Metrics.Skipped, "skipped contacts that the backend sent", "skipped")
	f.reportFound(ctx, user, found.Ignored, Fields, f.options.Metrics.Ignored, "ignored fields of contacts that cannot be understood", "ignored")
}

func (f *Fetcher) reportFound(ctx context.Context, user jid.JID, found Found, labels []string, counter *prometheus.CounterVec, message, group string) {
	if found.by == nil {
		return
	}
	var counts []slog.Attr
	for _, label := range labels {
		if n := found.by[label]; n > 0 {
			counter.WithLabelValues(label).Add(float64(n))
			counts = append(counts, slog.Int(label, n))
		}
	}
	who := slog.String("user", user.String())
	f.options.Logger.LogAttrs(ctx, slog.LevelWarn, message, who, slog.GroupAttrs(group, counts...))
	f.options.Logger.LogAttrs(ctx, slog.LevelDebug, "the first of them", who, slog.String("contact", found.First[0].Contact))
}

// SetHeader replaces [Options].Header, from the next request on.
func (f *Fetcher) SetHeader(h http.Header) {
	header := http.Header{"Accept": {"application/json"}}
	if f.options.UserAgent != "" {
		header.Set("User-Agent", f.options.UserAgent)
	}
	for name, values := range h.Clone() {
		header[http.CanonicalHeaderKey(name)] = values
	}
	f.header.Store(&header)
}

// SetTLS replaces [Options].TLS, from the next connection on, and the next request
// has a new one. It is called by one goroutine at a time.
func (f *Fetcher) SetTLS(c *tls.Config) {
	before := f.transport.Load()
	next := before.Clone()
	next.TLSClientConfig = c
	f.transport.Store(next)
	before.CloseIdleConnections()
}

// Recovered sets what is called, with the domains of the users concerned, when a
// backend that was down answers again: what failed may be tried again at once.
// The callback is called from any goroutine and must not block. Recovered is called
// before anything else, or not at all.
func (f *Fetcher) Recovered(callback func(domains []string)) { f.recovered = callback }

// startProbe starts a goroutine, unless the Fetcher is closed. It ends soon after f.life.
func (f *Fetcher) startProbe(probe func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.life.Err() == nil {
		f.probes.Go(probe)
	}
}

// Close ends the probes, waits for that, and closes the connections that wait for
// another fetch. Fetches under way end by their contexts.
func (f *Fetcher) Close() {
	f.mu.Lock()
	f.end()
	f.mu.Unlock()
	f.probes.Wait()
	f.transport.Load().CloseIdleConnections()
}
