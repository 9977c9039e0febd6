package users

import (
	"context"
	"time"
)

// pool runs functions in goroutines, and keeps some of those for the next ones: a new
// goroutine has to grow its stack first, which takes longer than most of what is to be
// done for a user. It is safe for concurrent use.
type pool struct {
	ctx  context.Context // ends the goroutines that wait; what runs goes on
	next chan func()     // to one that waits; nil ends it
	idle chan struct{}   // has a place for each that may wait
}

const (
	maxIdle   = 256         // goroutines that wait, at most
	idleAfter = time.Second // how often half of those are ended
)

func newPool(ctx context.Context) *pool {
	p := &pool{ctx: ctx, next: make(chan func()), idle: make(chan struct{}, maxIdle)}
	go p.shrink()
	return p
}

// run runs f in a goroutine, at once. It does not block.
func (p *pool) run(f func()) {
	select {
	case p.next <- f:
	default:
		go p.work(f)
	}
}

func (p *pool) work(f func()) {
	for f != nil {
		f()
		select {
		case p.idle <- struct{}{}:
		default:
			return
		}
		select {
		case f = <-p.next:
		case <-p.ctx.Done():
			f = nil
		}
		<-p.idle
	}
}

func (p *pool) shrink() {
	ticker := time.NewTicker(idleAfter)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-p.ctx.Done():
			return
		}
		for range (len(p.idle) + 1) / 2 {
			select {
			case p.next <- nil:
			default:
			}
		}
	}
}
