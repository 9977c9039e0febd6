package check

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"strings"
	"time"

	"rosterd/refresh"
)

// expiring is how long before its end a certificate is complained of.
const expiring = 14 * 24 * time.Hour

// certificates reads the files of refresh.tls. leaf is the endpoint's
// certificate, or nil if there is no TLS.
func (c *checker) certificates() (leaf *x509.Certificate, ok bool) {
	t := c.cfg.Refresh.TLS
	if !t.Enabled() {
		return nil, true
	}
	loaded, err := refresh.LoadCertificates(t.Cert, t.Key, t.ClientCA, slog.New(slog.DiscardHandler))
	if err != nil {
		c.fail("%s", err)("rosterd has to be able to read it, and it has to be PEM; for refresh.tls.key: the key of refresh.tls.cert, without a passphrase")
		return nil, false
	}
	leaf = loaded.Leaf()
	const key = "refresh.tls.cert"
	until := leaf.NotAfter.UTC().Format(time.DateTime) + " UTC"
	switch now := time.Now(); {
	case now.After(leaf.NotAfter):
		c.fail("%s: %s was valid until %s", key, t.Cert, until)("renew it, rosterd reads it again by itself")
	case now.Before(leaf.NotBefore):
		c.fail("%s: %s is not valid before %s UTC", key, t.Cert, leaf.NotBefore.UTC().Format(time.DateTime))("is the clock right?")
	case now.Add(expiring).After(leaf.NotAfter):
		c.warn("%s: %s is valid until %s", key, t.Cert, until)("renew it, rosterd reads it again by itself")
	default:
		c.ok("%s: %s is valid until %s", key, t.Cert, until)
	}
	return leaf, true
}

// endpointAt reports whether a rosterd's refresh endpoint answers, to a request
// that refreshes nobody, and which certificate was shown, if one was.
func endpointAt(ctx context.Context, listen string, secure bool) (answers bool, shown *x509.Certificate) {
	address, ok := reachable(listen)
	if !ok {
		return false, nil
	}
	scheme := "http://"
	var config *tls.Config
	certificate := make(chan *x509.Certificate, 1)
	if secure {
		scheme = "https://"
		config = &tls.Config{
			// The certificate is for the callers' name of it; it is compared with
			// the file's, and nothing is sent that others must not know.
			InsecureSkipVerify: true,
			VerifyConnection: func(state tls.ConnectionState) error {
				select {
				case certificate <- state.PeerCertificates[0]: // a server has one
				default:
				}
				return nil
			},
		}
	}
	_, body, err := getWith(ctx, scheme+address+"/", config)
	select {
	case shown = <-certificate:
	default:
	}
	var answer refresh.Answer
	return err == nil && json.Unmarshal(body, &answer) == nil && strings.Contains(answer.Message, refresh.Path), shown
}

func isPlain(ctx context.Context, listen string) bool {
	answers, _ := endpointAt(ctx, listen, false)
	return answers
}

func isSecure(ctx context.Context, listen string) bool {
	_, shown := endpointAt(ctx, listen, true)
	return shown != nil
}
