package main

import (
	"net"
	"syscall"
)

// quick is a connection that acknowledges at once what it reads: Prosody leaves
// Nagle's algorithm on, and would wait for the acknowledgement with what it
// sends next.
type quick struct{ net.Conn }

func (c quick) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if raw, is := c.Conn.(syscall.Conn); is && n > 0 {
		if fd, err := raw.SyscallConn(); err == nil {
			// The kernel forgets it now and then: again after each read.
			_ = fd.Control(func(fd uintptr) {
				_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
			})
		}
	}
	return n, err
}
