package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"
)

// fake is an XMPP server that knows what rosterd needs of one: components
// (XEP-0114), delegation (XEP-0355), privileges (XEP-0356), presence, and
// sessions whose clients live in this process. It is made for speed.
type fake struct {
	habit    habit
	journal  *journal
	listener net.Listener // all the time: while the server is down, who connects is let go at once
	tasks    sync.WaitGroup

	// sabotage, if not nil, is shown each push and each answer with a roster
	// that goes to a client, and may change it or drop it, while rosterd is told
	// that all is well: to show that the checks can fail.
	sabotage func(full string, push bool, list []Item) (instead []Item, deliver bool)

	// misplace, if not nil, is shown each item that is set by privilege (XEP-0356, section
	// 5), and says what is stored in its place, or that nothing is, though it is confirmed.
	misplace func(Item) (instead Item, store bool)

	// What the backend says, to check what is written to the server's own rosters.
	truth   *truth
	figures *Figures

	pair bool // the component has two instances

	mu       sync.Mutex
	rng      *rand.Rand // guarded by mu, as all below
	isUp     bool
	stream   *fakeStream             // of the component, nil while it is away
	beside   []*fakeStream           // more of them, of a pair
	sessions map[string]*fakeSession // by full JID
	queries  map[string]*fakeQuery   // that were delegated, by the id of the IQ
	nextID   int
	rosters  map[string]items // the server's own, by user

	forgetful bool // the next restart loses rosters
}

// fakeSession is a client's session.
type fakeSession struct {
	server    *fake
	full      string
	to        receiver
	inbox     *mailbox
	available bool // guarded by server.mu, as all below
	over      bool
}

// fakeQuery is a roster query that waits for the component.
type fakeQuery struct {
	full, id string // of the client; of the component itself for its own
	to       string // of its own
	timer    *time.Timer
}

// own reports whether the component itself asks.
func (q *fakeQuery) own() bool {
	bare, _, _ := strings.Cut(q.full, "/")
	return bare == component
}

func startFake(h habit, j *journal, rng *rand.Rand) (*fake, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &fake{habit: h, journal: j, listener: l, rng: rng, isUp: true,
		sessions: map[string]*fakeSession{}, queries: map[string]*fakeQuery{}, rosters: map[string]items{}}
	f.tasks.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			f.tasks.Go(func() { f.serve(conn) })
		}
	})
	return f, nil
}

func (f *fake) componentAddress() string { return f.listener.Addr().String() }

// down ends all sessions and the component's stream.
func (f *fake) down() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.isUp = false
	for _, s := range f.sessions {
		s.end(true)
	}
	if f.stream != nil {
		f.stream.close()
		f.stream = nil
	}
	for _, s := range f.beside {
		s.close()
	}
	f.beside = nil
	for id := range f.queries {
		f.forget(id)
	}
}

func (f *fake) restart(_ context.Context, pause time.Duration) error {
	f.down()
	time.Sleep(pause)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.isUp = true
	if f.forgetful {
		f.rosters, f.forgetful = map[string]items{}, false
	}
	return nil
}

// connected says whether the component is there, and is given queries.
func (f *fake) connected() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stream != nil && f.stream.delegated
}

// close ends the server and waits for all that it has started.
func (f *fake) close() {
	_ = f.listener.Close()
	f.down()
	f.tasks.Wait()
}

var errDown = errors.New("the server is down")

func (f *fake) login(_ context.Context, user, resource string, to receiver) (session, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.isUp {
		return nil, errDown
	}
	s := &fakeSession{server: f, full: user + "@" + host + "/" + resource, to: to, inbox: newMailbox(&f.tasks, to.ended)}
	if old := f.sessions[s.full]; old != nil {
		f.ends(old, closing, false) // the new session takes the place of the old one
	}
	f.sessions[s.full] = s
	return s, nil
}

// ends ends a session. f.mu is held.
func (f *fake) ends(s *fakeSession, how leaving, byClient bool) {
	if s.over {
		return
	}
	told := how == inOrder || f.habit.tellsEnds && s.available
	s.end(byClient || how == cutOff)
	if told {
		f.send("<presence from='%s' to='%s' type='unavailable'/>", s.full, component)
	}
}

// end ends a session without a word. server.mu is held.
func (s *fakeSession) end(drop bool) {
	s.over = true
	if s.server.sessions[s.full] == s {
		delete(s.server.sessions, s.full)
	}
	s.inbox.end(drop)
}

func (s *fakeSession) leave(how leaving) {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.server.ends(s, how, true)
}

func (s *fakeSession) presence() {
	f := s.server
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.over {
		return
	}
	s.available = true
	f.send("<presence xml:lang='en' from='%s' to='%s'/>", s.full, component)
}

func (s *fakeSession) query(id string) {
	f := s.server
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.over {
		return
	}
	if f.stream == nil || !f.stream.delegated {
		s.inbox.put(func() { s.to.receive(id, nil, "cancel service-unavailable") })
		return
	}
	to := ""
	if f.habit.addressed {
		to = strings.Split(s.full, "/")[0]
	}
	f.delegate(s.full, to, id)
}

// delegate forwards a roster get to the component. f.mu is held.
func (f *fake) delegate(from, to, id string) {
	f.nextID++
	outer := fmt.Sprint("d", f.nextID)
	q := &fakeQuery{full: from, id: id, to: to}
	f.queries[outer] = q
	if f.habit.patience > 0 {
		q.timer = time.AfterFunc(f.habit.patience, func() { f.timeOut(outer) })
	}
	if to != "" {
		to = " to='" + to + "'"
	}
	f.send("<iq to='%s' from='%s' id='%s' type='set'><delegation xmlns='%s'><forwarded xmlns='%s'>"+
		"<iq xmlns='%s' xml:lang='en' id='%s' type='get' from='%s'%s><query xmlns='%s'/></iq></forwarded></delegation></iq>",
		component, host, outer, f.habit.delegation, nsForward, nsClient, id, from, to, nsRoster)
}

// timeOut gives up a delegated query.
func (f *fake) timeOut(outer string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if q := f.forget(outer); q != nil {
		f.reply(q, nil, "wait internal-server-error")
	}
}

// forget takes a query off those that wait. f.mu is held.
func (f *fake) forget(outer string) *fakeQuery {
	q := f.queries[outer]
	delete(f.queries, outer)
	if q != nil && q.timer != nil {
		q.timer.Stop()
	}
	return q
}

// reply gives an answer to who asked. f.mu is held.
func (f *fake) reply(q *fakeQuery, list []Item, condition string) {
	if q.own() {
		f.send("<iq type='error' from='%s' to='%s' id='%s'><error type='cancel'><not-allowed xmlns='%s'/></error></iq>",
			q.to, q.full, q.id, nsStanzas)
		return
	}
	s := f.sessions[q.full] // perhaps another one than the one that asked
	if s == nil {
		return
	}
	if f.sabotage != nil && condition == "" {
		instead, deliver := f.sabotage(q.full, false, list)
		if !deliver {
			return
		}
		list = instead
	}
	s.inbox.put(func() { s.to.receive(q.id, list, condition) })
}

// push gives a roster push to a resource, and says whether it is there. f.mu is
// held.
func (f *fake) push(full string, list []Item) bool {
	s := f.sessions[full]
	if s == nil {
		return false
	}
	if f.sabotage != nil {
		instead, deliver := f.sabotage(full, true, list)
		if !deliver {
			return true
		}
		list = instead
	}
	if len(list) != 1 {
		f.journal.violation("a push for %s has %d items", full, len(list))
		return true
	}
	s.inbox.put(func() { s.to.pushed(list[0]) })
	return true
}
