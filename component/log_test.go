package component

import (
	"fmt"
	"testing"
	"time"

	"rosterd/internal/bubble"
)

func TestLogLimiter(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newLogLimiter(time.Minute, 2)
		expect := func(what string, wantSilent int, want bool) {
			t.Helper()
			if silent, now := c.allow(what); now != want || silent != wantSilent {
				t.Errorf("%s: %v, %d silent", what, now, silent)
			}
		}
		expect("a", 0, true)
		expect("a", 0, false)
		expect("b", 0, true)
		expect("a", 0, false)
		expect("c", 0, false) // one too many
		time.Sleep(time.Minute)
		expect("a", 2, true)
		expect("a", 0, false)
		c.reset()
		expect("c", 0, true)
	})
	once := newLogLimiter(0, 2)
	for i := range 3 {
		if _, now := once.allow("a"); now != (i == 0) {
			t.Errorf("time %d: %v", i, now)
		}
	}
	for i := range 100 {
		once.allow(fmt.Sprint(i))
	}
	if len(once.causes) != 2 {
		t.Errorf("%d causes kept", len(once.causes))
	}
}
