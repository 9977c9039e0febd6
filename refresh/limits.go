package refresh

import (
	"cmp"
	"net/netip"
	"sync"
	"time"
)

// Limits bound what all callers together get. A field that is 0 has its default.
type Limits struct {
	Connections int // open at once: 512
	Requests    int // in flight at once: 256
	// Large is how many requests with a body of more than 64 KiB are in flight at
	// once: 8. A body takes many times its size of memory.
	Large int

	Header time.Duration // for the TLS handshake, and for a header, to arrive: 10 s
	Stall  time.Duration // between two parts of a body: 10 s
	Body   time.Duration // for a whole body to arrive: 1 min
	Answer time.Duration // for an answer to be taken: 10 s
	Idle   time.Duration // between two requests: 2 min
}

const (
	largeBody = 64 << 10 // bytes; a larger body is a large one
	maxHeader = 64 << 10 // bytes of a request's header; a longer one is refused
)

func (l Limits) orDefault() Limits {
	l.Connections = cmp.Or(l.Connections, 512)
	l.Requests = cmp.Or(l.Requests, 256)
	l.Large = cmp.Or(l.Large, 8)
	l.Header = cmp.Or(l.Header, 10*time.Second)
	l.Stall = cmp.Or(l.Stall, 10*time.Second)
	l.Body = cmp.Or(l.Body, time.Minute)
	l.Answer = cmp.Or(l.Answer, 10*time.Second)
	l.Idle = cmp.Or(l.Idle, 2*time.Minute)
	return l
}

// shares divide a limit among callers: one may take as long as they hold fewer
// than are free. So one caller alone gets half of all, two get a third each, and
// a new one always gets some.
type shares struct {
	mu    sync.Mutex
	free  int
	taken map[netip.Addr]int
}

func newShares(n int) *shares { return &shares{free: n, taken: make(map[netip.Addr]int)} }

// take takes one until release, which is called once. If the caller has their
// share already, ok is false.
func (s *shares) take(caller netip.Addr) (release func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken[caller] >= s.free {
		return nil, false
	}
	s.free--
	s.taken[caller]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.free++
		if s.taken[caller]--; s.taken[caller] == 0 {
			delete(s.taken, caller)
		}
	}, true
}

// callerOf is the caller at an address: their IP address, or the first 64 bits of
// an IPv6 address, as who has one of that network has all of it. It is the zero
// value if the address has no IP address.
func callerOf(remote string) netip.Addr {
	address, _ := netip.ParseAddrPort(remote)
	ip := address.Addr().Unmap().WithZone("")
	if ip.Is6() && !ip.IsLoopback() {
		prefix, _ := ip.Prefix(64) // cannot fail
		return prefix.Addr()
	}
	return ip
}
