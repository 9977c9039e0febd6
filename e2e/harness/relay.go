package harness

import (
	"net"
	"os"
	"sync"
	"sync/atomic"
)

// Relay is a TCP relay in front of a server, with which the network between the
// two goes wrong. Its methods may be called by several goroutines.
type Relay struct {
	listen string // host:port
	target string
	tasks  sync.WaitGroup

	passed [2]atomic.Int64 // bytes: to the target, and from it

	mu       sync.Mutex
	listener net.Listener          // nil while connections are refused; guarded by mu, as all below and listen
	pairs    map[*relayed]struct{} // the connections
	gate     chan struct{}         // closed while bytes pass
	closed   bool
}

// relayed is one connection.
type relayed struct {
	near, far net.Conn
	ended     chan struct{} // closed when it is broken
	end       func()        // closes ended; may be called again
	stranded  atomic.Bool
}

// StartRelay starts a relay to target, host:port. The caller has to Close it.
func StartRelay(target string) (*Relay, error) {
	r := &Relay{listen: net.JoinHostPort(Loopback(), "0"), target: target, pairs: map[*relayed]struct{}{}, gate: make(chan struct{})}
	close(r.gate)
	return r, r.Accept()
}

// loopbacks counts the calls of Loopback.
var loopbacks atomic.Uint32

// Loopback is an address of this machine, in 127.0.0.0/8, that nobody else uses:
// whoever listens there can stop and find his port free again. Elsewhere than
// on Linux it is 127.0.0.1, which everybody uses.
func Loopback() string {
	n := loopbacks.Add(1)
	ip := net.IPv4(127, byte(1+os.Getpid()%250), byte(n/250%250), byte(1+n%250)).String()
	l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		return "127.0.0.1"
	}
	_ = l.Close()
	return ip
}

// Address is where to connect instead of to the target.
func (r *Relay) Address() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.listen
}

// Accept ends Refuse, on the same port.
func (r *Relay) Accept() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.listener != nil || r.closed {
		return nil
	}
	l, err := net.Listen("tcp", r.listen)
	if err != nil {
		return err
	}
	r.listener, r.listen = l, l.Addr().String()
	r.tasks.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			r.tasks.Go(func() { r.relay(near) })
		}
	})
	return nil
}

// Refuse refuses new connections until Accept. Those that are go on.
func (r *Relay) Refuse() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.listener != nil {
		_ = r.listener.Close()
		r.listener = nil
	}
}

// Passed is how many bytes have come for the target, and from it, on all connections.
func (r *Relay) Passed() (to, from int64) { return r.passed[0].Load(), r.passed[1].Load() }

// Stall holds back every byte, in both directions, until Resume. Connections
// stay, and new ones are taken.
func (r *Relay) Stall() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.gate:
		r.gate = make(chan struct{})
	default:
	}
}

// Resume ends Stall: what was held back arrives.
func (r *Relay) Resume() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.gate:
	default:
		close(r.gate)
	}
}

// Cut breaks all connections, abruptly. What is on its way, on either side, is
// lost. New connections are taken.
func (r *Relay) Cut() {
	for _, p := range r.all() {
		p.cut()
	}
}

// Strand breaks all connections on the target's side alone: the other side is
// left with connections on which nothing comes any more (half-open).
func (r *Relay) Strand() {
	for _, p := range r.all() {
		p.stranded.Store(true)
		_ = p.far.Close()
	}
}

// Close ends the relay and waits for all that it has started.
func (r *Relay) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.Refuse()
	r.Resume()
	r.Cut()
	r.tasks.Wait()
}

func (r *Relay) all() []*relayed {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []*relayed
	for p := range r.pairs {
		all = append(all, p)
	}
	return all
}

// passing is the gate: closed while bytes pass.
func (r *Relay) passing() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.gate
}

// relay serves one connection until either side ends it.
func (r *Relay) relay(near net.Conn) {
	p := &relayed{near: near, ended: make(chan struct{})}
	p.end = sync.OnceFunc(func() { close(p.ended) })
	far, err := net.Dial("tcp", r.target)
	if err != nil {
		_ = near.Close()
		return
	}
	p.far = far
	r.mu.Lock()
	closed := r.closed
	if !closed {
		r.pairs[p] = struct{}{}
	}
	r.mu.Unlock()
	if closed {
		p.cut()
		return
	}
	r.tasks.Go(func() { r.pump(p, near, far, &r.passed[1]) })
	r.pump(p, far, near, &r.passed[0])
	p.close()
	r.mu.Lock()
	delete(r.pairs, p)
	r.mu.Unlock()
}

// pump copies in one direction.
func (r *Relay) pump(p *relayed, dst, src net.Conn, passed *atomic.Int64) {
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		select {
		case <-r.passing():
		case <-p.ended:
			return
		}
		if !p.stranded.Load() {
			passed.Add(int64(n))
			if _, werr := dst.Write(buf[:n]); err == nil {
				err = werr
			}
		} else if src == p.far {
			return // and the near side is left as it is
		}
		if err != nil && !(p.stranded.Load() && src == p.far) {
			p.close()
			return
		}
		if err != nil {
			return
		}
	}
}

func (p *relayed) close() {
	p.end()
	_ = p.near.Close()
	_ = p.far.Close()
}

// cut is close with resets.
func (p *relayed) cut() {
	for _, conn := range [...]net.Conn{p.near, p.far} {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
	}
	p.close()
}
