// Package locked has a buffer that tests share between goroutines.
package locked

import (
	"strings"
	"sync"
)

// Buffer keeps what is written to it, a log for instance. Its zero value is empty. It is
// safe for concurrent use.
type Buffer struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

// Write implements io.Writer and never fails.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// String is all that was written so far.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
