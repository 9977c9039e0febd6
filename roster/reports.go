package roster

import (
	"hash/maphash"
	"sync/atomic"

	"rosterd/jid"
)

// reports are the changes that were reported and for which nothing was fetched: of
// users who had no connected resource, say. What was fetched before is outdated. It
// takes no memory for each user: two who share a place are both outdated, which
// costs the other one a fetch. It is safe for concurrent use.
type reports struct {
	seed   maphash.Seed
	number atomic.Uint64
	last   [4096]atomic.Uint64 // the number of the last report
}

func newReports() *reports { return &reports{seed: maphash.MakeSeed()} }

func (r *reports) place(user jid.JID) *atomic.Uint64 {
	return &r.last[maphash.Comparable(r.seed, user)%uint64(len(r.last))]
}

// note notes a report.
func (r *reports) note(user jid.JID) { r.place(user).Store(r.number.Add(1)) }

// now is what [reports.since] is given later by whoever begins a fetch.
func (r *reports) now() uint64 { return r.number.Load() }

// since reports whether a user may have been reported since.
func (r *reports) since(user jid.JID, then uint64) bool { return r.place(user).Load() > then }
