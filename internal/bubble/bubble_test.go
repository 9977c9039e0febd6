package bubble

import (
	"runtime"
	"sync"
	"testing"
	"time"
)

// Without the one thread this ends the program with SIGSEGV at once, where there
// are two processors and a race detector of Go 1.26.
func TestExpiredTimers(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	Test(t, func(t *testing.T) {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 5000 {
					timer := time.NewTimer(time.Millisecond)
					time.Sleep(2 * time.Millisecond) // of the bubble's clock: all timers expire at one moment
					<-timer.C
				}
			})
		}
		wg.Wait()
	})
	if now := runtime.GOMAXPROCS(0); now != before {
		t.Errorf("%d processors after the bubble, want %d as before", now, before)
	}
}

// The processors are back when the last of several bubbles has ended. Their hour passes at once.
func TestBubblesAtOnce(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	t.Run("at once", func(t *testing.T) {
		for range 4 {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				Test(t, func(t *testing.T) { time.Sleep(time.Hour) })
			})
		}
	})
	if now := runtime.GOMAXPROCS(0); now != before {
		t.Errorf("%d processors after the bubbles, want %d as before", now, before)
	}
}
