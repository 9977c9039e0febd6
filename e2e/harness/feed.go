package harness

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// feedLimit bounds a feed: beyond it the oldest values are dropped.
const feedLimit = 50_000

// errEnded is what waiting on a feed fails with once nothing more can come.
var errEnded = errors.New("nothing more comes")

// feed is a growing list on which several goroutines can wait for what they
// look for: log lines, stanzas, events. Values are numbered from 0 for good.
type feed[T any] struct {
	mu      sync.Mutex
	values  []T           // guarded by mu
	first   int           // number of values[0]; guarded by mu
	ended   bool          // guarded by mu
	changed chan struct{} // closed and replaced with every change; guarded by mu
}

func newFeed[T any]() *feed[T] {
	return &feed[T]{changed: make(chan struct{})}
}

// add appends a value. It never blocks.
func (f *feed[T]) add(v T) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.values = append(f.values, v)
	if len(f.values) > feedLimit {
		f.values = f.values[1:]
		f.first++
	}
	f.wake()
}

// end tells the waiting that nothing more comes.
func (f *feed[T]) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	f.wake()
}

// wake needs mu.
func (f *feed[T]) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// since copies the values from number from on, and says which number comes
// next.
func (f *feed[T]) since(from int) (values []T, next int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append(values, f.values[f.index(from):]...), f.first + len(f.values)
}

// index needs mu.
func (f *feed[T]) index(from int) int {
	return min(max(from-f.first, 0), len(f.values))
}

// wait returns the first value from number from on that matches, and the
// number after it. It fails when ctx ends, or the feed does, before one came.
func (f *feed[T]) wait(ctx context.Context, from int, match func(T) bool) (found T, next int, err error) {
	for {
		f.mu.Lock()
		i := f.index(from)
		fresh, at := f.values[i:], f.first+i
		changed, ended := f.changed, f.ended
		f.mu.Unlock()

		// The values themselves never change, only the slice that holds them.
		for n, v := range fresh {
			if match(v) {
				return v, at + n + 1, nil
			}
		}
		from = at + len(fresh)
		if ended {
			return found, from, errEnded
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return found, from, fmt.Errorf("%w after %d values", context.Cause(ctx), from)
		}
	}
}
