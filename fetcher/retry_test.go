package fetcher

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"rosterd/internal/bubble"
)

func TestRetry(t *testing.T) {
	for name, test := range map[string]struct {
		first, second int
		asked         int
		result        string
	}{
		"refused, then good":    {refuse, 200, 2, resultOK},
		"500, then good":        {500, 200, 2, resultOK},
		"503, then good":        {503, 200, 2, resultOK},
		"500, then 404":         {500, 404, 2, resultStatus},
		"refused twice":         {refuse, refuse, 2, resultRefused},
		"502, then refused":     {502, refuse, 2, resultRefused},
		"502, then no answer":   {502, hang, 2, resultTimeout},
		"good":                  {200, 500, 1, resultOK},
		"404":                   {404, 200, 1, resultStatus},
		"429":                   {429, 200, 1, resultStatus},
		"hung up":               {hangUp, 200, 1, resultReset},
		"not JSON":              {garbage, 200, 1, resultInvalid},
		"no answer within time": {hang, 200, 1, resultTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				for _, retry := range []bool{true, false} {
					s, b := newFake(t, func(n int) int { return []int{test.first, test.second, 200}[n-1] })
					ctx, began := t.Context(), time.Now()
					if !retry {
						b.result(ctx, juliet)
						if s.count() != 1 {
							t.Errorf("%d requests without a wish for more", s.count())
						}
						continue
					}
					if got := b.result(inHurry(ctx), juliet); got != test.result || s.count() != test.asked {
						t.Errorf("comes to %s after %d requests, want %s after %d", got, s.count(), test.result, test.asked)
					}
					if b.fetches(test.result) != 1 || b.observed.Load() != 1 {
						t.Errorf("metrics: %s", b.exposed(t))
					}
					if took := time.Since(began); took > patience {
						t.Errorf("took %v, the timeout is %v", took, patience)
					}
					if test.asked == 2 {
						if pause := s.pause(); pause < retryPause || pause > 3*retryPause {
							t.Errorf("asked again after %v", pause)
						}
					}
				}
			})
		})
	}
}

// Without time for another answer, the first one counts.
func TestRetryWithinTheTime(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s, b := newFake(t, always(hang))
		time.AfterFunc(patience-retryPause, func() { s.release <- 500 })
		if got := b.result(inHurry(t.Context()), juliet); got != resultStatus || s.count() != 1 {
			t.Errorf("comes to %s after %d requests", got, s.count())
		}

		s, b = newFake(t, always(refuse))
		ctx, cancel := context.WithTimeout(inHurry(t.Context()), retryPause)
		defer cancel()
		began := time.Now()
		if got := b.result(ctx, juliet); got != resultRefused || s.count() != 1 || time.Since(began) != 0 {
			t.Errorf("comes to %s after %d requests and %v", got, s.count(), time.Since(began))
		}

		s, b = newFake(t, always(refuse))
		ctx, cancel = context.WithCancel(inHurry(t.Context()))
		time.AfterFunc(retryPause/2, cancel)
		if b.result(ctx, juliet); s.count() != 1 || time.Since(began) != retryPause/2 {
			t.Errorf("%d requests, %v after the caller has lost interest", s.count(), time.Since(began)-retryPause/2)
		}
	})
}

// A fetch counts once for the circuit, and asks once when that may close.
func TestRetryAndCircuit(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s, b := newFake(t, always(refuse))
		for i := range tripFetches - 1 {
			b.result(inHurry(t.Context()), numbered(i))
		}
		if b.open() != 0 || s.count() != 2*(tripFetches-1) {
			t.Fatalf("%v open after %d requests", b.open(), s.count())
		}
		b.result(inHurry(t.Context()), juliet)
		if b.open() != 1 {
			t.Fatal("not open")
		}
		asked := s.count()
		if got := b.result(inHurry(t.Context()), juliet); got != resultOpen {
			t.Errorf("comes to %s", got)
		}
		time.Sleep(openTime + time.Second)
		if s.count() != asked+1 {
			t.Errorf("%d requests by one probe", s.count()-asked)
		}
	})
	bubble.Test(t, func(t *testing.T) { // it opens during the pause
		s, b := newFake(t, always(refuse))
		done := make(chan string)
		go func() { done <- b.result(inHurry(t.Context()), juliet) }()
		synctest.Wait()
		s.open(t, b)
		if got := <-done; got != resultRefused || s.count() != 1+tripFetches {
			t.Errorf("comes to %s after %d requests", got, s.count()-tripFetches)
		}
	})
}
