package refresh

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	checkInterval = time.Second // between two looks at the files, at least
	maxFile       = 1 << 20     // bytes of each file; a longer one is an error
)

// The keys of the configuration that name the files: the certificate, its key,
// and the authorities that sign the callers' certificates.
var fileKeys = [3]string{"refresh.tls.cert", "refresh.tls.key", "refresh.tls.client_ca"}

// Certificates are the endpoint's certificate and, if callers need one, the
// authorities that sign theirs. While they are used, the files are checked once a
// second at most, and read again if they have changed. If the new files are
// broken, the old certificates stay. Certificates are safe for concurrent use.
type Certificates struct {
	log     *slog.Logger
	every   time.Duration // checkInterval, except in tests
	current atomic.Pointer[tls.Config]

	mu      sync.Mutex // guards what follows; no connection waits for it
	names   [3]string  // of the files, in the order of fileKeys; "": none
	infos   [3]os.FileInfo
	checked time.Time
	failure string // why the files could not be read at the last check; "": they could
}

// LoadCertificates reads PEM files. If clientCA is "", callers need no
// certificate. An error names the key of the configuration and the file, and
// repeats nothing of the file's content.
func LoadCertificates(cert, key, clientCA string, log *slog.Logger) (*Certificates, error) {
	c := &Certificates{log: log, every: checkInterval}
	if err := c.Replace(cert, key, clientCA); err != nil {
		return nil, err
	}
	return c, nil
}

// Replace reads PEM files, other ones or the same, as [LoadCertificates] does. If
// it fails, the certificates stay as they are.
func (c *Certificates) Replace(cert, key, clientCA string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.read([3]string{cert, key, clientCA})
}

// Leaf is the endpoint's certificate as it was read last.
func (c *Certificates) Leaf() *x509.Certificate { return c.current.Load().Certificates[0].Leaf }

// config is for a listener: each handshake gets the certificates of its time.
func (c *Certificates) config() *tls.Config {
	return &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.check(), nil }}
}

// ofClient is for a connection to the other instance of a pair: each has the certificates of
// its time.
func (c *Certificates) ofClient() *tls.Config {
	now := c.check()
	return &tls.Config{RootCAs: now.RootCAs, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &now.Certificates[0], nil // whatever authorities the other one names
	}}
}

// trusts reports whether the caller's certificate is still good, if callers need
// one (RFC 5280, section 6). Since the handshake, it may have expired or its
// authority may have been removed.
func (c *Certificates) trusts(state *tls.ConnectionState) bool {
	if c == nil {
		return true
	}
	config := c.check()
	if config.ClientCAs == nil {
		return true
	}
	if state == nil || len(state.PeerCertificates) == 0 {
		return false
	}
	intermediates := x509.NewCertPool()
	for _, cert := range state.PeerCertificates[1:] {
		intermediates.AddCert(cert)
	}
	_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: config.ClientCAs, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err == nil
}

// check returns the present certificates. If it is time to, it looks at the files
// before, and reads them if they have changed or were broken. It logs a failure
// once, not at each check.
func (c *Certificates) check() *tls.Config {
	if !c.mu.TryLock() {
		return c.current.Load()
	}
	defer c.mu.Unlock()
	if time.Since(c.checked) >= c.every {
		c.checked = time.Now()
		if c.failure != "" || c.changed() {
			switch err := c.read(c.names); {
			case err == nil:
				c.log.Info("the refresh endpoint's certificates are read again", "expires", c.Leaf().NotAfter)
			case err.Error() != c.failure:
				c.failure = err.Error()
				c.log.Error("the refresh endpoint goes on with the certificates that it has", "error", c.failure)
			}
		}
	}
	return c.current.Load()
}

// changed reports whether a file is another one than the one that was read, by its
// time of change, its size, or as it was put in the other's place. The caller holds
// c.mu.
func (c *Certificates) changed() bool {
	for i, then := range c.infos {
		if then == nil {
			continue
		}
		now, err := os.Stat(c.names[i])
		if err != nil || !os.SameFile(now, then) || now.Size() != then.Size() || !now.ModTime().Equal(then.ModTime()) {
			return true
		}
	}
	return false
}

// read takes the files of these names over, if all are good. The caller holds
// c.mu.
func (c *Certificates) read(names [3]string) error {
	var infos [3]os.FileInfo
	var data [3][]byte
	for i, name := range names {
		var err error
		if name == "" {
			continue
		}
		if infos[i], data[i], err = readFile(name); err != nil {
			return fmt.Errorf("%s: %w", fileKeys[i], err)
		}
	}
	// Without session tickets: with one, a caller whom the new files do not trust
	// would get in with a session of the old ones.
	config := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, SessionTicketsDisabled: true}
	pair, err := tls.X509KeyPair(data[0], data[1])
	for i := 1; err == nil && i < len(pair.Certificate); i++ {
		_, err = x509.ParseCertificate(pair.Certificate[i])
	}
	if err != nil {
		return fmt.Errorf("%s: %s, with %s: %s: %w", fileKeys[0], names[0], fileKeys[1], names[1], err)
	}
	config.Certificates = []tls.Certificate{pair}
	if config.RootCAs, err = x509.SystemCertPool(); err != nil {
		config.RootCAs = x509.NewCertPool()
	}
	if names[2] != "" {
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(data[2]) {
			return fmt.Errorf("%s: %s: no certificate in PEM in it", fileKeys[2], names[2])
		}
		config.RootCAs.AppendCertsFromPEM(data[2])
	}
	c.names, c.infos, c.failure, c.checked = names, infos, "", time.Now()
	c.current.Store(config)
	return nil
}

// readFile returns a file and, from before it was read, its info: a change
// meanwhile is noticed at the next check. Its errors name the file.
func readFile(name string) (os.FileInfo, []byte, error) {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return nil, nil, err
	case !info.Mode().IsRegular() || info.Size() > maxFile: // a pipe may never end
		return nil, nil, fmt.Errorf("%s: not a file of at most %d bytes", name, maxFile)
	}
	data, err := os.ReadFile(name)
	return info, data, err
}
