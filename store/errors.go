package store

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

var (
	errNotOurs   = errors.New("is not a file of rosterd's")
	errDamaged   = errors.New("is damaged")
	errNewer     = errors.New("was written by a newer rosterd")
	errLocked    = errors.New("is in use by another process, maybe another rosterd")
	errNote      = errors.New("no note")
	errNotesFull = fmt.Errorf("more than %d MiB of notes wait for their records to be written: no more are kept", maxNotes>>20)
)

func damaged(how string) error { return fmt.Errorf("%w (%s)", errDamaged, how) }

func newer(version, known uint64) error {
	return fmt.Errorf("%w (format %d, this one knows %d)", errNewer, version, known)
}

// inFile is the error err, which is of the file at path, as an administrator
// sees it.
func inFile(path string, err error) error {
	if err == nil {
		return nil
	}
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		err = pathErr.Err // the path once is enough
	}
	switch {
	case errors.Is(err, errNotOurs), errors.Is(err, errDamaged), errors.Is(err, errNewer), errors.Is(err, errLocked):
		return fmt.Errorf("state file %s %w", path, err)
	}
	return fmt.Errorf("state file %s: %w", path, err)
}

// isFull reports whether err says that there is no room on the disk, which may
// change any time.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}
