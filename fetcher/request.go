package fetcher

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

const (
	// The pause before a fetch asks again is from retryPause to three times that: a
	// backend that restarts is not asked again by all at the same instant.
	retryPause = 50 * time.Millisecond

	// How much of a useless body is read, and how long, to keep its connection.
	drainBytes = 64 << 10
	drainTime  = 100 * time.Millisecond

	// On how many new connections net/http sends a request by itself.
	maxConnections = 2
)

// response is what a backend has answered.
type response struct {
	body   string
	header http.Header
	same   bool // as what the request said is known; there is no body
}

// request makes the request for a user's contacts. It swallows errors that hold the URL,
// which may hold a key.
func (f *Fetcher) request(r roster.Request) (*http.Request, *Error) {
	url, err := f.options.URL(r.User)
	if err != nil {
		return nil, &Error{Result: resultOther, text: "no contacts URL can be made for the user"}
	}
	req, failure := f.newRequest(http.MethodGet, url, make(http.Header), nil)
	if failure == nil {
		condition(req, r.Validator, r.Reported)
	}
	return req, failure
}

// newRequest makes a request with a header, which it takes, and all that is sent
// with every fetch.
func (f *Fetcher) newRequest(method, url string, header http.Header, body io.Reader) (*http.Request, *Error) {
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		return nil, &Error{Result: resultOther, text: "the contacts URL is not valid"}
	}
	req.Header = header
	if u := req.URL.User; u != nil {
		password, _ := u.Password()
		req.SetBasicAuth(u.Username(), password)
	}
	for name, values := range *f.header.Load() {
		req.Header[name] = values
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host // net/http ignores the field in the header
	}
	return req, nil
}

// exchange sends a request on behalf of a user when there is a slot for it. It
// keeps the slot until use has decoded the answer: slots bound the memory too.
func (f *Fetcher) exchange(ctx context.Context, req *http.Request, user jid.JID, hurry bool, use func(response) *Error) *Error {
	b := f.breaker(req.URL)
	if _, ok := b.admits(ctx, user); !ok { // which need not wait for a slot
		return circuitOpen()
	}
	release, err := f.slot(ctx, hurry)
	if err != nil {
		return contextError(err, "timed out while it waited for other fetches")
	}
	defer release()
	generation, ok := b.admits(ctx, user)
	if !ok {
		return circuitOpen()
	}
	f.options.Metrics.InFlight.Inc()
	defer f.options.Metrics.InFlight.Dec()

	start := time.Now()
	got, failure := f.send(ctx, req, hurry, b, generation)
	f.options.Metrics.Duration.Observe(time.Since(start).Seconds())
	f.nameProxy(req, failure)
	b.end(generation, user, failure)
	if failure == nil {
		failure = use(got)
		f.nameProxy(req, failure)
	}
	return failure
}

// slot waits for a slot of a request, or for ctx to end.
func (f *Fetcher) slot(ctx context.Context, hurry bool) (release func(), err error) {
	if hurry {
		return func() { f.slots.Release(1) }, f.slots.Acquire(ctx, 1)
	}
	if err := f.background.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	if err := f.slots.Acquire(ctx, 1); err != nil {
		f.background.Release(1)
		return nil, err
	}
	return func() { f.slots.Release(1); f.background.Release(1) }, nil
}

// send sends a request once, or in a hurry twice, unless the breaker has opened: a
// client waits and nobody else would ask again.
func (f *Fetcher) send(ctx context.Context, req *http.Request, hurry bool, b *breaker, generation uint64) (response, *Error) {
	ctx, cancel := context.WithTimeoutCause(ctx, f.options.Timeout, errTimeout)
	defer cancel()
	got, failure := f.roundTrip(ctx, req)
	if failure != nil && (failure.Result == resultRefused || failure.Status >= 500) &&
		hurry && b.unchanged(generation) && pause(ctx) && b.unchanged(generation) {
		return f.roundTrip(ctx, req)
	}
	return got, failure
}

// pause reports whether there is time for another request, after a while.
func pause(ctx context.Context) bool {
	while := retryPause + rand.N(2*retryPause)
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= while {
		return false
	}
	select {
	case <-time.After(while):
		return true
	case <-ctx.Done():
		return false
	}
}

// roundTrip sends one request, and reads the body of an answer 200. The deadline
// of ctx is that of the fetch.
//
// It calls RoundTrip instead of [http.Client.Do], which would follow redirects
// and wrap errors together with the URL.
func (f *Fetcher) roundTrip(ctx context.Context, req *http.Request) (got response, failure *Error) {
	ctx, end := context.WithCancelCause(ctx)
	cancel := func() { end(nil) }
	defer cancel()
	resp, err := f.transport.Load().RoundTrip(req.WithContext(onFewConnections(ctx, end)))
	if err != nil {
		return got, f.failure(ctx, err)
	}
	defer resp.Body.Close()
	got.header = resp.Header
	status := resp.StatusCode
	if status == http.StatusNotModified && conditional(req) {
		got.same = true
		return got, nil
	}
	if status != http.StatusOK {
		drain(resp.Body, cancel)
		return got, &Error{Result: resultStatus, Status: status, text: fmt.Sprintf("the backend answered %d", status), down: status >= 500}
	}
	if resp.ContentLength > f.options.MaxBytes {
		return got, tooLarge(f.options.MaxBytes)
	}
	body, odd, err := decoded(resp)
	if err == nil {
		got.body, err = f.read(body)
	}
	if err != nil {
		return got, f.failure(ctx, err)
	}
	got.body = strings.TrimPrefix(got.body, "\ufeff") // the byte order mark, which some write before UTF-8
	if odd && !json.Valid([]byte(got.body)) {
		return got, &Error{Result: resultInvalid, text: "not JSON, and the answer has a content coding other than gzip"}
	}
	return got, nil
}

// onFewConnections has end be called when a request is sent on too many new connections. By
// HTTP/2, net/http sends it again, for ever and without a pause, if its stream is reset with
// PROTOCOL_ERROR or REFUSED_STREAM.
func onFewConnections(ctx context.Context, end context.CancelCauseFunc) context.Context {
	var connections atomic.Int32
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
		if !got.Reused && connections.Add(1) > maxConnections {
			end(errReset)
		}
	}})
}

// drain reads a bounded rest of body: only a connection whose answer was read
// to its end is used again. Calling cancel ends the reading.
func drain(body io.Reader, cancel context.CancelFunc) {
	defer time.AfterFunc(drainTime, cancel).Stop()
	_, _ = io.CopyN(io.Discard, body, drainBytes) // failed, the connection is closed
}

// read reads a body to its end, and fails if it is too large.
func (f *Fetcher) read(body io.Reader) (string, error) {
	buffer := f.buffers.Get().(*bytes.Buffer)
	defer func() {
		if buffer.Len() <= maxReused {
			buffer.Reset()
			f.buffers.Put(buffer)
		}
	}()
	n, err := buffer.ReadFrom(io.LimitReader(body, f.options.MaxBytes+1))
	if err == nil && n > f.options.MaxBytes {
		err = tooLarge(f.options.MaxBytes)
	}
	if err != nil {
		return "", err
	}
	return buffer.String(), nil
}

// decoded undoes the content coding of an answer (RFC 9110, section 8.4). As a rule the
// Transport has done that, which asks for gzip. odd says that there is another coding.
//
// COMPAT backends that write "identity" there, or a charset: it changes nothing.
func decoded(resp *http.Response) (body io.Reader, odd bool, err error) {
	header := strings.ToLower(strings.Join(resp.Header.Values("Content-Encoding"), ","))
	names := strings.FieldsFunc(header, func(c rune) bool { return strings.ContainsRune(", \t", c) })
	names = slices.DeleteFunc(names, func(name string) bool { return name == "identity" })
	if len(names) == 1 && (names[0] == "gzip" || names[0] == "x-gzip") {
		body, err = gzip.NewReader(resp.Body)
		return body, false, err
	}
	return resp.Body, len(names) > 0, nil
}

// nameProxy notes that a request that failed went through a proxy, if it did. The
// proxy comes from the environment, where an administrator may have forgotten it.
func (f *Fetcher) nameProxy(req *http.Request, failure *Error) {
	if failure == nil {
		return
	}
	if proxy, err := f.transport.Load().Proxy(req); err == nil && proxy != nil {
		failure.Proxy = fmt.Sprintf("%s (%s_PROXY)", proxy.Host, strings.ToUpper(req.URL.Scheme))
		failure.text += ", through the proxy " + failure.Proxy
	}
}

// checkConnect makes an error of the status with which a proxy refuses to connect to
// the backend.
func checkConnect(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
	switch {
	case resp.StatusCode == http.StatusOK:
		return nil
	case resp.StatusCode >= 500:
		return &Error{Result: resultRefused, text: fmt.Sprintf("no tunnel but the status %d", resp.StatusCode), down: true}
	}
	return &Error{Result: resultOther, text: fmt.Sprintf("no tunnel but the status %d", resp.StatusCode)}
}
