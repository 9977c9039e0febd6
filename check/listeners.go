package check

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"syscall"
)

// listeners looks whether rosterd can listen, or does.
func (c *checker) listeners(ctx context.Context) {
	c.metricsListener()
	c.refreshListener(ctx)
}

func (c *checker) metricsListener() {
	const key = "metrics.listen"
	switch address := string(c.cfg.Metrics.Listen); c.running.kind {
	case ours, outdated:
		c.ok("%s: %s, held by the rosterd that runs", key, address)
	case foreign:
		c.fail("%s: %s is taken by another rosterd, of the component %s", key, address, c.running.status.Domain)("give each rosterd a " + key + " of its own")
	case stranger:
		c.fail("%s: %s is taken by another program", key, address)("stop it, or set another " + key)
	default:
		if err := bind(address); err != nil {
			c.cannotListen(key, address, err)
		} else if _, ok := reachable(address); !ok {
			c.warn("%s: %s is a port that nobody knows: had a rosterd been running, it could not have been asked", key, address)("set a port")
		} else {
			c.ok("%s: %s is free", key, address)
		}
	}
}

func (c *checker) refreshListener(ctx context.Context) {
	const key = "refresh.listen"
	leaf, ok := c.certificates()
	if !ok {
		return // rosterd does not start like that
	}
	address, callers := string(c.cfg.Refresh.Listen), c.callers()
	err := bind(address)
	switch {
	case err == nil && c.running.kind == ours:
		c.fail("%s: %s is free, though rosterd runs: it was started with another one", key, address)("restart it")
	case err == nil:
		c.ok("%s: %s is free, %s", key, address, callers)
	case errors.Is(err, syscall.EADDRINUSE) && (c.running.kind == ours || c.running.kind == outdated):
		c.runningEndpoint(ctx, leaf)
	default:
		c.cannotListen(key, address, err)
	}
}

// runningEndpoint looks at who holds refresh.listen while a rosterd runs.
func (c *checker) runningEndpoint(ctx context.Context, leaf *x509.Certificate) {
	const key = "refresh.listen"
	address := string(c.cfg.Refresh.Listen)
	switch got, shown := endpointAt(ctx, address, leaf != nil); {
	case !got && leaf != nil && shown == nil && isPlain(ctx, address):
		c.fail("%s: %s is held by the rosterd that runs, without TLS", key, address)("it was started without refresh.tls: restart it")
	case !got && leaf == nil && isSecure(ctx, address):
		c.fail("%s: %s is held by a program with TLS, and refresh.tls is not set", key, address)(
			"if it is the rosterd that runs, it was started with refresh.tls: restart it")
	case !got && (leaf == nil || !leaf.Equal(shown)): // with refresh.tls.client_ca it does not answer, but shows its certificate
		c.cannotListen(key, address, syscall.EADDRINUSE)
	case leaf != nil && !leaf.Equal(shown):
		c.fail("%s: the rosterd that runs shows another certificate than that of refresh.tls.cert", key)("its log says why; or restart it")
	default:
		c.ok("%s: %s, held by the rosterd that runs, %s", key, address, c.callers())
	}
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
func (c *checker) cannotListen(key, address string, err error) {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		c.fail("%s: %s is taken by another program", key, address)("stop it, or set another " + key)
	case errors.Is(err, syscall.EACCES):
		c.fail("%s: %s needs rights that rosterd should not have", key, address)("set a port of 1024 or more")
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		c.fail("%s: %s is no address of this machine", key, address)("correct " + key)
	default:
		c.fail("%s: cannot listen on %s: %s", key, address, err)("correct " + key)
	}
}

// bind listens for a moment.
func bind(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	return l.Close()
}
