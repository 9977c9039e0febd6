package store

import (
	"math"
	"sync"
	"time"
)

// id names what is kept: a key in a table.
type id struct {
	table *table
	key   string
}

// change is what is to be written of a key. But for taken, it is never modified
// once it is in the queue.
type change struct {
	id
	value  any       // a User, Resource or mark, or a text in meta; nil: it is deleted
	roster bool      // that of the User is written, too
	at     time.Time // when it was put
	taken  bool      // it is being written
}

// queue is what waits to be written, in the order in which it was put. Of a key
// that is put again, the last change waits in the place of the first. It is safe for
// concurrent use.
type queue struct {
	clock *Clock

	mu      sync.Mutex // guards all below
	closed  bool
	changes map[id]*change // the last of each key that is not written
	order   []id           // of those that wait
	taken   int            // how often a key has been taken out of order
	dones   []done         // by after
}

// done is called when as many keys have been taken, and are written.
type done struct {
	after int
	call  func()
}

// put lets c, which may be nil, wait, and done, which may be nil, after it. It reports
// whether nothing waited before. If the queue is closed, ok is false.
func (q *queue) put(c *change, call func()) (first, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false, false
	}
	first = len(q.order) == 0
	if c != nil {
		c.at = q.clock.Now()
		before := q.changes[c.id]
		if before == nil || before.taken {
			q.order = append(q.order, c.id)
		}
		if before != nil {
			c.follow(before)
		}
		q.changes[c.id] = c
	}
	if call != nil {
		q.dones = append(q.dones, done{q.taken + len(q.order), call})
	}
	return first, true
}

// follow takes over what a change of the same key, put before, says and c does not.
func (c *change) follow(before *change) {
	switch value := c.value.(type) {
	case User:
		if was, is := before.value.(User); is && !c.roster {
			value.Roster, c.roster = was.Roster, before.roster
			c.value = value
		}
		c.roster = c.roster || before.value == nil // theirs was to be deleted
	case mark:
		was, is := before.value.(mark)
		if is {
			value.since = was.since
		}
		value.anew = !is || was.anew
		c.value = value
	}
}

// waits reports whether somebody waits to be called.
func (q *queue) waits() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.dones) > 0
}

// take takes some changes out of the order, the first ones: so many that one
// transaction is neither too large nor takes long.
func (q *queue) take() (batch []*change) {
	q.mu.Lock()
	defer q.mu.Unlock()
	size := 0
	for len(batch) < len(q.order) && len(batch) < maxBatch && size < maxBatchBytes {
		c := q.changes[q.order[len(batch)]]
		c.taken = true
		switch v := c.value.(type) {
		case User:
			size += len(v.Roster)
		case ServerRoster:
			size += len(v.Roster)
		}
		batch = append(batch, c)
	}
	q.order = q.order[len(batch):]
	q.taken += len(batch)
	if len(q.order) == 0 {
		q.order = nil // so that its memory is freed
	}
	return batch
}

// written says that a batch is, and calls those who waited for it.
func (q *queue) written(batch []*change) {
	q.mu.Lock()
	for _, c := range batch {
		if q.changes[c.id] == c {
			delete(q.changes, c.id)
		}
	}
	taken := q.taken
	q.mu.Unlock()
	q.call(taken)
}

// failed lets a batch wait again, and calls all who wait.
func (q *queue) failed(batch []*change) {
	q.again(batch)
	q.release()
}

// again lets a batch wait again, before all others, but for what was put again meanwhile.
func (q *queue) again(batch []*change) {
	q.mu.Lock()
	var order []id
	for _, c := range batch {
		if c.taken = false; q.changes[c.id] == c {
			order = append(order, c.id)
		}
	}
	q.order = append(order, q.order...)
	q.taken -= len(batch)
	q.mu.Unlock()
}

// release calls all who wait.
func (q *queue) release() { q.call(math.MaxInt) }

// call calls those who wait until so many keys have been taken.
func (q *queue) call(taken int) {
	q.mu.Lock()
	n := 0
	for n < len(q.dones) && q.dones[n].after <= taken {
		n++
	}
	called := q.dones[:n:n]
	q.dones = q.dones[n:]
	q.mu.Unlock()
	for _, d := range called {
		d.call()
	}
}

// look returns the last change of a key that is in memory, or nil.
func (q *queue) look(i id) (*change, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil, ErrClosed
	}
	return q.changes[i], nil
}

// all are the keys of a table of which something is in memory, with their values.
func (q *queue) all(t *table) (map[string]any, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil, ErrClosed
	}
	all := make(map[string]any)
	for i, c := range q.changes {
		if i.table == t {
			all[i.key] = c.value
		}
	}
	return all, nil
}

// close makes the methods refuse.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
}
