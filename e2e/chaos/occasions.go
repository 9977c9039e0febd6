package chaos

import (
	"context"
	"sync"
	"time"
)

// occasion is something that happens in a run, at which a fault may strike: the
// moments in which something can be lost are short.
type occasion string

const (
	clientAsks      occasion = "a client asks"
	clientAnswered  occasion = "a client is answered"
	clientPushed    occasion = "a push has arrived"
	backendAsked    occasion = "the backend is asked"
	backendAnswered occasion = "the backend has answered"
	reportMade      occasion = "a change is reported"
	reportAnswered  occasion = "a report is answered"
)

var occasionsAll = []occasion{clientAsks, clientAnswered, clientPushed, backendAsked, backendAnswered, reportMade, reportAnswered}

// occasions tell those who wait for one. Its methods may be called by several
// goroutines.
type occasions struct {
	mu      sync.Mutex
	waiting map[*awaited]struct{} // guarded by mu
}

type awaited struct {
	kind occasion
	left int
	come chan struct{}
}

// happened says that an occasion is there.
func (o *occasions) happened(kind occasion) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for a := range o.waiting {
		if a.kind == kind {
			if a.left--; a.left == 0 {
				close(a.come)
				delete(o.waiting, a)
			}
		}
	}
}

// wait waits for the nth occasion of a kind from now on, but not longer than a
// time.
func (o *occasions) wait(ctx context.Context, kind occasion, nth int, limit time.Duration) {
	a := &awaited{kind, nth, make(chan struct{})}
	o.mu.Lock()
	if o.waiting == nil {
		o.waiting = map[*awaited]struct{}{}
	}
	o.waiting[a] = struct{}{}
	o.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-a.come:
	case <-timer.C:
	case <-ctx.Done():
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.waiting, a)
}
