package component

import "sync"

// buffers is memory for long stanzas, which is used again when they have been
// written: an answer with a roster is the most that is allocated for a query. It
// is safe for concurrent use.
type buffers struct{ pool sync.Pool } // of *[]byte

// What is kept: no shorter and no longer buffers, in bytes.
const (
	minBuffer = 4 << 10
	maxBuffer = 64 << 10
)

// get returns an empty buffer with room for n bytes.
func (b *buffers) get(n int) []byte {
	if minBuffer <= n && n <= maxBuffer {
		if kept, _ := b.pool.Get().(*[]byte); kept != nil && cap(*kept) >= n {
			return (*kept)[:0]
		}
		n = (n + minBuffer - 1) &^ (minBuffer - 1) // for one that is a little longer, too
	}
	return make([]byte, 0, n)
}

// put takes a buffer back, which nobody may use any more.
func (b *buffers) put(data []byte) {
	if b != nil && minBuffer <= cap(data) && cap(data) <= maxBuffer {
		b.pool.Put(&data)
	}
}
