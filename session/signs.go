package session

import (
	"math"
	"time"

	"rosterd/jid"
)

// never is when there was a sign of a resource of which there was none yet.
const never time.Duration = math.MinInt64

// signs are the connected resources by the last sign of each, the oldest first.
type signs struct{ oldest, newest *resource }

func (s *signs) push(r *resource) {
	r.older, r.newer = s.newest, nil
	if s.newest != nil {
		s.newest.newer = r
	} else {
		s.oldest = r
	}
	s.newest = r
}

func (s *signs) remove(r *resource) {
	if r.older != nil {
		r.older.newer = r.newer
	} else {
		s.oldest = r.newer
	}
	if r.newer != nil {
		r.newer.older = r.older
	} else {
		s.newest = r.older
	}
}

// hear notes a sign of a resource. t.mu is held.
func (t *Table) hear(r *resource) {
	r.heard = time.Since(t.began)
	t.signs.remove(r)
	t.signs.push(r)
}

// Heard notes a sign of a resource. Nothing changes if it is not connected.
func (t *Table) Heard(full jid.JID) {
	t.is(full, func(r *resource) bool { t.hear(r); return true })
}

// Unheard are the connected resources of which there was no sign since a time,
// those of the oldest signs first: some may be gone, though no server said so. It
// costs what it returns.
func (t *Table) Unheard(since time.Time) []jid.JID {
	t.mu.Lock()
	defer t.mu.Unlock()
	var unheard []jid.JID
	for r := t.signs.oldest; r != nil && r.heard < since.Sub(t.began); r = r.newer {
		unheard = append(unheard, r.full)
	}
	return unheard
}
