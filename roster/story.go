package roster

import (
	"context"
	"log/slog"
	"time"
)

// What is logged for those who look into one user's story: who was fetched, what came
// of it, who was told. It names no contact.

func (m *Manager) debugs() bool { return m.Logger.Enabled(context.Background(), slog.LevelDebug) }

// tellFetched logs what a fetch came to. The time is that from asking the source, be
// it that it has others to ask before.
func (m *Manager) tellFetched(r Request, f Fetched, err error, began time.Time) {
	if !m.debugs() {
		return
	}
	result := "ok"
	switch {
	case err != nil:
		result = "failed"
	case f.Roster == nil:
		result = "not_modified"
	}
	m.Logger.Debug("contacts fetched", "user", r.User, "query_waits", r.Hurry, "result", result, "items", f.Roster.Len(),
		"took", time.Since(began), "err", err)
}

// tellApplied logs what follows from a roster that is the last known one now.
func (m *Manager) tellApplied(u *user, queries int, deliveries []delivery) {
	if !m.debugs() {
		return
	}
	pushes := 0
	for _, d := range deliveries {
		pushes += d.pushes()
	}
	m.Logger.Debug("roster known", "user", u.jid, "items", u.last.Len(), "queries", queries, "pushes", pushes)
}

// tellPushed logs what became of pushes.
func (m *Manager) tellPushed(u *user, d delivery, err error, began time.Time) {
	if m.debugs() {
		m.Logger.Debug("pushes settled", "user", u.jid, "clients", len(d.to), "pushes", d.pushes(), "took", time.Since(began), "err", err)
	}
}

func (d delivery) pushes() int { return len(d.to) * len(d.changes) }
