package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// atOnce is how many logins are under way at a time.
const atOnce = 50

// logins logs users in, 50 at a time, and gives each client to use, which may
// be called by many goroutines. vers are the versions that the users' clients
// name, or nil. It returns how long it took.
func logins(ctx context.Context, address string, some []user, vers []string, use func(i int, c *client)) (time.Duration, error) {
	var next atomic.Int64
	var work sync.WaitGroup
	errs := make([]error, atOnce)
	began := time.Now()
	for w := range atOnce {
		work.Go(func() {
			for errs[w] == nil && ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(some) {
					return
				}
				var ver *string
				if vers != nil {
					ver = &vers[i]
				}
				c, err := login(ctx, address, some[i], ver)
				if err != nil {
					errs[w] = err
					return
				}
				use(i, c)
			}
		})
	}
	work.Wait()
	return time.Since(began), errors.Join(append(errs, ctx.Err())...)
}

// loginRates are the logins per second of users without a roster, and of the
// same who have the current one.
func loginRates(ctx context.Context, address string, some []user) (cold, again float64, vers []string, err error) {
	vers = make([]string, len(some))
	took, err := logins(ctx, address, some, vers, func(i int, c *client) {
		vers[i] = c.ver
		c.close()
	})
	if err != nil {
		return 0, 0, nil, err
	}
	cold = float64(len(some)) / took.Seconds()
	took, err = logins(ctx, address, some, vers, func(_ int, c *client) { c.close() })
	return cold, float64(len(some)) / took.Seconds(), vers, err
}
