package refresh

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	lookAgain = time.Second // how often the files are looked at, at most
	maxFile   = 1 << 20     // bytes
)

// Certificates are the endpoint's certificate and key and, if callers need a
// certificate, who may have signed it. Their files are looked at while they are
// used, once a second at most: if they have changed they are read again, and if
// they are broken then, what there was stays. Certificates are safe for
// concurrent use.
type Certificates struct {
	log     *slog.Logger
	every   time.Duration // lookAgain
	current atomic.Pointer[tls.Config]

	mu     sync.Mutex // who looks has it; no connection waits for it
	files  fileNames
	looked time.Time
	stamps [3]os.FileInfo
	broken string // why the files could not be read at the last look
}

// fileNames are those of the certificate, the key, and those who may have signed the
// callers', which may be "".
type fileNames [3]string

// LoadCertificates reads PEM files; clientCA may be "": callers need no
// certificate. An error names the key of the configuration and the file, and
// repeats nothing of what is in it.
func LoadCertificates(cert, key, clientCA string, log *slog.Logger) (*Certificates, error) {
	c := &Certificates{log: log, every: lookAgain}
	if err := c.read(fileNames{cert, key, clientCA}); err != nil {
		return nil, err
	}
	return c, nil
}

// Replace reads PEM files, be they other ones or the same, as [LoadCertificates]
// does. If it fails, what there was stays.
func (c *Certificates) Replace(cert, key, clientCA string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.read(fileNames{cert, key, clientCA})
}

// read reads the files, which then are those that are looked at. c.mu is held, or
// nobody else has c yet.
func (c *Certificates) read(f fileNames) error {
	config, stamps, err := f.load()
	if err != nil {
		return err
	}
	c.files, c.stamps, c.broken, c.looked = f, stamps, "", time.Now()
	c.current.Store(config)
	return nil
}

// Leaf is the endpoint's certificate as it was read last.
func (c *Certificates) Leaf() *x509.Certificate { return c.current.Load().Certificates[0].Leaf }

// config is for a listener. Sessions are not resumed: whom a new file does not
// trust any more would come in with an old one.
func (c *Certificates) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, SessionTicketsDisabled: true,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.look(), nil },
	}
}

// trusts reports whether a connection's caller still has a certificate that is
// good, as far as he needs one: the file may have changed, or the certificate
// expired, since the connection was made.
func (c *Certificates) trusts(state *tls.ConnectionState) bool {
	if c == nil {
		return true
	}
	config := c.look()
	if config.ClientCAs == nil {
		return true
	}
	if state == nil || len(state.PeerCertificates) == 0 {
		return false
	}
	between := x509.NewCertPool()
	for _, cert := range state.PeerCertificates[1:] {
		between.AddCert(cert)
	}
	_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: config.ClientCAs, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err == nil
}

// look is what holds now.
func (c *Certificates) look() *tls.Config {
	if c.mu.TryLock() {
		defer c.mu.Unlock()
		if time.Since(c.looked) >= c.every {
			c.looked = time.Now()
			c.reload()
		}
	}
	return c.current.Load()
}

// reload reads the files if they have changed, or were broken. c.mu is held.
func (c *Certificates) reload() {
	if c.broken == "" && c.unchanged() {
		return
	}
	if err := c.read(c.files); err != nil {
		if why := err.Error(); why != c.broken {
			c.broken = why
			c.log.Error("the refresh endpoint goes on with the certificates that it has", "error", why)
		}
		return
	}
	c.log.Info("the refresh endpoint's certificates are read again", "expires", c.Leaf().NotAfter)
}

func (c *Certificates) unchanged() bool {
	for i, file := range c.files {
		if file == "" {
			continue
		}
		now, err := os.Stat(file)
		if err != nil || !os.SameFile(now, c.stamps[i]) || now.Size() != c.stamps[i].Size() || !now.ModTime().Equal(c.stamps[i].ModTime()) {
			return false
		}
	}
	return true
}

func (f fileNames) load() (*tls.Config, [3]os.FileInfo, error) {
	var stamps [3]os.FileInfo
	var data [3][]byte
	keys := [3]string{"refresh.tls.cert", "refresh.tls.key", "refresh.tls.client_ca"}
	for i, file := range f {
		if file == "" {
			continue
		}
		var err error
		if data[i], stamps[i], err = readFile(file); err != nil {
			return nil, stamps, fmt.Errorf("%s: %w", keys[i], err)
		}
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, SessionTicketsDisabled: true}
	if _, err := certificates(data[0]); err != nil {
		return nil, stamps, fmt.Errorf("%s: %s: %w", keys[0], f[0], err)
	}
	pair, err := tls.X509KeyPair(data[0], data[1])
	if err != nil {
		return nil, stamps, fmt.Errorf("%s: %s: not the key of %s: %w", keys[1], f[1], f[0], err)
	}
	config.Certificates = []tls.Certificate{pair}
	if f[2] != "" {
		list, err := certificates(data[2])
		if err != nil {
			return nil, stamps, fmt.Errorf("%s: %s: %w", keys[2], f[2], err)
		}
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		for _, cert := range list {
			config.ClientCAs.AddCert(cert)
		}
	}
	return config, stamps, nil
}

// readFile reads a file, which is none that never ends, and returns what it was
// before that. Its errors name it.
func readFile(name string) ([]byte, os.FileInfo, error) {
	stamp, err := os.Stat(name)
	if err != nil {
		return nil, nil, err
	}
	if !stamp.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s: not a file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s: larger than %d bytes", name, maxFile)
	}
	return data, stamp, err
}

// certificates are those in a PEM file; each has to be good.
func certificates(data []byte) ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	for {
		var block *pem.Block
		block, data = pem.Decode(bytes.TrimSpace(data))
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		list = append(list, cert)
	}
	if len(list) == 0 {
		return nil, errors.New("no certificate in PEM in it")
	}
	return list, nil
}
