// Package fetcher asks the backend for a user's contacts: one HTTP GET of the
// contacts URL, the JSON in its answer made into a [roster.Roster].
//
// # The contacts URL
//
// The contract is that of Prosody's community module mod_http_roster_admin,
// and a backend written for it is served unchanged. The answer has status 200
// and a body that is one JSON object, keyed by the contacts' JIDs:
//
//	{"romeo@example.org": {"name": "Romeo", "groups": {"Friends": true}}}
//
// The module reads name and groups. rosterd also reads subscription ("none",
// "to", "from" or "both", which is the default), ask and approved (RFC 6121,
// section 2.1.2), takes groups as an array of strings too, and the whole as an
// array of such objects that name their contact in a field jid. Other fields
// are ignored. A field that is null is absent. [] and {} are the empty roster,
// and the empty object wherever one is expected: PHP writes it as [].
//
// Everything else is a failure and never an empty roster: another status
// (redirects are not followed; the module does not either, and the headers may
// carry a key), a body that is not JSON, is cut off, goes on after the value
// or is too large.
//
// # Entries that are skipped
//
// An entry that cannot be an item of this user's roster is left out, counted by
// reason (see [SkipReasons]) and logged, all of one fetch in one line. The
// others are served; only if entries came and none is usable, the fetch has
// failed.
package fetcher

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rosterd/jid"
	"rosterd/roster"
)

const (
	maxHeaderBytes  = 64 << 10 // of an answer
	idleConnTimeout = 30 * time.Second

	// An HTTP/2 connection that died silently would fail one fetch after the
	// other for as long as TCP takes to notice.
	http2Silence = 10 * time.Second
	http2Ping    = 5 * time.Second
)

// Options are the settings of a [Fetcher]. All fields but Header and UserAgent
// are required.
type Options struct {
	// URL is the contacts URL of a user, given as a bare JID. It is called from
	// many goroutines.
	URL func(user jid.JID) (string, error)
	// Timeout is for one fetch, from dialling to the last byte of the body.
	Timeout time.Duration
	// MaxInFlight is how many fetches are under way at once, see
	// [Fetcher.SetMaxInFlight].
	MaxInFlight int
	// MaxBytes is the largest body read, decompressed.
	MaxBytes int64
	// Header is sent with every fetch, and to nobody else. It wins over what the
	// Fetcher sends by itself, UserAgent and the user and password of a URL
	// included.
	Header    http.Header
	UserAgent string

	Logger  *slog.Logger
	Metrics Metrics
}

// Metrics is what a [Fetcher] observes.
type Metrics struct {
	Fetches  *prometheus.CounterVec // by result, one of Results
	Duration prometheus.Observer    // seconds, from dialling to the last byte
	InFlight prometheus.Gauge
	Skipped  *prometheus.CounterVec // entries by reason, one of SkipReasons
}

// Fetcher fetches contacts. It implements [roster.Source] and is safe for
// concurrent use.
type Fetcher struct {
	url       func(user jid.JID) (string, error)
	timeout   time.Duration
	maxBytes  int64
	header    http.Header // never modified
	log       *slog.Logger
	metrics   Metrics
	slots     *limiter
	transport *http.Transport
}

// New makes a Fetcher, which starts no goroutine and connects to nobody before
// the first Fetch. The proxy is taken from the environment, as
// [http.ProxyFromEnvironment] describes.
func New(o Options) *Fetcher {
	header := http.Header{"Accept": {"application/json"}}
	if o.UserAgent != "" {
		header.Set("User-Agent", o.UserAgent)
	}
	for name, values := range o.Header {
		header[http.CanonicalHeaderKey(name)] = values
	}
	dialer := &net.Dialer{Timeout: o.Timeout} // a dial may outlive the fetch that began it
	return &Fetcher{
		url:      o.URL,
		timeout:  o.Timeout,
		maxBytes: o.MaxBytes,
		header:   header.Clone(),
		log:      o.Logger,
		metrics:  o.Metrics,
		slots:    newLimiter(o.MaxInFlight),
		transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            dialer.DialContext,
			TLSHandshakeTimeout:    o.Timeout,
			MaxIdleConns:           o.MaxInFlight,
			MaxIdleConnsPerHost:    o.MaxInFlight,
			IdleConnTimeout:        idleConnTimeout,
			MaxResponseHeaderBytes: maxHeaderBytes,
			ForceAttemptHTTP2:      true, // a DialContext of one's own turns it off
			HTTP2:                  &http.HTTP2Config{SendPingTimeout: http2Silence, PingTimeout: http2Ping},
		},
	}
}

// Fetch asks the backend for the contacts of user, of whom the bare JID counts.
// It waits for its turn if too many fetches are under way, which is not part of
// the timeout, and returns when ctx ends, whatever the backend does. The error
// is always an [*Error], and fit for everybody's eyes.
func (f *Fetcher) Fetch(ctx context.Context, user jid.JID) (*roster.Roster, error) {
	r, failure := f.fetch(ctx, user.Bare(), nil)
	if failure != nil {
		f.metrics.Fetches.WithLabelValues(failure.Result).Inc()
		return nil, failure
	}
	f.metrics.Fetches.WithLabelValues(resultOK).Inc()
	return r, nil
}

// fetch keeps its slot until the body is decoded: slots bound the memory too.
// each, if there is one, is called for each entry that is skipped.
func (f *Fetcher) fetch(ctx context.Context, user jid.JID, each func(contact, reason string)) (*roster.Roster, *Error) {
	if err := f.slots.acquire(ctx); err != nil {
		return nil, contextError(err, "timed out while it waited for other fetches")
	}
	defer f.slots.release()
	f.metrics.InFlight.Inc()
	defer f.metrics.InFlight.Dec()

	start := time.Now()
	body, failure := f.get(ctx, user)
	f.metrics.Duration.Observe(time.Since(start).Seconds())
	if failure != nil {
		return nil, failure
	}
	r, skipped, failure := decodeEach(body, user, each)
	f.report(ctx, user, skipped)
	return r, failure
}

// report counts and logs what was skipped in one fetch.
func (f *Fetcher) report(ctx context.Context, user jid.JID, s skipped) {
	if len(s.reasons) == 0 {
		return
	}
	counts := make([]slog.Attr, 0, len(s.reasons))
	for _, reason := range SkipReasons {
		if n := s.reasons[reason]; n > 0 {
			f.metrics.Skipped.WithLabelValues(reason).Add(float64(n))
			counts = append(counts, slog.Int(reason, n))
		}
	}
	f.log.LogAttrs(ctx, slog.LevelWarn, "skipped contacts that the backend sent",
		slog.String("user", user.String()),
		slog.GroupAttrs("skipped", counts...),
		slog.String("first", printable(s.first)))
}

// SetMaxInFlight changes how many fetches are under way at once. Those that
// are go on. The number of connections kept between fetches stays as it was.
func (f *Fetcher) SetMaxInFlight(n int) { f.slots.setLimit(n) }

// Close closes the connections that wait for another fetch. Fetches under way
// end by their contexts.
func (f *Fetcher) Close() { f.transport.CloseIdleConnections() }
