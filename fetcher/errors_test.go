package fetcher

import (
	"bufio"
	"bytes"
	"compress/gzip"
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
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"rosterd/internal/freeport"
	"rosterd/internal/leak"
	"rosterd/jid"
	"rosterd/roster"
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

// trickle sends head, and then text again and again, slowly, without an end.
func trickle(head, text string) http.HandlerFunc {
	return hijacked(func(conn net.Conn, _ *bufio.ReadWriter) {
		for _, err := io.WriteString(conn, head); err == nil; _, err = io.WriteString(conn, text) {
			time.Sleep(5 * time.Millisecond)
		}
	})
}

// flood is a trickle as fast as it is read.
func flood(head, text string) http.HandlerFunc {
	return hijacked(func(conn net.Conn, _ *bufio.ReadWriter) {
		text := strings.Repeat(text, 1+1000/len(text))
		for _, err := io.WriteString(conn, head); err == nil; _, err = io.WriteString(conn, text) {
		}
	})
}

// bomb is n times 64 KiB of spaces, compressed.
func bomb(n int) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(bytes.Repeat([]byte(" "), 64<<10))
	z.Close()
	return bytes.Repeat(b.Bytes(), n) // which is one file (RFC 1952, section 2.2)
}

// compressed sends body, which is compressed.
func compressed(body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Write(body)
	}
}

// allocates fails the test if do allocates more than limit bytes.
func allocates(t *testing.T, limit uint64, do func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > limit {
		t.Errorf("%d bytes were allocated, want %d at most", n, limit)
	}
}

// TestBackendMisbehaves: each fault is the error that it is and no roster, tells
// no secret, takes neither much memory nor much time, and leaves nothing behind.
func TestBackendMisbehaves(t *testing.T) {
	const impatient = 100 * time.Millisecond
	large := bomb(1 << 10)
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
		{name: "endless body in chunks", handler: flood("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\n \r\n"),
			result: resultTooLarge, text: "larger than 65536 bytes"},
		{name: "endless body without a length", handler: flood("HTTP/1.1 200 OK\r\n\r\n[", " "),
			result: resultTooLarge, text: "larger than 65536 bytes"},
		{name: "slow body", handler: trickle("HTTP/1.1 200 OK\r\n\r\n[", " "),
			timeout: impatient, result: resultTimeout, text: "timed out after 100ms"},
		{name: "slow headers", handler: trickle("HTTP/1.1 200 OK\r\n", "X-"+bodySecret+": y\r\n"),
			timeout: impatient, result: resultTimeout, text: "timed out after 100ms"},
		{name: "slow status line", handler: trickle("H", "T"),
			timeout: impatient, result: resultTimeout, text: "timed out after 100ms"},
		{name: "endless headers", handler: flood("HTTP/1.1 200 OK\r\n", "X-"+bodySecret+": y\r\n"),
			result: resultTooLarge, text: "header larger than 65536 bytes"},
		{name: "endless header line", handler: flood("HTTP/1.1 200 OK\r\nX: ", bodySecret),
			result: resultTooLarge, text: "header larger than 65536 bytes"},
		{name: "endless status line", handler: flood("HTTP/1.1 200 ", bodySecret),
			result: resultTooLarge, text: "header larger than 65536 bytes"},
		{name: "endless interim answers", handler: flood("", "HTTP/1.1 103 Early Hints\r\nX: "+bodySecret+"\r\n\r\n"),
			result: resultTooLarge, text: "header larger than 65536 bytes"},
		{name: "compressed bomb", handler: compressed(large), result: resultTooLarge, text: "larger than 65536 bytes"},
		{name: "compressed bomb of an error", handler: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.WriteHeader(500)
			w.Write(large)
		}, result: resultStatus, status: 500, text: "the backend answered 500"},
		{name: "compressed body cut off", handler: compressed(bomb(1)[:20]), result: resultReset, text: "cut off"},
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
		{name: "half a body", handler: raw("HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n" + good[:20]),
			result: resultReset, text: "cut off"},
		{name: "chunk cut off", handler: raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n28\r\n" + good[:20]),
			result: resultReset, text: "cut off"},
		{name: "empty chunks without the last one", handler: raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"),
			result: resultReset, text: "cut off"},
		{name: "half a header", handler: raw("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"), result: resultReset, text: "cut off"},
		{name: "half a header line", handler: raw("HTTP/1.1 200 OK\r\nContent-Le"), result: resultInvalid, text: "not HTTP"},
		{name: "hung up", handler: raw(""), result: resultReset, text: "connection closed without an answer"},
		{name: "reset", handler: hijacked(func(conn net.Conn, _ *bufio.ReadWriter) {
			conn.(*net.TCPConn).SetLinger(0)
		}), result: resultReset, text: "connection reset"},
		{name: "reset in the body", handler: hijacked(func(conn net.Conn, _ *bufio.ReadWriter) {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n{}")
			conn.(*net.TCPConn).SetLinger(0)
		}), result: resultReset, text: "connection reset"},
		{name: "garbage", handler: raw(strings.Repeat("\x00\xff"+bodySecret, 100)), result: resultInvalid, text: "not HTTP"},
		{name: "garbage in lines", handler: raw(strings.Repeat("\x16\x03\x01 "+bodySecret+"\r\n", 100)), result: resultInvalid, text: "not HTTP"},
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

		{name: "redirect loop", handler: func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.String(), http.StatusFound) },
			result: resultStatus, status: 302, text: "the backend answered 302"},
		{name: "HTML page", handler: answer(200, "<!DOCTYPE html><html><body>"+bodySecret+"</body></html>"), result: resultInvalid, text: "not JSON"},
		{name: "HTML page that says it is JSON", handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, "<html>"+bodySecret)
		}, result: resultInvalid, text: "not JSON"},
		{name: "not JSON", handler: answer(200, bodySecret), result: resultInvalid, text: "not JSON"},
		{name: "wrong type: a text", handler: answer(200, `"`+bodySecret+`"`), result: resultInvalid, text: "neither a JSON object nor an array"},
		{name: "wrong type: false", handler: answer(200, "false"), result: resultInvalid, text: "neither a JSON object nor an array"},
		{name: "wrong type: numbers", handler: answer(200, "[1, 2]"), result: resultInvalid, text: "none of 2 entries is usable"},
		{name: "wrong type: no JID", handler: answer(200, `[{"name": "Romeo"}]`), result: resultInvalid, text: "none of 1 entries is usable"},
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
			io.WriteString(w, "\x8b\x02\x80"+bodySecret)
		}, result: resultInvalid, text: "not JSON, and the answer has a content coding other than gzip"},
		{name: "UTF-16", handler: answer(200, "\xff\xfe{\x00}\x00"), result: resultInvalid, text: "UTF-16: JSON has to be UTF-8"},
	} {
		t.Run(test.name, func(t *testing.T) {
			leak.Check(t)
			s := serve(t, test.handler)
			b := newBench(t, s.URL, func(o *Options) {
				if test.timeout != 0 {
					o.Timeout = test.timeout
				}
			})
			var r *roster.Roster
			var err error
			allocates(t, 8<<20, func() { r, err = b.Fetch(t.Context(), juliet) })
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
	if b.fetches(result) != 1 || b.inFlight() != 0 || b.observed.Load() != b.requests {
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

func TestBackendDown(t *testing.T) {
	leak.Check(t)
	b := newBench(t, "http://"+freeport.Of(t))
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
			leak.Check(t)
			b := newBench(t, test.url)
			if test.config != nil {
				b.transport.Load().TLSClientConfig = test.config
			}
			r, err := b.Fetch(t.Context(), juliet)
			b.check(t, r, err, resultTLS, test.text)
		})
	}
}

// The other way round: what a TLS port answers to plain HTTP.
func TestPlainHTTPOnTLSPort(t *testing.T) {
	leak.Check(t)
	s := httptest.NewUnstartedServer(answer(200, good))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	defer s.Close()
	b := newBench(t, "http://"+s.Listener.Addr().String())
	r, err := b.Fetch(t.Context(), juliet)
	b.check(t, r, err, resultStatus, "the backend answered 400")
}

func TestCallerEndsFetch(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"before the answer": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"in the body":       stalled(200, "{"),
	} {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
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
			if test.err != nil || name == "not valid" {
				b.requests = 0
			}
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
			resultDNS, "host name not found"},
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
