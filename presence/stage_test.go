package presence

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rosterd/internal/bubble"
	"rosterd/jid"
	"rosterd/roster"
)

// address makes a JID of a short name: "x/1" is x@a.example/1, "z@c.example" is
// z@c.example.
func address(s string) jid.JID {
	if !strings.Contains(s, "@") {
		local, resource, full := strings.Cut(s, "/")
		if s = local + "@a.example"; full {
			s += "/" + resource
		}
	}
	j, err := jid.ParseStamped(s)
	if err != nil {
		panic(err)
	}
	return j
}

// name is the short name of a JID.
func name(j jid.JID) string { return strings.Replace(j.String(), "@a.example", "", 1) }

// contacts makes a roster of lines such as "y both".
func contacts(lines ...string) *roster.Roster {
	var items []roster.Item
	for _, line := range lines {
		who, subscription, _ := strings.Cut(line, " ")
		items = append(items, roster.Item{JID: address(who), Subscription: roster.Subscription(subscription)})
	}
	return roster.New(items)
}

// text is what a test expects of a stanza: "x/1>y: payload" of available
// presence, "x/1>y! payload" of unavailable.
func text(s Stanza) string {
	sign := ": "
	if s.Unavailable {
		sign = "! "
	}
	return strings.TrimSpace(name(s.From) + ">" + name(s.To) + sign + string(s.Payload))
}

var errGone = errors.New("the stream is gone")

// stage is a hub and all around it. Its methods are called in a synctest bubble.
type stage struct {
	t   *testing.T
	hub *Hub
	end func() // of the stream

	mu     sync.Mutex
	sent   []string
	broken bool
	block  chan struct{} // Relay waits for it, unless nil
	asked  func(jid.JID) // called by Known, unless nil
	known  map[jid.JID]*roster.Roster
	wanted []string

	blocked    map[string][]jid.JID // by user
	lists      []string             // of whom they were asked
	unanswered chan func()          // if not nil, answers to be given
}

func newStage(t *testing.T, limits Limits) *stage {
	s := &stage{t: t, known: make(map[jid.JID]*roster.Roster)}
	s.hub = New([]string{"a.example", "b.example"}, s, limits)
	return s
}

// settled is a stage whose first stream is past its settling.
func settled(t *testing.T, limits Limits) *stage {
	s := newStage(t, limits)
	s.stream()
	time.Sleep(s.hub.limits.Settle + time.Second)
	return s
}

// run begins a stream and sends what is to be sent on it.
func run(ctx context.Context, h *Hub, s Sender) error {
	loop, err := h.Start(s)
	if err != nil {
		return err
	}
	return loop(ctx)
}

// step lets a hub that is not run make a step, and says how long it can wait then, and how
// much was sent.
func (s *stage) step() (wait time.Duration, sent int) {
	batch, wait := s.hub.step(s, nil)
	for _, stanza := range batch {
		s.Relay(stanza)
	}
	return wait, len(batch)
}

// stream begins a stream, after the end of the one before.
func (s *stage) stream() {
	if s.end != nil {
		s.end()
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		run(ctx, s.hub, s)
	}()
	s.end = func() { cancel(); <-done }
	synctest.Wait()
}

func (s *stage) Relay(stanza Stanza) error {
	s.mu.Lock()
	block := s.block
	s.mu.Unlock()
	if block != nil {
		<-block
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken {
		return errGone
	}
	s.sent = append(s.sent, text(stanza))
	return nil
}

func (s *stage) Blocked(user jid.JID, reply func([]jid.JID, bool)) {
	s.mu.Lock()
	s.lists = append(s.lists, name(user))
	answer, blocked := s.unanswered, s.blocked[name(user)]
	s.mu.Unlock()
	if answer != nil {
		answer <- func() { reply(blocked, true) }
		return
	}
	reply(blocked, true)
}

func (s *stage) Passed(reply func()) { reply() }

func (s *stage) Known(user jid.JID) (*roster.Roster, bool) {
	s.mu.Lock()
	r, ok := s.known[user]
	asked := s.asked
	s.mu.Unlock()
	if asked != nil {
		asked(user)
	}
	return r, ok
}

func (s *stage) Want(user jid.JID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted = append(s.wanted, name(user))
}

// roster makes a user's roster known, and tells the hub.
func (s *stage) roster(user string, lines ...string) {
	r := contacts(lines...)
	s.mu.Lock()
	s.known[address(user)] = r
	s.mu.Unlock()
	s.hub.Told(address(user), r)
}

// on and off say that resources are available, with their names as payload, and
// that they are not. "x/1 away" has another payload.
func (s *stage) on(resources ...string) {
	for _, r := range resources {
		who, payload, ok := strings.Cut(r, " ")
		if !ok {
			payload = "hi"
		}
		s.hub.Available(address(who), []byte(payload))
		synctest.Wait()
	}
}

func (s *stage) off(resources ...string) {
	for _, r := range resources {
		who, payload, _ := strings.Cut(r, " ")
		s.hub.Unavailable(address(who), []byte(payload))
		synctest.Wait()
	}
}

// wants are those whose rosters were wanted.
func (s *stage) wants() []string {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.wanted)
}

// forget makes a user's roster unknown, without telling.
func (s *stage) forget(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.known, address(user))
}

// set changes what Relay does.
func (s *stage) set(broken bool, block chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken, s.block = broken, block
}

// counts says how much the hub has in its queues and keeps.
func (s *stage) counts() (queued, resources, nodes int) {
	synctest.Wait()
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, u := range h.users {
		resources += len(u.resources)
	}
	queued = len(h.mailbox) + len(h.ready) + len(h.heldBack) + len(h.resyncs) + len(h.wants) + len(h.expiries)
	return queued, resources, len(h.ids)
}

// take is what was sent since the last call.
func (s *stage) take() []string {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	sent := s.sent
	s.sent = nil
	return sent
}

// expect fails unless exactly this was sent since the last call, in any order.
func (s *stage) expect(what string, want ...string) {
	s.t.Helper()
	slices.Sort(want)
	got := s.take()
	if slices.Sort(got); !slices.Equal(got, want) {
		s.t.Errorf("%s: sent\n\t%s\nand not\n\t%s", what, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// play runs a test in a bubble.
func play(t *testing.T, limits Limits, test func(*testing.T, *stage)) {
	bubble.Test(t, func(t *testing.T) {
		s := settled(t, limits)
		test(t, s)
		s.end()
	})
}
