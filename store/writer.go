package store

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"
)

const (
	// writeAfter is how long a change waits for others, if nobody waits for it. What it
	// lacks to the second that is promised is for the writing.
	writeAfter = 700 * time.Millisecond
	retryAfter = time.Second
	// quiet is how long nothing was written when a single change is not let wait for others.
	quiet      = 2 * time.Millisecond
	aliveEvery = 5 * time.Second
	// pairAliveEvery is the same, if others may become active. Who has not written for
	// quietFor when it ends may have told users what it did not write: nobody is called for
	// what cannot be written before holdFor, counted from what was written last.
	pairAliveEvery = time.Second
	quietFor       = 2500 * time.Millisecond
	holdFor        = 3 * time.Second
	retrySoon      = 200 * time.Millisecond
	// maxBatch and maxBatchBytes bound a transaction.
	maxBatch      = 1000
	maxBatchBytes = 4 << 20

	checkpointEvery = time.Second
	forgetEvery     = time.Hour

	// maxGone bounds what is kept of users who are not connected if there is no file, in
	// bytes; it is looked at each shrinkEvery.
	maxGone     = 64 << 20
	shrinkEvery = 10 * time.Second
)

// errHeld says that something could not be written, and that nobody was called.
var errHeld = errors.New("not written yet")

// put lets a change wait, and done after it; each may be nil. If nothing was written for a
// moment, who waits is served here and now: two switches of goroutines would take longer than
// the commit.
func (s *Store) put(c *change, done func()) {
	switch first, ok := s.queue.put(c, done); {
	case done != nil && ok && !s.remote && s.writing.TryLock():
		if !s.failing && time.Since(s.flushed) > quiet {
			s.flushOnce()
		}
		failing := s.failing
		s.writing.Unlock()
		if failing || s.queue.waits() {
			wake(s.soon)
		}
	case done != nil && ok:
		wake(s.soon)
	case done != nil:
		go done() // it is too late: nothing is written any more
	case first:
		wake(s.later)
	}
}

// wake wakes who listens, if they do not know yet.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// alive is that the process is: see withAlive.
func alive() *change { return &change{id: id{meta, keyAlive}, value: ""} }

// write writes what waits, until ctx ends.
func (s *Store) write(ctx context.Context) {
	every := aliveEvery
	if s.remote {
		every = pairAliveEvery
	}
	beat := time.NewTicker(every)
	defer beat.Stop()
	var due <-chan time.Time // nil: nothing waits
	for {
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
			s.put(alive(), nil)
			continue
		case <-s.later:
			if due == nil {
				due = time.After(writeAfter)
			}
			continue
		case <-s.soon:
			s.writing.Lock()
			failing, fenced := s.failing, s.fenced && !s.given.Load()
			s.writing.Unlock()
			if fenced {
				continue
			}
			if failing {
				s.queue.release() // the next try is due soon
				if due == nil {
					due = time.After(retryAfter)
				}
				continue
			}
		case <-due:
		}
		due = nil
		switch err := s.flush(); {
		case errors.Is(err, errHeld):
			due = time.After(retrySoon)
		case err != nil:
			due = time.After(retryAfter)
		}
	}
}

// flush writes all that waits.
func (s *Store) flush() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	for {
		if n, err := s.flushOnce(); n == 0 || err != nil {
			return err
		}
	}
}

// flushOnce writes some of what waits, and says how much. s.writing is held.
func (s *Store) flushOnce() (n int, err error) {
	batch := s.queue.take()
	if len(batch) > 0 {
		if s.given.Load() {
			s.failing = true
			s.queue.failed(batch)
			return 0, ErrSuperseded
		}
		changes, lived := s.withAlive(batch)
		if err = s.db.commit(changes); errors.Is(err, ErrSuperseded) {
			// Nobody is called: what they wait to tell is not ours to tell any more.
			s.failing, s.fenced = true, true
			s.queue.again(batch)
			s.superseded()
			return 0, err
		}
		if err == nil {
			s.reached, s.lived = time.Now(), lived
		} else if s.remote && time.Since(s.reached) < holdFor {
			s.trouble.set(whatChanges, err)
			s.queue.again(batch)
			return 0, errHeld
		}
		s.failing, s.flushed = err != nil, time.Now()
		s.trouble.set(whatChanges, err)
		if err != nil {
			s.queue.failed(batch)
			return 0, err
		}
		if s.inFile && (len(batch) > 1 || batch[0].key != keyAlive) { // to be alive wakes no disk
			s.written.Store(true)
		}
	}
	s.queue.written(batch)
	return len(batch), nil
}

// withAlive is a batch with a sign of life behind all, unless the database has one of a moment
// ago, and when that is of: no stamp there is more than aliveWithin later. s.writing is held.
func (s *Store) withAlive(batch []*change) (changes []*change, lived time.Time) {
	now := s.Now()
	if now.Sub(s.lived) < aliveWithin && !slices.ContainsFunc(batch, func(c *change) bool { return c.key == keyAlive }) {
		return batch, s.lived
	}
	return append(slices.Clip(batch), &change{id: id{meta, keyAlive}, value: text(now)}), now
}

// tend checkpoints the database, and forgets who is gone for good, until ctx ends.
func (s *Store) tend(ctx context.Context) {
	checkpoint := time.NewTicker(checkpointEvery)
	defer checkpoint.Stop()
	limit, every := math.MaxInt, forgetEvery
	if !s.inFile {
		limit, every = maxGone, shrinkEvery
	}
	forget := time.NewTicker(every)
	defer forget.Stop()
	s.forget(limit)
	for {
		select {
		case <-ctx.Done():
			return
		case <-checkpoint.C:
			if s.written.Swap(false) {
				err := s.db.checkpoint(false)
				s.trouble.set(whatCheckpoint, err)
				if err != nil {
					s.written.Store(true) // it is tried again
				}
			}
		case <-forget.C:
			s.forget(limit)
		}
	}
}

// forget deletes what is kept of users who are gone for good, see [Options], and of
// those gone longest, if their rosters are more than limit bytes.
func (s *Store) forget(limit int) {
	var before time.Time
	if s.options.ForgetAfter > 0 {
		before = s.Now().Add(-s.options.ForgetAfter)
	} else if limit == math.MaxInt {
		return
	}
	gone, err := s.db.gone(before, limit)
	if err != nil {
		s.options.Logger.Error("users who are gone for good cannot be forgotten", "err", err)
		return
	}
	for _, user := range gone {
		if c, _ := s.queue.look(id{users, user}); c == nil {
			s.DeleteUser(user)
			s.Unmark(user)
		}
	}
}
