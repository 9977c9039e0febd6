package fetcher

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// What is sent with every request is replaced as a whole.
func TestSetHeader(t *testing.T) {
	var got http.Header
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Header
		answer(200, `{}`)(w, r)
	})
	b := newBench(t, s.URL)
	for _, sent := range []map[string]string{{"Authorization": "Bearer one", "x-key": "two"}, {"Authorization": "Bearer three"}, nil} {
		header := make(http.Header)
		for name, value := range sent {
			header[name] = []string{value} // in any case
		}
		b.SetHeader(header)
		if _, err := b.Fetch(t.Context(), juliet); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"Authorization", "x-key"} {
			if got.Get(name) != sent[name] {
				t.Errorf("%s: %q, want %q", name, got.Get(name), sent[name])
			}
		}
		if got.Get("Accept") != "application/json" {
			t.Errorf("Accept: %q", got.Get("Accept"))
		}
	}
}

// Whom the backend's certificate must be from is replaced, for connections that are kept,
// too; HTTP/2 is spoken before and after.
func TestSetTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("spoke %s", r.Proto)
		}
		_, _ = io.WriteString(w, good)
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	right := x509.NewCertPool()
	right.AddCert(s.Certificate())
	b := newBench(t, s.URL)
	for i, pool := range []*x509.CertPool{right, x509.NewCertPool(), right, right} {
		b.SetTLS(&tls.Config{RootCAs: pool})
		if _, err := b.Fetch(t.Context(), juliet); (err == nil) != (pool == right) || err != nil && err.(*Error).Result != resultTLS {
			t.Errorf("%d: %v", i, err)
		}
	}
}
