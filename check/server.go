package check

import (
	"bufio"
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"gosrc.io/xmpp/stanza"

	"rosterd/component"
	"rosterd/jid"
	"rosterd/metrics"
	"rosterd/roster"
	"rosterd/session"
)

const (
	portWait   = 5 * time.Second // for the connection, and for the beginning of an answer
	maxOpening = 8 << 10         // bytes of an answer that are looked at
	maxAsked   = 20              // hosts of which the server is asked whether it has them
	askWait    = 5 * time.Second // for all answers together
)

// server checks what concerns the XMPP server.
func (c *checker) server(ctx context.Context) {
	c.running = ask(ctx, c.cfg)
	if c.running.role == "standby" && c.here {
		c.report(fail("refresh.advertise: the active instance has the same one as this one, which stands by").mend("each needs its own: the URL at which the other one reaches it"))
	} else if c.running.role == "standby" && c.elsewhere == "" {
		c.elsewhere = "an instance is about to be"
	}
	switch kind := c.running.kind; {
	case kind == outdated:
		c.report(fail("a rosterd runs as %s with another configuration: xmpp.address %s, xmpp.hosts %s",
			c.cfg.XMPP.Domain, c.running.status.Address, strings.Join(hostsOf(c.running.status), ", ")).mend(
			"restart it, or stop it, and check again: a second connection would disturb it"))
	case c.elsewhere != "" && c.running.role != "active":
		if c.report(c.port(ctx)) {
			c.report(pass("server: %s connected to it, as the active instance: nothing connects from here. Check there how the hosts are served", c.elsewhere))
		}
	case kind == ours:
		c.report(pass("a rosterd of this configuration runs: what follows on the server is what it has learnt, nothing connects to the server"))
		c.report(c.learnt(c.running.settled(ctx, c.cfg, c.Timing.Announce), nil)...)
	default:
		if c.report(c.port(ctx)) {
			c.report(c.connect(ctx)...)
		}
	}
}

// port finds out who listens on xmpp.address. It opens a stream and does no
// handshake, so that nobody's connection is in danger.
func (c *checker) port(ctx context.Context) finding {
	address := c.cfg.XMPP.Address
	ctx, cancel := context.WithTimeout(ctx, 2*portWait)
	defer cancel()
	dialing, stop := context.WithTimeout(ctx, portWait)
	conn, err := component.Dial(dialing, address, c.tls)
	stop()
	if err != nil {
		return unreachable(address, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })()
	const mend = "xmpp.address has to be the component port; Prosody: component_ports, 5347 if it is not set; ejabberd: the port of the listener ejabberd_service"
	what := opening(conn, c.cfg.XMPP.Domain)
	found := fail("server: %s %s", address, what).mend(mend)
	switch what {
	case isComponent:
		secured := ""
		if c.tls != nil {
			secured = ", with TLS"
		}
		return pass("server: a component port answers on %s%s", address, secured)
	case wantsTLS:
		return found.mend("or set xmpp.tls.server_name or xmpp.tls.ca")
	case isSilent:
		return found.mend("is the server overloaded, or stuck?")
	}
	return found
}

// unreachable says why there is no connection.
func unreachable(address string, err error) finding {
	var insecure *component.TLSError
	switch {
	case errors.As(err, &insecure):
		return fail("server: %s: %s", address, insecure).mend(insecure.Advice())
	case errors.As(err, new(*net.DNSError)):
		return fail("server: the name in xmpp.address %s has no address (DNS)", address).mend("is it spelt right? /etc/hosts or the DNS has to have it")
	case errors.Is(err, syscall.ECONNREFUSED):
		return fail("server: connection refused, nothing listens on %s", address).mend("start the server; or xmpp.address is not its component port:",
			"Prosody: component_ports and component_interfaces, 127.0.0.1:5347 if they are not set",
			"ejabberd: a listener with module: ejabberd_service, which it does not have by default")
	}
	return fail("server: cannot connect to %s: %s", address, err).mend("is the host up, and does a firewall drop the port?")
}

// What opening finds.
const (
	isComponent = "is a component port"
	isClients   = "is the server's port for clients, where rosterd is refused"
	isServers   = "is the server's port for other servers, where rosterd is refused"
	isHTTP      = "is an HTTP server, no XMPP server"
	wantsTLS    = "wants TLS"
	isSilent    = "takes the connection, and does not answer"
	isOther     = "is no XMPP server"
)

// opening opens a stream and says what answers. The default namespace of a stream
// tells a component port from the others.
func opening(conn net.Conn, domain string) string {
	conn.SetDeadline(time.Now().Add(portWait))
	var to strings.Builder
	_ = xml.EscapeText(&to, []byte(domain)) // never fails
	// The line ends are for programs that read lines.
	if _, err := fmt.Fprintf(conn, "<?xml version='1.0'?>\n<stream:stream xmlns='%s' xmlns:stream='%s' to='%s'>\n", stanza.NSComponent, stanza.NSStream, to.String()); err != nil {
		return isOther
	}
	answer := bufio.NewReader(io.LimitReader(conn, maxOpening))
	begins, err := answer.Peek(len("HTTP/"))
	var timeout net.Error
	switch {
	case len(begins) == 0 && errors.As(err, &timeout) && timeout.Timeout():
		return isSilent
	case len(begins) > 1 && (begins[0] == 0x15 || begins[0] == 0x16) && begins[1] == 3: // an alert or a handshake (RFC 8446, section 5.1)
		return wantsTLS
	case string(begins) == "HTTP/":
		return isHTTP
	}
	for d := xml.NewDecoder(answer); ; {
		token, err := d.RawToken()
		if err != nil {
			return isOther
		}
		switch t := token.(type) {
		case xml.Directive:
			if bytes.HasPrefix(bytes.ToLower(t), []byte("doctype html")) {
				return isHTTP
			}
		case xml.StartElement:
			if strings.EqualFold(t.Name.Local, "html") {
				return isHTTP
			}
			namespace := slices.IndexFunc(t.Attr, func(a xml.Attr) bool { return a.Name.Space == "" && a.Name.Local == "xmlns" })
			if t.Name.Local != "stream" || namespace < 0 {
				return isOther
			}
			switch t.Attr[namespace].Value {
			case stanza.NSComponent:
				_, _ = conn.Write([]byte("</stream:stream>"))
				return isComponent
			case stanza.NSClient:
				return isClients
			case "jabber:server":
				return isServers
			}
			return isOther
		}
	}
}

// connect connects as the component, as rosterd would, until the server has
// announced what there is to announce, and leaves in order.
func (c *checker) connect(ctx context.Context) []finding {
	timing := c.Timing
	timing.MinRetry, timing.MaxRetry = time.Second, time.Second // one is needed, see observe
	link := component.New(component.Options{
		Address: c.cfg.XMPP.Address, TLS: c.tls, Domain: c.cfg.XMPP.Domain, Secret: c.cfg.XMPP.Secret.Reveal(), Hosts: c.cfg.XMPP.Hosts,
		Unrestricted: c.cfg.XMPP.Unrestricted, Presence: c.cfg.XMPP.Presence, ServerRoster: c.cfg.XMPP.ServerRoster, MaxStanza: c.cfg.XMPP.MaxStanzaBytes, API: c.api, Edits: c.cfg.Contacts.TakesEdits,
		Version: c.Version, Timing: timing, Logger: slog.New(slog.DiscardHandler), Metrics: metrics.New(prometheus.NewRegistry()),
	}, session.NewTable())
	streams, closeStream := context.WithCancel(ctx)
	var stream sync.WaitGroup
	stream.Go(func() { link.Run(streams, absent{}) })
	status := observe(ctx, link, c.Timing.Announce)
	lacking := lacking(ctx, link, status)
	closeStream()
	stream.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return c.learnt(status, lacking)
}

// observe waits until the handshake has failed, or every host has announced
// everything, or nothing will be announced any more. If the server ends the stream
// because of an address, it waits for the next stream, as rosterd would.
func observe(ctx context.Context, link *component.Component, patience time.Duration) component.Status {
	var connected, refused, announced time.Time
	status := link.Status()
	wait(ctx, func() bool {
		status = link.Status()
		if !status.Connected {
			if refused.IsZero() && status.Any == component.AnyRefused {
				refused = time.Now()
			}
			return !comesSoon(status) || !refused.IsZero() && time.Since(refused) > patience+localWait
		}
		if connected.IsZero() {
			connected = time.Now()
		}
		unknown := func(w component.Routes) bool {
			return !w.Delegation || w.Privileges == "" || w.RosterPermitted && w.ServerRoster == component.ServerRosterNone
		}
		if slices.ContainsFunc(status.Hosts, unknown) || status.Any == component.AnyUnproven {
			return time.Since(connected) > patience
		}
		if announced.IsZero() {
			announced = time.Now()
		}
		unproven := func(w component.Routes) bool { return w.RosterPermitted && w.Subscriptions == "" }
		return !slices.ContainsFunc(status.Hosts, unproven) || time.Since(announced) > localWait
	})
	return status
}

// comesSoon reports whether a component without a stream is about to have one.
func comesSoon(status component.Status) bool {
	return status.Reason == component.ReasonConnecting || status.Any == component.AnyRefused && status.Condition == "invalid-from"
}

// lacking are the hosts that the server says it does not have, of those that
// announced nothing.
func lacking(ctx context.Context, link *component.Component, status component.Status) (hosts []string) {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	silent := slices.DeleteFunc(slices.Clone(status.Hosts), func(w component.Routes) bool { return w.Delegation || w.Privileges != "" })
	silent = silent[:min(len(silent), maxAsked)]
	lacks := make([]bool, len(silent))
	var asking sync.WaitGroup
	for i, w := range silent {
		asking.Go(func() { lacks[i] = link.Lacks(ctx, w.Host) })
	}
	asking.Wait()
	for i, w := range silent {
		if lacks[i] {
			hosts = append(hosts, w.Host)
		}
	}
	return hosts
}

// absent is the [component.Rosters] of a check. Clients that ask are answered to
// try again, and keep the roster that they have.
type absent struct{}

func (absent) Get(jid.JID, *string, roster.Reply) error     { return roster.ErrStopping }
func (absent) Edit(jid.JID, roster.Edit, func(error)) error { return roster.ErrStopping }
func (absent) Refused(jid.JID, []jid.JID)                   {}
func (absent) Undelivered(jid.JID)                          {}
func (absent) Unasked(jid.JID)                              {}
func (absent) Gone(jid.JID)                                 {}
func (absent) Resume(string)                                {}
func (absent) Want(jid.JID)                                 {}

// learnt says what a component's status means. lacking are the hosts that the
// server says it does not have.
func (c *checker) learnt(status component.Status, lacking []string) []finding {
	if !status.Connected {
		return []finding{fail("handshake: %s", status.Reason).mend(c.mendHandshake(status.Condition)...)}
	}
	found := []finding{pass("handshake: connected as %s", c.cfg.XMPP.Domain), c.anyAddress(status.Any)}
	for _, w := range status.Hosts {
		found = append(found, c.host(w, status, slices.Contains(lacking, w.Host))...)
	}
	return found
}

// anyAddress says whether xmpp.unrestricted is right.
func (c *checker) anyAddress(is string) finding {
	switch {
	case (is != "") != c.cfg.XMPP.Unrestricted:
		return fail("xmpp.unrestricted is %t, and not so in the rosterd that runs", c.cfg.XMPP.Unrestricted).mend("restart it")
	case is == component.AnyRefused:
		return fail("xmpp.unrestricted is on, and the server ends the stream at the first stanza from a user's address").mend(
			"turn it off, or let the server take all addresses: validate_from_addresses = false in Component \""+c.cfg.XMPP.Domain+"\" (Prosody),",
			"check_from: false on the listener ejabberd_service (ejabberd); rosterd tries again when the server has restarted")
	case is == component.AnyUnproven:
		return warn("xmpp.unrestricted is on, and whether the server takes stanzas from the users' addresses cannot be told").mend("is the server very slow?")
	case is == component.AnyTaken:
		return pass("the server takes stanzas from the users' addresses, as xmpp.unrestricted says")
	}
	return finding{}
}

// mendHandshake says what mends a stream error, by its condition.
func (c *checker) mendHandshake(condition string) []string {
	domain := c.cfg.XMPP.Domain
	switch condition {
	case "not-authorized":
		return []string{"the secrets differ: xmpp.secret has to be what the server's configuration has for " + domain,
			"Prosody: component_secret in Component \"" + domain + "\"",
			"ejabberd: password in hosts of the listener ejabberd_service; it answers the same if " + domain + " is not in hosts"}
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
