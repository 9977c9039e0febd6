package check

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"gosrc.io/xmpp/stanza"

	"rosterd/component"
)

const (
	portWait   = 5 * time.Second // for the connection, and for the beginning of an answer
	maxOpening = 8 << 10         // bytes of an answer that are looked at
)

// port finds out who listens on xmpp.address. It opens a stream and does no
// handshake, so that nobody's connection is in danger.
func (c *checker) port(ctx context.Context) (usable bool) {
	address := string(c.cfg.XMPP.Address)
	ctx, cancel := context.WithTimeout(ctx, 2*portWait)
	defer cancel()
	dialing, stop := context.WithTimeout(ctx, portWait)
	conn, err := component.Dial(dialing, address, c.tls)
	stop()
	if insecure := (*component.TLSError)(nil); errors.As(err, &insecure) {
		c.fail("server: %s: %s", address, insecure)(insecure.Advice())
		return false
	} else if err != nil {
		c.unreachable(address, err)
		return false
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })()
	what := opening(conn, c.cfg.XMPP.Domain)
	mend := "xmpp.address has to be the component port; Prosody: component_ports, 5347 if it is not set; ejabberd: the port of the listener ejabberd_service"
	switch what {
	case stanza.NSComponent:
		if c.tls != nil {
			c.ok("server: a component port answers on %s, with TLS", address)
		} else {
			c.ok("server: a component port answers on %s", address)
		}
		return true
	case stanza.NSClient:
		c.fail("server: %s is the server's port for clients, where rosterd is refused", address)(mend)
	case "jabber:server":
		c.fail("server: %s is the server's port for other servers, where rosterd is refused", address)(mend)
	case speaksHTTP:
		c.fail("server: %s is an HTTP server, no XMPP server", address)(mend)
	case speaksTLS:
		c.fail("server: %s wants TLS", address)("set xmpp.tls.server_name or xmpp.tls.ca; or " + mend)
	case isSilent:
		c.fail("server: %s takes the connection, and does not answer within %s", address, portWait)(mend, "is the server overloaded, or stuck?")
	default:
		c.fail("server: %s is no XMPP server", address)(mend)
	}
	return false
}

// unreachable tells why there is no connection.
func (c *checker) unreachable(address string, err error) {
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(err, &dns):
		c.fail("server: the name in xmpp.address %s has no address (DNS)", address)("is it spelt right? /etc/hosts or the DNS has to have it")
	case errors.Is(err, syscall.ECONNREFUSED):
		c.fail("server: connection refused, nothing listens on %s", address)("start the server; or xmpp.address is not its component port:",
			"Prosody: component_ports and component_interfaces, 127.0.0.1:5347 if they are not set",
			"ejabberd: a listener with module: ejabberd_service, which it does not have by default")
	case errors.As(err, &timeout) && timeout.Timeout():
		c.fail("server: no answer from %s within %s", address, portWait)("is the host up, and does a firewall drop the port?")
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		c.fail("server: no route to %s", address)("is the host up?")
	default:
		c.fail("server: cannot connect to %s: %s", address, err)()
	}
}

// What else answers than an XMPP server, where a stream's namespace would be.
const (
	speaksHTTP = "http"
	speaksTLS  = "tls"
	isSilent   = "silent"
	isOther    = "other"
)

// opening opens a stream and returns the default namespace of the answer, which
// tells a component port from another, or one of the constants above.
//
// The line ends in it are for programs that read lines.
func opening(conn net.Conn, domain string) string {
	var to strings.Builder
	_ = xml.EscapeText(&to, []byte(domain)) // never fails
	conn.SetDeadline(time.Now().Add(portWait))
	if _, err := fmt.Fprintf(conn, "<?xml version='1.0'?>\n<stream:stream xmlns='%s' xmlns:stream='%s' to='%s'>\n",
		stanza.NSComponent, stanza.NSStream, to.String()); err != nil {
		return isOther
	}
	var got []byte
	buf := make([]byte, maxOpening)
	for {
		n, err := conn.Read(buf[:maxOpening-len(got)])
		got = append(got, buf[:n]...)
		if what := recognise(got); what != "" {
			if what == stanza.NSComponent {
				_, _ = conn.Write([]byte("</stream:stream>"))
			}
			return what
		}
		var timeout net.Error
		switch {
		case len(got) == 0 && errors.As(err, &timeout) && timeout.Timeout():
			return isSilent
		case err != nil || len(got) == maxOpening:
			return isOther
		}
	}
}

// recognise says what an answer begins with; "" if that cannot be said yet.
func recognise(got []byte) string {
	lower := bytes.ToLower(got)
	switch {
	case len(got) > 1 && (got[0] == 0x15 || got[0] == 0x16) && got[1] == 3: // an alert or a handshake (RFC 8446, section 5.1)
		return speaksTLS
	case bytes.HasPrefix(got, []byte("HTTP/")), bytes.Contains(lower, []byte("<html")), bytes.Contains(lower, []byte("<!doctype html")):
		return speaksHTTP
	}
	d := xml.NewDecoder(bytes.NewReader(got))
	for {
		t, err := d.RawToken()
		if err != nil {
			return ""
		}
		start, ok := t.(xml.StartElement)
		if !ok {
			continue
		}
		if start.Name.Local == "stream" {
			for _, a := range start.Attr {
				if a.Name.Space == "" && a.Name.Local == "xmlns" {
					return a.Value
				}
			}
		}
		return isOther
	}
}
