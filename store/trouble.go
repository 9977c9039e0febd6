package store

import (
	"errors"
	"log/slog"
	"sync"
	"syscall"
)

// Counter is counted up: a Prometheus counter, for instance.
type Counter interface{ Inc() }

// trouble is what cannot be written at present, and why. It logs a cause once,
// and once that all is well again. It is safe for concurrent use.
type trouble struct {
	logger *slog.Logger
	errors Counter // nil: nobody counts

	mu     sync.Mutex
	causes map[string]error // by what cannot be written
}

// What can be written or not.
const (
	whatRecords = "records"
	whatNotes   = "notes"
)

// set says how writing went; err is nil if it went well.
func (t *trouble) set(what string, err error) {
	if err != nil && t.errors != nil {
		t.errors.Inc()
	}
	t.mu.Lock()
	before := t.causes[what]
	if err == nil {
		delete(t.causes, what)
	} else {
		t.causes[what] = err
	}
	t.mu.Unlock()
	switch {
	case err != nil && (before == nil || cause(before) != cause(err)):
		t.logger.Error("state cannot be written, it is kept in memory and tried again each second", "what", what, "err", err)
	case err == nil && before != nil:
		t.logger.Info("state is written again", "what", what)
	}
}

// cause is what two errors have in common if the one should not be logged after
// the other: what the system said, whichever of the files it was.
func cause(err error) string {
	var ofSystem syscall.Errno
	if errors.As(err, &ofSystem) {
		return ofSystem.Error()
	}
	return err.Error()
}

// refused says that something was not kept, for its key cannot be one.
func (t *trouble) refused(length int) {
	if t.errors != nil {
		t.errors.Inc()
	}
	t.logger.Error("state is not kept: its key is empty or too long", "bytes", length)
}

// err is why something cannot be written, or nil.
func (t *trouble) err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, what := range []string{whatRecords, whatNotes} {
		if err := t.causes[what]; err != nil {
			return err
		}
	}
	return nil
}
