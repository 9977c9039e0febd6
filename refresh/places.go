package refresh

import (
	"net"
	"net/netip"
	"sync"
)

// places are what callers share: each gets one as long as he holds fewer than
// are free. So a caller alone has half of them, two have a third each, and
// whoever comes new finds one, whatever the others do.
type places struct {
	mu    sync.Mutex
	free  int
	taken map[netip.Addr]int
}

func newPlaces(n int) *places { return &places{free: n, taken: make(map[netip.Addr]int)} }

// take takes a place for a caller until release, which is to be called once.
func (p *places) take(caller netip.Addr) (release func(), ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken[caller] >= p.free {
		return nil, false
	}
	p.free--
	p.taken[caller]++
	return func() { p.put(caller) }, true
}

func (p *places) put(caller netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free++
	if p.taken[caller]--; p.taken[caller] == 0 {
		delete(p.taken, caller)
	}
}

// callerOf is who calls from an address: the IP address, of IPv6 the first 64
// bits, for who has one of those addresses has them all.
func callerOf(remote string) netip.Addr {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	if ip = ip.Unmap().WithZone(""); ip.Is6() && !ip.IsLoopback() {
		prefix, _ := ip.Prefix(64) // 64 bits fit
		return prefix.Addr()
	}
	return ip
}
