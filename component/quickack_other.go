//go:build !linux

package component

import "net"

// prompt is for Linux alone.
func prompt(conn net.Conn) net.Conn { return conn }
