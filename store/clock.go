package store

import (
	"sync"
	"time"
)

// Clock is the time by which everything is stamped that is kept and compared later. It goes on
// from where the process before had come to, and never back: what that one has stamped is
// earlier than what this one does, whatever the clocks of their machines say. Beyond that it
// goes as the machine's. It is safe for concurrent use.
type Clock struct {
	machine func() time.Time

	mu     sync.Mutex // guards all below
	latest int64      // that Now returned, in nanoseconds since 1970
	read   time.Time  // the machine's clock, when it was read last
}

// NewClock makes a clock that goes on after a time; zero: there was none before. machine is
// [time.Now] but in tests.
func NewClock(after time.Time, machine func() time.Time) *Clock {
	c := &Clock{machine: machine, read: machine()}
	c.goOnAfter(after)
	return c
}

// goOnAfter says that there is a stamp of that time.
func (c *Clock) goOnAfter(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !t.IsZero() {
		c.latest = max(c.latest, t.UnixNano())
	}
}

// Now is the time, and later than any that it returned before.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.machine()
	c.latest = max(c.latest+max(1, int64(now.Sub(c.read))), now.UnixNano()) // Sub does not see that the machine's is set
	c.read = now
	return time.Unix(0, c.latest)
}

const (
	// aliveWithin is how much older what the database has of the process's last sign of life
	// may be than any other stamp in it. It is less than any restart takes, so that the clock
	// of the next process is no later than its machine's, if both are right.
	aliveWithin = 100 * time.Millisecond
	// clockDiffers is by how much clocks differ when somebody is told.
	clockDiffers = 5 * time.Second
)

// warnOfClocks warns if the machine's clock is wrong, or was that of the process before.
// ahead is how far it is ahead of the database's.
func (s *Store) warnOfClocks(ahead time.Duration) {
	switch behind := time.Until(s.Now()); {
	case ahead.Abs() > clockDiffers:
		s.options.Logger.Warn("the clock differs from that of the database: are both set by NTP?", "ahead", ahead.Round(time.Millisecond))
	case behind > clockDiffers:
		s.options.Logger.Warn("the clock differs from that of the process before, whose time goes on: are both set by NTP?", "ahead", -behind.Round(time.Millisecond))
	}
}
