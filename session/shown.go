package session

import (
	"slices"
	"time"

	"rosterd/jid"
)

// Shown are the resources whose presence others may have been told: those that are
// available, and those that left a short time ago.
func (t *Table) Shown() []jid.JID {
	t.mu.Lock()
	defer t.mu.Unlock()
	var shown []jid.JID
	for e := t.signs.Front(); e != nil; e = e.Next() {
		if r := e.Value.(*resource); r.available {
			shown = append(shown, r.full)
		}
	}
	for _, list := range t.left {
		for _, d := range list {
			if r := t.find(d.full); r == nil || !r.available {
				shown = append(shown, d.full)
			}
		}
	}
	return shown
}

// leave notes a departure. t.mu is held.
func (t *Table) leave(full jid.JID, now time.Time) {
	user := full.Bare()
	list := slices.DeleteFunc(t.left[user], func(d departure) bool { return d.full == full })
	t.left[user] = append(list, departure{full, now})
	if len(t.left[user]) > MaxResources {
		oldest := t.left[user][0].full
		t.left[user] = slices.Delete(t.left[user], 0, 1)
		t.save(oldest, false)
	}
}

// purge forgets the departures of long ago, now and then. t.mu is held.
func (t *Table) purge() {
	now := time.Now()
	if now.Sub(t.purged) < Linger {
		return
	}
	t.purged = now
	for user, list := range t.left {
		n := 0 // of long ago: they come first
		for n < len(list) && now.Sub(list[n].at) >= Linger {
			n++
		}
		if t.left[user] = list[n:]; n == len(list) {
			delete(t.left, user)
		}
		for _, d := range list[:n] {
			t.save(d.full, false)
		}
	}
}
