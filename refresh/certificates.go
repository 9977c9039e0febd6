package refresh

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	checkInterval = time.Second // between two looks at the files, at least
	maxFile       = 1 << 20     // bytes
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

// changed reports whether a file is another one than the one that was read. The
// caller holds c.mu.
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
	if _, err := certPool(data[0]); err != nil {
		return fmt.Errorf("%s: %s: %w", fileKeys[0], names[0], err)
	}
	pair, err := tls.X509KeyPair(data[0], data[1])
	if err != nil {
		return fmt.Errorf("%s: %s: not the key of %s: %w", fileKeys[1], names[1], names[0], err)
	}
	// Without session tickets: with one, a caller whom the new files do not trust
	// would get in with a session of the old ones.
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, SessionTicketsDisabled: true}
	if names[2] != "" {
		config.ClientAuth = tls.RequireAndVerifyClientCert
		if config.ClientCAs, err = certPool(data[2]); err != nil {
			return fmt.Errorf("%s: %s: %w", fileKeys[2], names[2], err)
		}
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
	case !info.Mode().IsRegular(): // a pipe may never end
		return nil, nil, fmt.Errorf("%s: not a file", name)
	case info.Size() > maxFile:
		return nil, nil, fmt.Errorf("%s: larger than %d bytes", name, maxFile)
	}
	data, err := os.ReadFile(name)
	return info, data, err
}

// certPool has the certificates of a PEM file. Unlike AppendCertsFromPEM of
// [x509.CertPool], it takes none if one of them is broken.
func certPool(data []byte) (*x509.CertPool, error) {
	pool, found := x509.NewCertPool(), false
	for {
		var block *pem.Block
		if block, data = pem.Decode(bytes.TrimSpace(data)); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		pool.AddCert(cert)
		found = true
	}
	if !found {
		return nil, errors.New("no certificate in PEM in it")
	}
	return pool, nil
}
