package store

import (
	"cmp"
	"log/slog"
	"sync"
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
	whatChanges    = "changes"
	whatCheckpoint = "checkpoint" // of the write-ahead log
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
	case err != nil && (before == nil || before.Error() != err.Error()):
		t.logger.Error("state cannot be written, it is kept in memory and tried again each second", "what", what, "err", err)
	case err == nil && before != nil:
		t.logger.Info("state is written again", "what", what)
	}
}

// err is why something cannot be written, or nil.
func (t *trouble) err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return cmp.Or(t.causes[whatChanges], t.causes[whatCheckpoint])
}
