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
	trusted, err := authorities("xmpp.tls.ca", t.CA)
	if err != nil {
		return nil, err
	}
	return &tls.Config{ServerName: t.ServerName, RootCAs: trusted, MinVersion: tls.VersionTLS12}, nil
}

// Client is how rosterd connects to backends with TLS: nil if there is nothing to
// set. It reads the file CA; its error names the key and the file.
func (t ContactsTLS) Client() (*tls.Config, error) {
	if t.CA == "" {
		return nil, nil
	}
	trusted, err := authorities("contacts.tls.ca", t.CA)
	if err != nil {
		return nil, err
	}
	return &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12}, nil
}

// authorities are the certificates in a file that a key names; nil, which is those
// of the system, if it names none.
func authorities(key, file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	b, err := readFile(file, maxAuthorities)
	if err != nil {
		return nil, problem(key, "a readable file of at most 1 MiB", show(file)+": "+err.Error())
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, problem(key, "a file of certificates in PEM", show(file)+", which has none")
	}
	return pool, nil
}
