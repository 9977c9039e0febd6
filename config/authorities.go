package config

import (
	"crypto/tls"
	"crypto/x509"
)

const maxAuthorities = 1 << 20 // bytes of a file of certificates

// Client is how rosterd connects with TLS: nil if it is not used. It reads the
// file CA; its error names the key and the file.
func (t XMPPTLS) Client() (*tls.Config, error) {
	if !t.Enabled() {
		return nil, nil
	}
	c := &tls.Config{ServerName: t.ServerName, MinVersion: tls.VersionTLS12}
	if t.CA == "" {
		return c, nil
	}
	b, err := readFile(t.CA, maxAuthorities)
	if err != nil {
		return nil, problem("xmpp.tls.ca", "a readable file of at most 1 MiB", show(t.CA)+": "+err.Error())
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(b) {
		return nil, problem("xmpp.tls.ca", "a file of certificates in PEM", show(t.CA)+", which has none")
	}
	return c, nil
}
