package fetcher

import (
	"compress/flate"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	"rosterd/roster"
)

// The results of a fetch, as label values.
const (
	resultOK          = "ok"
	resultNotModified = "not_modified" // the roster is still the one that was fetched before
	resultRefused     = "refused"      // nobody listens there
	resultDNS         = "dns"          // the host's name has no address
	resultTLS         = "tls"          // no TLS, or a certificate that does not prove the host
	resultReset       = "reset"        // the connection ended before the answer did
	resultTimeout     = "timeout"      // the fetch's own time or the caller's was up
	resultStatus      = "status"       // another status than 200
	resultInvalid     = "invalid"      // the answer is not contacts
	resultTooLarge    = "too_large"    // the body is
	resultCanceled    = "canceled"     // the caller lost interest
	resultOpen        = "circuit_open" // not asked: the backend was down a moment ago
	resultOther       = "other"
)

// Results are all values of [Error.Result], "ok" and "not_modified". Nobody may modify it.
var Results = []string{resultOK, resultNotModified, resultRefused, resultDNS, resultTLS, resultReset, resultTimeout,
	resultStatus, resultInvalid, resultTooLarge, resultCanceled, resultOpen, resultOther}

// Error is why a fetch failed. Its text is short and made here. It may name a proxy, but
// holds nothing of the URL, of a header or of a body. It wraps [context.Canceled],
// [context.DeadlineExceeded], [roster.ErrBusy] if an edit was answered 429, or nothing.
type Error struct {
	Result string // one of Results
	Status int    // the HTTP status if it was not 200, else 0
	Proxy  string // that the request went through, "host:port (HTTP_PROXY)"; "": none
	text   string
	cause  error
	down   bool // a backend that is down fails like that
	nobody bool // the answer helps none of several users
}

// Error is the reason, without a prefix.
func (e *Error) Error() string { return e.text }

// Unwrap is the context's error, if one ended the fetch.
func (e *Error) Unwrap() error { return e.cause }

// The causes of a context that ended by the fetch's own timeout, and by [onFewConnections].
var (
	errTimeout = errors.New("fetch timeout")
	errReset   = errors.New("reset time and again")
)

// Is reports whether the failure is target: [roster.ErrUnknownUser] if the status is 404.
func (e *Error) Is(target error) bool {
	return target == roster.ErrUnknownUser && e.Status == http.StatusNotFound
}

func circuitOpen() *Error {
	return &Error{Result: resultOpen, text: "the backend is down and not asked for the moment"}
}

func tooLarge(limit int64) *Error {
	return &Error{Result: resultTooLarge, text: fmt.Sprintf("larger than %d bytes", limit)}
}

// contextError is the failure by err, the error of the caller's context.
func contextError(err error, late string) *Error {
	if errors.Is(err, context.DeadlineExceeded) {
		return &Error{Result: resultTimeout, text: late, cause: context.DeadlineExceeded}
	}
	return &Error{Result: resultCanceled, text: "canceled", cause: context.Canceled}
}

// failure makes an Error of err, which the HTTP client returned. If a context has ended,
// that is the reason, whatever the client made of it.
func (f *Fetcher) failure(ctx context.Context, err error) *Error {
	if context.Cause(ctx) == errTimeout {
		return &Error{Result: resultTimeout, text: fmt.Sprintf("timed out after %v", f.options.Timeout),
			cause: context.DeadlineExceeded, down: true}
	}
	if context.Cause(ctx) == errReset {
		return &Error{Result: resultReset, text: "connection reset"}
	}
	if ended := ctx.Err(); ended != nil {
		return contextError(ended, "timed out")
	}
	e := &Error{}
	if errors.As(err, &e) {
		return e
	}
	e.Result, e.text = classify(err)
	e.down = e.Result == resultRefused || e.Result == resultTimeout
	return e
}

// classify names the class of a network error. Where net/http has no type for it, its
// text is looked at, but never passed on: it may quote the answer.
func classify(err error) (result, text string) {
	var dns *net.DNSError
	var timeout net.Error
	var corrupt flate.CorruptInputError
	switch {
	case errors.As(err, &dns):
		if dns.IsNotFound {
			return resultDNS, "host name not found"
		}
		return resultDNS, "host name lookup failed"
	case errors.Is(err, syscall.ECONNREFUSED):
		return resultRefused, "connection refused"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return resultRefused, "host unreachable"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return resultReset, "connection reset"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return resultReset, "cut off"
	case errors.Is(err, io.EOF):
		return resultReset, "connection closed without an answer"
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.As(err, &corrupt):
		return resultInvalid, "not valid gzip"
	case errors.As(err, &timeout) && timeout.Timeout():
		return resultTimeout, "timed out"
	}
	if text := tlsText(err); text != "" {
		return resultTLS, "tls: " + text
	}
	switch s := err.Error(); {
	case strings.Contains(s, "malformed HTTP"), strings.Contains(s, "malformed MIME header"):
		return resultInvalid, "not HTTP"
	case strings.Contains(s, "response headers exceeded"):
		return resultTooLarge, fmt.Sprintf("header larger than %d bytes", maxHeaderBytes)
	}
	return resultOther, "the request failed"
}

// tlsText says what was wrong with TLS, or is empty if it was not TLS.
func tlsText(err error) string {
	var (
		host      x509.HostnameError
		authority x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		verify    *tls.CertificateVerificationError
		record    tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &host):
		return "the certificate is for another host"
	case errors.As(err, &authority):
		return "the certificate is from an unknown authority"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the certificate has expired or is not yet valid"
	case errors.As(err, &verify):
		return "the certificate is not valid"
	case errors.As(err, &record):
		return "the backend does not speak TLS"
	case strings.Contains(err.Error(), "tls: "): // crypto/tls has few types
		return "handshake failed"
	}
	return ""
}
