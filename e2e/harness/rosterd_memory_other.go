//go:build !linux

package harness

import "errors"

// PeakMemory needs Linux.
func (r *Rosterd) PeakMemory() (int64, error) { return 0, errors.New("not known on this system") }
