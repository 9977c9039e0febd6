package roster

import (
	"container/list"
	"slices"
	"sync"
)

// places bound how many users are fetched at a time that no query waits for. They are
// fair: domains take turns, and where several want places, none takes all of them, so
// that a backend that is slow or down holds up its own users. It is safe for
// concurrent use.
type places struct {
	mu    sync.Mutex
	free  int
	lines []*line // of the domains that have or want places, the next one in front
}

// line is who of a domain waits.
type line struct {
	domain  string
	taken   int       // places
	waiting list.List // of *ticket
}

// ticket is what a user waits with.
type ticket struct {
	line  *line
	place *list.Element // in the line; nil: it has a place
	ready chan struct{} // closed when it has
}

func newPlaces(n int) *places { return &places{free: n} }

// hasRoom reports whether one of several domains may take one more of the places that
// are free: as long as it leaves the others as many as it has.
func hasRoom(domains, taken, free int) bool {
	return free > 0 && (domains == 1 || taken < free)
}

// enter queues a user of a domain, who calls leave with the ticket, be it ready or not.
func (p *places) enter(domain string) *ticket {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.lines, func(l *line) bool { return l.domain == domain })
	if i < 0 {
		i = len(p.lines)
		p.lines = append(p.lines, &line{domain: domain})
	}
	t := &ticket{line: p.lines[i], ready: make(chan struct{})}
	t.place = t.line.waiting.PushBack(t)
	p.admit()
	return t
}

// leave gives up a place, or the wait for one.
func (p *places) leave(t *ticket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := t.line
	if t.place != nil {
		l.waiting.Remove(t.place)
	} else {
		l.taken--
		p.free++
	}
	if l.taken == 0 && l.waiting.Len() == 0 {
		p.lines = slices.DeleteFunc(p.lines, func(other *line) bool { return other == l })
	}
	p.admit()
}

// admit gives places to those who wait, as far as they have room. p.mu is held.
func (p *places) admit() {
	for i := 0; i < len(p.lines); {
		l := p.lines[i]
		if l.waiting.Len() == 0 || !hasRoom(len(p.lines), l.taken, p.free) {
			i++
			continue
		}
		t := l.waiting.Remove(l.waiting.Front()).(*ticket)
		t.place = nil
		close(t.ready)
		l.taken++
		p.free--
		p.lines = append(slices.Delete(p.lines, i, i+1), l)
		i = 0
	}
}
