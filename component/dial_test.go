package component

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"rosterd/jid"
	"rosterd/roster"
	"rosterd/xmlstream"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	_, a.key, a.cert = certificate(t, nil, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// trusted is the configuration of a client that trusts a.
func (a *authority) trusted(serverName string) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{RootCAs: pool, ServerName: serverName}
}

// server is the configuration of a server with a certificate for names and
// 127.0.0.1, that ends after a time.
func (a *authority) server(t *testing.T, valid time.Duration, names ...string) *tls.Config {
	t.Helper()
	der, key, _ := certificate(t, a, &x509.Certificate{DNSNames: names, NotAfter: time.Now().Add(valid), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// certificate makes one, signed by itself if by is nil.
func certificate(t *testing.T, by *authority, c *x509.Certificate) (der []byte, key *ecdsa.PrivateKey, parsed *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber, c.Subject = big.NewInt(1), pkix.Name{CommonName: "rosterd test"}
	c.NotBefore = time.Now().Add(-48 * time.Hour)
	if c.NotAfter.IsZero() {
		c.NotAfter = time.Now().Add(time.Hour)
	}
	if by == nil {
		by = &authority{c, key}
	}
	if der, err = x509.CreateCertificate(rand.Reader, c, by.cert, key.Public(), by.key); err == nil {
		parsed, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	return der, key, parsed
}

// Everything goes on as without TLS.
func TestTLS(t *testing.T) {
	for name, serverName := range map[string]string{"the name of the address": "", "another name": "xmpp.example.org"} {
		t.Run(name, func(t *testing.T) {
			a := newAuthority(t)
			r := fault(t, only, func(o *Options) { o.TLS = a.trusted(serverName) })
			r.server.tls = a.server(t, time.Hour, "xmpp.example.org")
			k := r.server.serve()
			r.announced(t, k)
			k.send("%s", queryOf(juliet, "1"))
			if got := k.next(); !strings.Contains(got, "known-to-juliet@example.org") {
				t.Errorf("got %s", got)
			}
			// Many stanzas at a time, long ones among them.
			done := make(chan roster.Outcome, 1)
			changes := make([]roster.Change, 50)
			for i := range changes {
				changes[i] = roster.Change{Action: roster.Added, Item: item(t, "romeo@example.org", strings.Repeat("x", i*1000))}
			}
			go r.Push([]jid.JID{mustJID(t, "nurse@example.org/x")}, changes, func(o roster.Outcome) { done <- o })
			for i := range changes {
				got := k.next()
				if !strings.Contains(got, "'"+strings.Repeat("x", i*1000)+"'") && i > 0 {
					t.Fatalf("push %d is broken", i)
				}
				e, _ := xmlstream.Decode([]byte(got))
				k.send("<iq type='result' id='%s' from='nurse@example.org'/>", e.Get("id"))
			}
			if o := receive(t, done); o.Err != nil {
				t.Errorf("outcome %+v", o)
			}
			r.stop()
			if _, _, err := k.f.Next(); err != io.EOF {
				t.Errorf("got %v, want the end of the stream", err)
			}
		})
	}
}

func TestTLSErrors(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	plain := func(conn net.Conn) { conn.Write([]byte("<?xml version='1.0'?><stream:stream>")); drain(conn) }
	good := func(valid time.Duration, names ...string) func(net.Conn) {
		config := a.server(t, valid, names...)
		return func(conn net.Conn) { _ = tls.Server(conn, config).Handshake() }
	}
	for name, tt := range map[string]struct {
		serve  func(net.Conn)
		config *tls.Config
		want   string // in the error
		advice string
	}{
		"another name":         {good(time.Hour, "xmpp.example.org"), a.trusted("other.example.org"), `is not for "other.example.org", it is for "xmpp.example.org", 127.0.0.1`, "xmpp.tls.server_name"},
		"an unknown authority": {good(time.Hour, "xmpp.example.org"), stranger.trusted("xmpp.example.org"), "signed by nobody who is trusted", "xmpp.tls.ca"},
		"expired":              {good(-time.Hour, "xmpp.example.org"), a.trusted("xmpp.example.org"), "has expired", "certificate in order"},
		"a plain port":         {plain, a.trusted(""), "does not speak TLS", "is xmpp.address a component port with TLS?"},
		"closes":               {func(conn net.Conn) { conn.Close() }, a.trusted(""), "TLS: ", ""},
		"silent":               {drain, a.trusted(""), "did not answer in time", "certificate in order"},
		"an alert": {func(conn net.Conn) { conn.Write([]byte("\x15\x03\x01\x00\x02\x02\x46")); drain(conn) }, a.trusted(""),
			"the server refused: ", "certificate in order"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t)
			go func() {
				if conn, err := s.l.Accept(); err == nil {
					tt.serve(conn)
					conn.Close()
				}
			}()
			wait := patience
			if name == "silent" {
				wait = 200 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			conn, err := Dial(ctx, s.l.Addr().String(), tt.config)
			if err == nil {
				conn.Close()
				t.Fatal("no error")
			}
			var insecure *TLSError
			if !errors.As(err, &insecure) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(insecure.Advice(), tt.advice) {
				t.Errorf("got %v; %v", err, insecure.Advice())
			}
		})
	}
}

// drain reads until the other side has closed.
func drain(conn net.Conn) {
	buf := make([]byte, 1024)
	for {
		if _, err := conn.Read(buf); err != nil {
			return
		}
	}
}

// What an administrator reads.
func TestTLSErrorIsLogged(t *testing.T) {
	a := newAuthority(t)
	r := start(t, func(o *Options) { o.TLS = a.trusted("") })
	conn := r.server.connection()
	conn.Write([]byte("<stream:stream>"))
	waitFor(t, "logged", func() bool {
		log := r.log.String()
		return strings.Contains(log, "does not speak TLS") && strings.Contains(log, "is xmpp.address a component port with TLS?")
	})
}

// What is renewed is for the next connection.
func TestRenew(t *testing.T) {
	former, next := newAuthority(t), newAuthority(t)
	r := start(t, func(o *Options) { o.TLS, o.Secret = former.trusted(""), "former" })
	r.server.tls = former.server(t, time.Hour)
	k := r.server.accept()
	k.next() // a handshake with another secret
	r.Renew("secret", next.trusted(""))
	r.server.tls = next.server(t, time.Hour)
	k.Close()
	r.server.serve()
}

// A server that stops reading does not hold up the end of a connection.
func TestTLSCloseDoesNotWait(t *testing.T) {
	a := newAuthority(t)
	s := newServer(t)
	config := a.server(t, time.Hour)
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, err := s.l.Accept()
		if err == nil {
			_ = tls.Server(conn, config).Handshake()
		}
		accepted <- conn
	}()
	conn, err := Dial(t.Context(), s.l.Addr().String(), a.trusted(""))
	if err != nil {
		t.Fatal(err)
	}
	defer receive(t, accepted).Close()
	raw := conn.(secured).raw
	raw.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	for { // beside TLS, until nothing goes any more
		if _, err := raw.Write(make([]byte, 64<<10)); err != nil {
			break
		}
	}
	began := time.Now()
	conn.Close()
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("took %v", took)
	}
}
