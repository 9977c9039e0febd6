package check

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"time"

	"rosterd/refresh"
)

// expiring is how long before its end a certificate is complained of.
const expiring = 14 * 24 * time.Hour

func (c *checker) metricsListener() finding {
	const key = "metrics.listen"
	address := c.cfg.Metrics.Listen
	switch c.running.kind {
	case ours, outdated:
		return pass("%s: %s, held by the rosterd that runs", key, address)
	case foreign:
		return fail("%s: %s is taken by another rosterd, of the component %s", key, address, c.running.status.Domain).mend("give each rosterd a " + key + " of its own")
	case stranger:
		return cannotListen(key, address, syscall.EADDRINUSE)
	}
	if err := tryListen(address); err != nil {
		return cannotListen(key, address, err)
	}
	if _, ok := Reachable(address); !ok {
		return warn("%s: %s is a port that nobody knows: had a rosterd been running, it could not have been asked", key, address).mend("set a port")
	}
	return pass("%s: %s is free", key, address)
}

// refreshListener checks the certificates first: without them, rosterd does not
// start.
func (c *checker) refreshListener(ctx context.Context) []finding {
	const key = "refresh.listen"
	certificate, leaf := c.certificate()
	if c.cfg.Refresh.TLS.Enabled() && leaf == nil {
		return []finding{certificate}
	}
	address := c.cfg.Refresh.Listen
	err := tryListen(address)
	switch {
	case err == nil && c.running.kind == ours:
		return []finding{certificate, fail("%s: %s is free, though rosterd runs: it was started with another one", key, address).mend("restart it")}
	case err == nil:
		return []finding{certificate, pass("%s: %s is free, %s", key, address, c.callers())}
	case errors.Is(err, syscall.EADDRINUSE) && (c.running.kind == ours || c.running.kind == outdated):
		return []finding{certificate, c.runningEndpoint(ctx, leaf)}
	}
	return []finding{certificate, cannotListen(key, address, err)}
}

// certificate checks the files of refresh.tls. leaf is nil if they cannot be
// loaded, or if there are none.
func (c *checker) certificate() (found finding, leaf *x509.Certificate) {
	t := c.cfg.Refresh.TLS
	if !t.Enabled() {
		return finding{}, nil
	}
	loaded, err := refresh.LoadCertificates(t.Cert, t.Key, t.ClientCA, slog.New(slog.DiscardHandler))
	if err != nil {
		return fail("%s", err).mend("rosterd has to be able to read it, and it has to be PEM; for refresh.tls.key: the key of refresh.tls.cert, without a passphrase"), nil
	}
	leaf = loaded.Leaf()
	const key, renew = "refresh.tls.cert", "renew it, rosterd reads it again by itself"
	until := leaf.NotAfter.UTC().Format(time.DateTime) + " UTC"
	switch now := time.Now(); {
	case now.After(leaf.NotAfter):
		return fail("%s: %s was valid until %s", key, t.Cert, until).mend(renew), leaf
	case now.Before(leaf.NotBefore):
		return fail("%s: %s is not valid before %s UTC", key, t.Cert, leaf.NotBefore.UTC().Format(time.DateTime)).mend("is the clock right?"), leaf
	case now.Add(expiring).After(leaf.NotAfter):
		return warn("%s: %s is valid until %s", key, t.Cert, until).mend(renew), leaf
	}
	return pass("%s: %s is valid until %s", key, t.Cert, until), leaf
}

// runningEndpoint looks at who holds refresh.listen while a rosterd runs. leaf is
// the certificate of the configuration; nil: it has no TLS.
func (c *checker) runningEndpoint(ctx context.Context, leaf *x509.Certificate) finding {
	const key = "refresh.listen"
	address := c.cfg.Refresh.Listen
	answers, shown := endpointAt(ctx, address, leaf != nil)
	var otherwise bool // it answers with TLS, and not without, or the other way round
	if !answers && shown == nil {
		plain, other := endpointAt(ctx, address, leaf == nil)
		otherwise = leaf != nil && plain || leaf == nil && other != nil
	}
	switch {
	case otherwise && leaf != nil:
		return fail("%s: %s is held by the rosterd that runs, without TLS", key, address).mend("it was started without refresh.tls: restart it")
	case otherwise:
		return fail("%s: %s is held by a program with TLS, and refresh.tls is not set", key, address).mend(
			"if it is the rosterd that runs, it was started with refresh.tls: restart it")
	case !answers && (leaf == nil || !leaf.Equal(shown)): // with refresh.tls.client_ca it does not answer, but shows its certificate
		return cannotListen(key, address, syscall.EADDRINUSE)
	case leaf != nil && !leaf.Equal(shown):
		return fail("%s: the rosterd that runs shows another certificate than that of refresh.tls.cert", key).mend("its log says why; or restart it")
	}
	return pass("%s: %s, held by the rosterd that runs, %s", key, address, c.callers())
}

// endpointAt reports whether a rosterd's refresh endpoint answers a request that
// refreshes nobody, and which certificate was shown, if one was.
func endpointAt(ctx context.Context, address string, secure bool) (answers bool, shown *x509.Certificate) {
	address, ok := Reachable(address)
	if !ok {
		return false, nil
	}
	_, body, shown, err := get(ctx, address, "/", secure)
	var answer refresh.Answer
	return err == nil && json.Unmarshal(body, &answer) == nil && strings.Contains(answer.Message, refresh.Path), shown
}

// callers says what callers of the endpoint need.
func (c *checker) callers() string {
	r := c.cfg.Refresh
	var needs []string
	if r.TLS.Enabled() {
		needs = append(needs, "TLS")
	}
	if r.TLS.ClientCA != "" {
		needs = append(needs, "a certificate of refresh.tls.client_ca")
	}
	switch {
	case r.Token != "" && len(r.Tokens) > 0:
		needs = append(needs, "refresh.token or one of refresh.tokens")
	case r.Token != "":
		needs = append(needs, "refresh.token")
	case len(r.Tokens) > 0:
		needs = append(needs, "one of refresh.tokens")
	case r.TLS.ClientCA == "": // config has seen to it
		return strings.Join(append(needs, "without refresh.token, which it does not need on loopback"), ", ")
	}
	return "callers need " + strings.Join(needs, " and ")
}

// cannotListen says why an address cannot be listened on.
func cannotListen(key, address string, err error) finding {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fail("%s: %s is taken by another program", key, address).mend("stop it, or set another " + key)
	}
	return fail("%s: %s", key, err).mend("set an address of this machine, and a port of 1024 or more")
}

// tryListen listens for a moment.
func tryListen(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	return l.Close()
}
