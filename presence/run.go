package presence

import (
	"context"
	"errors"
	"time"
)

// Run is [Hub.Start] and what it returns in one.
func (h *Hub) Run(ctx context.Context, s Sender) error {
	run, err := h.Start(s)
	if err != nil {
		return err
	}
	return run(ctx)
}

// Start begins a stream: it is to be called before the server's reports on it
// are handed over, and after what it returned for the stream before has
// returned. What it returns sends what is to be sent, for the life of the
// stream: until ctx ends or the sender fails, and returns why. It must be
// called.
//
// Of what was sent over an earlier stream, or by an earlier rosterd, nobody
// knows what arrived, nor who left meanwhile. What is reported on the new
// stream and is news is sent at once. When Limits.Settle has passed every
// client is brought in line with what is known then, Limits.Rate stanzas a
// second: it is sent all that it may see, and unavailable presence of its other
// contacts. Who was available on an earlier stream and has not been heard of on
// this one is shown to nobody before that.
func (h *Hub) Start(s Sender) (run func(context.Context) error, err error) {
	if err := h.begin(); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		defer h.end()
		return h.send(ctx, s)
	}, nil
}

func (h *Hub) send(ctx context.Context, s Sender) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var batch []Stanza
	for ctx.Err() == nil {
		h.askRosters()
		h.askBlocks(s)
		var wait time.Duration
		batch, wait = h.decide(batch[:0])
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

func (h *Hub) begin() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.running {
		return errors.New("presence: the stream before has not ended")
	}
	h.running = true
	h.streams++
	h.settleAt = h.now() + h.limits.Settle
	for u := range h.users() {
		u.aligned = false
		if !u.known && u.available > 0 {
			u.wanted = false
			h.ask(u)
		}
	}
	return nil
}

// end notes that what was sent may not have arrived.
func (h *Hub) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.running, h.settled = false, false
	h.lost = max(h.now(), 1)
	h.clock++
	h.forgetBlocks()
	for h.align.len() > 0 {
		u := h.align.pop()
		u.aligning, u.review = false, walk{}
		h.letGo(u)
	}
	for u := range h.users() {
		u.owed = false
		for i := range u.resources {
			if r := &u.resources[i]; r.gone {
				r.changed, r.fade = h.clock, untold
			}
		}
		for i := range u.pairs {
			p := &u.pairs[i]
			p.all, p.fade = !p.gone, untold
		}
	}
}

// askRosters asks for rosters that are not known.
func (h *Hub) askRosters() {
	for range maxTurns {
		user, ok := h.nextRecall()
		if !ok {
			break
		}
		last, known := h.rosters.Known(user) // before it is fetched anew, as a rule
		h.recalled(user, last, known)
	}
	for range maxTurns {
		u, bare := h.nextAsk()
		if u == nil {
			break
		}
		now, ok := h.rosters.Known(bare)
		h.asked(u, now, ok)
	}
	for {
		bare, ok := h.nextWant()
		if !ok {
			break
		}
		h.rosters.Want(bare)
	}
}
