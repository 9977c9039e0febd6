package component

import (
	"sync"

	"rosterd/jid"
)

// unread are the resources whose answers, sent on one stream, the server may
// not have read: what was written is not what has arrived, and nobody confirms
// an answer. A server reads in order: when it answers a request that was sent
// later, it has read them. It is safe for concurrent use.
type unread struct {
	mu     sync.Mutex
	sent   []jid.JID // in the order they were queued
	asking bool      // a request behind some of them is under way
	closed bool      // the stream has ended
}

// manyUnread is how many answers are asked for at once, and not only when it is
// time.
const manyUnread = 1024

// note notes an answer that was queued, and reports whether there are many by now.
// It fails when the stream has ended.
func (u *unread) note(full jid.JID) (many, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return false, false
	}
	u.sent = append(u.sent, full)
	return len(u.sent) >= manyUnread && !u.asking, true
}

// ask returns how many answers a request that is sent now goes behind; 0 if
// there are none, or another one is under way.
func (u *unread) ask() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.asking {
		return 0
	}
	u.asking = len(u.sent) > 0
	return len(u.sent)
}

// read forgets the first n answers, and lets ask ask again. When the stream has
// ended, nothing is left to forget: a request that was given up for a newer one may
// tell so as late as that.
func (u *unread) read(n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return
	}
	u.asking = false
	u.sent = append([]jid.JID(nil), u.sent[n:]...)
}

// close returns the resources whose answers are in doubt for good, each once.
func (u *unread) close() map[jid.JID]struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	doubtful := make(map[jid.JID]struct{}, len(u.sent))
	for _, full := range u.sent {
		doubtful[full] = struct{}{}
	}
	u.sent, u.closed = nil, true
	return doubtful
}

// sent notes an answer that was queued on a stream. It fails when that has ended.
func (c *Component) sent(s *stream, full jid.JID) (ok bool) {
	many, ok := s.unread.note(full)
	if many {
		c.askForRead(s)
	}
	return ok
}

// askForRead asks for a sign that the answers sent so far were read, if that is
// not known. It does not block.
func (c *Component) askForRead(s *stream) {
	n := s.unread.ask()
	if n == 0 {
		return
	}
	c.sendPing(s, c.nobodyAt(c.names.known(c.opts.Hosts)[0]), func(a answer) {
		if a.lost { // or there was no room to ask
			n = 0
		}
		s.unread.read(n) // one who answers nothing at all, but lives, is believed after a while
	})
}

// behind sends a ping to a host behind what was sent to its users, and calls
// back once: with the answer, which proves that the server has read all that, or
// when nobody has answered in time, or when the stream was lost first. It blocks
// while the queue to the server is full.
func (c *Component) behind(s *stream, host string, callback func(answer)) {
	to := c.nobodyAt(c.names.write(host))
	id, ok := s.iqs.register(to, callback)
	if !ok {
		callback(answer{lost: true})
		return
	}
	if s.out.put(appendPing(id, c.names.domain(), to), nil) != nil && s.iqs.forget(id) {
		callback(answer{lost: true})
	}
}
