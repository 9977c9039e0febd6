package component

import (
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rosterd/internal/locked"
	"rosterd/jid"
	"rosterd/metrics"
	"rosterd/roster"
	"rosterd/session"
	"rosterd/xmlstream"
)

const patience = time.Minute // for what must happen, on a busy machine, too; not for what takes time

// server is the XMPP server's side of the component port, played by the test.
type server struct {
	t   *testing.T
	l   net.Listener
	tls *tls.Config // nil: without TLS

	probes int // that come when a stream begins
}

func newServer(t *testing.T) *server {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &server{t: t, l: l}
}

// link is one connection of a component.
type link struct {
	t *testing.T
	net.Conn
	f   *xmlstream.Reader
	all bool // next shows also how the component finds out how the server answers for nobody

	first      string          // stanza of the stream
	showProbes bool            // next does not answer probes by itself
	rosters    string          // what a query by the privilege roster is answered; "": nothing
	delegates  map[string]bool // hosts that were announced to delegate
	probes     map[string]bool // ids of the probes that were answered
}

// accept takes a connection up to the component's opening tag.
func (s *server) accept() *link {
	s.t.Helper()
	conn := s.connection()
	if s.tls != nil {
		conn = tls.Server(conn, s.tls)
	}
	conn.SetReadDeadline(time.Now().Add(patience))
	k := &link{t: s.t, Conn: conn, f: xmlstream.NewReader(conn, 16<<20), delegates: make(map[string]bool), probes: make(map[string]bool)}
	header, err := k.f.Header()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, want := range []string{"xmlns='jabber:component:accept'", "to='contacts.example.org'"} {
		if !strings.Contains(string(header), want) {
			s.t.Errorf("opening tag %s lacks %s", header, want)
		}
	}
	k.send("<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' from='contacts.example.org' id='s1'>")
	return k
}

// triesAddress reports whether a stanza is the one with which a component tries whether
// the server takes every address.
func triesAddress(data string) bool {
	return strings.HasPrefix(data, "<iq type='result'") && strings.Contains(data, "to='contacts.example.org/rosterd'></iq>")
}

// serve takes a connection and accepts the handshake.
func (s *server) serve() *link {
	s.t.Helper()
	k := s.accept()
	sum := sha1.Sum([]byte("s1" + "secret"))
	if got, want := k.next(), "<handshake>"+hex.EncodeToString(sum[:])+"</handshake>"; got != want {
		s.t.Errorf("got %s, want %s", got, want)
	}
	k.send("<handshake/>")
	for n := 0; n < s.probes; {
		data, _, err := k.f.Next()
		if err != nil {
			s.t.Fatalf("want a probe: %v", err)
		}
		if k.first == "" {
			k.first = string(data)
		}
		if k.probed(string(data)) && !triesAddress(string(data)) {
			n++
		}
	}
	return k
}

func (k *link) send(format string, args ...any) {
	k.t.Helper()
	text := fmt.Sprintf(format, args...)
	for _, host := range delegations.FindAllStringSubmatch(text, -1) {
		k.delegates[host[1]] = host[2] != ""
	}
	for _, host := range forwards.FindAllStringSubmatch(text, -1) {
		k.delegates[host[1]] = true
	}
	if _, err := io.WriteString(k, text); err != nil {
		k.t.Fatal(err)
	}
}

var (
	delegations = regexp.MustCompile(`<message from='([^'@/]+)'[^>]*><delegation [^>]*>(<delegated namespace='jabber:iq:roster')?`)
	forwards    = regexp.MustCompile(`<iq type='set' id='D' from='([^'@/]+)'[^>]*><delegation `)
	probes      = regexp.MustCompile(`^<iq type='get' id='([^']+)' from='contacts.example.org/rosterd' to='(nobody-[^'@/]+@([^'@/]+))'><query xmlns='jabber:iq:roster'/></iq>$`)
	ownProbes   = regexp.MustCompile(`^<iq type='get' id='([^']+)' from='contacts.example.org' to='(nobody-[^'@/]+@([^'@/]+))'><query xmlns='jabber:iq:roster'/></iq>$`)
	ids         = regexp.MustCompile(` id='([^']*)'`)
)

// probed plays the server for a probe, see [Component.probe], and reports whether
// a stanza belongs to one: a host that was announced to delegate does so.
func (k *link) probed(stanza string) bool {
	if p := probes.FindStringSubmatch(stanza); p != nil {
		id, to, host := p[1], p[2], p[3]
		k.probes[id] = true
		if k.delegates[host] {
			k.send("<iq type='set' id='D' from='%s' to='contacts.example.org'><delegation xmlns='%s'><forwarded xmlns='%s'>"+
				"<iq xmlns='jabber:client' type='get' id='%s' from='contacts.example.org/rosterd' to='%s'>%s</iq></forwarded></delegation></iq>", host, nsDelegation2, nsForward, id, to, rosterGet)
		}
		k.send("<iq type='error' id='%s' from='%s' to='contacts.example.org/rosterd'><error type='cancel'><service-unavailable xmlns='%s'/></error></iq>", id, to, nsStanzas)
		return true
	}
	if p := ownProbes.FindStringSubmatch(stanza); p != nil {
		k.probes[p[1]] = true
		if k.rosters != "" {
			k.send(k.rosters, p[1], p[2])
		}
		return true
	}
	if triesAddress(stanza) || strings.HasPrefix(stanza, "<presence type='subscribe'") { // which is tried where there is a way
		return true
	}
	for _, id := range ids.FindAllStringSubmatch(stanza, -1) {
		if k.probes[id[1]] {
			return true
		}
	}
	return false
}

// next is the next stanza of the component, apart from those that find out how
// the server answers for nobody, whether it takes every address, and from probes.
func (k *link) next() string {
	k.t.Helper()
	for {
		k.SetReadDeadline(time.Now().Add(patience))
		data, whole, err := k.f.Next()
		if err != nil || !whole {
			k.t.Fatalf("reading: %v", err)
		}
		learns := strings.Contains(string(data), "to='Rosterd-Asks-For-Nobody-")
		behind := strings.Contains(string(data), "to='behind-nobody-") // a probe
		identifies := strings.Contains(string(data), "<query xmlns='jabber:iq:version'/>")
		if (k.all || !learns) && (k.showProbes || !identifies && !behind && !k.probed(string(data))) {
			return string(data)
		}
	}
}

func (k *link) nextElement() *xmlstream.Element {
	k.t.Helper()
	data := k.next()
	e, err := xmlstream.Decode([]byte(data))
	if err != nil {
		k.t.Fatalf("%s: %v", data, err)
	}
	return e
}

func (k *link) expect(want string) {
	k.t.Helper()
	if got := k.next(); got != want {
		k.t.Errorf("got\n  %s\nwant\n  %s", got, want)
	}
}

// quiet checks that nothing else was sent: the answer to a ping comes next.
func (k *link) quiet() {
	k.t.Helper()
	for before := -1; before != len(k.probes); { // what was sent for a probe has its answer, too
		before = len(k.probes)
		k.send("<iq type='get' id='quiet' from='example.org' to='contacts.example.org'><ping xmlns='urn:xmpp:ping'/></iq>")
		k.expect("<iq type='result' id='quiet' from='contacts.example.org' to='example.org'></iq>")
	}
}

func (k *link) announce() {
	k.send("<message from='example.org' to='contacts.example.org'><delegation xmlns='urn:xmpp:delegation:2'><delegated namespace='jabber:iq:roster'/></delegation></message>" +
		"<message from='example.org' to='contacts.example.org'><privilege xmlns='urn:xmpp:privilege:2'><perm access='roster' type='both'/><perm access='iq'><namespace ns='jabber:iq:roster' type='set'/></perm></privilege></message>")
}

// answerPing answers a ping of the component, which comes next.
func (k *link) answerPing() {
	k.t.Helper()
	e := k.nextElement()
	if e.Child(nsPing, "ping") == nil {
		k.t.Errorf("got %+v, want a ping", e)
	}
	k.send("<iq type='result' id='%s' from='%s' to='contacts.example.org'/>", e.Get("id"), e.Get("to"))
}

// ended reads until the component has closed the connection.
func (k *link) ended() {
	k.t.Helper()
	k.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, k); err != nil {
		k.t.Errorf("the component did not close: %v", err)
	}
}

// rosters plays the manager.
type rosters struct {
	mu      sync.Mutex
	answer  func(full jid.JID) (*roster.Roster, error)
	busy    error
	gone    []string
	lost    chan jid.JID
	refused chan string // if not nil, calls of Refused
	edits   chan edit   // calls of Edit
	unasked chan jid.JID
	wanted  chan jid.JID
	resumed chan string
	rest    chan []roster.Item // if not nil, what replies could not hold
	current string             // the version of those who have the roster; "": nobody has
	later   bool               // replies come from another goroutine, one of replies
	replies sync.WaitGroup
}

func (r *rosters) Get(full jid.JID, version *string, reply roster.Reply) error {
	r.mu.Lock()
	busy, answer, current := r.busy, r.answer, r.current
	r.mu.Unlock()
	switch {
	case busy != nil:
		return busy
	case version != nil && current != "" && *version == current:
		reply(roster.Answer{Roster: roster.New(nil), Named: true, Version: current, Same: true})
		return nil
	case r.later:
		r.replies.Go(func() { reply(answerOf(answer(full))) })
		return nil
	}
	if rest := reply(answerOf(answer(full))); r.rest != nil {
		r.rest <- rest
	}
	return nil
}

func answerOf(r *roster.Roster, err error) roster.Answer { return roster.Answer{Roster: r, Err: err} }

func (r *rosters) Gone(full jid.JID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = append(r.gone, full.String())
}

// edit is a call of Edit.
type edit struct {
	full jid.JID
	roster.Edit
	reply func(error)
}

func (r *rosters) Edit(full jid.JID, e roster.Edit, reply func(error)) error {
	r.mu.Lock()
	busy := r.busy
	r.mu.Unlock()
	if busy == nil {
		r.edits <- edit{full, e, reply}
	}
	return busy
}

func (r *rosters) Refused(full jid.JID, contacts []jid.JID) {
	if r.refused != nil {
		r.refused <- fmt.Sprint(full, " ", contacts)
	}
}

func (r *rosters) Undelivered(full jid.JID) { r.lost <- full }

func (r *rosters) Unasked(full jid.JID) { r.unasked <- full }

func (r *rosters) Want(user jid.JID) { r.wanted <- user }

func (r *rosters) Resume(domain string) { r.resumed <- domain }

// rig is a component under test.
type rig struct {
	*Component
	server   *server
	rosters  *rosters
	sessions *session.Table
	registry *prometheus.Registry
	log      *locked.Buffer
	stop     func()
	done     chan struct{}
}

func start(t *testing.T, change ...func(*Options)) *rig {
	t.Helper()
	r := &rig{
		server:   newServer(t),
		rosters:  &rosters{resumed: make(chan string, 1<<16), lost: make(chan jid.JID, 1<<16), unasked: make(chan jid.JID, 1<<16), wanted: make(chan jid.JID, 1<<16), edits: make(chan edit, 1<<10)},
		sessions: session.NewTable(),
		registry: prometheus.NewRegistry(),
		log:      &locked.Buffer{},
		done:     make(chan struct{}),
	}
	r.rosters.answer = func(jid.JID) (*roster.Roster, error) { return nil, errors.New("no roster set") }
	o := Options{
		Address: r.server.l.Addr().String(), Domain: "contacts.example.org", Secret: "secret",
		Hosts: []string{"example.org", "example.net"}, Version: "1.0",
		Timing: Timing{MinRetry: time.Millisecond, MaxRetry: 4 * time.Millisecond, Close: time.Second,
			Ping: time.Hour, Dead: time.Hour}, // the machine may be slow
		Logger:  slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Metrics: metrics.New(r.registry),
	}
	for _, f := range change {
		f(&o)
	}
	r.server.probes = len(o.Hosts)
	r.Component = New(o, r.sessions)
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() { defer close(r.done); r.Run(ctx, r.rosters) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-r.done:
		case <-time.After(patience):
			t.Error("Run did not return")
		}
	})
	return r
}

// counted is the value of a counter or gauge, e.g. `rosterd_queries_total{result="ok"}`.
func (r *rig) counted(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	metric:
		for _, m := range f.GetMetric() {
			for i, l := range m.GetLabel() {
				if l.GetValue() != labels[i] {
					continue metric
				}
			}
			if m.Counter != nil {
				return m.Counter.GetValue()
			}
			return m.Gauge.GetValue()
		}
	}
	return 0
}

// waitFor waits until a condition holds that no event tells of.
func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("not so: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func mustJID(t testing.TB, s string) jid.JID {
	t.Helper()
	j, err := jid.ParseStamped(s)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func item(t testing.TB, contact, name string, groups ...string) roster.Item {
	return roster.Item{JID: mustJID(t, contact), Name: name, Subscription: roster.SubscriptionBoth, Groups: groups}
}
