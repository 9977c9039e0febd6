//go:build !linux

package harness

import "errors"

// StartsOnFullDisk fails: see FullDisk.
func StartsOnFullDisk(_, _ string) (program string, err error) {
	return "", errors.New("a full disk is played on Linux alone")
}
