package roster

import "testing"

func TestPlaces(t *testing.T) {
	p := newPlaces(4)
	var a, b []*ticket
	for range 10 {
		a = append(a, p.enter("example.org"))
	}
	has := func(what string, wantA, wantB int) {
		t.Helper()
		n := func(tickets []*ticket) (n int) {
			for _, ticket := range tickets {
				select {
				case <-ticket.ready:
					n++
				default:
				}
			}
			return n
		}
		if n(a) != wantA || n(b) != wantB || p.free != 4-wantA-wantB {
			t.Errorf("%s: %d and %d places, %d free", what, n(a), n(b), p.free)
		}
	}
	leave := func(tickets *[]*ticket) {
		p.leave((*tickets)[0])
		*tickets = (*tickets)[1:]
	}
	has("alone", 4, 0)
	b = append(b, p.enter("example.net"), p.enter("example.net"))
	has("no place is free", 4, 0)
	leave(&a)
	has("the other one's turn", 3, 1)
	leave(&a)
	has("as many as are left free", 2, 1)
	leave(&a)
	has("one more", 2, 1)
	p.leave(b[1]) // the wait is given up
	b = b[:1]
	has("given up", 2, 1)
	leave(&b)
	has("alone again", 4, 0)
	for len(a) > 0 {
		leave(&a)
	}
	if len(p.lines) != 0 || p.free != 4 {
		t.Errorf("%d lines, %d free", len(p.lines), p.free)
	}
}
