package refresh

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rosterd/internal/locked"
	"rosterd/internal/testcert"
)

// files are a certificate's.
type files struct {
	t                   *testing.T
	cert, key, clientCA string
}

func newFiles(t *testing.T) *files {
	dir := t.TempDir()
	return &files{t, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "ca.pem")}
}

// write replaces a file as a careful program does.
func (f *files) write(name string, data []byte) {
	f.t.Helper()
	if err := os.WriteFile(name+".new", data, 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		f.t.Fatal(err)
	}
}

func (f *files) pair(p testcert.Pair) {
	f.t.Helper()
	f.write(f.cert, p.Cert)
	f.write(f.key, p.Key)
}

// secure is an endpoint with TLS that looks at its files at each handshake.
func secure(t *testing.T, f *files, clientCA string, change ...func(*Options)) *endpoint {
	t.Helper()
	var log locked.Buffer
	c, err := LoadCertificates(f.cert, f.key, clientCA, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	c.every = 0
	e := serve(t, append(change, func(o *Options) { o.Certificates = c })...)
	e.log = &log
	return e
}

func tomorrow() time.Time { return time.Now().Add(24 * time.Hour) }

// serial is which certificate the endpoint shows now.
func (e *endpoint) serial(trust *testcert.Authority) string {
	e.t.Helper()
	conn, err := tls.DialWithDialer(dialer("127.0.0.1"), "tcp", e.address, &tls.Config{RootCAs: trust.Pool})
	if err != nil {
		e.t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

func serialOf(t *testing.T, p testcert.Pair) string {
	t.Helper()
	return p.TLS(t).Leaf.SerialNumber.String()
}

func TestCertificateReplaced(t *testing.T) {
	ca, f := testcert.New(t, "authority"), newFiles(t)
	first, second := ca.Issue(t, "first", tomorrow()), ca.Issue(t, "second", tomorrow())
	f.pair(first)
	e := secure(t, f, "")
	client := e.from("127.0.0.1", &tls.Config{RootCAs: ca.Pool})
	e.answers(client)
	if got := e.serial(ca); got != serialOf(t, first) {
		t.Error("shows another certificate than the first")
	}
	f.pair(second)
	if got := e.serial(ca); got != serialOf(t, second) {
		t.Error("still shows the first certificate")
	}
	e.answers(client) // over the connection from before
	e.answers(e.from("127.0.0.1", &tls.Config{RootCAs: ca.Pool}))
	if text := e.log.String(); strings.Count(text, "read again") != 1 || strings.Contains(text, "ERROR") {
		t.Errorf("log:\n%s", text)
	}
}

// Other files replace the first ones at once, for connections from before, too.
// Broken ones do not.
func TestCertificatesElsewhere(t *testing.T) {
	ca, callers, f, other := testcert.New(t, "authority"), testcert.New(t, "callers"), newFiles(t), newFiles(t)
	second, caller := ca.Issue(t, "second", tomorrow()), callers.Issue(t, "caller", tomorrow())
	f.pair(ca.Issue(t, "first", tomorrow()))
	c, err := LoadCertificates(f.cert, f.key, "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	c.every = 0
	e := serve(t, func(o *Options) { o.Certificates = c })
	before := e.from("127.0.0.1", &tls.Config{RootCAs: ca.Pool})
	e.answers(before)
	other.pair(second)
	other.write(other.clientCA, callers.PEM)
	for _, key := range []string{f.key, other.clientCA, "/nowhere"} {
		if err := c.Replace(other.cert, key, ""); err == nil || !strings.Contains(err.Error(), "refresh.tls.key: ") {
			t.Errorf("with the key %s: %v", key, err)
		}
	}
	e.answers(before)
	if err := c.Replace(other.cert, other.key, other.clientCA); err != nil {
		t.Fatal(err)
	}
	if got := e.serial(ca); got != serialOf(t, second) {
		t.Error("still shows the first certificate")
	}
	e.answers(e.from("127.0.0.1", &tls.Config{RootCAs: ca.Pool, Certificates: []tls.Certificate{caller.TLS(t)}}))
	if code, _ := e.post(before, `["juliet"]`); code != http.StatusForbidden {
		t.Errorf("a caller without a certificate, over a connection from before: %d", code)
	}
	third := ca.Issue(t, "third", tomorrow())
	f.pair(ca.Issue(t, "nobody's", tomorrow()))
	other.pair(third) // it is these that are looked at now
	if got := e.serial(ca); got != serialOf(t, third) {
		t.Error("does not show the certificate that was renewed in the new place")
	}
}

func TestBrokenReplacement(t *testing.T) {
	ca := testcert.New(t, "authority")
	good, next := ca.Issue(t, "good", tomorrow()), ca.Issue(t, "next", tomorrow())
	for name, tt := range map[string]struct {
		spoil func(f *files)
		says  string // in the log
	}{
		"no certificate":        {func(f *files) { f.write(f.cert, []byte("pl4nted")) }, "refresh.tls.cert"},
		"empty":                 {func(f *files) { f.write(f.cert, nil) }, "refresh.tls.cert"},
		"cut off":               {func(f *files) { f.write(f.cert, next.Cert[:len(next.Cert)/2]) }, "refresh.tls.cert"},
		"the certificate alone": {func(f *files) { f.write(f.cert, next.Cert) }, "refresh.tls.key"},
		"the key alone":         {func(f *files) { f.write(f.key, next.Key) }, "refresh.tls.key"},
		"no key":                {func(f *files) { f.write(f.key, []byte("pl4nted")) }, "refresh.tls.key"},
		"no file":               {func(f *files) { os.Remove(f.key) }, "refresh.tls.key"},
		"a directory":           {func(f *files) { os.Remove(f.key); os.Mkdir(f.key, 0o700) }, "refresh.tls.key"},
		"a pipe":                {func(f *files) { os.Remove(f.cert); syscall.Mkfifo(f.cert, 0o600) }, "refresh.tls.cert"},
		"endless":               {func(f *files) { f.write(f.cert, bytes.Repeat([]byte{'x'}, maxFile+1)) }, "not a file of at most"},
		"no authority":          {func(f *files) { f.write(f.clientCA, good.Key) }, "refresh.tls.client_ca"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFiles(t)
			f.pair(good)
			f.write(f.clientCA, ca.PEM)
			e := secure(t, f, f.clientCA)
			mine := &tls.Config{RootCAs: ca.Pool, Certificates: []tls.Certificate{good.TLS(t)}}
			tt.spoil(f)
			for range 3 {
				e.answers(e.from("127.0.0.1", mine))
			}
			if got := e.serial(ca); got != serialOf(t, good) {
				t.Error("shows another certificate than the good one")
			}
			if text := e.log.String(); strings.Count(text, "ERROR") != 1 || !strings.Contains(text, tt.says) ||
				strings.Contains(text, "pl4nted") || strings.Contains(text, "PRIVATE") {
				t.Errorf("log:\n%s", text)
			}
			os.Remove(f.key)
			os.Remove(f.cert)
			f.pair(next)
			f.write(f.clientCA, ca.PEM)
			if got := e.serial(ca); got != serialOf(t, next) {
				t.Error("a good replacement is not taken any more")
			}
		})
	}
}

// A file that is gone twice is logged twice.
func TestFileComesBack(t *testing.T) {
	ca, f := testcert.New(t, "authority"), newFiles(t)
	f.pair(ca.Issue(t, "endpoint", tomorrow()))
	e := secure(t, f, "")
	for range 2 {
		for _, name := range [][2]string{{f.key, f.key + ".away"}, {f.key + ".away", f.key}} {
			if err := os.Rename(name[0], name[1]); err != nil {
				t.Fatal(err)
			}
			e.serial(ca)
		}
	}
	if text := e.log.String(); strings.Count(text, "ERROR") != 2 || strings.Count(text, "read again") != 2 {
		t.Errorf("log:\n%s", text)
	}
}

// Files are not looked at with each handshake.
func TestFilesAreLookedAtSeldom(t *testing.T) {
	ca, f := testcert.New(t, "authority"), newFiles(t)
	first := ca.Issue(t, "first", tomorrow())
	f.pair(first)
	c, err := LoadCertificates(f.cert, f.key, "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if c.every != time.Second {
		t.Errorf("every %v", c.every)
	}
	c.every = time.Hour
	f.pair(ca.Issue(t, "second", tomorrow()))
	if c.check(); c.Leaf().SerialNumber.String() != serialOf(t, first) {
		t.Error("looked")
	}
	c.checked = time.Now().Add(-2 * time.Hour)
	if c.check(); c.Leaf().SerialNumber.String() == serialOf(t, first) {
		t.Error("did not look")
	}
}

func TestBrokenAtTheStart(t *testing.T) {
	ca := testcert.New(t, "authority")
	good, other := ca.Issue(t, "good", tomorrow()), ca.Issue(t, "other", tomorrow())
	const rubbish = "pl4nted"
	for name, tt := range map[string]struct {
		cert, key, clientCA string
		wants               string // the key of the configuration; "": it is good
		file                int
	}{
		"good":                {string(good.Cert), string(good.Key), string(ca.PEM), "", 0},
		"a chain":             {string(good.Cert) + string(ca.PEM), string(good.Key), string(ca.PEM) + string(other.Cert), "", 0},
		"text around it":      {"subject=x\n" + string(good.Cert) + "\n\n", string(good.Key), string(ca.PEM), "", 0},
		"no certificate":      {rubbish, string(good.Key), string(ca.PEM), "refresh.tls.cert", 0},
		"swapped":             {string(good.Key), string(good.Cert), string(ca.PEM), "refresh.tls.cert", 0},
		"a broken chain":      {string(good.Cert) + strings.Replace(string(ca.PEM), "MI", "AA", 1), string(good.Key), string(ca.PEM), "refresh.tls.cert", 0},
		"no key":              {string(good.Cert), rubbish, string(ca.PEM), "refresh.tls.key", 1},
		"another's key":       {string(good.Cert), string(other.Key), string(ca.PEM), "refresh.tls.key", 1},
		"no authority":        {string(good.Cert), string(good.Key), rubbish, "refresh.tls.client_ca", 2},
		"a broken authority":  {string(good.Cert), string(good.Key), strings.Replace(string(ca.PEM), "MI", "AA", 1), "refresh.tls.client_ca", 2},
		"certificate missing": {"", string(good.Key), string(ca.PEM), "refresh.tls.cert", 0},
		"key missing":         {string(good.Cert), "", string(ca.PEM), "refresh.tls.key", 1},
		"authority missing":   {string(good.Cert), string(good.Key), "", "refresh.tls.client_ca", 2},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFiles(t)
			names := []string{f.cert, f.key, f.clientCA}
			for i, data := range []string{tt.cert, tt.key, tt.clientCA} {
				if data != "" {
					f.write(names[i], []byte(data))
				}
			}
			_, err := LoadCertificates(f.cert, f.key, f.clientCA, slog.New(slog.DiscardHandler))
			if tt.wants == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil {
				t.Fatal("no error")
			}
			if text := err.Error(); !strings.Contains(text, tt.wants+": ") || !strings.Contains(text, names[tt.file]) ||
				strings.ContainsAny(text, "\n") || strings.Contains(text, rubbish) || strings.Contains(text, "PRIVATE") {
				t.Error(text)
			}
		})
	}
}

func TestClientCertificates(t *testing.T) {
	ca, stranger, f := testcert.New(t, "authority"), testcert.New(t, "authority"), newFiles(t)
	f.pair(ca.Issue(t, "endpoint", tomorrow()))
	f.write(f.clientCA, ca.PEM)
	right, wrong := ca.Issue(t, "backend", tomorrow()).TLS(t), stranger.Issue(t, "backend", tomorrow()).TLS(t)
	expired := ca.Issue(t, "backend", time.Now().Add(-time.Hour)).TLS(t)
	e := secure(t, f, f.clientCA)
	e.answers(e.from("127.0.0.1", &tls.Config{RootCAs: ca.Pool, Certificates: []tls.Certificate{right}}))
	for name, version := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
		refused := func(what string, certificates ...tls.Certificate) {
			t.Helper()
			client := e.from("127.0.0.1", &tls.Config{RootCAs: ca.Pool, MaxVersion: version,
				// Sent whatever the endpoint says that it wants.
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					if len(certificates) == 0 {
						return &tls.Certificate{}, nil
					}
					return &certificates[0], nil
				}})
			resp, err := client.Post("https://"+e.address+Path, "application/json", strings.NewReader(`[]`))
			if err == nil {
				resp.Body.Close()
				t.Errorf("TLS %s: %s got %s", name, what, resp.Status)
			}
		}
		refused("no certificate")
		refused("a stranger's", wrong)
		refused("an expired one", expired)
	}
	e.answers(e.from("127.0.0.1", &tls.Config{RootCAs: ca.Pool, Certificates: []tls.Certificate{right}}))
}

// A caller who is not trusted any more is answered neither over a connection from
// before, nor with the session of one.
func TestClientAuthorityReplaced(t *testing.T) {
	former, next, f := testcert.New(t, "former"), testcert.New(t, "next"), newFiles(t)
	f.pair(former.Issue(t, "endpoint", tomorrow()))
	f.write(f.clientCA, former.PEM)
	e := secure(t, f, f.clientCA)
	caller := func(ca *testcert.Authority) *http.Client {
		return e.from("127.0.0.1", &tls.Config{RootCAs: former.Pool, Certificates: []tls.Certificate{ca.Issue(t, "backend", tomorrow()).TLS(t)},
			ClientSessionCache: tls.NewLRUClientSessionCache(10)})
	}
	old := caller(former)
	e.answers(old)
	f.write(f.clientCA, append(bytes.Clone(former.PEM), next.PEM...))
	e.answers(old)
	e.answers(caller(next))
	f.write(f.clientCA, next.PEM)
	if code, _ := e.post(old, `["juliet"]`); code != http.StatusForbidden {
		t.Errorf("over the connection from before: %d", code)
	}
	if resp, err := old.Post("https://"+e.address+Path, "", strings.NewReader(`[]`)); err == nil {
		resp.Body.Close()
		t.Errorf("over a new connection: %s", resp.Status)
	}
	e.answers(caller(next))
}

// TLS turns no HTTP/2 on: a connection is one request at a time.
func TestNoHTTP2(t *testing.T) {
	ca, f := testcert.New(t, "authority"), newFiles(t)
	f.pair(ca.Issue(t, "endpoint", tomorrow()))
	e := secure(t, f, "")
	client := e.from("127.0.0.1", &tls.Config{RootCAs: ca.Pool, NextProtos: []string{"h2", "http/1.1"}})
	client.Transport.(*http.Transport).ForceAttemptHTTP2 = true
	resp, err := client.Post("https://"+e.address+Path, "", strings.NewReader(`[]`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.ProtoMajor != 1 || resp.StatusCode != http.StatusOK {
		t.Error(resp.Proto, resp.Status)
	}
	if conn, err := tls.DialWithDialer(dialer("127.0.0.1"), "tcp", e.address, &tls.Config{RootCAs: ca.Pool, NextProtos: []string{"h2"}}); err == nil {
		conn.Close()
		t.Error("speaks HTTP/2")
	}
}

// A caller who does not do their part of the handshake is cut off. 1,000 such
// connections keep nobody out.
func TestSlowHandshakes(t *testing.T) {
	ca, f := testcert.New(t, "authority"), newFiles(t)
	f.pair(ca.Issue(t, "endpoint", tomorrow()))
	e := secure(t, f, "", func(o *Options) { o.Limits = Limits{Header: 2 * time.Second} })
	silent, begun := e.dial("127.0.0.2", ""), e.dial("127.0.0.2", "\x16\x03\x01\x02\x00\x01")
	for range 1000 {
		e.dial("127.0.0.2", "\x16\x03\x01\x02\x00\x01")
	}
	e.answers(e.from("127.0.0.1", &tls.Config{RootCAs: ca.Pool}))
	e.ended(silent)
	e.ended(begun)
	if code := e.ended(e.dial("127.0.0.1", beginning+"\r\n")); code != http.StatusBadRequest {
		t.Errorf("HTTP without TLS: %d", code)
	}
}

// Callers cannot fill the log.
func TestServerLog(t *testing.T) {
	var out locked.Buffer
	l := serverLog{slog.New(slog.NewTextHandler(&out, nil)), onceAMinute()}
	for range 1000 {
		io.WriteString(l, "http: TLS handshake error from 192.0.2.1:5: \x1b["+strings.Repeat("x", 10_000)+"\n")
	}
	if text := out.String(); strings.Count(text, "\n") != 1 || len(text) > 1000 || strings.Contains(text, "\x1b") {
		t.Errorf("%d bytes: %.1000q", len(text), text)
	}
	io.WriteString(l, "http: panic serving 192.0.2.1:5: "+strings.Repeat("x", 10_000))
	if text := out.String(); strings.Count(text, "\n") != 2 || len(text) < 10_000 {
		t.Errorf("a panic is not logged whole: %d bytes", len(text))
	}
}

// A connection without TLS has no certificate.
func TestTrusts(t *testing.T) {
	var none *Certificates
	if !none.trusts(nil) {
		t.Error("wants a certificate without TLS")
	}
	ca, f := testcert.New(t, "authority"), newFiles(t)
	f.pair(ca.Issue(t, "endpoint", tomorrow()))
	f.write(f.clientCA, ca.PEM)
	c, err := LoadCertificates(f.cert, f.key, f.clientCA, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	expired := ca.Issue(t, "backend", time.Now().Add(-time.Hour)).TLS(t).Leaf
	good := ca.Issue(t, "backend", tomorrow()).TLS(t).Leaf
	for name, tt := range map[string]struct {
		state *tls.ConnectionState
		want  bool
	}{
		"no TLS":         {nil, false},
		"no certificate": {&tls.ConnectionState{}, false},
		"expired since":  {&tls.ConnectionState{PeerCertificates: []*x509.Certificate{expired}}, false},
		"good":           {&tls.ConnectionState{PeerCertificates: []*x509.Certificate{good}}, true},
	} {
		if c.trusts(tt.state) != tt.want {
			t.Errorf("%s: %v", name, !tt.want)
		}
	}
}
