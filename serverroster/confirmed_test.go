package serverroster

import (
	"errors"
	"testing"
	"time"
)

// What is known from before the start may be older than what a process has given the server that
// could not keep it: nothing is written of it before the backend has confirmed it.
func TestNothingIsWrittenUnconfirmed(t *testing.T) {
	onDisk(t, func(w *world) {
		confirmed := func(is bool) {
			w.rosters.mu.Lock()
			w.rosters.old = !is
			w.rosters.mu.Unlock()
		}
		first, later := contacts("nurse@example.org both Nurse"), contacts("romeo@example.org both Romeo")
		confirmed(true)
		w.keep(juliet, later)
		w.settle()
		w.equal(juliet, later)
		w.again()
		confirmed(false)
		w.quiet(func() { w.keep(juliet, later) }) // there is nothing to write
		w.quiet(func() { w.keep(juliet, first) })
		w.quiet(func() { w.keep(nurse, first) }) // of whom nothing is known
		w.sleep(25 * time.Hour)
		w.equal(juliet, later)
		w.server.do(func() { w.name = "api" })
		if err := <-w.push(romeo); !errors.Is(err, errCannotPush) {
			t.Errorf("pushed: %v", err)
		}
		confirmed(true)
		w.keeper.Keep(juliet, nil)
		w.keeper.Keep(nurse, nil)
		w.settle()
		w.equal(juliet, first)
		w.equal(nurse, first)
	})
}
