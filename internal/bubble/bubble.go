// Package bubble runs tests in bubbles of testing/synctest, also where the race
// detector cannot follow.
package bubble

import (
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
)

// Test is [synctest.Test]. With the race detector of Go 1.26, only one thread runs
// Go code meanwhile, in the whole program: two threads that each take an expired
// timer of one bubble overwrite the detector's only stack for it, and the program
// ends in SIGSEGV (golang/go#78156; seen up to go1.26.10, not with go1.27.4). Most
// races are found all the same, as the detector goes by what happened before what,
// not by what happened at once. Safe for concurrent use.
func Test(t *testing.T, f func(*testing.T)) {
	t.Helper()
	if oneThread {
		alone.enter()
		defer alone.leave()
	}
	synctest.Test(t, f)
}

var alone single

// single counts the bubbles that run, and holds the program to one processor
// while there are any.
type single struct {
	mu      sync.Mutex
	running int
	before  int // GOMAXPROCS without bubbles
}

func (s *single) enter() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == 0 {
		s.before = runtime.GOMAXPROCS(1)
	}
	s.running++
}

func (s *single) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	if s.running == 0 {
		runtime.GOMAXPROCS(s.before)
	}
}
