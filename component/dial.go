package component

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// Dial connects to a server's component port until ctx ends, with TLS unless config is
// nil. ServerName is that of the address by default. An error of TLS is a [TLSError].
func Dial(ctx context.Context, address string, config *tls.Config) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	raw := prompt(conn)
	if config == nil {
		return raw, nil
	}
	config = config.Clone()
	if config.ServerName == "" {
		config.ServerName, _, _ = net.SplitHostPort(address) // it was dialled
	}
	config.DynamicRecordSizingDisabled = true // stanzas are written many at a time
	conn = tls.Client(raw, config)
	if err := conn.(*tls.Conn).HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, &TLSError{ServerName: config.ServerName, Err: err}
	}
	return secured{conn.(*tls.Conn), raw}, nil
}

// TLSError is why there is no TLS to the server.
type TLSError struct {
	ServerName string // that the certificate must have
	Err        error
}

func (e *TLSError) Unwrap() error { return e.Err }

func (e *TLSError) Error() string {
	what, _ := e.explain()
	return "TLS: " + what
}

// Advice says what an administrator can check.
func (e *TLSError) Advice() string {
	_, advice := e.explain()
	return advice
}

// isPlain reports whether the port seems to be one without TLS.
func (e *TLSError) isPlain() bool {
	_, plain := errors.AsType[tls.RecordHeaderError](e.Err)
	return plain || errors.Is(e.Err, io.EOF)
}

func (e *TLSError) explain() (what, advice string) {
	if e.isPlain() {
		what = "what answers does not speak TLS"
		if errors.Is(e.Err, io.EOF) {
			what = "the server closed the connection"
		}
		return what, "is xmpp.address a component port with TLS? without xmpp.tls.server_name and xmpp.tls.ca none is used"
	}
	if name, ok := errors.AsType[x509.HostnameError](e.Err); ok {
		return "the server's certificate is not for " + short(e.ServerName) + ", it is for " + namesOf(name.Certificate),
			"xmpp.tls.server_name has to be a name that is in the server's certificate"
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](e.Err); ok {
		return "the server's certificate was signed by nobody who is trusted",
			"xmpp.tls.ca has to be a file with the certificate that signed the server's, or with the server's own"
	}
	what, advice = e.Err.Error(), "is the server's certificate in order?"
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](e.Err); ok && invalid.Reason == x509.Expired {
		what = "the server's certificate has expired, or is not valid yet"
	} else if remote, ok := errors.AsType[*net.OpError](e.Err); ok && remote.Op == "remote error" {
		what = "the server refused: " + remote.Err.Error()
	} else if errors.Is(e.Err, context.DeadlineExceeded) {
		what = "the server did not answer in time"
	}
	return what, advice
}

// namesOf are the names a certificate is for, a few of them.
func namesOf(c *x509.Certificate) string {
	if c == nil || len(c.DNSNames)+len(c.IPAddresses) == 0 {
		return "no name at all"
	}
	var names []string
	for _, name := range c.DNSNames[:min(len(c.DNSNames), 3)] {
		names = append(names, short(name))
	}
	for _, address := range c.IPAddresses[:min(len(c.IPAddresses), 3)] {
		names = append(names, address.String())
	}
	return strings.Join(names, ", ")
}

// secured is a connection with TLS.
type secured struct {
	*tls.Conn
	raw net.Conn
}

// Close waits a second at most for a server that reads nothing.
func (s secured) Close() error {
	timer := time.AfterFunc(time.Second, func() { s.raw.Close() })
	defer timer.Stop()
	return s.Conn.Close()
}
