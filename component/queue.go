package component

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"rosterd/xmlstream"
)

var (
	errStreamClosed = errors.New("the stream is closed")
	errQueueFull    = errors.New("the queue to the server is full")
)

// queue is what waits to be written to the stream, in order. Any number of
// goroutines may put; one goroutine writes. It is bounded in bytes: who puts
// while it is full waits for his turn, first come, first served, for a while. Those
// who wait are bounded in bytes, too.
type queue struct {
	max     int           // bytes that put lets wait
	reserve int           // bytes beyond max, for offer
	wait    time.Duration // how long put waits for room; 0: until the queue is closed
	more    chan struct{} // 1: something waits to be written, or the queue was closed
	spare   *buffers      // takes what has been written; nil: nobody does

	mu      sync.Mutex
	frames  []frame
	size    int
	waiting []*turn // those who wait for room
	held    int     // bytes of those
	low     []*turn // those who wait until there is little else
	closed  bool    // nothing more is taken
	holding bool    // see hold
}

// frame is a stanza that waits to be written. lost, if not nil, is called if it
// was not written.
type frame struct {
	data []byte
	lost func()
}

// turn is a frame that waits for room.
type turn struct {
	frame
	done chan error // receives once
}

func newQueue(max, reserve int) *queue {
	return &queue{max: max, reserve: reserve, more: make(chan struct{}, 1)}
}

// giveUp sets how long put waits for room. It is called first, or not at all.
func (q *queue) giveUp(after time.Duration) *queue {
	q.wait = after
	return q
}

// put queues a stanza, which it takes over. It blocks while the queue is full, and
// fails when that takes too long, or when the queue is closed. lost may be nil; it
// is called once, by the writer, if put did not fail and the stanza was not written
// after all.
func (q *queue) put(data []byte, lost func()) error {
	q.mu.Lock()
	switch {
	case q.closed:
		q.mu.Unlock()
		return errStreamClosed
	case q.size < q.max && len(q.waiting) == 0:
		q.add(frame{data, lost})
		q.mu.Unlock()
		return nil
	}
	if q.held > 0 && q.held+len(data) > maxHeld {
		q.mu.Unlock()
		return errQueueFull
	}
	t := &turn{frame{data, lost}, make(chan error, 1)}
	q.waiting = append(q.waiting, t)
	q.held += len(data)
	q.mu.Unlock()
	return q.turn(t)
}

// maxHeld is how many bytes those who wait for room have together, at most.
const maxHeld = 64 << 20

// turn waits for a turn, for a while: the writer has a deadline, but a server
// that reads a little now and then may keep it.
func (q *queue) turn(t *turn) error {
	if q.wait == 0 {
		return <-t.done
	}
	timer := time.NewTimer(q.wait)
	defer timer.Stop()
	select {
	case err := <-t.done:
		return err
	case <-timer.C:
	}
	q.mu.Lock()
	i := slices.Index(q.waiting, t)
	if i >= 0 {
		q.held -= len(t.data)
		q.waiting = slices.Delete(q.waiting, i, i+1)
	}
	q.mu.Unlock()
	if i >= 0 {
		return errQueueFull
	}
	return <-t.done // it had its turn at the last moment
}

// putLow is put for what is many and can wait: it leaves the queue short, so
// that nothing else waits long behind it.
func (q *queue) putLow(data []byte) error {
	q.mu.Lock()
	switch {
	case q.closed:
		q.mu.Unlock()
		return errStreamClosed
	case q.size < maxWrite && len(q.low) == 0:
		q.add(frame{data: data})
		q.mu.Unlock()
		return nil
	}
	t := &turn{frame{data: data}, make(chan error, 1)}
	q.low = append(q.low, t)
	q.mu.Unlock()
	return <-t.done
}

// offer queues a stanza if that is possible at once. It is for the goroutine
// that reads: the reserve is its own.
func (q *queue) offer(data []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.size >= q.max+q.reserve {
		return false
	}
	q.add(frame{data: data})
	return true
}

// add queues a frame. q.mu is held.
func (q *queue) add(f frame) {
	q.frames = append(q.frames, f)
	q.size += len(f.data)
	if !q.holding || q.size >= heldBack {
		signal(q.more)
	}
}

// heldBack is how many bytes are held back at most.
const heldBack = 16 << 10

// hold lets what is queued wait for what will be in a moment, to be written
// together. Who called it calls release before it waits for anything; close ends
// the holding, too.
func (q *queue) hold() {
	q.mu.Lock()
	q.holding = true
	q.mu.Unlock()
}

// release ends hold. It may be called without.
func (q *queue) release() {
	q.mu.Lock()
	if q.holding = false; len(q.frames) > 0 {
		signal(q.more)
	}
	q.mu.Unlock()
}

// close ends the queue: what waits to be written still is.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for _, t := range slices.Concat(q.waiting, q.low) {
		t.done <- errStreamClosed
	}
	q.waiting, q.low, q.held = nil, nil, 0
	signal(q.more)
}

// run writes to conn until the queue is closed and empty, which is no error,
// or ctx ends, or a write fails or takes longer than timeout. Stanzas that are
// ready together are written together. It is called once; when it returns, the
// queue is closed.
func (q *queue) run(ctx context.Context, conn net.Conn, timeout time.Duration) error {
	err := q.write(ctx, conn, timeout)
	q.close()
	q.drop()
	return err
}

func (q *queue) write(ctx context.Context, conn net.Conn, timeout time.Duration) error {
	for {
		frames, closed := q.take()
		if len(frames) == 0 {
			if closed {
				return nil
			}
			select {
			case <-q.more:
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		err := conn.SetWriteDeadline(time.Now().Add(timeout))
		if err == nil {
			err = writeTogether(conn, frames)
		}
		if err != nil {
			lose(frames)
			return err
		}
		for i := range frames {
			q.spare.put(frames[i].data)
			frames[i] = frame{}
		}
	}
}

// writeTogether writes stanzas, each with its padding, with as few system calls,
// or records of TLS, as can be.
func writeTogether(conn net.Conn, frames []frame) error {
	buffers := make(net.Buffers, 0, len(frames))
	for _, f := range frames {
		buffers = xmlstream.AppendBlanks(append(buffers, f.data), xmlstream.Padding(f.data))
	}
	if _, ok := conn.(secured); ok && len(buffers) > 1 {
		buffers = net.Buffers{slices.Concat(buffers...)}
	}
	_, err := buffers.WriteTo(conn)
	return err
}

// maxWrite is how many bytes are written at once, so that the deadline is for a
// bounded piece: a stanza that is longer goes alone.
const maxWrite = 256 << 10

// take removes what is to be written next, and lets in those who wait for room.
func (q *queue) take() (frames []frame, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, size := 0, 0
	for n < len(q.frames) && (n == 0 || size+len(q.frames[n].data) <= maxWrite) {
		size += len(q.frames[n].data)
		n++
	}
	frames = q.frames[:n:n]
	q.frames = q.frames[n:]
	q.size -= size
	var admitted int
	q.waiting, admitted = q.admit(q.waiting, q.max)
	q.held -= admitted
	q.low, _ = q.admit(q.low, maxWrite)
	return frames, q.closed
}

// admit queues what waits, as long as less than max bytes are queued, and
// returns the rest, and how many bytes it has queued. q.mu is held.
func (q *queue) admit(waiting []*turn, max int) (rest []*turn, size int) {
	for len(waiting) > 0 && q.size < max {
		size += len(waiting[0].data)
		q.add(waiting[0].frame)
		waiting[0].done <- nil
		waiting[0] = nil
		waiting = waiting[1:]
	}
	return waiting, size
}

// drop loses what will not be written any more.
func (q *queue) drop() {
	q.mu.Lock()
	frames := q.frames
	q.frames, q.size = nil, 0
	q.mu.Unlock()
	lose(frames)
}

func lose(frames []frame) {
	for _, f := range frames {
		if f.lost != nil {
			f.lost()
		}
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
