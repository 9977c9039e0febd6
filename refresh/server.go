package refresh

import (
	"crypto/tls"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Protect sets up a server for [Handler] with the same options, before it is
// started: with TLS if o.Certificates is set, and with the limits of o, so that
// no caller keeps others from being answered. The server is to serve the listener
// that Protect returns, in place of l, which is of TCP. It speaks HTTP/1.1 alone:
// a connection has one request at a time.
func Protect(server *http.Server, l net.Listener, o Options) net.Listener {
	limits := o.Limits.orDefault()
	server.MaxHeaderBytes = maxHeader
	server.ReadHeaderTimeout, server.ReadTimeout, server.IdleTimeout = limits.Header, limits.Body, limits.Idle
	server.Protocols = new(http.Protocols)
	server.Protocols.SetHTTP1(true)
	server.ErrorLog = log.New(serverLog{o.Logger, onceAMinute()}, "", 0)
	limited := &listener{Listener: l, max: limits.Connections, log: o.Logger, seldom: onceAMinute()}
	server.ConnState = limited.state
	if o.Certificates == nil {
		return limited
	}
	return tls.NewListener(limited, o.Certificates.config())
}

// listener divides connections among callers as [shares] does. A caller who has
// their share gets a new connection in place of the one of theirs that has waited
// for a request for the longest time. So neither silent nor slow connections keep
// a caller out, and no request in flight is disturbed.
type listener struct {
	net.Listener
	max    int
	log    *slog.Logger
	seldom seldom

	mu   sync.Mutex
	open []*connection // who has waited longest first
}

// connection is an open one. net/http uses the methods of the [net.TCPConn].
type connection struct {
	*net.TCPConn
	listener *listener
	caller   netip.Addr
	waits    bool // for a request: none is in flight. Guarded by listener.mu
}

// Accept waits for a connection for which there is room.
func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		remote := conn.RemoteAddr().String()
		c := &connection{TCPConn: conn.(*net.TCPConn), listener: l, caller: callerOf(remote)}
		free, ok := l.admit(c)
		if !free {
			l.seldom(func(n int64) {
				l.log.Warn("too many connections to the refresh endpoint: new ones are refused, or silent ones closed",
					"caller", remote, "connections", n)
			})
		}
		if ok {
			return c, nil
		}
		conn.Close()
	}
}

// admit adds a connection. While none is free for its caller, it closes one that
// waits: the caller's, or anybody's if the caller has none at all. ok is false if
// there is none to close.
func (l *listener) admit(c *connection) (free, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for free = true; ; free = false {
		held := 0
		var own, oldest *connection
		for _, other := range l.open {
			if oldest == nil && other.waits {
				oldest = other
			}
			if other.caller != c.caller {
				continue
			}
			held++
			if own == nil && other.waits {
				own = other
			}
		}
		if held < l.max-len(l.open) {
			l.move(c, true)
			return free, true
		}
		if held == 0 {
			own = oldest
		}
		if own == nil {
			return false, false
		}
		l.remove(own)
		own.TCPConn.Close() // does not block
	}
}

// move puts a connection behind all others. The caller holds l.mu.
func (l *listener) move(c *connection, waits bool) {
	l.remove(c)
	c.waits = waits
	l.open = append(l.open, c)
}

func (l *listener) remove(c *connection) {
	if i := slices.Index(l.open, c); i >= 0 {
		l.open = slices.Delete(l.open, i, i+1)
	}
}

// state is [http.Server.ConnState]: a connection is active from the end of a
// header to the end of the answer.
func (l *listener) state(conn net.Conn, state http.ConnState) {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if c, _ := conn.(*connection); slices.Contains(l.open, c) {
		l.move(c, state == http.StateNew || state == http.StateIdle)
	}
}

// Close may be called twice.
func (c *connection) Close() error {
	c.listener.mu.Lock()
	c.listener.remove(c)
	c.listener.mu.Unlock()
	return c.TCPConn.Close()
}

// seldom logs what callers can cause, once a minute at most. n is how many lines
// the one that is logged stands for.
type seldom func(line func(n int64))

func onceAMinute() seldom {
	var n atomic.Int64
	limit := rate.Sometimes{Interval: time.Minute}
	return func(line func(n int64)) {
		n.Add(1)
		limit.Do(func() { line(n.Swap(0)) })
	}
}

// serverLog is the log of an [http.Server]. Everybody who reaches the endpoint
// can cause lines, but for a panic.
type serverLog struct {
	*slog.Logger
	seldom seldom
}

// maxLogged is how many bytes of a line that callers can cause are logged.
const maxLogged = 300

func (s serverLog) Write(p []byte) (int, error) {
	line := strings.TrimSpace(string(p))
	if strings.HasPrefix(line, "http: panic serving") {
		s.Error("refresh endpoint", "error", line)
		return len(p), nil
	}
	s.seldom(func(n int64) {
		s.Warn("refresh endpoint", "error", strings.ToValidUTF8(line[:min(len(line), maxLogged)], "\uFFFD"), "errors", n)
	})
	return len(p), nil
}
