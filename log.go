package main

import (
	"io"
	"log/slog"
	"sync"
	"time"

	"rosterd/config"
)

func newLogger(c config.Log, level slog.Leveler, w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	var handler slog.Handler = slog.NewTextHandler(w, options)
	if c.Format == "json" {
		handler = slog.NewJSONHandler(w, options)
	}
	log := slog.New(handler)
	if o, ok := w.(*output); ok {
		o.onLoss(func(lines int) { log.Warn("log lines are lost, nobody read standard error", "lines", lines) })
	}
	return log
}

func levelOf(c config.Log) (level slog.Level) {
	_ = level.UnmarshalText([]byte(c.Level)) // validated by config
	return level
}

// warn logs what is odd in the configuration.
func warn(log *slog.Logger, warnings []string) {
	for _, warning := range warnings {
		log.Warn("configuration", "warning", warning)
	}
}

// output writes to a file that others read, such as standard error, and never
// waits for them: what they are too slow for is lost. It is safe for concurrent use.
type output struct {
	w    io.Writer
	wake chan struct{} // closed by Close
	done chan struct{} // closed when all is written then

	mu      sync.Mutex
	waiting []byte // to be written
	lost    int    // writes
	tell    func(lost int)
	closed  bool
}

const (
	maxWaiting = 1 << 20     // bytes
	flushTime  = time.Second // for the rest, at the end
)

// newOutput starts a goroutine, which [output.Close] ends.
func newOutput(w io.Writer) *output {
	o := &output{w: w, wake: make(chan struct{}, 1), done: make(chan struct{}), tell: func(int) {}}
	go o.run()
	return o
}

// onLoss sets who is told how many writes were lost, as soon as there is room again.
func (o *output) onLoss(tell func(lost int)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tell = tell
}

// Write never fails.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || len(o.waiting)+len(p) > maxWaiting {
		o.lost++
		return len(p), nil
	}
	o.waiting = append(o.waiting, p...)
	select {
	case o.wake <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (o *output) run() {
	defer close(o.done)
	for range o.wake {
		for o.write() {
		}
	}
}

// write writes what waits, and reports whether something did.
func (o *output) write() bool {
	o.mu.Lock()
	data, lost, tell := o.waiting, o.lost, o.tell
	o.waiting, o.lost = nil, 0
	o.mu.Unlock()
	if lost > 0 {
		tell(lost)
	}
	if len(data) == 0 {
		return false
	}
	_, _ = o.w.Write(data) // whose failure could be told nowhere
	return true
}

// Close writes what waits, unless that takes too long.
func (o *output) Close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	close(o.wake)
	select {
	case <-o.done:
	case <-time.After(flushTime):
	}
}
