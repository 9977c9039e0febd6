package chaos

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// journal is the log of all that happened in a run. Its methods may be called
// by several goroutines.
type journal struct {
	began time.Time

	mu         sync.Mutex
	entries    []entry  // guarded by mu
	violations []string // guarded by mu
}

type entry struct {
	at   time.Duration // since began
	text string
}

func newJournal() *journal { return &journal{began: time.Now()} }

// note adds an entry.
func (j *journal) note(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries = append(j.entries, entry{time.Since(j.began), fmt.Sprintf(format, args...)})
}

// maxViolations is how many are kept: what comes after the first few follows
// from them.
const maxViolations = 20

// violation notes that a promise was broken.
func (j *journal) violation(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	j.note("VIOLATION: %s", text)
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.violations) < maxViolations {
		j.violations = append(j.violations, text)
	}
}

// broken are the violations so far.
func (j *journal) broken() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.violations)
}

// addLog adds what rosterd has logged, by the times of its lines.
func (j *journal) addLog(name, log string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var at time.Duration
	for line := range strings.SplitSeq(log, "\n") {
		if rest, ok := strings.CutPrefix(line, "time="); ok {
			stamp, text, _ := strings.Cut(rest, " ")
			if t, err := time.Parse(time.RFC3339Nano, stamp); err == nil {
				at, line = t.Sub(j.began), text
			}
		}
		j.entries = append(j.entries, entry{at, name + ": " + line})
	}
}

// write writes all entries in the order of their times.
func (j *journal) write(w io.Writer) error {
	j.mu.Lock()
	entries := slices.Clone(j.entries)
	j.mu.Unlock()
	slices.SortStableFunc(entries, func(a, b entry) int { return cmp.Compare(a.at, b.at) })
	for _, e := range entries {
		if _, err := fmt.Fprintf(w, "%9.4f  %s\n", e.at.Seconds(), e.text); err != nil {
			return err
		}
	}
	return nil
}
