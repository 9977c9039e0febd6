package chaos

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"rosterd/e2e/harness"
)

// realServer is a Prosody or an ejabberd.
type realServer struct {
	server *harness.Server
	prefix string
}

func (s *realServer) componentAddress() string { return s.server.ComponentAddress() }

func (s *realServer) restart(ctx context.Context, pause time.Duration) error {
	if err := s.server.Stop(ctx); err != nil {
		return err
	}
	sleep(ctx, pause)
	var err error
	for range 20 { // meanwhile somebody else may have been given a port
		if err = s.server.Start(ctx); err == nil {
			break
		}
		sleep(ctx, time.Second)
	}
	return err
}

func (s *realServer) ownRoster(ctx context.Context, user string) (items, error) {
	list, err := s.server.OwnRoster(ctx, user+"@"+host)
	roster := items{}
	for _, it := range list {
		item := Item{JID: it.JID, Name: it.Name, Subscription: it.Subscription}
		for _, group := range it.Groups {
			item.Groups += group + "\n"
		}
		roster[it.JID] = item
	}
	return roster, err
}

// client is a client's session on a real server: just so much of RFC 6120 and
// RFC 6121 as it takes.
type client struct {
	conn net.Conn
	dec  *xml.Decoder
	full string
	to   receiver

	writing sync.Mutex // held for each write
}

func (s *realServer) login(ctx context.Context, user, resource string, to receiver) (session, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.server.ClientAddress())
	if err != nil {
		return nil, err
	}
	c := &client{conn: conn, dec: xml.NewDecoder(conn), full: user + "@" + host + "/" + resource, to: to}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	err = c.begin(user, resource)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	go func() {
		_ = c.readAll()
		_ = conn.Close()
		to.ended()
	}()
	return c, nil
}

// begin authenticates (SASL PLAIN) and binds the resource.
func (c *client) begin(user, resource string) error {
	const open = "<?xml version='1.0'?><stream:stream to='" + host + "' version='1.0' xmlns='" + nsClient + "' xmlns:stream='" + nsStream + "'>"
	plain := base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
	for _, step := range []struct{ send, expect string }{
		{open, "features"},
		{"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>" + plain + "</auth>", "success"},
		{open, "features"},
		{"<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>" + resource + "</resource></bind></iq>", "iq"},
	} {
		c.send(step.send)
		e, err := c.next()
		if err != nil {
			return err
		}
		if e.name.Local != step.expect {
			return fmt.Errorf("<%s/> in place of <%s/>", e.name.Local, step.expect)
		}
		if jid := e.down("bind", "jid"); step.expect == "iq" && (jid == nil || jid.text != c.full) {
			return errors.New("the resource was not bound")
		}
	}
	return nil
}

// next is the next element of the stream. The header of a stream that starts
// again nests in what was read so far.
func (c *client) next() (*element, error) {
	for {
		token, err := c.dec.Token()
		if err != nil {
			return nil, err
		}
		switch token := token.(type) {
		case xml.StartElement:
			if token.Name == (xml.Name{Space: nsStream, Local: "stream"}) {
				continue
			}
			return readElement(c.dec, token)
		case xml.EndElement:
			return nil, io.EOF
		}
	}
}

// readAll hands over what arrives until the stream ends.
func (c *client) readAll() error {
	for {
		e, err := c.next()
		if err != nil {
			return err
		}
		if e.name.Local != "iq" {
			continue
		}
		id, from, kind := e.get("id"), e.get("from"), e.get("type")
		bare, _, _ := bytes.Cut([]byte(c.full), []byte("/"))
		switch own := from == "" || from == string(bare); {
		case kind == "result" && bytes.HasPrefix([]byte(id), []byte("roster-")):
			c.to.receive(id, e.rosterItems(), "")
		case kind == "error" && bytes.HasPrefix([]byte(id), []byte("roster-")):
			c.to.receive(id, nil, e.condition())
		case kind == "set" && own && e.payload(nsRoster) != nil: // RFC 6121, section 2.1.6
			list := e.rosterItems()
			if len(list) == 1 {
				c.to.pushed(list[0])
			}
			c.send("<iq type='result' id='" + escape(id) + "'/>")
		case kind == "get" && e.payload(nsPing) != nil:
			c.send("<iq type='result' id='" + escape(id) + "' to='" + escape(from) + "'/>")
		case kind == "get" || kind == "set":
			c.send("<iq type='error' id='" + escape(id) + "' to='" + escape(from) +
				"'><error type='cancel'><service-unavailable xmlns='" + nsStanzas + "'/></error></iq>")
		}
	}
}

// send writes; that it fails is seen by who reads.
func (c *client) send(xml string) {
	c.writing.Lock()
	defer c.writing.Unlock()
	_ = c.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(c.conn, xml)
}

func (c *client) query(id string) {
	c.send("<iq type='get' id='" + id + "'><query xmlns='" + nsRoster + "'/></iq>")
}

func (c *client) presence() { c.send("<presence/>") }

func (c *client) leave(how leaving) {
	switch how {
	case cutOff:
		_ = c.conn.(*net.TCPConn).SetLinger(0)
		_ = c.conn.Close()
		return
	case inOrder:
		c.send("<presence type='unavailable'/></stream:stream>")
	default:
		c.send("</stream:stream>")
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(time.Second)) // for the server's closing tag
}
