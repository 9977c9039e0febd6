package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// client is a light XMPP client: it knows by heart what to say, cuts what it
// hears into stanzas, and understands next to nothing of them, for it must cost
// less than the server.
type client struct {
	conn net.Conn
	cut  *cutter
	full string        // its full JID
	ver  string        // of the roster that it got
	took time.Duration // its login
}

// password is that of all accounts.
const password = "bench"

// loginTime is how long a login may take.
const loginTime = 2 * time.Minute

// connect opens a stream, unauthenticated yet.
func connect(ctx context.Context, address string) (*client, error) {
	conn, err := (&net.Dialer{Timeout: loginTime}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(loginTime))
	c := &client{conn: conn, cut: newCutter(quick{conn}, 16<<10)}
	return c, c.open()
}

// login logs a user in and gets their roster. ver, unless nil, is the version
// that the client names. The caller closes the client.
func login(ctx context.Context, address string, u user, ver *string) (*client, error) {
	began := time.Now()
	c, err := connect(ctx, address)
	if err == nil {
		err = c.login(u, ver)
	}
	if err != nil {
		if c != nil {
			c.conn.Close()
		}
		return nil, fmt.Errorf("login of %s: %w", u, err)
	}
	_ = c.conn.SetDeadline(time.Time{})
	c.took = time.Since(began)
	return c, nil
}

func (c *client) open() error {
	err := c.say("<?xml version='1.0'?><stream:stream to='" + host + "' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>")
	if err != nil {
		return err
	}
	_, err = c.until("<stream:features")
	return err
}

func (c *client) login(u user, ver *string) error {
	plain := base64.StdEncoding.EncodeToString([]byte("\x00" + u.String() + "\x00" + password))
	if err := c.say("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>" + plain + "</auth>"); err != nil {
		return err
	}
	if _, err := c.until("<success"); err != nil {
		return err
	}
	if err := c.open(); err != nil {
		return err
	}
	bound, err := c.ask("set", "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>bench</resource></bind>")
	if err != nil {
		return err
	}
	_, after, _ := strings.Cut(string(bound), "<jid>")
	c.full, _, _ = strings.Cut(after, "</jid>")
	query := "<query xmlns='jabber:iq:roster'/>"
	if ver != nil {
		query = "<query xmlns='jabber:iq:roster' ver='" + *ver + "'/>"
	}
	roster, err := c.ask("get", query)
	if q := inner(roster, "query"); q != nil {
		c.ver = string(attr(q, "ver"))
	}
	return err
}

func (c *client) say(what string) error {
	_, err := c.conn.Write([]byte(what))
	return err
}

// until reads up to the stanza that begins so.
func (c *client) until(begin string) ([]byte, error) {
	for {
		s, err := c.cut.read()
		if err != nil {
			return nil, fmt.Errorf("waiting for %s…>: %w", begin, err)
		}
		if bytes.HasPrefix(s, []byte(begin)) {
			return s, nil
		}
		for _, end := range []string{"<failure", "<stream:error", "</stream:stream"} {
			if bytes.HasPrefix(s, []byte(end)) {
				return nil, final{errors.New(string(s))}
			}
		}
	}
}

// ask sends an IQ and waits for its answer, which is an error unless it is a
// result.
func (c *client) ask(kind, payload string) ([]byte, error) {
	if err := c.say("<iq type='" + kind + "' id='ask'>" + payload + "</iq>"); err != nil {
		return nil, err
	}
	return c.answer("ask")
}

// answer waits for the answer to an IQ.
func (c *client) answer(id string) ([]byte, error) {
	for {
		s, err := c.until("<iq")
		if err != nil {
			return nil, err
		}
		t := tag(s)
		if string(attr(t, "id")) != id {
			continue
		}
		if string(attr(t, "type")) != "result" {
			return nil, errors.New(string(s[:min(len(s), 400)]))
		}
		return s, nil
	}
}

// online sends initial presence, and waits until the server has taken it.
func (c *client) online() error {
	_ = c.conn.SetDeadline(time.Now().Add(loginTime))
	defer c.conn.SetDeadline(time.Time{})
	if err := c.say("<presence/>"); err != nil {
		return err
	}
	_, err := c.ask("get", "<ping xmlns='urn:xmpp:ping'/>")
	return err
}

// listen reads until the connection is closed. It confirms roster pushes and
// tells pushed of each; said is given the id of each message.
func (c *client) listen(pushed func(), said func(id string)) {
	for {
		s, err := c.cut.read()
		if err != nil {
			return
		}
		t := tag(s)
		switch {
		case bytes.HasPrefix(t, []byte("<iq")) && string(attr(t, "type")) == "set":
			pushed()
			if id := attr(t, "id"); id != nil {
				_ = c.say("<iq type='result' id='" + string(id) + "'/>")
			}
		case bytes.HasPrefix(t, []byte("<message")):
			said(string(attr(t, "id")))
		}
	}
}

func (c *client) close() {
	_ = c.say("</stream:stream>")
	c.conn.Close()
}
