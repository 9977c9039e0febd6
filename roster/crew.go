package roster

import (
	"context"
	"sync"
	"time"
)

// crew runs functions in goroutines, some of which wait for the next one when they
// are done: a new goroutine has to grow its stack first, which takes longer than
// most of what is to be done for a user. It is safe for concurrent use.
type crew struct {
	ctx  context.Context // ends the waiting; what runs goes on
	work sync.WaitGroup
	next chan func()   // to who waits; nil ends him
	idle chan struct{} // a place for each who may wait
}

const (
	// maxIdle is how many goroutines of a crew wait for work at most.
	maxIdle = 256
	// restless is how often half of those who wait are sent home.
	restless = time.Second
)

func newCrew(ctx context.Context) *crew {
	c := &crew{ctx: ctx, next: make(chan func()), idle: make(chan struct{}, maxIdle)}
	c.work.Go(c.dismiss)
	return c
}

// run runs f in a goroutine, at once.
func (c *crew) run(f func()) {
	select {
	case c.next <- f:
	default:
		c.work.Go(func() { c.member(f) })
	}
}

func (c *crew) member(f func()) {
	for f != nil {
		f()
		select {
		case c.idle <- struct{}{}:
		default:
			return
		}
		select {
		case f = <-c.next:
		case <-c.ctx.Done():
			f = nil
		}
		<-c.idle
	}
}

// dismiss ends those who wait though there is little to do.
func (c *crew) dismiss() {
	ticker := time.NewTicker(restless)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-c.ctx.Done():
			return
		}
		for range (len(c.idle) + 1) / 2 {
			select {
			case c.next <- nil:
			default:
			}
		}
	}
}

// wait waits for all to end, when ctx has.
func (c *crew) wait() { c.work.Wait() }
