package store

import (
	"context"
	"slices"
	"time"
)

const (
	// writeAfter is how long a change waits for others, if nobody waits for it. What it
	// lacks to the second that is promised is for the writing.
	writeAfter = 700 * time.Millisecond
	retryAfter = time.Second
	aliveEvery = 5 * time.Second
	// maxBatch and maxBatchBytes bound a transaction.
	maxBatch      = 1000
	maxBatchBytes = 4 << 20

	checkpointEvery = time.Second
	forgetEvery     = time.Hour
	// maxGone bounds what is kept in memory of users who are not connected, in bytes,
	// if there is no file.
	maxGone = 64 << 20
)

// put lets a change wait, and done after it; each may be nil.
func (s *Store) put(c *change, done func()) {
	switch {
	case !s.queue.put(c, done):
		if done != nil {
			go done() // it is too late: nothing is written any more
		}
	case done != nil:
		wake(s.soon)
	default:
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

// alive is that the process is.
func alive() *change { return &change{id: id{meta, keyAlive}, value: text(time.Now())} }

// write writes what waits, until ctx ends.
func (s *Store) write(ctx context.Context) {
	beat := time.NewTicker(aliveEvery)
	defer beat.Stop()
	var due <-chan time.Time // nil: nothing waits
	for {
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
			if s.db != nil {
				s.put(alive(), nil)
			}
			continue
		case <-s.later:
			if due == nil {
				due = time.After(writeAfter)
			}
			continue
		case <-s.soon:
			if s.trouble.err() != nil {
				s.queue.release() // the next try comes in its time
				continue
			}
		case <-due:
		}
		due = nil
		if s.flush() != nil {
			due = time.After(retryAfter)
		}
	}
}

// flush writes all that waits. It is for one goroutine at a time.
func (s *Store) flush() error {
	for {
		batch := s.queue.take()
		if s.db != nil && len(batch) > 0 {
			err := s.db.commit(batch)
			s.trouble.set(whatChanges, err)
			if err != nil {
				s.queue.failed(batch)
				return err
			}
			if len(batch) > 1 || batch[0].table != meta {
				s.written.Store(true)
			}
		}
		s.queue.written(batch)
		if len(batch) == 0 {
			return nil
		}
	}
}

// tend checkpoints the database, and forgets who is gone for good, until ctx ends.
func (s *Store) tend(ctx context.Context) {
	checkpoint := time.NewTicker(checkpointEvery)
	defer checkpoint.Stop()
	forget := time.NewTicker(forgetEvery)
	defer forget.Stop()
	s.forget()
	kept := 0 // bytes that could not be forgotten
	for {
		select {
		case <-ctx.Done():
			return
		case <-checkpoint.C:
			if s.db == nil {
				kept = s.shrink(kept, maxGone)
			} else if s.written.Swap(false) {
				err := s.db.checkpoint(false)
				s.trouble.set(whatCheckpoint, err)
				if err != nil {
					s.written.Store(true) // it is tried again
				}
			}
		case <-forget.C:
			s.forget()
		}
	}
}

// forget deletes what is kept of users who were seen last too long ago.
func (s *Store) forget() {
	if s.options.ForgetAfter == 0 {
		return
	}
	before := time.Now().Add(-s.options.ForgetAfter)
	if s.db == nil {
		for _, c := range s.queue.gone() {
			if c.at.Before(before) {
				s.forgetUser(c.key)
			}
		}
		return
	}
	unseen, err := s.db.unseen(before)
	if err != nil {
		s.options.Logger.Error("users who are gone for good cannot be forgotten", "err", err)
		return
	}
	for _, user := range unseen {
		if c, err := s.queue.look(id{users, user}); c == nil && err == nil {
			s.forgetUser(user)
		}
	}
}

func (s *Store) forgetUser(user string) {
	s.DeleteUser(user)
	s.Unmark(user)
}

// shrink forgets users who are not connected, the longest gone first, if what they
// take in memory may be more than limit, in bytes: then they take less afterwards.
// kept is what it returned before, what the others took.
func (s *Store) shrink(kept, limit int) int {
	if s.queue.bytes() <= kept+limit {
		return kept
	}
	size := 0
	gone := s.queue.gone()
	for _, c := range gone {
		size += c.size()
	}
	kept = s.queue.bytes() - size
	slices.SortFunc(gone, func(a, b *change) int { return a.at.Compare(b.at) })
	for _, c := range gone {
		if size <= limit {
			break
		}
		size -= c.size()
		s.forgetUser(c.key)
	}
	return kept
}
