package component

import (
	"strconv"
	"sync"
	"time"
)

// logLimiter keeps a cause that concerns many users to one line of the log. It is
// bounded, and safe for concurrent use.
type logLimiter struct {
	every time.Duration // pause between two lines for one cause; 0: one line until reset
	max   int           // causes; when there are more, nothing new is logged

	mu     sync.Mutex
	causes map[string]*suppressed
}

type suppressed struct {
	last  time.Time // when the cause was logged
	times int       // not logged since
}

func newLogLimiter(every time.Duration, max int) *logLimiter {
	return &logLimiter{every: every, max: max, causes: make(map[string]*suppressed)}
}

// allow reports whether a cause is to be logged now, and how often it was not since.
func (l *logLimiter) allow(cause string) (notLogged int, now bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := time.Now()
	known := l.causes[cause]
	if known == nil {
		if len(l.causes) < l.max {
			l.causes[cause] = &suppressed{last: at}
			return 0, true
		}
		return 0, false
	}
	if l.every == 0 || at.Sub(known.last) < l.every {
		known.times++
		return 0, false
	}
	notLogged, known.times, known.last = known.times, 0, at
	return notLogged, true
}

// warn logs a cause that concerns many, as often as l allows.
func (c *Component) warn(l *logLimiter, cause, message string, args ...any) {
	if notLogged, now := l.allow(cause); now {
		if l.every > 0 {
			args = append(args, "not_logged_before", notLogged)
		}
		c.opts.Logger.Warn(message, args...)
	}
}

// reset forgets all causes.
func (l *logLimiter) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.causes)
}

// short makes remote text fit for a log line or an error: quoted, one line, bounded.
func short(s string) string {
	const max = 128
	if len(s) > max {
		return strconv.QuoteToASCII(s[:max]) + "…"
	}
	return strconv.QuoteToASCII(s)
}
