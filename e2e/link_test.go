package e2e

import (
	"io"
	"net"
	"rosterd/internal/locked"
	"strings"
	"sync"
	"testing"
)

// link is a TCP relay between rosterd and the component's port of its server:
// the connection can be cut while all clients stay logged in, and what rosterd
// wrote can be read.
type link struct {
	listener net.Listener
	target   string
	tasks    sync.WaitGroup
	sent     locked.Buffer // by rosterd, on all connections

	mu    sync.Mutex
	conns []net.Conn // guarded by mu
	down  bool       // guarded by mu: connections are closed at once
}

func newLink(t *testing.T, target string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{listener: listener, target: target}
	l.tasks.Go(l.accept)
	t.Cleanup(l.close)
	return l
}

func (l *link) address() string { return l.listener.Addr().String() }

func (l *link) accept() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.tasks.Go(func() { l.relay(near) })
	}
}

func (l *link) relay(near net.Conn) {
	defer near.Close()
	if l.isDown() {
		return
	}
	far, err := net.Dial("tcp", l.target)
	if err != nil {
		return
	}
	defer far.Close()
	if !l.own(near, far) {
		return
	}
	l.tasks.Go(func() {
		_, _ = io.Copy(near, far)
		_ = near.Close()
	})
	_, _ = io.Copy(io.MultiWriter(&l.sent, far), near)
}

func (l *link) isDown() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.down
}

func (l *link) own(conns ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = append(l.conns, conns...)
	return !l.down
}

// wrote is how often rosterd has written a text.
func (l *link) wrote(text string) int {
	return strings.Count(l.sent.String(), text)
}

// cut breaks the connection, and every new one until mend.
func (l *link) cut() {
	l.mu.Lock()
	conns := l.conns
	l.conns, l.down = nil, true
	l.mu.Unlock()
	for _, conn := range conns {
		_ = conn.Close()
	}
}

// mend ends cut.
func (l *link) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = false
}

// written is all that rosterd, which has ended, wrote. There is no other
// connection after it.
func (l *link) written() string {
	_ = l.listener.Close()
	l.tasks.Wait()
	return l.sent.String()
}

func (l *link) close() {
	_ = l.listener.Close()
	l.cut()
	l.tasks.Wait()
}
