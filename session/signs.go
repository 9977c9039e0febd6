package session

import (
	"iter"
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
// the one that is silent for longest first: some may be gone, though no server said
// so. The table is locked as long as they are looked at, which must not take long and
// not call it. It costs what is looked at.
func (t *Table) Unheard(since time.Time) iter.Seq[jid.JID] {
	return func(yield func(jid.JID) bool) {
		t.mu.Lock()
		defer t.mu.Unlock()
		for r := t.signs.oldest; r != nil && r.heard < since.Sub(t.began) && yield(r.full); r = r.newer {
		}
	}
}

// HeardSince reports whether a resource is connected, and there was a sign of it
// since a time.
func (t *Table) HeardSince(full jid.JID, since time.Time) bool {
	return t.is(full, func(r *resource) bool { return r.heard >= since.Sub(t.began) })
}
