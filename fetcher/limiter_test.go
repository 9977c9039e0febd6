package fetcher

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

// queue starts a goroutine for each of n waiters, in this order, and returns
// where those who got in say so.
func queue(ctx context.Context, t *testing.T, l *limiter, n int) <-chan int {
	in := make(chan int, n)
	for i := range n {
		go func() {
			if err := l.acquire(ctx); err == nil {
				in <- i
			}
		}()
		synctest.Wait()
	}
	return in
}

func TestLimiterServesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(2)
		in := queue(t.Context(), t, l, 5)
		for i := range 5 {
			synctest.Wait()
			if want := min(2, 5-i); len(in) != want || l.held != want {
				t.Fatalf("%d got in and %d hold slots, want %d", len(in), l.held, want)
			}
			if got := <-in; got != i {
				t.Fatalf("number %d got in, want %d", got, i)
			}
			l.release()
		}
		if l.held != 0 || l.waiting.Len() != 0 {
			t.Errorf("%d held, %d waiting at the end", l.held, l.waiting.Len())
		}
	})
}

func TestLimiterWaiterGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(1)
		if err := l.acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		in := queue(ctx, t, l, 3)
		cancel()
		synctest.Wait()
		l.release()
		if err := l.acquire(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("a context that had ended got %v", err)
		}
		if len(in) != 0 || l.held != 0 || l.waiting.Len() != 0 {
			t.Errorf("%d got in, %d held, %d waiting", len(in), l.held, l.waiting.Len())
		}
	})
}

// A slot that comes while its waiter gives up is not lost.
func TestLimiterSlotAndEndAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(1)
		for i := range 200 {
			if err := l.acquire(t.Context()); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			in := queue(ctx, t, l, 1)
			if i%2 == 0 {
				cancel()
				l.release()
			} else {
				l.release()
				cancel()
			}
			synctest.Wait()
			if len(in) == 1 {
				l.release()
			}
			if l.held != 0 || l.waiting.Len() != 0 {
				t.Fatalf("%d held, %d waiting", l.held, l.waiting.Len())
			}
		}
	})
}

func TestLimiterSetLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(1)
		in := queue(t.Context(), t, l, 6)
		expect := func(n int) {
			t.Helper()
			synctest.Wait()
			if len(in) != n {
				t.Fatalf("%d got in, want %d", len(in), n)
			}
		}
		expect(1)
		l.setLimit(3)
		expect(3)
		l.setLimit(1)
		l.release()
		l.release()
		expect(3)
		l.release()
		expect(4)
		l.setLimit(10)
		expect(6)
	})
}
