package presence

import "time"

// fifo is a queue.
type fifo[T any] struct {
	items []T
	head  int
}

func (q *fifo[T]) len() int { return len(q.items) - q.head }

func (q *fifo[T]) push(item T) {
	if q.head > 32 && q.head > len(q.items)/2 {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, item)
}

// first is the item that pop removes next. The queue is not empty.
func (q *fifo[T]) first() T { return q.items[q.head] }

// pop removes the first item. The queue is not empty.
func (q *fifo[T]) pop() T {
	item := q.items[q.head]
	var none T
	q.items[q.head] = none
	if q.head++; q.head == len(q.items) {
		q.items, q.head = nil, 0
	}
	return item
}

// dated is a user for whom something is to be done at a time. All in one queue
// wait equally long, so the first is due first.
type dated struct {
	user *user
	due  time.Duration
}
