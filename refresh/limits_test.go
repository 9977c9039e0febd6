package refresh

import (
	"net/netip"
	"testing"
)

func TestCallerOf(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:5000":           "192.0.2.1",
		"[::ffff:192.0.2.1]:5000":  "192.0.2.1",
		"[2001:db8:1:2:3::4]:5000": "2001:db8:1:2::",
		"[fe80::1%eth0]:5000":      "fe80::",
		"[::1]:5000":               "::1",
		"@":                        "invalid IP",
		"":                         "invalid IP",
		"localhost:5000":           "invalid IP",
	} {
		if got := callerOf(remote).String(); got != want {
			t.Errorf("%q: %s, want %s", remote, got, want)
		}
	}
}

// However many some have taken, a new caller gets one, and all end up with
// the same number.
func TestSharesAreFair(t *testing.T) {
	const all = 100
	p := newShares(all)
	var releases [10][]func()
	fill := func(callers int) {
		for again := true; again; {
			again = false
			for i := range callers {
				if release, ok := p.take(caller(i)); ok {
					releases[i], again = append(releases[i], release), true
				}
			}
		}
	}
	for callers := 1; callers <= len(releases); callers++ {
		if release, ok := p.take(caller(callers - 1)); !ok {
			t.Fatalf("caller %d gets none", callers)
		} else {
			release()
		}
		fill(callers)
		for range all { // each gives back, and who may takes again
			for i := range callers {
				releases[i][0]()
				releases[i] = releases[i][1:]
				fill(callers)
			}
		}
		for i := range callers {
			if n := len(releases[i]); n < all/(callers+1)-1 || n > all/(callers+1)+1 {
				t.Errorf("of %d callers, %d has %d", callers, i, n)
			}
		}
	}
	for _, list := range releases {
		for _, release := range list {
			release()
		}
	}
	if p.free != all || len(p.taken) != 0 {
		t.Errorf("%d free, %d callers", p.free, len(p.taken))
	}
}

func caller(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}) }
