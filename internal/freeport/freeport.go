// Package freeport finds ports for servers that tests start, also ones that
// start in other processes, or once more at the same place.
package freeport

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
)

// Ports are looked for below 32768, where the ephemeral ports of Linux begin:
// while a server with an ephemeral port is down, an outgoing connection may be
// given that port, and a client that dials it may even be connected to itself.
//
// Each process has a block of its own. The first port of a block is who has it:
// the process listens there until it ends.
const (
	firstPort  = 10_000
	portBlock  = 2_800
	portBlocks = 8
)

// own is the block of this process. It is taken before any test runs: the
// descriptor is not one that a test leaves open.
var own = claim()

// block gives out ports in turn, so that one that was given is given again as
// late as possible: it may be free because its server has yet to listen there,
// or is to come back.
type block struct {
	keep  net.Listener // nil: every block was taken, this one is shared
	first int

	mu   sync.Mutex
	next int // guarded by mu: the last one that was given, less first
}

func claim() *block {
	start := rand.IntN(portBlocks)
	for i := range portBlocks {
		first := firstPort + (start+i)%portBlocks*portBlock
		if keep, err := net.Listen("tcp", Address(first)); err == nil {
			return &block{keep: keep, first: first}
		}
	}
	return &block{first: firstPort + start*portBlock, next: rand.IntN(portBlock)}
}

// Find finds n different ports of 127.0.0.1 on which nothing listens. None of
// them is given again before more than two thousand others were, in this process,
// nor in any other that uses this package, of which 8 may run at a time.
func Find(n int) ([]int, error) { return own.find(n) }

func (b *block) find(n int) ([]int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var ports []int
	for range portBlock {
		if len(ports) == n {
			return ports, nil
		}
		b.next = b.next%(portBlock-1) + 1 // 0 is who has the block
		port := b.first + b.next
		if l, err := net.Listen("tcp", Address(port)); err == nil {
			_ = l.Close()
			ports = append(ports, port)
		}
	}
	return nil, errors.New("no free port found")
}

// Of is the address of one port that Find finds.
func Of(t testing.TB) string {
	t.Helper()
	ports, err := Find(1)
	if err != nil {
		t.Fatal(err)
	}
	return Address(ports[0])
}

// Address is that of a port: host:port.
func Address(port int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}
