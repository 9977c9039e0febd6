// Package leak finds what a test leaves behind: goroutines that go on running
// and descriptors that stay open.
package leak

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// patience is how long what a test has ended may take to be gone.
const patience = 30 * time.Second

// Check fails t if, 30 s after its clean-ups, goroutines run that did not run at
// the call, or more descriptors are open. It is called before the test starts
// anything, so that its own clean-up is the last, and not in a test that runs in
// parallel with others, or in a bubble of testing/synctest. A test that has
// failed already is left alone.
//
// Descriptors are counted where there is /proc/self/fd, without those of the Go
// runtime's poller, which opens them once and for all.
func Check(t testing.TB) { check(t, patience) }

func check(t testing.TB, patience time.Duration) {
	running, open := goroutines(), descriptors()
	t.Cleanup(func() {
		if t.Failed() {
			return
		}
		if left := await(running, len(open), patience, func() {}); left != "" {
			t.Errorf("left behind:%s", left)
		}
	})
}

// Main is [Check] for the tests of a whole package, which may run in parallel:
// TestMain hands over what runs the tests and cleans up after them, and exits
// with the code that is returned. It is 1 if they passed but left something
// behind, which is said on the error output then. Goroutines of which the stack
// has one of the texts of others are not the package's fault, nor are descriptors
// that nobody holds any more: libraries leave those to the garbage collector, and
// so does package net, with the pipes through which it copies.
func Main(run func() int, others ...string) int { return whole(run, patience, os.Stderr, others...) }

func whole(run func() int, patience time.Duration, w io.Writer, others ...string) int {
	running, open := goroutines(), descriptors()
	code := run()
	if code != 0 {
		return code
	}
	if left := await(running, len(open), patience, runtime.GC, others...); left != "" {
		fmt.Fprintf(w, "left behind by the tests of this package:%s\n", left)
		return 1
	}
	return 0
}

// await is leftover, once nothing is left or patience is over. It tidies up before
// each look.
func await(running map[string]string, open int, patience time.Duration, tidy func(), others ...string) string {
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		tidy()
		if left := leftover(running, open, others); left == "" || time.Now().After(end) {
			return left
		}
	}
}

// leftover describes the goroutines that are not among running or others, and the
// descriptors if they are more than open. It is empty if there are none.
func leftover(running map[string]string, open int, others []string) string {
	var left strings.Builder
	for id, stack := range goroutines() {
		_, old := running[id]
		if !old && !slices.ContainsFunc(others, func(text string) bool { return strings.Contains(stack, text) }) {
			left.WriteString("\n\n" + stack)
		}
	}
	if now := descriptors(); len(now) > open {
		fmt.Fprintf(&left, "\n\n%d descriptors, %d more than before:\n%s", len(now), len(now)-open, strings.Join(now, "\n"))
	}
	return left.String()
}

// goroutines are the stacks of all goroutines but the one that calls, by their
// numbers, which are never used twice. Numbers of goroutines alone would let one
// that is just ending hide another.
func goroutines() map[string]string {
	buffer := make([]byte, 64<<10)
	n := runtime.Stack(buffer, true)
	for n == len(buffer) {
		buffer = make([]byte, 2*len(buffer))
		n = runtime.Stack(buffer, true)
	}
	stacks := strings.Split(strings.TrimSpace(string(buffer[:n])), "\n\n")
	all := make(map[string]string, len(stacks))
	for _, stack := range stacks[1:] {
		id, _, _ := strings.Cut(stack, " [") // goroutine 7 [running]:
		all[id] = stack
	}
	return all
}

// descriptors are what this process has open, or nil if the system does not say.
func descriptors() []string {
	const folder = "/proc/self/fd"
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil
	}
	var open []string
	for _, entry := range entries {
		target, err := os.Readlink(filepath.Join(folder, entry.Name()))
		if err != nil || strings.HasPrefix(target, "anon_inode:") {
			continue // the folder that was read here, closed by now; the poller
		}
		open = append(open, entry.Name()+" "+target)
	}
	return open
}
