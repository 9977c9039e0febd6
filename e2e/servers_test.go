package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"rosterd/e2e/harness"
)

// server is a kind of XMPP server under test, with the settings that let rosterd
// do its best there.
type server struct {
	name  string
	start func(context.Context, harness.ServerOptions) (*harness.Server, error)

	// unrestricted has the component use any address of its hosts, on both
	// sides.
	unrestricted bool

	// rosters says what rosterd does with the server's own rosters: "" is what it finds to
	// do by itself.
	rosters string

	// pushed is what a push that has arrived is counted as: ejabberd tells
	// nobody what a client answers.
	pushed string

	// privilegedIQ says that the component may be granted privileged IQs
	// (XEP-0356, section 6), which ejabberd has from 24.10 on.
	privilegedIQ bool

	// unicodeHosts says that the server's hosts have U-labels, even if they are set
	// up with A-labels, as in ejabberd after 24.12.
	unicodeHosts bool
	// dropsApproved says that privileged pushes arrive without approved (RFC 6121,
	// section 3.4): ejabberd 24.12 writes them anew, with what it knows.
	dropsApproved bool
	// blocksAnswered says that the server tells the component whom a user has
	// blocked: ejabberd 24.12 takes the question and does not answer.
	blocksAnswered bool

	// blockTold says that the server sends unavailable to whom a user blocks (XEP-0191,
	// section 3.1), where presence goes by its own rosters.
	blockTold bool

	// endsTold says that the component is told of the end of a session whose
	// client says nothing.
	endsTold bool

	componentGone    string // what the server logs when a component has left
	unknownComponent string // the stream error for a domain that is no component's

	checksFrom      bool   // a client that claims another address loses its stream
	foreignResource string // answer to a query of a resource of the server's domain
	expanded        string // answer to a stanza that a server could write much longer than it was

	depth int // of elements that the server bears

	// slow is a server that takes a second of a core to start: tests share it,
	// one after the other.
	slow bool
}

var (
	prosody = server{
		name: "prosody", start: startProsody, pushed: "ok", privilegedIQ: true, blocksAnswered: true, blockTold: true, endsTold: true,
		componentGone: "component disconnected: " + domain, unknownComponent: "host-unknown", depth: 30_000,
		foreignResource: "forbidden", expanded: "policy-violation",
	}
	ejabberdVersion = harness.Versions(os.Getenv("E2E_SUITE"))["ejabberd"]
	ejabberd        = server{
		name: "ejabberd", start: startEjabberd, unrestricted: true, pushed: "sent", slow: true,
		privilegedIQ: ejabberdVersion >= "24.10", dropsApproved: strings.HasPrefix(ejabberdVersion, "24."), unicodeHosts: ejabberdVersion >= "25",
		blocksAnswered: ejabberdVersion > "24.12",
		componentGone:  "Remove delegation of namespace", unknownComponent: "not-authorized", checksFrom: true,
		foreignResource: "item-not-found", expanded: "service-unavailable", depth: 2000, // 5000 end its process
	}
	servers = []server{prosody, ejabberd}
)

// push is how rosterd pushes where all is granted.
func (s server) push() string {
	if s.privilegedIQ {
		return "privileged"
	}
	return "direct"
}

func startProsody(ctx context.Context, opts harness.ServerOptions) (*harness.Server, error) {
	return harness.StartProsody(ctx, harness.ProsodyOptions{ServerOptions: opts})
}

func startEjabberd(ctx context.Context, opts harness.ServerOptions) (*harness.Server, error) {
	return harness.StartEjabberd(ctx, harness.EjabberdOptions{ServerOptions: opts})
}

// onServers runs a test on each server.
func onServers(t *testing.T, test func(*testing.T, server)) {
	t.Helper()
	t.Parallel()
	for _, srv := range servers {
		t.Run(srv.name, func(t *testing.T) {
			t.Parallel()
			test(t, srv)
		})
	}
}

// startServer starts the server of a world, or takes one that another test has
// left as it should be.
func startServer(ctx context.Context, t *testing.T, s setup) *harness.Server {
	t.Helper()
	if !s.server.slow || s.own {
		running, err := s.server.start(ctx, s.options)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(running.Close)
		return running
	}
	key := fmt.Sprintf("%s %+v", s.server.name, s.options)
	running, err := shared.take(key, func() (*harness.Server, error) { return s.server.start(ctx, s.options) })
	if err != nil {
		t.Fatal(err)
	}
	// After clients and rosterd have ended. A failed test may have left anything.
	t.Cleanup(func() { shared.put(key, running, !t.Failed()) })
	return running
}

// shared are the servers that tests with the same options use, one after the
// other.
var shared = pool{free: map[string][]*harness.Server{}}

type pool struct {
	mu   sync.Mutex
	free map[string][]*harness.Server // by their options; guarded by mu
}

// take takes a server that is free, or starts one.
func (p *pool) take(key string, start func() (*harness.Server, error)) (*harness.Server, error) {
	p.mu.Lock()
	free := p.free[key]
	if len(free) == 0 {
		p.mu.Unlock()
		return start()
	}
	defer p.mu.Unlock()
	p.free[key] = free[:len(free)-1]
	return free[len(free)-1], nil
}

// put gives back what take has returned.
func (p *pool) put(key string, s *harness.Server, good bool) {
	if !good {
		s.Close()
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free[key] = append(p.free[key], s)
}

// close ends the servers that nobody uses.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, free := range p.free {
		for _, s := range free {
			s.Close()
		}
	}
	clear(p.free)
}

// everybody are the users of an ordinary world. All users have the same
// password.
var everybody = func() map[string]string {
	all := users("juliet", "romeo", "mercutio", "nurse",
		"a.b-c_d~e", "100%", "%s%d", "a+b;c=d,e!f$g(h)*", "a?b#c", `d\27artagnan`, "..", "jürgen", "羅密歐")
	for i := range 20 {
		all[fmt.Sprint("user", i)] = password
	}
	return all
}()

// users are accounts.
func users(names ...string) map[string]string {
	accounts := map[string]string{}
	for _, name := range names {
		accounts[name] = password
	}
	return accounts
}
