package refresh

import (
	"crypto/tls"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Protect sets up a server that serves [Handler] with the same options, before
// it is started: with TLS, if o.Certificates is set, and so that neither many
// connections nor slow ones of one caller keep another from being answered. What
// it returns is to be served in the place of l.
//
// The server speaks HTTP/1.1: a connection has one request at a time.
func Protect(server *http.Server, l net.Listener, o Options) net.Listener {
	limits := o.Limits.orDefault()
	server.MaxHeaderBytes = maxHeader
	server.ReadHeaderTimeout, server.ReadTimeout, server.IdleTimeout = limits.Header, limits.Body, limits.Idle
	server.Protocols = new(http.Protocols)
	server.Protocols.SetHTTP1(true)
	server.ErrorLog = log.New(&serverLog{Logger: o.Logger}, "", 0)
	full := &seldom{}
	limited := limit(l, limits.Connections, func(caller string) {
		if n := full.count(); n > 0 {
			o.Logger.Warn("too many connections to the refresh endpoint: new ones are refused, or silent ones closed",
				"caller", caller, "connections", n)
		}
	})
	server.ConnState = limited.state
	if o.Certificates == nil {
		return limited
	}
	return tls.NewListener(limited, o.Certificates.config())
}

// serverLog is the log of an [http.Server]. Everybody who reaches the endpoint
// can cause a line: all but the handler's own faults are logged seldom.
type serverLog struct {
	*slog.Logger
	seldom seldom
}

// maxLogged is how many bytes of such a line are logged.
const maxLogged = 300

func (s *serverLog) Write(p []byte) (int, error) {
	line := strings.TrimSpace(string(p))
	if strings.HasPrefix(line, "http: panic serving") {
		s.Error("refresh endpoint", "error", line)
	} else if n := s.seldom.count(); n > 0 {
		s.Warn("refresh endpoint", "error", strings.ToValidUTF8(line[:min(len(line), maxLogged)], "\uFFFD"), "errors", n)
	}
	return len(p), nil
}

// seldom is for what is told once a minute, however often it happens.
type seldom struct {
	mu   sync.Mutex
	next time.Time
	n    int
}

// count counts, and returns what has come together if it is time to tell it,
// else 0.
func (s *seldom) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	now := time.Now()
	if now.Before(s.next) {
		return 0
	}
	n := s.n
	s.n, s.next = 0, now.Add(time.Minute)
	return n
}
