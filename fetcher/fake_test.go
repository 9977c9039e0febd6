package fetcher

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"rosterd/jid"
)

// What a fake backend does with a request, or the status that it answers with.
const (
	refuse  = -1 // the connection
	hang    = -2 // say nothing, until released
	hangUp  = -3
	garbage = -4 // 200, and no contacts
)

// fake is a backend for tests with a clock of testing/synctest: all is done in
// memory. Each request has a connection of its own.
type fake struct {
	mu      sync.Mutex
	do      func(n int) int // with the nth request, from 1
	asked   []string        // the paths; that of a connection that was refused is ""
	times   []time.Time
	release chan int // what those that hang answer in the end
}

// newFake makes a fake and a bench for it.
func newFake(t *testing.T, do func(n int) int, change ...func(*Options)) (*fake, *bench) {
	t.Helper()
	b := newBench(t, "http://backend.test", append([]func(*Options){func(o *Options) {
		o.MaxInFlight = 100
	}}, change...)...)
	s := &fake{do: do, release: make(chan int)}
	b.transport.Load().DialContext = s.dial
	return s, b
}

func (s *fake) dial(context.Context, string, string) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.asked)
	s.asked, s.times = append(s.asked, ""), append(s.times, time.Now())
	does := s.do(n + 1)
	if does == refuse {
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	client, server := net.Pipe()
	go s.serve(server, n, does)
	return client, nil
}

func (s *fake) serve(conn net.Conn, n, does int) {
	defer conn.Close()
	r, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	s.mu.Lock()
	s.asked[n] = r.URL.Path
	s.mu.Unlock()
	if does == hang {
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			conn.Read(make([]byte, 1))
		}()
		select {
		case does = <-s.release:
		case <-gone:
			return
		}
	}
	body := good
	switch does {
	case hangUp:
		return
	case garbage:
		does, body = 200, "<html>"
	}
	fmt.Fprintf(conn, "HTTP/1.1 %d x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", does, len(body), body)
}

// pause is the time between the first two requests.
func (s *fake) pause() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.times[1].Sub(s.times[0])
}

// now sets what is done with every request from now on.
func (s *fake) now(does int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.do = always(does)
}

// requests are the paths that were asked for.
func (s *fake) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

func (s *fake) count() int { return len(s.requests()) }

func always(does int) func(int) int { return func(int) int { return does } }

// numbered is one of many users.
func numbered(i int) jid.JID { return mustParse(fmt.Sprintf("user%d@example.org", i)) }

// result is what a fetch comes to.
func (b *bench) result(ctx context.Context, user jid.JID) string {
	if _, err := b.Fetch(ctx, user); err != nil {
		return err.(*Error).Result
	}
	return resultOK
}

// open is how many circuits are, by the metric.
func (b *bench) open() float64 { return testutil.ToFloat64(b.options.Metrics.CircuitsOpen) }

// logged counts the lines of the log that contain text.
func (b *bench) logged(text string) int { return strings.Count(b.log.String(), text) }
