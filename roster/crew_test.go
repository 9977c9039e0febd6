package roster

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// Everything is run at once, however much there is; who is done waits for more, and
// not for ever.
func TestCrew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := newCrew(ctx)
		for _, n := range []int{1, maxIdle + 10, 3} {
			release, running := make(chan struct{}), make(chan struct{}, n)
			for range n {
				c.run(func() { running <- struct{}{}; <-release })
			}
			synctest.Wait()
			if len(running) != n {
				t.Errorf("%d of %d run", len(running), n)
			}
			close(release)
			synctest.Wait()
			if len(c.idle) < min(n, maxIdle) || len(c.idle) > maxIdle {
				t.Errorf("%d wait after %d", len(c.idle), n)
			}
		}
		time.Sleep(10 * restless)
		synctest.Wait()
		if len(c.idle) != 0 {
			t.Errorf("%d wait for good", len(c.idle))
		}
		ran := make(chan struct{}, 2)
		c.run(func() { ran <- struct{}{} })
		synctest.Wait()
		cancel()
		synctest.Wait()
		c.run(func() { ran <- struct{}{} }) // what comes late is still done
		c.wait()
		if len(ran) != 2 {
			t.Errorf("%d ran", len(ran))
		}
	})
}

// One after the other is done by one goroutine, and who waits for the crew waits for
// what it does.
func TestCrewIsUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := newCrew(ctx)
		ran := 0
		for range 3 * maxIdle {
			c.run(func() { ran++ })
			synctest.Wait()
		}
		if ran != 3*maxIdle || len(c.idle) != 1 {
			t.Errorf("%d ran, %d wait", ran, len(c.idle))
		}
		hold, done := make(chan struct{}), make(chan struct{})
		c.run(func() { <-hold })
		cancel()
		go func() { c.wait(); close(done) }()
		synctest.Wait()
		select {
		case <-done:
			t.Error("one still works")
		default:
		}
		close(hold)
		<-done
	})
}
