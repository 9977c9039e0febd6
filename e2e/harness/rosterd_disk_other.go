//go:build !linux

package harness

import "errors"

// FullDisk fails: there is no such limit that can be changed from outside.
func (r *Rosterd) FullDisk(bool) error { return errors.New("a full disk is played on Linux alone") }

// TakesFullDisk returns binary itself.
func TakesFullDisk(_, binary string) (program string, err error) { return binary, nil }
