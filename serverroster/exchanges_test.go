package serverroster

import "testing"

// exchangingServer is a fakeServer that says of itself that it exchanges presence, or not.
type exchangingServer struct {
	*fakeServer
	exchanges bool
}

func (s exchangingServer) Exchanges() bool { return s.exchanges }

// The watcher is told that the server has exchanged presence if the way says so, whatever
// its name is.
func TestWaySaysThatItExchanges(t *testing.T) {
	for _, exchanges := range []bool{false, true} {
		test(t, func(w *world) {
			w.server.mu.Lock()
			w.way, w.name = exchangingServer{w.server, exchanges}, "privilege"
			w.server.mu.Unlock()
			w.keep(juliet, many(3))
			w.settle()
			w.equal(juliet, many(3))
			if w.watcher.direct != exchanges {
				t.Errorf("exchanged: %v, want %v", w.watcher.direct, exchanges)
			}
		})
	}
}
