package refresh

import (
	"cmp"
	"time"
)

// Limits are what callers get of the endpoint. A field that is 0 has its default.
type Limits struct {
	Connections int // open at once: 512
	Requests    int // worked on at once: 256
	// Large is how many requests with a body of more than 64 KiB are worked on
	// at once: 8. What a body becomes in memory is many times its size.
	Large int

	Header time.Duration // for the TLS handshake, and for a header, to arrive: 10 s
	Stall  time.Duration // between two parts of a body: 10 s
	Body   time.Duration // for a body to arrive: 1 min
	Answer time.Duration // for an answer to be taken: 10 s
	Idle   time.Duration // between two requests: 2 min
}

// What a body is large from, and the largest header, in bytes.
const (
	largeBody = 64 << 10
	maxHeader = 64 << 10
)

func (l Limits) orDefault() Limits {
	l.Connections = cmp.Or(l.Connections, 512)
	l.Requests = cmp.Or(l.Requests, 256)
	l.Large = cmp.Or(l.Large, 8)
	l.Header = cmp.Or(l.Header, 10*time.Second)
	l.Stall = cmp.Or(l.Stall, 10*time.Second)
	l.Body = cmp.Or(l.Body, time.Minute)
	l.Answer = cmp.Or(l.Answer, 10*time.Second)
	l.Idle = cmp.Or(l.Idle, 2*time.Minute)
	return l
}
