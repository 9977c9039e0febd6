//go:build !linux

package harness

import "os/exec"

// isolate needs what is known to Linux alone; elsewhere the callers' clean-ups
// have to do.
func isolate(*exec.Cmd) {}

// runAs and giveTo do nothing: everybody runs servers as himself, and there are
// none of Debian's releases.
func (root) runAs(string, *exec.Cmd) error { return nil }
func (root) giveTo(_, _ string) error      { return nil }
