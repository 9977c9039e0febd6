package component

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"rosterd/roster"
	"rosterd/xmlstream"
)

var (
	errStreamClosed = fmt.Errorf("%w: the stream has ended", roster.ErrNotConnected)
	errQueueFull    = errors.New("the server reads too slowly: the queue to it is full")
)

const (
	maxWrite  = 256 << 10 // bytes written at once, within the deadline; a longer stanza goes alone
	maxHeld   = 64 << 20  // bytes of those who wait for room
	maxCorked = 16 << 10  // bytes held back for what comes in a moment
)

// writer writes stanzas to the server, in the order in which they were queued. The
// queue is bounded in bytes. Any number of goroutines may queue; one calls run.
type writer struct {
	reserve int                             // bytes beyond what put queues, for offer
	more    chan struct{}                   // 1: something is to be written, or the queue was closed
	spare   *buffers                        // takes what was written; may be nil
	confirm func(ctx context.Context) error // see [Options.Confirm]; may be nil

	mu      sync.Mutex
	stanzas [][]byte
	size    int   // bytes of the stanzas
	normal  queue // of put
	low     queue // of putLow
	closed  bool  // nothing more is taken
	corked  bool
}

// queue is those who wait for room, first come, first served.
type queue struct {
	max     int           // bytes in the writer up to which there is room
	wait    time.Duration // how long to wait for room; 0: until the writer is closed
	held    int           // bytes of those who wait
	waiting []*waiter
}

type waiter struct {
	data []byte
	done chan error // receives once
}

// newWriter makes a writer with a queue of max bytes, and a reserve. Who waits for
// room gives up after wait, if that is not 0.
func newWriter(max, reserve int, wait time.Duration) *writer {
	return &writer{reserve: reserve, more: make(chan struct{}, 1), normal: queue{max: max, wait: wait}, low: queue{max: maxWrite}}
}

// put queues a stanza, which it takes over. It blocks while the queue is full. It fails
// with errQueueFull, if that takes too long or too much waits already, or errStreamClosed.
func (w *writer) put(data []byte) error { return w.putWithin(context.Background(), data) }

// putWithin is put that also fails when ctx ends.
func (w *writer) putWithin(ctx context.Context, data []byte) error {
	return w.enqueue(ctx, data, &w.normal)
}

// putLow is put for stanzas that are many and can wait. It leaves the queue short,
// so that nothing else waits long behind them.
func (w *writer) putLow(data []byte) error { return w.enqueue(context.Background(), data, &w.low) }

// offer is put for the goroutine that reads: it does not block, and has the
// reserve.
func (w *writer) offer(data []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.closed:
		return errStreamClosed
	case w.size >= w.normal.max+w.reserve:
		return errQueueFull
	}
	w.add(data)
	return nil
}

func (w *writer) enqueue(ctx context.Context, data []byte, q *queue) error {
	w.mu.Lock()
	switch {
	case w.closed:
		w.mu.Unlock()
		return errStreamClosed
	case w.size < q.max && len(q.waiting) == 0:
		w.add(data)
		w.mu.Unlock()
		return nil
	case q.held > 0 && q.held+len(data) > maxHeld:
		w.mu.Unlock()
		return errQueueFull
	}
	me := &waiter{data, make(chan error, 1)}
	q.waiting = append(q.waiting, me)
	q.held += len(data)
	w.mu.Unlock()
	var timeout <-chan time.Time // a server that reads a little now and then keeps the writer's deadline
	if q.wait > 0 {
		timeout = time.After(q.wait)
	}
	why := errQueueFull
	select {
	case err := <-me.done:
		return err
	case <-timeout:
	case <-ctx.Done():
		why = ctx.Err()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if i := slices.Index(q.waiting, me); i >= 0 {
		q.held -= len(data)
		q.waiting = slices.Delete(q.waiting, i, i+1)
		return why
	}
	return <-me.done // there was room at the last moment
}

// add queues a stanza. w.mu is held.
func (w *writer) add(data []byte) {
	w.stanzas = append(w.stanzas, data)
	w.size += len(data)
	if !w.corked || w.size >= maxCorked {
		w.wake()
	}
}

// admit queues those who wait, while there is room. w.mu is held.
func (w *writer) admit(q *queue) {
	for len(q.waiting) > 0 && w.size < q.max {
		first := q.waiting[0]
		q.waiting[0] = nil
		q.waiting = q.waiting[1:]
		q.held -= len(first.data)
		w.add(first.data)
		first.done <- nil
	}
}

// cork lets what is queued wait for what follows in a moment, to be written with it.
// Its caller calls uncork before they wait for anything.
func (w *writer) cork() {
	w.mu.Lock()
	w.corked = true
	w.mu.Unlock()
}

// uncork ends cork. It may be called without.
func (w *writer) uncork() {
	w.mu.Lock()
	if w.corked = false; len(w.stanzas) > 0 {
		w.wake()
	}
	w.mu.Unlock()
}

// close ends the queue. What is queued is still written.
func (w *writer) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for _, q := range []*queue{&w.normal, &w.low} {
		for _, waiter := range q.waiting {
			waiter.done <- errStreamClosed
		}
		q.waiting, q.held = nil, 0
	}
	w.wake()
}

func (w *writer) wake() {
	select {
	case w.more <- struct{}{}:
	default:
	}
}

// run writes to conn until the queue is closed and empty, ctx ends, nothing may be written any
// more, or a write fails or takes longer than timeout. It is called once; when it returns, the queue is closed.
func (w *writer) run(ctx context.Context, conn net.Conn, timeout time.Duration) error {
	defer w.close()
	for {
		stanzas, closed := w.take()
		if len(stanzas) == 0 {
			if closed {
				return nil
			}
			select {
			case <-w.more:
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		if w.confirm != nil {
			if err := w.confirm(ctx); err != nil {
				return err
			}
		}
		if err := conn.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
			return err
		}
		if err := writeTogether(conn, stanzas); err != nil {
			return err
		}
		for i := range stanzas {
			w.spare.put(stanzas[i])
			stanzas[i] = nil
		}
	}
}

// take removes what is to be written next, and admits those who wait for room.
func (w *writer) take() (stanzas [][]byte, closed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, size := 0, 0
	for n < len(w.stanzas) && (n == 0 || size+len(w.stanzas[n]) <= maxWrite) {
		size += len(w.stanzas[n])
		n++
	}
	stanzas = w.stanzas[:n:n]
	w.stanzas = w.stanzas[n:]
	w.size -= size
	w.admit(&w.normal)
	w.admit(&w.low)
	return stanzas, w.closed
}

// writeTogether writes stanzas, each with its padding, with as few system calls, or
// records of TLS, as possible.
func writeTogether(conn net.Conn, stanzas [][]byte) error {
	pieces := make(net.Buffers, 0, len(stanzas))
	for _, stanza := range stanzas {
		pieces = xmlstream.AppendBlanks(append(pieces, stanza), xmlstream.Padding(stanza))
	}
	if _, ok := conn.(secured); ok && len(pieces) > 1 {
		pieces = net.Buffers{slices.Concat(pieces...)}
	}
	_, err := pieces.WriteTo(conn)
	return err
}

// buffers is memory for answers, which is used again when they were written. It is safe
// for concurrent use.
type buffers struct{ pool sync.Pool } // of *[]byte

// Shorter and longer buffers are not kept, in bytes.
const (
	minBuffer = 4 << 10
	maxBuffer = 64 << 10
)

// get returns an empty buffer with room for n bytes.
func (b *buffers) get(n int) []byte {
	if minBuffer <= n && n <= maxBuffer {
		if kept, _ := b.pool.Get().(*[]byte); kept != nil && cap(*kept) >= n {
			return (*kept)[:0]
		}
		n = (n + minBuffer - 1) &^ (minBuffer - 1) // for one that is a little longer, too
	}
	return make([]byte, 0, n)
}

// put takes a buffer back, which nobody may use any more.
func (b *buffers) put(data []byte) {
	if b != nil && minBuffer <= cap(data) && cap(data) <= maxBuffer {
		b.pool.Put(&data)
	}
}
