package metrics

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	maxEvents    = 200
	maxEventText = 600 // bytes of an event's details
)

// Event is a line of the log, without what could name a user.
type Event struct {
	Time    time.Time
	Level   slog.Level
	Message string
	Details string // "key=value", separated by blanks
}

// Events keeps the last 200 lines of a log at info and above. It is safe for concurrent use.
type Events struct {
	mu   sync.Mutex // guards both
	ring [maxEvents]Event
	n    int // ever
}

// Handler is next, and keeps what is logged at info and above, whatever next's level is.
func (e *Events) Handler(next slog.Handler) slog.Handler { return &eventHandler{events: e, next: next} }

// Recent are the kept events, the latest first.
func (e *Events) Recent() []Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	var recent []Event
	for i := e.n; i > 0 && i > e.n-maxEvents; i-- {
		recent = append(recent, e.ring[(i-1)%maxEvents])
	}
	return recent
}

func (e *Events) add(event Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ring[e.n%maxEvents] = event
	e.n++
}

// shownKeys are the attributes that name no user and no contact, whatever their value. A key
// that is not here is not shown.
var shownKeys = map[string]bool{
	"address": true, "backend": true, "blocking": true, "changed": true, "check": true, "commit": true, "domain": true, "down": true,
	"errors": true, "expires": true, "host": true, "hosts": true, "items": true, "keys": true, "limit": true, "lines": true,
	"metrics": true, "missing": true, "namespace": true, "not_logged_before": true, "of": true, "presence": true, "push": true,
	"query": true, "refresh": true, "refused": true, "removed": true, "retry_in": true, "roster": true, "server_roster": true,
	"software": true, "term": true, "updated": true, "users": true, "version": true, "warning": true, "way": true, "what": true, "while": true,
	"written": true, "err": true, "why": true,
}

// ofUser are the attributes of a line about one user: its error may quote an address.
var ofUser = []string{"user", "from", "to", "contact", "jid", "caller", "failed"}

// eventHandler is a [slog.Handler]. The program's log has no groups.
type eventHandler struct {
	events *Events
	next   slog.Handler
	attrs  []slog.Attr
}

func (h *eventHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo || h.next.Enabled(ctx, level)
}

func (h *eventHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelInfo {
		attrs := slices.Clone(h.attrs)
		r.Attrs(func(a slog.Attr) bool { attrs = append(attrs, a); return true })
		h.events.add(Event{Time: r.Time, Level: r.Level, Message: r.Message, Details: detailsOf(attrs)})
	}
	if !h.next.Enabled(ctx, r.Level) {
		return nil
	}
	return h.next.Handle(ctx, r)
}

func (h *eventHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &eventHandler{events: h.events, next: h.next.WithAttrs(attrs), attrs: append(slices.Clone(h.attrs), attrs...)}
}

func (h *eventHandler) WithGroup(name string) slog.Handler {
	return &eventHandler{events: h.events, next: h.next.WithGroup(name), attrs: h.attrs}
}

func detailsOf(attrs []slog.Attr) string {
	aboutUser := slices.ContainsFunc(attrs, func(a slog.Attr) bool { return slices.Contains(ofUser, a.Key) })
	var b strings.Builder
	for _, a := range attrs {
		if !shownKeys[a.Key] || aboutUser && (a.Key == "err" || a.Key == "why") {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(a.Key + "=" + a.Value.String())
	}
	details := b.String()
	if len(details) > maxEventText {
		details = strings.ToValidUTF8(details[:maxEventText], "") + " …"
	}
	return details
}
