package main

import (
	"io"
	"log/slog"
	"sync"
	"time"

	"rosterd/config"
	"rosterd/metrics"
)

// newLogger logs to w, at a level that can be set, and to events.
func newLogger(c config.Log, w io.Writer, events *metrics.Events) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	level.Set(levelOf(c))
	options := &slog.HandlerOptions{Level: level}
	var handler slog.Handler = slog.NewTextHandler(w, options)
	if c.Format == "json" {
		handler = slog.NewJSONHandler(w, options)
	}
	log := slog.New(events.Handler(handler))
	if o, ok := w.(*output); ok {
		o.onLoss(func(lines int) { log.Warn("log lines are lost, nobody read standard error", "lines", lines) })
	}
	return log, level
}

func levelOf(c config.Log) (level slog.Level) {
	_ = level.UnmarshalText([]byte(c.Level)) // validated by config
	return level
}

// warn logs the warnings of [config.Load].
func warn(log *slog.Logger, warnings []string) {
	for _, warning := range warnings {
		log.Warn("configuration", "warning", warning)
	}
}

// output is a queue for a writer that others read, such as standard error. Nobody
// waits for them: what finds no room is lost, and counted. It is safe for
// concurrent use.
type output struct {
	w    io.Writer
	done chan struct{} // closed when all is written, after Close

	mu     sync.Mutex
	wake   *sync.Cond // of mu: something is queued, or closed
	queue  []byte
	lost   int // writes
	report func(lost int)
	closed bool
}

const (
	maxQueue  = 1 << 20     // bytes that wait for who reads; lines beyond that are lost, and counted
	flushTime = time.Second // for what is queued, at the end
)

// newOutput starts a goroutine, which [output.Close] ends.
func newOutput(w io.Writer) *output {
	o := &output{w: w, done: make(chan struct{}), report: func(int) {}}
	o.wake = sync.NewCond(&o.mu)
	go o.run()
	return o
}

// onLoss sets who is told how many writes were lost, once there is room again.
func (o *output) onLoss(report func(lost int)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.report = report
}

// Write never fails and never waits for the reader.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || len(o.queue)+len(p) > maxQueue {
		o.lost++
		return len(p), nil
	}
	o.queue = append(o.queue, p...)
	o.wake.Signal()
	return len(p), nil
}

// run writes what is queued until Close.
func (o *output) run() {
	defer close(o.done)
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		for len(o.queue) == 0 {
			if o.closed {
				return
			}
			o.wake.Wait()
		}
		data, lost, report := o.queue, o.lost, o.report
		o.queue, o.lost = nil, 0
		o.mu.Unlock()
		if lost > 0 {
			report(lost) // which calls Write
		}
		_, _ = o.w.Write(data) // there is no place to report a failure
		o.mu.Lock()
	}
}

// Close writes what is queued, unless that takes too long.
func (o *output) Close() {
	o.mu.Lock()
	o.closed = true
	o.wake.Signal()
	o.mu.Unlock()
	select {
	case <-o.done:
	case <-time.After(flushTime):
	}
}
