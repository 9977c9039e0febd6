package harness

import (
	"os/exec"
	"syscall"
)

// isolate has the kernel kill the child when its parent is gone: a test binary
// that panics or is killed leaves no server behind. A process group of its own
// keeps the terminal's Ctrl-C from the child, which the parent stops in order.
func isolate(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
