package component

import (
	"sync"
	"time"
)

// causes remembers which causes were logged, so that one cause that concerns
// many users is one line. It is bounded, and safe for concurrent use.
type causes struct {
	every time.Duration // pause between two lines for one cause; 0: one line for good
	max   int           // causes; with one more nothing new is logged

	mu     sync.Mutex
	logged map[string]*cause
}

type cause struct {
	last   time.Time
	silent int // times not logged since
}

func newCauses(every time.Duration, max int) *causes {
	return &causes{every: every, max: max, logged: make(map[string]*cause)}
}

// log reports whether a cause is to be logged now, and how often it was not
// since the last time.
func (c *causes) log(what string) (silent int, now bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := time.Now()
	known := c.logged[what]
	if known == nil {
		if len(c.logged) >= c.max {
			return 0, false
		}
		c.logged[what] = &cause{last: at}
		return 0, true
	}
	if c.every == 0 || at.Sub(known.last) < c.every {
		known.silent++
		return 0, false
	}
	silent, known.silent, known.last = known.silent, 0, at
	return silent, true
}

// reset forgets all.
func (c *causes) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.logged)
}
