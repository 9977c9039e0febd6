package config

import (
	"crypto/tls"
	"crypto/x509"

	"rosterd/jid"
)

const maxAuthorities = 1 << 20 // bytes of a file of certificates

// Enabled reports whether TLS is used.
func (t XMPPTLS) Enabled() bool { return t != XMPPTLS{} }

// Client is how rosterd connects with TLS: nil if it is not used. It reads the
// file CA; its error names the key and the file.
func (t XMPPTLS) Client() (*tls.Config, error) {
	if !t.Enabled() {
		return nil, nil
	}
	return client("xmpp.tls.ca", t.CA, jid.ASCIIDomain(prepared(t.ServerName))) // as certificates have it (RFC 5890)
}

// Client is how rosterd connects to backends with TLS: nil if there is nothing to
// set. It reads the file CA; its error names the key and the file.
func (t ContactsTLS) Client() (*tls.Config, error) {
	if t.CA == "" {
		return nil, nil
	}
	return client("contacts.tls.ca", t.CA, "")
}

// client trusts the certificates in the file that a key names, or those of the system
// if it names none.
func client(key, file, serverName string) (*tls.Config, error) {
	c := &tls.Config{ServerName: serverName, MinVersion: tls.VersionTLS12}
	if file == "" {
		return c, nil
	}
	b, err := readFile(file, maxAuthorities)
	if err != nil {
		return nil, problem(key, "a readable file of at most 1 MiB", show(file)+": "+err.Error())
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(b) {
		return nil, problem(key, "a file of certificates in PEM", show(file)+", which has none")
	}
	return c, nil
}
