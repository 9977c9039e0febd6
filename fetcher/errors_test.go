package fetcher

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"rosterd/jid"
)

// raw is a handler that sends text instead of an HTTP answer, and hangs up.
func raw(text string) http.HandlerFunc {
	return hijacked(func(conn net.Conn, rw *bufio.ReadWriter) {
		rw.WriteString(text)
		rw.Flush()
	})
}

func hijacked(do func(net.Conn, *bufio.ReadWriter)) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		do(conn, rw)
	}
}

// endless sends body again and again, until nobody reads it any more.
func endless(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := io.WriteString(w, body); err != nil {
				return
			}
		}
	}
}

// stalled sends the beginning of an answer, and no more.
func stalled(status int, beginning string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, beginning)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
}

func TestFailures(t *testing.T) {
	const impatient = 100 * time.Millisecond
	for _, test := range []struct {
		name    string
		handler http.HandlerFunc
		timeout time.Duration
		result  string
		status  int
		text    string
	}{
		{name: "no answer", handler: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
			timeout: impatient, result: resultTimeout, text: "timed out after 100ms"},
		{name: "stalled body", handler: stalled(200, `{"`+bodySecret),
			timeout: impatient, result: resultTimeout, text: "timed out after 100ms"},
		{name: "stalled body of an error", handler: stalled(500, bodySecret),
			result: resultStatus, status: 500, text: "the backend answered 500"},
		{name: "endless body", handler: endless(" " + bodySecret), result: resultTooLarge, text: "larger than 65536 bytes"},
		{name: "endless body of an error", handler: func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(502)
			endless(bodySecret)(w, r)
		}, result: resultStatus, status: 502, text: "the backend answered 502"},
		{name: "gzip bomb", handler: zipped(answer(200, strings.Repeat(" ", 8<<20))).ServeHTTP,
			result: resultTooLarge, text: "larger than 65536 bytes"},
		{name: "large body announced", handler: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "65537")
			stalled(200, "[")(w, r)
		}, result: resultTooLarge, text: "larger than 65536 bytes"},
		{name: "large header", handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Large", strings.Repeat(bodySecret, 10_000))
			io.WriteString(w, good)
		}, result: resultTooLarge, text: "header larger than 65536 bytes"},

		{name: "body shorter than announced", handler: raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + good),
			result: resultReset, text: "cut off"},
		{name: "chunks cut off", handler: raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n28\r\n" + good + "\r\n"),
			result: resultReset, text: "cut off"},
		{name: "hung up", handler: raw(""), result: resultReset, text: "connection closed without an answer"},
		{name: "reset", handler: hijacked(func(conn net.Conn, _ *bufio.ReadWriter) {
			conn.(*net.TCPConn).SetLinger(0)
		}), result: resultReset, text: "connection reset"},
		{name: "not HTTP", handler: raw("220 " + bodySecret + " ESMTP\r\n"), result: resultInvalid, text: "not HTTP"},
		{name: "bad chunks", handler: raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + bodySecret + "\r\n"),
			result: resultOther, text: "the request failed"},

		{name: "404", handler: answer(404, "[]"), result: resultStatus, status: 404, text: "the backend answered 404"},
		{name: "500", handler: answer(500, bodySecret), result: resultStatus, status: 500, text: "the backend answered 500"},
		{name: "204", handler: answer(204, ""), result: resultStatus, status: 204, text: "the backend answered 204"},
		{name: "206", handler: answer(206, good), result: resultStatus, status: 206, text: "the backend answered 206"},
		{name: "redirect to nowhere", handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://%zz/"+bodySecret)
			w.WriteHeader(302)
		}, result: resultStatus, status: 302, text: "the backend answered 302"},

		{name: "HTML", handler: answer(200, "<html>"+bodySecret), result: resultInvalid, text: "not JSON"},
		{name: "no body", handler: answer(200, ""), result: resultInvalid, text: "an empty body"},
		{name: "JSON cut off", handler: answer(200, good[:20]), result: resultInvalid, text: "cut off"},
		{name: "null", handler: answer(200, "null"), result: resultInvalid, text: "neither a JSON object nor an array"},
		{name: "no usable entry", handler: answer(200, `{"error": "`+bodySecret+`"}`), result: resultInvalid, text: "none of 1 entries is usable"},
		{name: "not gzip", handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			io.WriteString(w, good)
		}, result: resultInvalid, text: "not valid gzip"},
		{name: "unknown encoding", handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "br")
			io.WriteString(w, good)
		}, result: resultInvalid, text: "the answer has a content encoding that cannot be read"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := serve(t, test.handler)
			b := newBench(t, s.URL, func(o *Options) {
				if test.timeout != 0 {
					o.Timeout = test.timeout
				}
			})
			r, err := b.Fetch(t.Context(), juliet)
			b.check(t, r, err, test.result, test.text)
			if e := (*Error)(nil); errors.As(err, &e) && e.Status != test.status {
				t.Errorf("status %d, want %d", e.Status, test.status)
			}
			if timedOut := test.result == resultTimeout; errors.Is(err, context.DeadlineExceeded) != timedOut {
				t.Errorf("is a deadline: %v", !timedOut)
			}
		})
	}
}

// check is for every failure: it is what was expected, has been counted, came
// with no roster and tells nobody a secret.
func (b *bench) check(t *testing.T, r any, err error, result, text string) {
	t.Helper()
	e, ok := err.(*Error)
	if !ok {
		t.Fatalf("failed with %v, want an *Error", err)
	}
	if e.Result != result || e.Error() != text {
		t.Errorf("failed with %s: %q, want %s: %q", e.Result, e, result, text)
	}
	if !slices.Contains(Results, e.Result) {
		t.Errorf("result %q is not among Results", e.Result)
	}
	if fmt.Sprint(r) != "<nil>" {
		t.Errorf("a roster came with the failure: %v", r)
	}
	if b.fetches(result) != 1 || b.inFlight() != 0 || b.observed.Load() != 1 {
		t.Errorf("metrics: %s", b.exposed(t))
	}
	all := b.exposed(t)
	for err := err; err != nil; err = errors.Unwrap(err) {
		all += fmt.Sprintf("%v %+v %#v\n", err, err, err)
	}
	for _, hidden := range []string{secret, bodySecret, "127.0.0.1", "/contacts/", "http:", "https:"} {
		if strings.Contains(all, hidden) {
			t.Errorf("%q is exposed: %s", hidden, all)
		}
	}
}

func TestRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	b := newBench(t, "http://"+l.Addr().String())
	r, err := b.Fetch(t.Context(), juliet)
	b.check(t, r, err, resultRefused, "connection refused")
}

// Nobody is asked but the backend: the request carries its key.
func TestRedirectIsNotFollowed(t *testing.T) {
	other := serve(t, func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("the target of the redirect was asked, with the key %q", r.Header.Get("X-Key"))
		io.WriteString(w, good)
	})
	for _, status := range []int{301, 302, 303, 307, 308} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL+"/contacts/juliet", status)
		})
		b := newBench(t, s.URL)
		r, err := b.Fetch(t.Context(), juliet)
		b.check(t, r, err, resultStatus, fmt.Sprintf("the backend answered %d", status))
	}
}

func TestTLSFailures(t *testing.T) {
	s := httptest.NewUnstartedServer(answer(200, good))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.TLS = &tls.Config{MaxVersion: tls.VersionTLS12}
	s.StartTLS()
	defer s.Close()
	trusted := x509.NewCertPool()
	trusted.AddCert(s.Certificate())
	plain := serve(t, answer(200, good))
	for _, test := range []struct {
		name, url string
		config    *tls.Config
		text      string
	}{
		{"unknown authority", s.URL, nil, "tls: the certificate is from an unknown authority"},
		{"another host", s.URL, &tls.Config{RootCAs: trusted, ServerName: "other.test"}, "tls: the certificate is for another host"},
		{"expired", s.URL, &tls.Config{RootCAs: trusted, Time: func() time.Time { return s.Certificate().NotAfter.Add(time.Hour) }},
			"tls: the certificate has expired or is not yet valid"},
		{"no common version", s.URL, &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS13}, "tls: handshake failed"},
		{"no TLS", "https://" + plain.Listener.Addr().String(), nil, "tls: the backend does not speak TLS"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t, test.url)
			if test.config != nil {
				b.transport.TLSClientConfig = test.config
			}
			r, err := b.Fetch(t.Context(), juliet)
			b.check(t, r, err, resultTLS, test.text)
		})
	}
}

func TestCallerEndsFetch(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"before the answer": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"in the body":       stalled(200, "{"),
	} {
		t.Run(name, func(t *testing.T) {
			asked := make(chan struct{}, 1)
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				asked <- struct{}{}
				handler(w, r)
			})
			ctx, cancel := context.WithCancel(t.Context())
			go func() { <-asked; cancel() }()
			b := newBench(t, s.URL)
			r, err := b.Fetch(ctx, juliet)
			b.check(t, r, err, resultCanceled, "canceled")
			if !errors.Is(err, context.Canceled) {
				t.Error("is not context.Canceled")
			}

			late, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			b = newBench(t, s.URL)
			r, err = b.Fetch(late, juliet)
			b.check(t, r, err, resultTimeout, "timed out")
		})
	}
}

func TestBadURL(t *testing.T) {
	for name, test := range map[string]struct {
		url  string
		err  error
		text string
	}{
		"none":           {"", errors.New("no URL with " + secret), "no contacts URL can be made for the user"},
		"not valid":      {"http://%zz/" + secret, nil, "the contacts URL is not valid"},
		"unknown scheme": {"gopher://" + secret + "/", nil, "the request failed"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, "", func(o *Options) {
				o.URL = func(jid.JID) (string, error) { return test.url, test.err }
			})
			r, err := b.Fetch(t.Context(), juliet)
			b.check(t, r, err, resultOther, test.text)
		})
	}
}

// What a test cannot provoke on 127.0.0.1.
func TestClassify(t *testing.T) {
	for name, test := range map[string]struct {
		err    error
		result string
		text   string
	}{
		"no such host":   {&net.OpError{Op: "dial", Err: &net.DNSError{Name: secret, IsNotFound: true}}, resultDNS, "host name not found"},
		"no name server": {&net.OpError{Op: "dial", Err: &net.DNSError{Name: secret, IsTimeout: true}}, resultDNS, "host name lookup failed"},
		"network":        {&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, resultTimeout, "timed out"},
		"proxy": {&net.OpError{Op: "proxyconnect", Err: &net.OpError{Op: "dial", Err: &net.DNSError{Name: secret, IsNotFound: true}}},
			resultDNS, "proxy: host name not found"},
		"unknown": {errors.New(secret), resultOther, "the request failed"},
	} {
		t.Run(name, func(t *testing.T) {
			e := (&Fetcher{}).failure(t.Context(), test.err)
			if e.Result != test.result || e.Error() != test.text {
				t.Errorf("is %s: %q, want %s: %q", e.Result, e, test.result, test.text)
			}
		})
	}
}
