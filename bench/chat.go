package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"
)

// chat is two users, one of whom says something every 10 ms.
type chat struct {
	from, to *client
	arrived  sync.WaitGroup

	mu   sync.Mutex
	sent []time.Time     // when each message was to be sent; guarded by mu, as all below
	took []time.Duration // of those that have arrived
}

// pace is the pause between two messages.
const pace = 10 * time.Millisecond

func newChat(ctx context.Context, address string) (*chat, error) {
	ch := &chat{}
	var err error
	if ch.from, err = login(ctx, address, user{'e', 0, 0}, nil); err != nil {
		return nil, err
	}
	if ch.to, err = login(ctx, address, user{'e', 0, 1}, nil); err != nil {
		ch.from.close()
		return nil, err
	}
	go ch.from.listen(func() {}, func(string) {})
	go ch.to.listen(func() {}, ch.hear)
	return ch, nil
}

func (ch *chat) hear(id string) {
	now := time.Now()
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if i, err := strconv.Atoi(id); err == nil && i < len(ch.sent) {
		ch.took = append(ch.took, now.Sub(ch.sent[i]))
		ch.arrived.Done()
	}
}

// talk sends until ctx ends. A message that is sent late, as the server does
// not read, counts from when it was to be sent.
func (ch *chat) talk(ctx context.Context) error {
	for due := time.Now(); ctx.Err() == nil; due = due.Add(pace) {
		time.Sleep(time.Until(due))
		ch.mu.Lock()
		id := len(ch.sent)
		ch.sent = append(ch.sent, due)
		ch.arrived.Add(1)
		ch.mu.Unlock()
		if err := ch.from.say(fmt.Sprintf("<message to='%s' type='chat' id='%d'><body>What light through yonder window breaks?</body></message>", ch.to.full, id)); err != nil {
			return err
		}
	}
	return nil
}

// latencies waits for what was sent, and returns the median and the 99th
// percentile of how long it took.
func (ch *chat) latencies(ctx context.Context) (mid, p99 time.Duration, err error) {
	all := make(chan struct{})
	go func() {
		ch.arrived.Wait()
		close(all)
	}()
	select {
	case <-all:
	case <-ctx.Done():
		return 0, 0, fmt.Errorf("chat: not all messages came: %w", ctx.Err())
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	slices.Sort(ch.took)
	return ch.took[len(ch.took)/2], ch.took[len(ch.took)*99/100], nil
}

func (ch *chat) close() {
	ch.from.close()
	ch.to.close()
}
