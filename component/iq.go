package component

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"rosterd/xmlstream"
)

// maxUnanswered is how many IQs of a stream wait for an answer at a time; with
// one more the oldest is given up.
const maxUnanswered = 1 << 16

// answer is what becomes of an IQ that was sent: exactly one of them.
type answer struct {
	iq   *xmlstream.Element // the result or the error
	lost bool               // the stream ended first
	ours bool               // it is our own, see probe
	// neither iq nor lost: nobody answered in time
}

// tracker knows the IQs of one stream that wait for an answer (RFC 6120,
// section 8.2.3). It is safe for concurrent use. Callbacks are called without
// a lock held, and must not block.
type tracker struct {
	timeout time.Duration
	prefix  string // of the ids; nobody else can guess one

	mu      sync.Mutex
	last    uint64
	waiting map[string]*wait
	order   []*wait // by deadline; those answered stay until they are at the front
	closed  bool
}

type wait struct {
	id       string
	from     string // who must answer
	prepared string // the same, as the server may prepare it; "": it does not
	deadline time.Time
	callback func(answer)
	arrived  bool // it came back to us, see probe
}

func newTracker(timeout time.Duration, prefix string) *tracker {
	return &tracker{timeout: timeout, prefix: prefix, waiting: make(map[string]*wait)}
}

// register notes, before it is sent, an IQ that from will answer, and returns
// its id. callback is called once. It fails when the stream has ended.
func (t *tracker) register(from string, callback func(answer)) (id string, ok bool) {
	return t.registerAs(from, "", callback)
}

// registerAs is register for an address that the answer may have as the server
// prepares it.
func (t *tracker) registerAs(from, prepared string, callback func(answer)) (id string, ok bool) {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return "", false
	}
	w := &wait{id: t.next(), from: from, prepared: prepared, deadline: time.Now().Add(t.timeout), callback: callback}
	t.waiting[w.id] = w
	if len(t.order) > 2*len(t.waiting)+1024 { // one unanswered IQ keeps answered ones behind it
		t.order = slices.DeleteFunc(t.order, func(w *wait) bool { return t.waiting[w.id] != w })
	}
	t.order = append(t.order, w)
	var oldest *wait
	if len(t.waiting) > maxUnanswered {
		t.trim()
		oldest = t.order[0]
		delete(t.waiting, oldest.id)
		t.trim()
	}
	t.mu.Unlock()
	if oldest != nil {
		oldest.callback(answer{})
	}
	return w.id, true
}

// id is a new id, for an IQ that nobody waits for.
func (t *tracker) id() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.next()
}

// next is a new id. t.mu is held.
func (t *tracker) next() string {
	t.last++
	return t.prefix + strconv.FormatUint(t.last, 36)
}

// answered gives a result or an error to who waits for it. It reports false if
// nobody does: an id alone is no proof, the sender must be the one who was
// asked.
func (t *tracker) answered(from string, iq *xmlstream.Element) bool {
	t.mu.Lock()
	w := t.waiting[iq.Get("id")]
	if w == nil || from == "" || from != w.from && from != w.prepared {
		t.mu.Unlock()
		return false
	}
	delete(t.waiting, w.id)
	t.trim()
	t.mu.Unlock()
	w.callback(answer{iq: iq, ours: w.arrived})
	return true
}

// arrive notes that an IQ came back to us, for us to answer, and reports whether
// it is one of this stream's.
func (t *tracker) arrive(id string) (own bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w := t.waiting[id]; w != nil {
		w.arrived = true
	}
	return strings.HasPrefix(id, t.prefix)
}

// forget drops an IQ that was not sent after all; its callback is not called
// any more, unless that is happening.
func (t *tracker) forget(id string) (was bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, was = t.waiting[id]
	delete(t.waiting, id)
	return was
}

// giveUp drops an IQ that has neither been answered nor come back to us.
func (t *tracker) giveUp(id string) (was bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w := t.waiting[id]; w != nil && !w.arrived {
		delete(t.waiting, id)
		return true
	}
	return false
}

// expire gives up the IQs whose time is over at now.
func (t *tracker) expire(now time.Time) {
	t.mu.Lock()
	var late []*wait
	for t.trim(); len(t.order) > 0 && !t.order[0].deadline.After(now); t.trim() {
		late = append(late, t.order[0])
		delete(t.waiting, t.order[0].id)
	}
	t.mu.Unlock()
	for _, w := range late {
		w.callback(answer{})
	}
}

// close gives up all: the stream has ended.
func (t *tracker) close() {
	t.mu.Lock()
	t.closed = true
	waiting := t.waiting
	t.waiting, t.order = nil, nil
	t.mu.Unlock()
	for _, w := range waiting {
		w.callback(answer{lost: true})
	}
}

// trim removes from the front of the order what no longer waits. t.mu is held.
func (t *tracker) trim() {
	for len(t.order) > 0 && t.waiting[t.order[0].id] != t.order[0] {
		t.order[0] = nil
		t.order = t.order[1:]
	}
}
