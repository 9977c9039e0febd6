package harness

import (
	"fmt"
	"os"
	"strings"
)

// PeakMemory is the most memory, in bytes, that rosterd has had in use at a time
// since its start (proc(5), VmHWM). It fails once rosterd has ended.
func (r *Rosterd) PeakMemory() (int64, error) {
	file := fmt.Sprintf("/proc/%d/status", r.process.cmd.Process.Pid)
	status, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		var kB int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kB); n == 1 {
			return kB << 10, nil
		}
	}
	return 0, fmt.Errorf("%s has no VmHWM", file)
}
