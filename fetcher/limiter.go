package fetcher

import (
	"container/list"
	"context"
	"sync"
)

// limiter lets a limited number of holders in at once, first come, first
// served. It is safe for concurrent use.
type limiter struct {
	mu      sync.Mutex // guards all below; nothing blocks while it is held
	limit   int
	held    int
	waiting list.List // of chan struct{}, closed when a slot is given to that one
}

func newLimiter(limit int) *limiter { return &limiter{limit: limit} }

// acquire waits for a slot, or for ctx to end: then its error is returned and
// no slot is held. Each acquired slot must be released once.
func (l *limiter) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	given := make(chan struct{})
	waiter := l.waiting.PushBack(given)
	l.admit()
	l.mu.Unlock()

	select {
	case <-given:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-given: // at the same time: pass it on
		l.held--
		l.admit()
	default:
		l.waiting.Remove(waiter)
	}
	return ctx.Err()
}

// release gives a slot back.
func (l *limiter) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held--
	l.admit()
}

// setLimit changes the limit. Slots held beyond it are not taken away.
func (l *limiter) setLimit(limit int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limit = limit
	l.admit()
}

// admit lets in whoever may enter. l.mu is held.
func (l *limiter) admit() {
	for l.held < l.limit && l.waiting.Len() > 0 {
		l.held++
		close(l.waiting.Remove(l.waiting.Front()).(chan struct{}))
	}
}
