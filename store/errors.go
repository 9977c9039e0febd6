package store

import (
	"errors"
	"fmt"
	"io/fs"
)

var (
	errNotOurs = errors.New("is not a file of rosterd's")
	errDamaged = errors.New("is damaged")
	errNewer   = errors.New("was written by a newer rosterd")
	errEarlier = errors.New("was written by an earlier rosterd, before its first release, in a format that is not read any more: " +
		"move it and the files beside it whose names begin with its name away, rosterd then begins with an empty state")
	errLocked = errors.New("is in use by another process, maybe another rosterd")
)

func damaged(how string) error { return fmt.Errorf("%w (%s)", errDamaged, how) }

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
	for _, known := range []error{errNotOurs, errDamaged, errNewer, errEarlier, errLocked} {
		if errors.Is(err, known) {
			return fmt.Errorf("state file %s %w", path, err)
		}
	}
	return fmt.Errorf("state file %s: %w", path, err)
}
