package component

import (
	"math/rand/v2"
	"time"
)

// backoff is the pause between attempts: it doubles from min to max, and chance
// moves it by up to a quarter within those bounds, so that many components do
// not come back at once.
type backoff struct {
	min, max time.Duration
	pause    time.Duration // before chance; 0: none yet
}

func (b *backoff) next() time.Duration {
	b.pause = min(max(2*b.pause, b.min), b.max)
	chance := rand.N(b.pause/2+1) - b.pause/4
	return min(max(b.pause+chance, b.min), b.max)
}

func (b *backoff) reset() { b.pause = 0 }
