package leak

import (
	"os"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

// What the collector closes is not left behind, however much memory there is
// until it comes by itself.
func TestMainCollects(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	var said strings.Builder
	code := whole(func() int {
		for range 10 {
			if _, err := os.Open(os.DevNull); err != nil {
				t.Error(err)
			}
		}
		return 0
	}, 10*time.Second, &said)
	if code != 0 {
		t.Errorf("code %d, said %q", code, said.String())
	}
}

func TestMainOfAPackage(t *testing.T) {
	for name, test := range map[string]struct {
		code  int
		leaks bool
		other string
		want  int
		says  string
	}{
		"nothing":             {0, false, "", 0, ""},
		"a goroutine":         {0, true, "", 1, "leak.TestMainOfAPackage"},
		"another's goroutine": {0, true, "leak.TestMainOfAPackage", 0, ""},
		"not that other's":    {0, true, "leak.TestCheck", 1, "leak.TestMainOfAPackage"},
		"tests that failed":   {1, false, "", 1, ""},
		"tests that panicked": {2, true, "", 2, ""},
	} {
		t.Run(name, func(t *testing.T) {
			stop := make(chan struct{})
			defer close(stop)
			var said strings.Builder
			var others []string
			if test.other != "" {
				others = []string{test.other}
			}
			code := whole(func() int {
				if test.leaks {
					go func() { <-stop }()
				}
				return test.code
			}, 50*time.Millisecond, &said, others...)
			if code != test.want || (test.says == "") != (said.Len() == 0) || !strings.Contains(said.String(), test.says) {
				t.Errorf("code %d, said %q", code, said.String())
			}
		})
	}
}
