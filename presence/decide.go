package presence

import (
	"slices"
	"time"
)

// How many users are looked at, or perhaps forgotten, which takes longer, while
// h.mu is held.
const (
	maxTurns = 256
	maxFades = 16
)

// decide adds to batch what is to be sent next, and says how long Run can wait
// if that is nothing.
func (h *Hub) decide(batch []Stanza) ([]Stanza, time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	h.become(now)
	batch = h.news(batch)
	if h.alignAt <= now {
		n, asks := len(batch), 0
		batch, asks = h.bring(batch, n+min(max(h.limits.Rate/16, 1), maxBatch))
		h.alignAt = now + time.Duration(len(batch)-n+asks)*time.Second/time.Duration(h.limits.Rate)
	}
	return batch, h.wait(now)
}

// become does what is due.
func (h *Hub) become(now time.Duration) {
	for h.later.len() > 0 && h.later.first().due <= now {
		u := h.later.pop().user
		u.turn = now
		h.live.push(u)
	}
	for n := 0; n < maxFades && h.fades.len() > 0 && h.fades.first().due <= now; n++ {
		u := h.fades.pop().user
		u.fading = false
		if h.forget(u) {
			h.fade(u)
		}
		h.letGo(u)
	}
	if h.running && !h.settled && h.settleAt <= now && h.recalls.len() == 0 {
		h.settled = true
		for u := range h.users() {
			h.bringInLine(u)
		}
	}
}

// wait is how long nothing is due.
func (h *Hub) wait(now time.Duration) time.Duration {
	wait := time.Hour
	until := func(at time.Duration) { wait = min(wait, at-now) }
	if h.live.len()+h.asks.len()+h.recalls.len()+h.blockAsks.len() > 0 {
		until(now)
	}
	if h.align.len() > 0 {
		until(h.alignAt)
	}
	if h.wants.len() > 0 {
		until(max(h.wants.first().due, h.wantAt))
	}
	if h.later.len() > 0 {
		until(h.later.first().due)
	}
	if h.fades.len() > 0 {
		until(h.fades.first().due)
	}
	if !h.settled {
		until(h.settleAt)
	}
	return wait
}

// enqueue sees to it that the marked walks of a user are made: soon, or later
// if that happens too often.
func (h *Hub) enqueue(u *user) {
	if u.queued {
		return
	}
	u.queued = true
	u.holds++
	now := h.now()
	if now-u.turn > h.limits.Calm {
		u.turns = 0
	}
	if u.turns >= h.limits.Burst {
		h.later.push(dated{u, now + h.limits.Calm})
	} else {
		u.turns, u.turn = u.turns+1, now
		h.live.push(u)
	}
	h.signal()
}

// news adds to batch what follows from the last facts. Users with much to be
// sent take turns.
func (h *Hub) news(batch []Stanza) []Stanza {
	for turns := 0; turns < maxTurns && h.live.len() > 0 && len(batch) < maxBatch; turns++ {
		u := h.live.pop()
		if u.source.on && !h.knowsBlocks(u) {
			u.blocks.parked = true
			continue
		}
		if u.source.on {
			batch = h.tellOthers(u, &u.source, batch, maxBatch)
		}
		if u.viewer.on {
			batch = h.tellUser(u, batch, maxBatch)
		}
		if u.source.on || u.viewer.on {
			h.live.push(u)
			continue
		}
		u.queued = false
		h.letGo(u)
	}
	return batch
}

// bringInLine puts a user among those who are brought in line.
func (h *Hub) bringInLine(u *user) {
	u.review.mark()
	u.swept = 0
	if !u.aligning {
		u.aligning = true
		u.holds++
		h.align.push(u)
		h.signal()
	}
}

// bring adds to batch, until it has limit stanzas, what brings users in line, and
// says how many block lists are asked for.
func (h *Hub) bring(batch []Stanza, limit int) (_ []Stanza, asks int) {
	for turns := 0; turns < maxTurns && h.align.len() > 0 && asks < limit; turns++ {
		u := h.align.first()
		if u.review.on && !h.knowsBlocks(u) {
			h.align.pop()
			u.blocks.review = true
			asks++
			continue
		}
		for u.review.on && len(batch) < limit {
			batch = h.tellOthers(u, &u.review, batch, limit)
		}
		if u.review.on {
			break
		}
		if u.owed = !u.known; u.known {
			if batch = h.sweep(u, batch, limit); len(batch) >= limit {
				break // perhaps not through
			}
		}
		h.align.pop()
		u.aligning = false
		h.letGo(u)
	}
	return batch, asks
}

// fade sees to it that what is gone is forgotten after a while.
func (h *Hub) fade(u *user) {
	if !u.fading {
		u.fading = true
		u.holds++
		h.fades.push(dated{u, h.now() + h.limits.Linger})
		h.signal()
	}
}

// forget forgets what was told Limits.Linger ago, and reports whether something
// is left that must be forgotten later.
func (h *Hub) forget(u *user) (more bool) {
	u.resources = slices.DeleteFunc(u.resources, func(r resource) bool { return r.gone && r.fade == faded })
	for i := range u.resources {
		if r := &u.resources[i]; r.gone {
			more = true
			if r.fade == told {
				r.fade = faded
			}
		}
	}
	for i := len(u.pairs) - 1; i >= 0; i-- {
		p := &u.pairs[i]
		switch reachable := h.nodes[p.to].reachable(); {
		case !reachable && p.away == 2, reachable && p.gone && p.fade == faded:
			h.removePair(u, i)
			continue
		case !reachable:
			p.away++
		case !p.gone:
			continue
		case p.fade == untold: // the other was away
			u.source.mark()
			h.enqueue(u)
		default:
			p.fade = faded
		}
		more = true
	}
	return more
}
