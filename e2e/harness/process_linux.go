package harness

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// isolate has the kernel kill the child when its parent is gone: a test binary
// that panics or is killed leaves no server behind. A process group of its own
// keeps the terminal's Ctrl-C from the child, which the parent stops in order.
func isolate(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig, cmd.SysProcAttr.Setpgid = syscall.SIGKILL, true
}

// runAs has root run cmd in r, as a user of r unless that is root; everybody else
// is himself.
func (r root) runAs(name string, cmd *exec.Cmd) error {
	if os.Getuid() != 0 {
		return nil
	}
	uid, gid, err := r.ids(name)
	if err != nil {
		return err
	}
	// The death signal is set after the user is: it is not lost.
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: string(r), Credential: &syscall.Credential{
		Uid: uint32(uid), Gid: uint32(gid), Groups: []uint32{uint32(gid)},
	}}
	return nil
}

// giveTo has root give a folder and all that is in it to the user of runAs.
func (r root) giveTo(name, dir string) error {
	if os.Getuid() != 0 {
		return nil
	}
	uid, gid, err := r.ids(name)
	if err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, gid)
	})
}

// ids are those of a user of r, whose accounts are not this machine's.
func (r root) ids(name string) (uid, gid int, err error) {
	passwd, err := os.ReadFile(string(r) + "/etc/passwd")
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(passwd)) {
		if field := strings.Split(line, ":"); len(field) > 3 && field[0] == name {
			if uid, err = strconv.Atoi(field[2]); err != nil {
				return 0, 0, err
			}
			gid, err = strconv.Atoi(field[3])
			return uid, gid, err
		}
	}
	return 0, 0, fmt.Errorf("%s/etc/passwd has no user %s", r, name)
}
