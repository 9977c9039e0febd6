//go:build !linux

package store

import "syscall"

// setUserTimeout does nothing: keepalives have to do.
func setUserTimeout(string, string, syscall.RawConn) error { return nil }
