package freeport

import (
	"net"
	"testing"
)

// Nobody is given a port twice before all others, and none that is held.
func TestFind(t *testing.T) {
	b := claim()
	if b.keep == nil {
		t.Fatal("all blocks are taken")
	}
	t.Cleanup(func() { b.keep.Close() })
	held, err := net.Listen("tcp", Address(b.first+7))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	seen := map[int]bool{b.first: true, b.first + 7: true}
	for range (portBlock - 100) / 2 {
		ports, err := b.find(2)
		if err != nil || len(ports) != 2 {
			t.Fatal(ports, err)
		}
		for _, port := range ports {
			if seen[port] || port < b.first || port >= b.first+portBlock {
				t.Fatalf("%d of the block at %d", port, b.first)
			}
			seen[port] = true
		}
	}
	if ports, err := b.find(portBlock); err == nil {
		t.Errorf("%d ports of a block of %d", len(ports), portBlock)
	}
}

// Two blocks at a time have no port in common.
func TestClaim(t *testing.T) {
	a, b := claim(), claim()
	for _, c := range []*block{a, b} {
		if c.keep == nil {
			t.Fatal("all blocks are taken")
		}
		defer c.keep.Close()
	}
	if a.first == b.first || a.first == own.first {
		t.Errorf("blocks at %d, %d and %d", own.first, a.first, b.first)
	}
	if a.first+portBlock > 32_768 || b.first+portBlock > 32_768 {
		t.Error("ephemeral ports")
	}
}
