package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"unsafe"
)

// FullDisk makes every write of rosterd to a file fail, as on a full disk, until
// it is called with false. The process must have been started from what
// [TakesFullDisk] has made: otherwise the first such write ends it. It needs
// no rights.
func (r *Rosterd) FullDisk(full bool) error {
	var limit [2]uint64 // soft and hard
	if err := r.limitFiles(nil, &limit); err != nil {
		return err
	}
	limit[0] = limit[1]
	if full {
		limit[0] = 0
	}
	return r.limitFiles(&limit, nil)
}

func (r *Rosterd) limitFiles(set, old *[2]uint64) error {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(r.process.cmd.Process.Pid), syscall.RLIMIT_FSIZE,
		uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(old)), 0, 0)
	if errno != 0 {
		return fmt.Errorf("limiting the size of rosterd's files: %w", errno)
	}
	return nil
}

// TakesFullDisk makes, in a folder, a program to be started in place of binary
// for [Rosterd.FullDisk]. The limit of a file's size (setrlimit(2), RLIMIT_FSIZE)
// comes with a signal that ends a Go program; blocked, it leaves the error of
// the write. env of GNU coreutils blocks it; the process stays the same.
func TakesFullDisk(dir, binary string) (program string, err error) {
	program = filepath.Join(dir, "rosterd-takes-full-disk")
	script := "#!/bin/sh\nexec env --block-signal=XFSZ '" + binary + "' \"$@\"\n"
	return program, writeProgram(program, script)
}

// writeProgram makes a file that can be run at once: no process that is started
// meanwhile has it open, which would make it busy.
func writeProgram(name, script string) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(name, []byte(script), 0o700)
}
