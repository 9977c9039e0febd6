package harness

import (
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
)

// Ports are looked for below 32768, where the ephemeral ports of Linux begin:
// while a server with an ephemeral port is down, an outgoing connection may be
// given that port, and a client that dials it may even be connected to itself.
// Test binaries that run at the same time mostly look in different blocks.
const (
	firstPort  = 10_000
	portBlock  = 2_200
	portBlocks = 10
)

// given are the ports that this process was given lately. A port may be free
// because the server that it is for has yet to listen on it.
var given struct {
	sync.Mutex
	ports []int // guarded by Mutex
}

// freePorts finds n different ports of 127.0.0.1 on which nothing listens, and
// which nobody else was given lately.
func freePorts(n int) ([]int, error) {
	given.Lock()
	defer given.Unlock()
	var ports []int
	block := firstPort + os.Getpid()%portBlocks*portBlock
	for range 100 * n {
		port := block + rand.IntN(portBlock)
		if slices.Contains(given.ports, port) {
			continue
		}
		ln, err := net.Listen("tcp", address(port))
		if err != nil {
			continue
		}
		_ = ln.Close()
		given.ports = append(given.ports, port)
		given.ports = given.ports[max(0, len(given.ports)-portBlock/4):]
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, errors.New("no free port found")
}

func address(port int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}
