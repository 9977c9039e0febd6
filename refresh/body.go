package refresh

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// errBusy says that a large body finds no place.
var errBusy = errors.New("too many large requests")

// body is the body of a request. It has to come without long pauses, and soon as
// a whole; otherwise reading fails with [os.ErrDeadlineExceeded].
type body struct {
	io.Closer
	from    io.Reader
	control *http.ResponseController
	stall   time.Duration
	end     time.Time
	err     error // of the last reading

	read  int64
	grow  func() error // called once there are more than largeBody bytes
	grown bool
}

// newBody is the body of r. It may not be read after serving r.
func newBody(w http.ResponseWriter, r *http.Request, l Limits, grow func() error) *body {
	return &body{Closer: r.Body, from: r.Body, control: http.NewResponseController(w), stall: l.Stall, end: time.Now().Add(l.Body), grow: grow}
}

// await gives the next part its time. There is none in tests without a connection.
func (b *body) await() {
	deadline := time.Now().Add(b.stall)
	if deadline.After(b.end) {
		deadline = b.end
	}
	_ = b.control.SetReadDeadline(deadline)
}

func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		// After the end, net/http waits for the caller to hang up: a deadline
		// would look like that.
		return 0, b.err
	}
	b.await()
	var n int
	n, b.err = b.from.Read(p)
	b.read += int64(n)
	if b.read > largeBody && !b.grown {
		b.grown = true
		if err := b.grow(); err != nil {
			b.err = err
			return 0, err
		}
	}
	return n, b.err
}
