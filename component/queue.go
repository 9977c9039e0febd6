package component

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

var errStreamClosed = errors.New("the stream is closed")

// queue is what waits to be written to the stream, in order. Any number of
// goroutines may put; one goroutine writes. It is bounded in bytes.
type queue struct {
	max     int           // bytes that put lets wait
	reserve int           // bytes beyond max, for offer
	more    chan struct{} // 1: something waits to be written, or the queue was closed

	mu     sync.Mutex
	frames net.Buffers
	size   int
	room   chan struct{} // closed when something was written; nil: nobody waits
	closed bool          // nothing more is taken
}

func newQueue(max, reserve int) *queue {
	return &queue{max: max, reserve: reserve, more: make(chan struct{}, 1)}
}

// put queues a stanza, which it takes over. It blocks while the queue is full,
// and fails when the queue is closed.
func (q *queue) put(data []byte) error {
	for {
		q.mu.Lock()
		if q.closed {
			q.mu.Unlock()
			return errStreamClosed
		}
		if q.size < q.max {
			q.add(data)
			q.mu.Unlock()
			return nil
		}
		if q.room == nil {
			q.room = make(chan struct{})
		}
		room := q.room
		q.mu.Unlock()
		<-room // the writer has a deadline: it writes, or closes the queue
	}
}

// offer queues a stanza if that is possible at once. It is for the goroutine
// that reads: the reserve is its own.
func (q *queue) offer(data []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.size >= q.max+q.reserve {
		return false
	}
	q.add(data)
	return true
}

func (q *queue) add(data []byte) {
	q.frames = append(q.frames, data)
	q.size += len(data)
	signal(q.more)
}

// close ends the queue: what waits is still written.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.wake()
	signal(q.more)
}

// wake lets those look again who wait for room. q.mu is held.
func (q *queue) wake() {
	if q.room != nil {
		close(q.room)
		q.room = nil
	}
}

// run writes to conn until the queue is closed and empty, which is no error,
// or ctx ends, or a write fails or takes longer than timeout. Stanzas that are
// ready together are written together.
func (q *queue) run(ctx context.Context, conn net.Conn, timeout time.Duration) error {
	defer q.close()
	for {
		select {
		case <-q.more:
		case <-ctx.Done():
			return ctx.Err()
		}
		for {
			frames, closed := q.take()
			if len(frames) == 0 {
				if closed {
					return nil
				}
				break
			}
			if err := conn.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
				return err
			}
			if _, err := frames.WriteTo(conn); err != nil {
				return err
			}
		}
	}
}

// take removes up to 64 stanzas, so that the deadline of a write is for a
// bounded piece.
func (q *queue) take() (frames net.Buffers, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(len(q.frames), 64)
	frames = q.frames[:n:n]
	q.frames = q.frames[n:]
	for _, f := range frames {
		q.size -= len(f)
	}
	if n > 0 {
		q.wake()
	}
	return frames, q.closed
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
