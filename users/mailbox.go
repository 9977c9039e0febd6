package users

import (
	"slices"
	"sync/atomic"
)

// mailbox holds the events of one user in the order in which they came. Anybody may
// post, without a lock; the user's loop alone takes.
type mailbox struct {
	posted  atomic.Pointer[letter] // the latest in front
	waiting atomic.Int64           // posted, and not handled
	taken   []event                // off posted, in order; the loop's
}

type letter struct {
	event  event
	before *letter
}

// post adds an event, and reports whether no other waits: then the loop is to be
// started.
func (m *mailbox) post(e event) (first bool) {
	m.add(e)
	return m.waiting.Add(1) == 1
}

func (m *mailbox) add(e event) {
	l := &letter{event: e}
	for {
		l.before = m.posted.Load()
		if m.posted.CompareAndSwap(l.before, l) {
			return
		}
	}
}

// claim makes the caller the loop, if no event waits: then it handles one that it need not
// post, and ends with handled, or posts it with add and starts the loop.
func (m *mailbox) claim() bool { return m.waiting.CompareAndSwap(0, 1) }

// take removes the next event. There is one until handled says otherwise.
func (m *mailbox) take() event {
	if len(m.taken) == 0 {
		for l := m.posted.Swap(nil); l != nil; l = l.before {
			m.taken = append(m.taken, l.event)
		}
		slices.Reverse(m.taken)
	}
	e := m.taken[0]
	if m.taken = m.taken[1:]; len(m.taken) == 0 {
		m.taken = nil
	}
	return e
}

// last reports whether the event that was taken is the only one.
func (m *mailbox) last() bool { return m.waiting.Load() == 1 }

// handled says that the event that was taken is done with, and reports whether the
// loop goes on. If not, the next post starts it.
func (m *mailbox) handled() (more bool) { return m.waiting.Add(-1) > 0 }
