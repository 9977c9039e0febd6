package fetcher

import (
	"context"
	"math/rand/v2"
	"net/http"
	"time"
)

// The pause before a fetch asks again is from retryPause to three times that: a
// backend that restarts is not asked again by all at the same instant.
const retryPause = 50 * time.Millisecond

// ask asks once, or in a hurry twice, if the breaker does not mind: somebody waits
// and nobody else would ask again.
func (f *Fetcher) ask(ctx context.Context, req *http.Request, hurry bool, b *breaker, p pass) (response, *Error) {
	deadline, cancel := context.WithTimeoutCause(ctx, f.timeout, errTimeout)
	defer cancel()
	a, failure := f.get(deadline, req)
	if failure != nil && (failure.Result == resultRefused || failure.Status >= 500) &&
		hurry && b.retryable(p) && pause(deadline) && b.retryable(p) {
		return f.get(deadline, req)
	}
	return a, failure
}

// pause reports whether there is time for another request, after a while.
func pause(ctx context.Context) bool {
	while := retryPause + rand.N(2*retryPause)
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= while {
		return false
	}
	timer := time.NewTimer(while)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
