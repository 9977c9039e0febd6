package users

import (
	"hash/maphash"
	"sync/atomic"
	"time"

	"rosterd/jid"
)

// reports remembers when the backend said that somebody's roster changed and nothing
// was fetched for that: they had no connected resource, say. What was fetched before
// is outdated. It takes no memory for each user: two who share a slot are both
// outdated, which costs the other one a fetch. It is safe for concurrent use.
type reports struct {
	seed maphash.Seed
	now  func() time.Time   // that of the [Store]
	last [4096]atomic.Int64 // of the last report
	all  atomic.Int64       // of the last one of everybody
}

func newReports(now func() time.Time) *reports { return &reports{seed: maphash.MakeSeed(), now: now} }

func (r *reports) slot(user jid.JID) *atomic.Int64 {
	return &r.last[maphash.Comparable(r.seed, user)%uint64(len(r.last))]
}

func (r *reports) note(user jid.JID) { r.slot(user).Store(r.now().UnixNano()) }

// noteAll notes everybody.
func (r *reports) noteAll() { r.all.Store(r.now().UnixNano()) }

// since reports whether a user may have been reported after a time.
func (r *reports) since(user jid.JID, then time.Time) bool {
	return max(r.slot(user).Load(), r.all.Load()) > then.UnixNano()
}
