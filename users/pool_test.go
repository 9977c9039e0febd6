package users

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// Everything is run at once, however much there is; who is done waits for more, and
// not for ever.
func TestPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := newPool(ctx)
		for _, n := range []int{1, maxIdle + 10, 3} {
			release, running := make(chan struct{}), make(chan struct{}, n)
			for range n {
				p.run(func() { running <- struct{}{}; <-release })
			}
			synctest.Wait()
			if len(running) != n {
				t.Errorf("%d of %d run", len(running), n)
			}
			close(release)
			synctest.Wait()
			if len(p.idle) < min(n, maxIdle) || len(p.idle) > maxIdle {
				t.Errorf("%d wait after %d", len(p.idle), n)
			}
		}
		time.Sleep(10 * idleAfter)
		synctest.Wait()
		if len(p.idle) != 0 {
			t.Errorf("%d wait for good", len(p.idle))
		}
		ran := make(chan struct{}, 2)
		p.run(func() { ran <- struct{}{} })
		synctest.Wait()
		cancel()
		synctest.Wait()
		p.run(func() { ran <- struct{}{} }) // what comes late is still done
		synctest.Wait()
		if len(ran) != 2 {
			t.Errorf("%d ran", len(ran))
		}
	})
}

// What is done one after the other is done by one goroutine.
func TestGoroutinesAreUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := newPool(ctx)
		ran := 0
		for range 3 * maxIdle {
			p.run(func() { ran++ })
			synctest.Wait()
		}
		if ran != 3*maxIdle || len(p.idle) != 1 {
			t.Errorf("%d ran, %d wait", ran, len(p.idle))
		}
		cancel()
	})
}
