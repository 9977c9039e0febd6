package fetcher

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"rosterd/internal/freeport"
)

// tunnel is a proxy's answer to CONNECT: it connects to the address.
func tunnel(t *testing.T, address string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		up, err := net.Dial("tcp", address)
		if err != nil {
			t.Error(err)
			return
		}
		defer up.Close()
		down, read, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer down.Close()
		_, _ = io.WriteString(down, "HTTP/1.1 200 OK\r\n\r\n")
		go func() {
			_, _ = io.Copy(up, read) // which may have read more than the request
			up.Close()
		}()
		_, _ = io.Copy(down, up)
	}
}

// What fails on the way through a proxy says so, and a proxy is not taken for a
// backend that knows no such user.
func TestProxyIsNamed(t *testing.T) {
	backend := httptest.NewTLSServer(answer(503, ""))
	t.Cleanup(backend.Close)
	trusted := x509.NewCertPool()
	trusted.AddCert(backend.Certificate())
	to := backend.Listener.Addr().String()
	for _, test := range []struct {
		name, scheme string
		proxy        http.HandlerFunc // nil: nobody listens
		trusted      *x509.CertPool
		result, text string // ADDRESS is the proxy's
	}{
		{"in place of the backend", "http", answer(502, "<html>"), nil, resultStatus, "the backend answered 502, through the proxy ADDRESS (HTTP_PROXY)"},
		{"forbids", "http", answer(403, ""), nil, resultStatus, "the backend answered 403, through the proxy ADDRESS (HTTP_PROXY)"},
		{"a page", "http", answer(200, "<html>"), nil, resultInvalid, "not JSON, through the proxy ADDRESS (HTTP_PROXY)"},
		{"nobody", "http", nil, nil, resultRefused, "connection refused, through the proxy ADDRESS (HTTP_PROXY)"},
		{"cannot connect", "https", answer(504, ""), nil, resultRefused, "no tunnel but the status 504, through the proxy ADDRESS (HTTPS_PROXY)"},
		{"wants a password", "https", answer(407, ""), nil, resultOther, "no tunnel but the status 407, through the proxy ADDRESS (HTTPS_PROXY)"},
		{"has no page", "https", answer(404, ""), nil, resultOther, "no tunnel but the status 404, through the proxy ADDRESS (HTTPS_PROXY)"},
		{"an authority of its own", "https", tunnel(t, to), nil, resultTLS, "tls: the certificate is from an unknown authority, through the proxy ADDRESS (HTTPS_PROXY)"},
		{"the backend through it", "https", tunnel(t, to), trusted, resultStatus, "the backend answered 503, through the proxy ADDRESS (HTTPS_PROXY)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var address string
			if test.proxy != nil {
				address = serve(t, test.proxy).Listener.Addr().String()
			} else {
				address = freeport.Of(t)
			}
			b := newBench(t, test.scheme+"://backend.example.org", func(o *Options) {
				o.NotFoundEmpty = true
				o.TLS = &tls.Config{RootCAs: test.trusted, ServerName: "example.com"}
			})
			b.transport.Load().Proxy = http.ProxyURL(&url.URL{Scheme: "http", User: url.UserPassword("user", secret), Host: address})
			r, err := b.Fetch(t.Context(), juliet)
			want := strings.ReplaceAll(test.text, "ADDRESS", address)
			if e := (*Error)(nil); r != nil || !errors.As(err, &e) || e.Result != test.result || e.Error() != want || !strings.Contains(want, e.Proxy) {
				t.Errorf("%v, %+v, want %s: %s", r, err, test.result, want)
			}
			if strings.Contains(fmt.Sprintf("%+v", err)+b.exposed(t), secret) {
				t.Error("tells a secret")
			}
		})
	}
}

// With authorities of one's own, those of the system are not asked.
func TestOwnAuthority(t *testing.T) {
	backend := httptest.NewTLSServer(answer(200, good))
	t.Cleanup(backend.Close)
	pool := x509.NewCertPool()
	pool.AddCert(backend.Certificate())
	b := newBench(t, backend.URL, func(o *Options) { o.TLS = &tls.Config{RootCAs: pool} })
	if r, err := b.Fetch(t.Context(), juliet); err != nil || r.Len() != 1 {
		t.Errorf("%v, %v", r, err)
	}
}
