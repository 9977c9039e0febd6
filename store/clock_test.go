package store

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"rosterd/internal/bubble"
)

// The machine's clock is set back and forth: no stamp is earlier than one before, and time goes
// on as fast as it does.
func TestClockGoesForward(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var set time.Duration
		begun := time.Now()
		c := NewClock(begun.Add(time.Minute), func() time.Time { return time.Now().Round(0).Add(set) })
		before := c.Now()
		if at := before.Sub(begun.Add(time.Minute)); at <= 0 || at > time.Millisecond {
			t.Errorf("it begins %v after what was before", at)
		}
		for _, set = range []time.Duration{0, -time.Hour, time.Hour, -time.Hour, 0} {
			now := c.Now()
			if !now.After(before) {
				t.Errorf("%v is not after %v", now, before)
			}
			before = now
		}
		c = NewClock(time.Time{}, time.Now)
		at := c.Now()
		time.Sleep(time.Hour) // by the bubble's clock
		if took := c.Now().Sub(at) - time.Hour; took.Abs() > time.Millisecond {
			t.Errorf("an hour takes %v more", took)
		}
	})
}

// What the next process knows of the time of the one before is enough: nothing is stamped later,
// though it was killed between two signs of life.
func TestClockGoesOn(t *testing.T) {
	path := newPath(t)
	bubble.Test(t, func(t *testing.T) {
		s := open(t, path)
		s.clock.goOnAfter(time.Now().Add(10 * time.Minute)) // its machine's clock was set back since
		for range 20 {
			time.Sleep(370 * time.Millisecond)
			done := make(chan struct{})
			stamp := s.Now()
			s.PutUser(User{JID: "juliet@example.org", Fetched: stamp}, false, func() { close(done) })
			<-done
			if alive, err := s.db.lastAlive(); err != nil || stamp.Sub(alive) > aliveWithin {
				t.Errorf("alive %v, %v, and stamped %v", alive, err, stamp)
			}
		}
		last := s.Now()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		var log strings.Builder
		s, err := Open(path, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if now := s.Now(); !now.After(last) {
			t.Errorf("%v is not after %v", now, last)
		}
		if strings.Count(log.String(), "the clock differs") != 1 || !strings.Contains(log.String(), "ahead=-10m") {
			t.Errorf("logged %q", log.String())
		}
	})
}
