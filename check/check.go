// Package check goes through a whole installation of rosterd, from its
// configuration to its listeners, and says of each step whether it works and,
// if it does not, what mends it. It is `rosterd check`.
//
// It disturbs nothing: if a rosterd of the same configuration runs, that one is
// asked what it has learnt, and there is no second connection of the component,
// which some servers would share the users' queries with. No line it writes
// contains a secret, or the query of a URL.
package check

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"strings"

	"rosterd/component"
	"rosterd/config"
	"rosterd/fetcher"
)

// Options of a check.
type Options struct {
	File    string // the configuration, as for [config.Load]
	User    string // whose contacts are asked for: a localpart or a bare JID; "": nobody's
	Version string // told to the server
	Out     io.Writer

	// Fetcher makes the fetcher that rosterd would use. It must not log to where
	// people look.
	Fetcher func(config.Config, *slog.Logger) (*fetcher.Fetcher, error)
	Timing  component.Timing
}

// Run checks, writes to o.Out, and reports whether rosterd could do its job. It
// ends soon after ctx does.
func Run(ctx context.Context, o Options) bool {
	c := &checker{Options: o, report: &report{w: o.Out}}
	if c.Timing.Announce == 0 {
		c.Timing.Announce = announce
	}
	if !c.configuration() {
		c.conclude()
		return false
	}
	c.server(ctx)
	c.contacts(ctx)
	c.listeners(ctx)
	if ctx.Err() != nil {
		c.fail("the check was interrupted")
	}
	c.conclude()
	return c.failures == 0
}

// checker is one run.
type checker struct {
	Options
	*report
	cfg     config.Config
	tls     *tls.Config // to the server; nil: none
	running running     // what answers on metrics.listen
}

func (c *checker) configuration() bool {
	var (
		warnings []string
		err      error
	)
	if c.cfg, warnings, err = config.Load(c.File); err != nil {
		c.fail("configuration: %s", err)("mend that; config.example.yaml has all keys and says what they mean")
		return false
	}
	if c.tls, err = c.cfg.XMPP.TLS.Client(); err != nil {
		c.fail("configuration: %s", err)("the file has to have the certificate that signed the server's, in PEM, and rosterd must be able to read it")
		return false
	}
	if file := config.File(c.File); file != "" {
		c.ok("configuration: %s", file)
	} else {
		c.ok("configuration: from the environment, there is no file")
	}
	for _, warning := range warnings {
		c.warn("configuration: %s", warning)
	}
	return true
}

// server is all that concerns the XMPP server.
func (c *checker) server(ctx context.Context) {
	c.running = ask(ctx, c.cfg)
	switch c.running.kind {
	case ours:
		c.ok("a rosterd of this configuration runs: what follows on the server is what it has learnt, nothing connects to the server")
		c.judge(c.running.settled(ctx, c.cfg, c.Timing.Announce), func(string) bool { return false })
		return
	case outdated:
		c.fail("a rosterd runs as %s with another configuration: xmpp.address %s, xmpp.hosts %s",
			c.cfg.XMPP.Domain, c.running.status.Address, strings.Join(hostsOf(c.running.status), ", "))(
			"restart it, or stop it, and check again: a second connection would disturb it")
		return
	}
	if c.port(ctx) {
		c.connect(ctx)
	}
}

// judge says what a component's status means. lacks reports whether the server
// says that it does not have a host.
func (c *checker) judge(status component.Status, lacks func(host string) bool) {
	if !status.Connected {
		c.fail("handshake: %s", status.Reason)(c.mendHandshake(status.Condition)...)
		return
	}
	c.ok("handshake: connected as %s", c.cfg.XMPP.Domain)
	c.anyAddress(status.Any)
	for _, w := range status.Hosts {
		c.host(w, status, lacks)
	}
}

// anyAddress says whether xmpp.unrestricted is right.
func (c *checker) anyAddress(is string) {
	domain := c.cfg.XMPP.Domain
	switch {
	case (is != "") != c.cfg.XMPP.Unrestricted:
		c.fail("xmpp.unrestricted is %t, and not so in the rosterd that runs", c.cfg.XMPP.Unrestricted)("restart it")
	case is == component.AnyRefused:
		c.fail("xmpp.unrestricted is on, and the server ends the stream at the first stanza from a user's address")(
			"turn it off, or let the server take all addresses: validate_from_addresses = false in Component \""+domain+"\" (Prosody),",
			"check_from: false on the listener ejabberd_service (ejabberd); rosterd tries again when the server has restarted")
	case is == component.AnyUnproven:
		c.warn("xmpp.unrestricted is on, and whether the server takes stanzas from the users' addresses cannot be told")("is the server very slow?")
	case is == component.AnyTaken:
		c.ok("the server takes stanzas from the users' addresses, as xmpp.unrestricted says")
	}
}

// mendHandshake says what mends a stream error, by its condition.
func (c *checker) mendHandshake(condition string) []string {
	domain := c.cfg.XMPP.Domain
	switch condition {
	case "not-authorized":
		return []string{
			"the secrets differ: xmpp.secret has to be what the server's configuration has for " + domain,
			"Prosody: component_secret in Component \"" + domain + "\"",
			"ejabberd: password in hosts of the listener ejabberd_service; it answers the same if " + domain + " is not in hosts",
		}
	case "host-unknown":
		return []string{"the server has no component " + domain + ": xmpp.domain has to be the name in its configuration",
			"Prosody: Component \"" + domain + "\", then restart"}
	case "conflict":
		return []string{"somebody else is connected as " + domain + ": stop the other rosterd, one is enough for a component",
			"or xmpp.domain is one of the server's own domains of users: it needs a name of its own"}
	case "":
		return []string{"is the server running, and is xmpp.address its component port (XEP-0114)?",
			"Prosody: component_ports, 5347 if it is not set; ejabberd: the port of the listener ejabberd_service"}
	}
	return []string{"what does the server's log say?"}
}
