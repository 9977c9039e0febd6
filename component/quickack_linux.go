package component

import (
	"net"
	"syscall"
)

// prompt makes the system acknowledge at once what is read from conn. COMPAT Prosody,
// which leaves Nagle's algorithm on: a small stanza waits for the acknowledgement of the
// one before, up to 40 ms. The system forgets the option, so each read sets it again.
func prompt(conn net.Conn) net.Conn {
	c, ok := conn.(*net.TCPConn)
	if !ok {
		return conn
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return conn
	}
	return &prompted{c, raw}
}

// prompted is a connection that acknowledges at once.
type prompted struct {
	*net.TCPConn
	raw syscall.RawConn
}

func (p *prompted) Read(b []byte) (int, error) {
	n, err := p.TCPConn.Read(b)
	if err == nil {
		_ = p.raw.Control(quickAck) // it works without, only slower
	}
	return n, err
}

func quickAck(fd uintptr) {
	_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
}
