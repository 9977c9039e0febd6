package refresh

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"sync"
)

// listener takes no more connections than there are places. If a caller has no
// place left, the connection of his that has been without a request for the
// longest time makes way: neither silent nor slow connections keep one out.
type listener struct {
	net.Listener
	places  *places
	refused func(caller string) // a connection was closed for want of a place

	mu   sync.Mutex
	tick uint64
	open map[*connection]struct{}
}

func limit(l net.Listener, connections int, refused func(caller string)) *listener {
	return &listener{Listener: l, places: newPlaces(connections), refused: refused, open: make(map[*connection]struct{})}
}

// connection is one that has a place.
type connection struct {
	net.Conn
	listener *listener
	caller   netip.Addr
	release  func()
	once     sync.Once
	// waits is the listener's tick at which it began to be without a request, or
	// 0 while one is worked on. The listener's mutex guards it.
	waits uint64
}

// Accept waits for a connection that has a place.
func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		remote := conn.RemoteAddr().String()
		caller := callerOf(remote)
		release, ok := l.places.take(caller)
		if !ok {
			l.refused(remote)
		}
		for !ok && l.makeWay(caller) { // more than once, if the others have come to need more
			release, ok = l.places.take(caller)
		}
		if !ok {
			conn.Close()
			continue
		}
		c := &connection{Conn: conn, listener: l, caller: caller, release: release}
		l.mu.Lock()
		l.open[c] = struct{}{}
		l.mu.Unlock()
		l.state(c, http.StateNew)
		return c, nil
	}
}

// makeWay closes the caller's connection that has waited longest, or else, if
// he has none at all, anybody's.
func (l *listener) makeWay(caller netip.Addr) bool {
	var longest, anybodys *connection
	hasNone := true
	l.mu.Lock()
	for c := range l.open {
		hasNone = hasNone && c.caller != caller
		if c.waits == 0 {
			continue
		}
		if c.caller == caller && (longest == nil || c.waits < longest.waits) {
			longest = c
		}
		if anybodys == nil || c.waits < anybodys.waits {
			anybodys = c
		}
	}
	l.mu.Unlock()
	if hasNone {
		longest = anybodys
	}
	if longest == nil {
		return false
	}
	longest.Close()
	return true
}

// state is [http.Server.ConnState]: a connection is active from the end of a
// header to the end of the answer.
func (l *listener) state(conn net.Conn, state http.ConnState) {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	c, ok := conn.(*connection)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tick++
	switch state {
	case http.StateNew, http.StateIdle:
		c.waits = l.tick
	default:
		c.waits = 0
	}
}

// Close gives the place back.
func (c *connection) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.listener.mu.Lock()
		delete(c.listener.open, c)
		c.listener.mu.Unlock()
		c.release()
	})
	return err
}

// CloseWrite lets net/http end a connection so that the caller gets the answer
// though he is still sending.
func (c *connection) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}
