package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// fake is the component port of a server that does next to nothing: it takes
// any secret, delegates the rosters of [host] and lets the component push. Both
// rosterd and echo are measured against it.
type fake struct {
	ln    net.Listener
	conns chan net.Conn
	// first, unless nil, is the flow with which the next stream begins.
	first *flow
}

func newFake() (*fake, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &fake{ln: ln, conns: make(chan net.Conn)}
	go func() {
		defer close(f.conns)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			f.conns <- conn
		}
	}()
	return f, nil
}

func (f *fake) address() string { return f.ln.Addr().String() }

func (f *fake) close() {
	f.ln.Close()
	for conn := range f.conns {
		conn.Close()
	}
}

const (
	fakeHeader = "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' id='bench' from='" + domain + "'>"
	announced  = "<handshake/><message from='" + host + "' to='" + domain + "'><delegation xmlns='urn:xmpp:delegation:2'><delegated namespace='jabber:iq:roster'/></delegation></message>" +
		"<message from='" + host + "' to='" + domain + "'><privilege xmlns='urn:xmpp:privilege:2'><perm access='presence' type='managed_entity'/>" +
		"<perm access='iq'><namespace ns='jabber:iq:roster' type='set'/></perm></privilege></message>"
)

// connectTime is how long a component may take to start and to connect.
const connectTime = 2 * time.Minute

// accept waits for the component, which is c, and welcomes it.
func (f *fake) accept(ctx context.Context, c *child) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	select {
	case conn := <-f.conns:
		return f.welcome(conn)
	case <-c.done:
		return nil, c.ended()
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for the component: %w\n%s", ctx.Err(), c.errors.text())
	}
}

func (f *fake) welcome(conn net.Conn) (*link, error) {
	l := &link{conn: conn, cut: newCutter(conn, 256<<10), closed: make(chan struct{})}
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	for _, reply := range []string{fakeHeader, announced} { // to the header, to the handshake
		_, err := l.cut.read()
		if err == nil {
			_, err = conn.Write([]byte(reply))
		}
		if err != nil {
			conn.Close()
			return nil, err
		}
	}
	_ = conn.SetDeadline(time.Time{})
	if f.first != nil {
		l.begin(f.first)
	}
	go l.read()
	return l, nil
}

// link is a stream to a component.
type link struct {
	conn   net.Conn
	cut    *cutter
	closed chan struct{} // when nothing more will be read

	writing sync.Mutex

	mu        sync.Mutex // guards all below
	err       error
	flow      *flow
	flows     int
	pushes    counter
	presences counter
}

// read does what the component's stanzas ask for until the stream ends.
func (l *link) read() {
	var out []byte
	for {
		now := time.Now()
		out = out[:0]
		l.mu.Lock()
		for s := l.cut.next(); s != nil; s = l.cut.next() {
			out = l.handle(out, s, now)
		}
		l.mu.Unlock()
		err := l.write(out)
		if err == nil {
			err = l.cut.fill()
		}
		if err != nil {
			l.mu.Lock()
			l.err = err
			l.mu.Unlock()
			l.conn.Close()
			close(l.closed)
			return
		}
	}
}

func (l *link) write(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	_ = l.conn.SetWriteDeadline(time.Now().Add(time.Minute))
	_, err := l.conn.Write(b)
	return err
}

// probed is the id of the queries that are the component's own.
const probed = "probed"

// handle appends what follows from a stanza. l.mu is held.
func (l *link) handle(b, s []byte, now time.Time) []byte {
	t := tag(s)
	switch {
	case bytes.HasPrefix(t, []byte("<presence")):
		l.presences.add(now)
	case bytes.HasPrefix(t, []byte("</stream:stream")):
		return append(b, "</stream:stream>"...)
	case !bytes.HasPrefix(t, []byte("<iq")):
	case bytes.HasPrefix(s[len(t):], []byte("<delegation")):
		if l.flow != nil && string(attr(t, "id")) != probed {
			b = l.flow.answered(b, attr(t, "id"), s, now)
		}
	case bytes.HasPrefix(s[len(t):], []byte("<privileged_iq")):
		l.pushes.add(now)
		iq := inner(s, "iq")
		b = append(append(b, "<iq type='result' id='"...), attr(t, "id")...)
		b = append(append(b, "' from='"...), attr(t, "to")...)
		b = append(b, "' to='"+domain+"'><privilege xmlns='urn:xmpp:privilege:2'><forwarded xmlns='urn:xmpp:forward:0'><iq xmlns='jabber:client' type='result' id='"...)
		b = append(append(b, attr(iq, "id")...), "' from='"...)
		b = append(append(b, attr(iq, "to")...), "'/></forwarded></privilege></iq>"...)
	case bytes.HasPrefix(s[len(t):], []byte("<query xmlns='jabber:iq:roster'")): // it proves the delegation with one of its own
		b = fmt.Appendf(b, "<iq type='set' id='"+probed+"' from='"+host+"' to='"+domain+"'><delegation xmlns='urn:xmpp:delegation:2'><forwarded xmlns='urn:xmpp:forward:0'>"+
			"<iq xmlns='jabber:client' type='get' id='%s' from='%s' to='%s'><query xmlns='jabber:iq:roster'/></iq></forwarded></delegation></iq>", attr(t, "id"), attr(t, "from"), attr(t, "to"))
		b = fmt.Appendf(b, "<iq type='result' id='%s' from='%s' to='%s'/>", attr(t, "id"), attr(t, "to"), attr(t, "from"))
	case string(attr(t, "type")) == "get": // a ping, or what else is asked of the server
		b = fmt.Appendf(b, "<iq type='result' id='%s' from='%s' to='%s'/>", attr(t, "id"), attr(t, "to"), domain)
	}
	return b
}

// counter counts stanzas that the component sends by itself.
type counter struct {
	n, target int
	reached   chan time.Time // receives when the target was reached
}

func (c *counter) add(now time.Time) {
	if c.n++; c.n == c.target && c.reached != nil {
		c.reached <- now
	}
}

// expect tells when n more stanzas have been counted by c, which is one of the
// link's. It is called before they can come.
func (l *link) expect(c *counter, n int) (wait func(context.Context) (time.Time, error)) {
	l.mu.Lock()
	from := c.n
	c.target, c.reached = c.n+n, make(chan time.Time, 1)
	reached := c.reached
	l.mu.Unlock()
	return func(ctx context.Context) (time.Time, error) {
		select {
		case at := <-reached:
			return at, nil
		case <-l.closed:
			return time.Time{}, l.failure()
		case <-ctx.Done():
			l.mu.Lock()
			defer l.mu.Unlock()
			return time.Time{}, fmt.Errorf("%d of %d stanzas came: %w", c.n-from, n, ctx.Err())
		}
	}
}

func (l *link) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(errors.New("the stream has ended"), l.err)
}
