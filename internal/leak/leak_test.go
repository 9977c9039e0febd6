package leak

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// recorder is a test under test: it keeps what would fail it.
type recorder struct {
	testing.TB
	cleanups []func()
	failures []string
	failed   bool
}

func (r *recorder) Cleanup(f func())          { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Failed() bool              { return r.failed }
func (r *recorder) Errorf(s string, a ...any) { r.failures = append(r.failures, fmt.Sprintf(s, a...)) }

// end runs the clean-ups, the last one first.
func (r *recorder) end() {
	for _, f := range slices.Backward(r.cleanups) {
		f()
	}
}

func TestCheck(t *testing.T) {
	const impatient, patient = 50 * time.Millisecond, 10 * time.Second
	open := func(t *testing.T) *os.File {
		f, err := os.Create(filepath.Join(t.TempDir(), "forgotten"))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	for name, test := range map[string]struct {
		patience time.Duration
		body     func(t *testing.T, r *recorder) (mend func())
		want     string // in the failure; "": none
	}{
		"nothing": {impatient, func(*testing.T, *recorder) func() { return func() {} }, ""},
		"a goroutine": {impatient, func(*testing.T, *recorder) func() {
			stop := make(chan struct{})
			go func() { <-stop }()
			return func() { close(stop) }
		}, "leak.TestCheck"},
		"a descriptor": {impatient, func(t *testing.T, _ *recorder) func() {
			f := open(t)
			return func() { f.Close() }
		}, "forgotten"},
		"what a clean-up ends": {patient, func(t *testing.T, r *recorder) func() {
			f, stop := open(t), make(chan struct{})
			go func() { <-stop; f.Close() }()
			r.Cleanup(func() { close(stop) })
			return func() {}
		}, ""},
		"what ends later": {patient, func(*testing.T, *recorder) func() {
			stop := make(chan struct{})
			go func() { <-stop }()
			time.AfterFunc(impatient, func() { close(stop) })
			return func() {}
		}, ""},
		"a test that has failed": {impatient, func(_ *testing.T, r *recorder) func() {
			stop := make(chan struct{})
			go func() { <-stop }()
			r.failed = true
			return func() { close(stop) }
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if descriptors() == nil && test.want == "forgotten" {
				t.Skip("no /proc/self/fd")
			}
			Check(t) // the mend is a good one
			r := &recorder{TB: t}
			check(r, test.patience)
			mend := test.body(t, r)
			r.end()
			mend()
			got := strings.Join(r.failures, "\n")
			if (got != "") != (test.want != "") || !strings.Contains(got, test.want) {
				t.Errorf("failed with %q, want %q in it", got, test.want)
			}
		})
	}
}
