package harness

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
)

// freePorts finds n different ports of 127.0.0.1 on which nothing listens.
//
// It looks below 32768, where the ephemeral ports of Linux begin: while a
// server with an ephemeral port is down, an outgoing connection may be given
// that port, and a client that dials it may even be connected to itself.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range 100 * n {
		port := 10_000 + rand.IntN(22_000)
		ln, err := net.Listen("tcp", address(port))
		if err != nil {
			continue
		}
		defer ln.Close() // held until all are found, so that they differ
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, errors.New("no free port found")
}

func address(port int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}
