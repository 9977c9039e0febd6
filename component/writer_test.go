package component

import (
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"rosterd/internal/bubble"
)

// A server that reads hardly anything holds nobody up for good, and what waits
// has an end.
func TestWriterGivesUp(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		q := newWriter(100, 50, time.Minute)
		if err := q.put(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		results := make(chan error, 3)
		began := time.Now()
		for range 2 {
			go func() { results <- q.put(make([]byte, 10)) }()
			time.Sleep(time.Second)
		}
		if err := <-results; !errors.Is(err, errQueueFull) || time.Since(began) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		q.take() // there is room just in time
		if err := <-results; err != nil {
			t.Error(err)
		}
		if q.normal.held != 0 || len(q.normal.waiting) != 0 || q.size != 10 {
			t.Errorf("%d held, %d wait, %d queued", q.normal.held, len(q.normal.waiting), q.size)
		}
		go func() { results <- q.put(make([]byte, 100)) }()
		synctest.Wait()
		go func() { results <- q.put(make([]byte, 100)) }()
		synctest.Wait()
		q.close()
		for range 2 {
			if err := <-results; err != nil && !errors.Is(err, errStreamClosed) {
				t.Error(err)
			}
		}
		if q.normal.held != 0 {
			t.Errorf("%d held", q.normal.held)
		}
	})
}

func TestWriterHoldsNoMore(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		q := newWriter(10, 0, time.Minute)
		long := make([]byte, maxHeld/2)
		if err := q.put(long); err != nil {
			t.Fatal(err)
		}
		results := make(chan error, 3)
		for range 3 {
			go func() { results <- q.put(long) }()
			synctest.Wait()
		}
		if err := <-results; !errors.Is(err, errQueueFull) {
			t.Errorf("got %v", err)
		}
		q.close()
		for range 2 {
			if err := <-results; !errors.Is(err, errStreamClosed) {
				t.Errorf("got %v", err)
			}
		}
	})
}

// What is queued while the reader holds the queue is written together, when it
// releases it, or when it is much.
func TestWriterHolds(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		q := newWriter(1<<20, 0, 0)
		q.spare = &buffers{}
		done := make(chan error, 1)
		go func() { done <- q.run(t.Context(), near, time.Minute) }()
		got := make(chan int, 10)
		go func() {
			for b := make([]byte, 1<<20); ; {
				n, err := far.Read(b)
				if err != nil {
					return
				}
				got <- n
			}
		}()
		synctest.Wait()
		q.cork()
		for range 3 {
			q.offer(make([]byte, 10))
			synctest.Wait()
		}
		if len(got) != 0 {
			t.Error("written while it was held")
		}
		q.uncork()
		synctest.Wait()
		q.cork()
		q.offer(make([]byte, 10))
		q.offer(make([]byte, maxCorked))
		synctest.Wait()
		total := 0
		for len(got) > 0 {
			total += <-got
		}
		if total != 40+maxCorked {
			t.Errorf("%d bytes were written", total)
		}
		q.offer(make([]byte, 10))
		q.close()
		if err := <-done; err != nil || <-got != 10 {
			t.Errorf("%v, or not written at the end", err)
		}
		near.Close()
		far.Close()
	})
}

func TestBuffers(t *testing.T) {
	var b buffers
	for _, n := range []int{0, 1, minBuffer, minBuffer + 1, maxBuffer, maxBuffer + 1, 1 << 20} {
		for range 3 {
			data := b.get(n)
			if len(data) != 0 || cap(data) < n {
				t.Errorf("%d of %d for %d", len(data), cap(data), n)
			}
			b.put(append(data, 'x'))
		}
	}
}
