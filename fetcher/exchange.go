package fetcher

import (
	"context"
	"net/http"
	"time"

	"rosterd/jid"
)

// exchange sends a request when its turn comes, on behalf of a user, and keeps
// its slot until use has decoded the answer: slots bound the memory too.
func (f *Fetcher) exchange(ctx context.Context, req *http.Request, user jid.JID, hurry bool, use func(response) *Error) *Error {
	breaker := f.breaker(req.URL)
	if breaker.refuses(user) {
		return circuitOpen()
	}
	release, err := f.slot(ctx, hurry)
	if err != nil {
		return contextError(err, "timed out while it waited for other fetches")
	}
	defer release()
	pass, ok := breaker.begin(user)
	if !ok {
		return circuitOpen()
	}
	f.metrics.InFlight.Inc()
	defer f.metrics.InFlight.Dec()

	start := time.Now()
	got, failure := f.ask(ctx, req, hurry, breaker, pass)
	f.metrics.Duration.Observe(time.Since(start).Seconds())
	f.through(req, failure)
	f.end(breaker, pass, failure)
	if failure == nil {
		failure = use(got)
		f.through(req, failure)
	}
	return failure
}

// slot waits for the turn of a request, or for ctx to end.
func (f *Fetcher) slot(ctx context.Context, hurry bool) (release func(), err error) {
	if hurry || f.background == nil {
		return f.slots.release, f.slots.acquire(ctx)
	}
	if err := f.background.acquire(ctx); err != nil {
		return nil, err
	}
	if err := f.slots.acquire(ctx); err != nil {
		f.background.release()
		return nil, err
	}
	return func() { f.slots.release(); f.background.release() }, nil
}

// forBackground is how many of n fetches at a time may be such that no query
// waits for. Who gathers users to ask for them together asks for more than that
// at a time, which must not come true where they are asked for alone after all.
func forBackground(n int) int { return max(1, n*3/4) }
