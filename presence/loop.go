package presence

import (
	"context"
	"errors"
	"time"

	"rosterd/jid"
)

// Bounds of one step of the loop.
const (
	maxBatch       = 64                   // stanzas that are worked out before they are sent, or a few more
	maxUsers       = 256                  // users who are looked at
	maxSubscribers = 256                  // subscribers who are looked at while the lock is held
	maxExpiries    = 16                   // users of whom something is forgotten
	maxReading     = 5 * time.Millisecond // how long the mailbox is emptied before something is sent
)

// loop is the state that the loop alone owns, the goroutine that calls what [Hub.Start]
// returned.
type loop struct {
	index

	// A user is in each queue once at most.
	ready     queue[*user]    // subscribers, or the user, are to be sent something
	heldBack  queue[deadline] // the same, after a pause: it happens too often
	resyncs   queue[*user]    // to be brought in line on a new stream
	wants     queue[deadline] // to ask Rosters.Want for
	expiries  queue[deadline] // of whom something is to be forgotten after Limits.Linger
	blockAsks queue[*user]    // to ask Sender.Blocked for
	holds     queue[deadline] // of whom something waits for Limits.Word
	keepAsks  queue[*user]    // to call Keeper.Keep for

	before  map[jid.JID]*before // of users whom an earlier rosterd may have shown, by bare JID; since Recall
	recalls queue[jid.JID]      // those of them of whom it is not known yet who saw them
	absent  absent

	relayers []*user // of whom something was relayed since Sender.Passed was called
	marked   []*user // and before that
	handled  uint64  // Hub.passed, as of late

	settleAt time.Duration // when the server will have had the time to report
	resyncAt time.Duration // Limits.Rate is kept by waiting until then
	wantAt   time.Duration // as is Limits.Wants
}

// deadline says when something is due of a user. All in one queue wait equally long, so
// the first is due first.
type deadline struct {
	user *user
	at   time.Duration
}

type queue[T any] []T

func (q *queue[T]) push(item T) { *q = append(*q, item) }

// pop removes the first item. The queue is not empty.
func (q *queue[T]) pop() T {
	item := (*q)[0]
	clear((*q)[:1])
	if *q = (*q)[1:]; len(*q) == 0 {
		*q = nil
	}
	return item
}

// Start begins a stream: it is to be called before the server's reports on it are handed
// over, and after what it returned for the stream before has returned. What it returns
// sends what is to be sent, for the life of the stream: until ctx ends or the sender
// fails, and returns why. It must be called.
//
// Of what was sent over an earlier stream, or by an earlier rosterd, nobody knows what
// arrived, nor who left meanwhile. What is reported on the new stream and is news is sent
// at once. When Limits.Settle has passed every client is brought in line with what is
// known then, Limits.Rate stanzas a second: it is sent all that it may see, and
// unavailable presence of its other contacts. Who was available on an earlier stream and
// has not been heard of on this one is shown to nobody before that.
func (h *Hub) Start(s Sender) (run func(context.Context) error, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.running {
		return nil, errors.New("presence: the stream before has not ended")
	}
	h.running = true
	h.settleAt = h.now() + h.limits.Settle
	return func(ctx context.Context) error {
		defer h.streamEnds()
		return h.run(ctx, s)
	}, nil
}

// run is the loop.
func (h *Hub) run(ctx context.Context, s Sender) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var batch []Stanza
	for ctx.Err() == nil {
		h.setMark(s)
		var wait time.Duration
		batch, wait = h.step(s, batch[:0])
		if len(batch) > 0 && h.barrier != nil {
			h.barrier()
		}
		for _, stanza := range batch {
			if err := s.Relay(stanza); err != nil {
				return err
			}
		}
		clear(batch) // the payloads
		if len(batch) > 0 || wait <= 0 {
			continue
		}
		timer.Reset(wait)
		select {
		case <-h.wake:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// step adds to batch what is to be sent next, asks for what is not known, and says how
// long the loop can wait if there is nothing to send.
func (h *Hub) step(s Sender, batch []Stanza) ([]Stanza, time.Duration) {
	more := h.readMailbox(maxReading)
	now := h.now()
	h.elapse(now)
	batch = h.sendNews(batch)
	if h.resyncAt <= now {
		n, asked := len(batch), 0
		batch, asked = h.sendResync(batch, n+min(max(h.limits.Rate/16, 1), maxBatch))
		h.resyncAt = now + time.Duration(len(batch)-n+asked)*time.Second/time.Duration(h.limits.Rate)
	}
	for n := 0; n < maxUsers && len(h.blockAsks) > 0; n++ {
		h.askBlocks(s, h.blockAsks.pop())
	}
	for n := 0; n < maxUsers && len(h.keepAsks) > 0; n++ {
		h.askKeeper(h.keepAsks.pop())
	}
	if more || len(h.ready)+len(h.recalls)+len(h.blockAsks)+len(h.keepAsks) > 0 {
		return batch, 0
	}
	due := now + time.Hour
	for _, q := range [...]queue[deadline]{h.heldBack, h.expiries, h.holds} {
		if len(q) > 0 {
			due = min(due, q[0].at)
		}
	}
	if len(h.wants) > 0 {
		due = min(due, max(h.wants[0].at, h.wantAt))
	}
	if len(h.resyncs) > 0 {
		due = min(due, h.resyncAt)
	}
	if !h.settled {
		due = min(due, h.settleAt)
	}
	return batch, due - now
}

// elapse does what is due.
func (h *Hub) elapse(now time.Duration) {
	for len(h.heldBack) > 0 && h.heldBack[0].at <= now {
		u := h.heldBack.pop().user
		u.readyAt = now
		h.ready.push(u)
	}
	for n := 0; n < maxExpiries && len(h.expiries) > 0 && h.expiries[0].at <= now; n++ {
		u := h.expiries.pop().user
		u.expiring = false
		h.forget(u, now)
		h.release(u)
	}
	for len(h.holds) > 0 && h.holds[0].at <= now {
		h.held(h.holds.pop().user)
	}
	for len(h.wants) > 0 && max(h.wants[0].at, h.wantAt) <= now {
		h.want(h.wants.pop().user, now)
	}
	for n := 0; n < maxUsers && len(h.recalls) > 0; n++ {
		h.recallSubscribers(h.recalls.pop())
	}
	if !h.settled && h.settleAt <= now && len(h.recalls) == 0 {
		h.mu.Lock()
		h.settled = true
		h.mu.Unlock()
		h.readMailbox(time.Hour) // who was reported before
		for _, e := range h.entries {
			if e.user != nil {
				e.user.unpark()
				h.bringInLine(e.user)
			}
		}
	}
}

// readMailbox does what follows from what has happened to those who are in the mailbox
// now, and reports whether that took too long and some are left.
func (h *Hub) readMailbox(limit time.Duration) (more bool) {
	h.mu.Lock()
	n := len(h.mailbox)
	h.mu.Unlock()
	for start := h.now(); n > 0; n-- {
		if h.now()-start > limit {
			return true
		}
		h.readLetter()
	}
	return false
}

// readLetter takes the first user from the mailbox.
func (h *Hub) readLetter() {
	h.mu.Lock()
	u := h.mailbox.pop()
	available, left := u.available > 0, u.available < len(u.resources)
	news, initial, align, answer := u.news, u.initial, u.align, u.answer
	u.news, u.initial, u.align, u.answer, u.posted = false, false, false, nil, false
	h.mu.Unlock()
	h.enter(u)
	switch {
	case available:
		h.arrived(u)
	case !available && u.online:
		u.online, u.leftAt, left = false, h.now(), true
	}
	if left {
		h.expire(u)
	}
	if news {
		h.broadcast(u)
	}
	if initial {
		u.probe.start()
		h.enqueue(u)
	}
	if answer != nil {
		h.takeBlocks(u, answer)
	}
	if align {
		h.bringInLine(u)
	}
	h.takeRoster(u)
	h.fetch(u)
	h.takeOwn(u)
	h.release(u)
}

// takeRoster makes the roster that was told last the user's.
func (h *Hub) takeRoster(u *user) {
	h.mu.Lock()
	now := u.told
	h.mu.Unlock()
	if now == nil {
		return
	}
	h.setRoster(u, now)
	h.mu.Lock()
	if u.told == now { // else another one has come
		u.told, u.known = nil, !u.outdated
	}
	known := u.known
	h.mu.Unlock()
	h.broadcast(u)
	if known && u.resyncsLater {
		h.bringInLine(u)
	}
}

// fetch sees to it that the roster of an available user gets known: Rosters.Known is asked
// at once, Rosters.Want after a while, once while the user is available and the stream is
// up.
func (h *Hub) fetch(u *user) {
	h.mu.Lock()
	needed, cameAt := u.lacksRoster() && !u.wanted && !u.fetching, u.cameAt
	h.mu.Unlock()
	if !needed {
		return
	}
	now, ok := h.rosters.Known(u.jid)
	h.mu.Lock()
	switch needed = u.lacksRoster(); {
	case !needed: // what was told meanwhile is at least as new
	case u.cameAt != cameAt: // what was told before they were last away, Known may not have known
		h.post(u)
	case ok:
		u.tell(now)
	default:
		u.fetching = true
		h.wants.push(deadline{u, h.now() + h.limits.WantAfter})
	}
	h.mu.Unlock()
	h.takeRoster(u)
}

// want has a user's roster fetched if it is not known yet.
func (h *Hub) want(u *user, now time.Duration) {
	h.mu.Lock()
	u.wanted = u.lacksRoster()
	wanted := u.wanted
	h.mu.Unlock()
	u.fetching = false
	h.release(u)
	if wanted {
		h.wantAt = now + time.Second/time.Duration(h.limits.Wants)
		h.rosters.Want(u.jid)
	}
}

// broadcast sees to it that a user's subscribers are sent what they were not.
func (h *Hub) broadcast(u *user) {
	u.broadcast.start()
	h.enqueue(u)
}

// enqueue makes a user ready, or does so later if that happens too often.
func (h *Hub) enqueue(u *user) {
	if u.queued {
		return
	}
	u.queued = true
	now := h.now()
	if now-u.readyAt > h.limits.Calm {
		u.burst = 0
	}
	if u.burst >= h.limits.Burst {
		h.heldBack.push(deadline{u, now + h.limits.Calm})
		return
	}
	u.burst, u.readyAt = u.burst+1, now
	h.ready.push(u)
}

// expire sees to it that what has ended is forgotten after a while.
func (h *Hub) expire(u *user) {
	if !u.expiring {
		u.expiring = true
		h.expiries.push(deadline{u, h.now() + h.limits.Linger})
	}
}

// bringInLine puts a user among those who are brought in line.
func (h *Hub) bringInLine(u *user) {
	u.broadcast.start()
	u.resyncsLater = false
	if h.absent.of == u {
		h.absent = absent{}
	}
	if !u.resyncing {
		u.resyncing = true
		h.resyncs.push(u)
	}
}

// streamEnds notes that what was sent may not have arrived.
func (h *Hub) streamEnds() {
	h.mu.Lock()
	h.clock++
	h.streams++
	h.settled, h.lost = false, max(h.now(), 1)
	clear(h.blocking)
	h.passed, h.marking = h.clock, false
	h.clock++ // what is relayed from now on comes after
	h.mu.Unlock()
	h.readMailbox(time.Hour)
	for i := range h.entries {
		u := h.entries[i].user
		if u == nil {
			continue
		}
		u.unpark()
		u.blocks.at, u.blocks.asking = 0, false
		u.resyncing, u.resyncsLater = false, false
		for i := range u.subscribers {
			s := &u.subscribers[i]
			s.doubt, s.relayed = s.doubt || s.relayed, false
			if s.lost = s.end == lasts; !s.lost {
				s.end = untold
			}
		}
		u.broadcast = cursor{on: u.queued && u.broadcast.on}
		u.own, u.unmarked = u.own.unsure(), false
		h.mu.Lock()
		u.aligned, u.wanted = false, false
		for _, r := range u.resources {
			if r.gone() {
				r.changed, r.end, r.missed = h.clock, untold, true
			}
		}
		if u.lacksRoster() {
			h.post(u)
		}
		h.mu.Unlock()
		h.release(u)
	}
	h.relayers, h.marked = nil, nil
	h.blockAsks, h.keepAsks, h.resyncs, h.absent = nil, nil, nil, absent{}
	h.mu.Lock()
	h.running = false
	h.mu.Unlock()
}
