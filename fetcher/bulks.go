package fetcher

import (
	"context"
	"net/url"
	"sync"
	"time"
)

// bulks are the bulk of each domain that has a URL for it.
type bulks struct {
	mu      sync.Mutex // guards all below; bulk.mu may be held, and is not taken
	by      map[string]*bulk
	stopped bool

	batches sync.WaitGroup  // under way
	life    context.Context // of the batches
	cancel  context.CancelFunc
}

func newBulks() *bulks {
	b := &bulks{by: make(map[string]*bulk)}
	b.life, b.cancel = context.WithCancel(context.Background())
	return b
}

// bulk is the one for a domain, or nil if its users are asked for alone.
func (f *Fetcher) bulk(domain string) *bulk {
	if f.bulkURL == nil || f.bulkSize < 2 {
		return nil
	}
	text, ok := f.bulkURL(domain)
	if !ok {
		return nil
	}
	f.bulks.mu.Lock()
	defer f.bulks.mu.Unlock()
	q := f.bulks.by[domain]
	if q == nil {
		q = &bulk{f: f, url: text}
		if u, err := url.Parse(text); err == nil {
			q.backend = backendOf(u)
		}
		q.timer = time.AfterFunc(time.Hour, q.late)
		q.timer.Stop()
		f.bulks.by[domain] = q
	}
	return q
}

// start runs a batch in a goroutine, unless it is too late.
func (b *bulks) start(batch func()) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped {
		return false
	}
	b.batches.Go(batch)
	return true
}

// stop ends the batches under way and waits for that.
func (b *bulks) stop() {
	b.mu.Lock()
	b.stopped = true
	b.mu.Unlock()
	b.cancel()
	b.batches.Wait()
}
