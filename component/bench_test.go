package component

import (
	"bytes"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rosterd/jid"
	"rosterd/metrics"
	"rosterd/roster"
	"rosterd/session"
	"rosterd/xmlstream"
)

// benchmarked is a component with a stream that is not written, and what comes on it
// again and again.
func benchmarked(b *testing.B, data string) (*Component, *stream) {
	hosts := []string{"example.org"}
	c := New(Options{Domain: "contacts.example.org", Hosts: hosts, Version: "1.0", QueriesBurst: 1 << 30, QueriesPerSecond: 1,
		Logger: slog.New(slog.DiscardHandler), Metrics: metrics.New(prometheus.NewRegistry())}, session.NewTable())
	r := roster.New([]roster.Item{item(b, "romeo@example.org", "Romeo"), item(b, "nurse@example.org", "Nurse", "Friends")})
	c.rosters = answersAt{&rosters{}, r}
	s := &stream{domain: "contacts.example.org", out: newWriter(1<<30, 1<<20, 0), iqs: newTracker(time.Minute, "t-"), grants: newGrants(hosts, nil), began: time.Now()}
	s.reader = xmlstream.NewReader(endless(data), maxStanza)
	s.grants.change("example.org", func(g *grant) { g.push, g.privilege, g.queries = true, nsPrivilege2, queriesUnproven })
	c.set(s, nil)
	return c, s
}

// answersAt is a manager that answers at once.
type answersAt struct {
	*rosters
	r *roster.Roster
}

func (a answersAt) Get(_ jid.JID, _ *string, reply roster.Reply) error {
	reply(roster.Answer{Roster: a.r})
	return nil
}

// endless is a stream that repeats itself.
type endless string

func (e endless) Read(p []byte) (n int, _ error) {
	for n+len(e) <= len(p) {
		n += copy(p[n:], e)
	}
	return n, nil
}

// A delegated query, from the bytes of the stream to those of the answer.
func BenchmarkQuery(b *testing.B) {
	c, s := benchmarked(b, queryOf(juliet, "q1"))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := s.reader.Next(); err != nil {
			b.Fatal(err)
		}
		e, unread := s.reader.Element(maxStanza)
		if err := c.handle(s, e, unread); err != nil {
			b.Fatal(err)
		}
		if stanzas, _ := s.out.take(); len(stanzas) != 1 || !bytes.Contains(stanzas[0], []byte("romeo@")) {
			b.Fatalf("%q", stanzas)
		}
		s.unacknowledged.answers = nil
	}
}

// A push by privileged IQ, and its answer.
func BenchmarkPush(b *testing.B) {
	c, s := benchmarked(b, queryOf(juliet, "q1"))
	to := []jid.JID{mustJID(b, juliet)}
	changes := []roster.Change{{Action: roster.Added, Item: item(b, "romeo@example.org", "Romeo")}}
	b.ReportAllocs()
	for b.Loop() {
		settled := false
		if err := c.Push(to, changes, func(o roster.Outcome) { settled = o.Err == nil }); err != nil {
			b.Fatal(err)
		}
		s.iqs.answered(&xmlstream.Element{Attrs: attrsOf("type", "result", "id", s.iqs.lastID(), "from", "juliet@example.org")})
		if !settled {
			b.Fatal("not settled")
		}
		s.out.take()
	}
}

// lastID is the id that was made last.
func (t *tracker) lastID() string {
	return t.prefix + strconv.FormatUint(t.last.Load(), 36)
}
