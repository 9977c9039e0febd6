package component

import (
	"bytes"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gosrc.io/xmpp/stanza"

	"rosterd/internal/bubble"
	"rosterd/jid"
	"rosterd/roster"
)

func (q *writer) holds() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.corked
}

// A stream holds its queue while what came together is handled, and never while it
// waits for more.
func TestStreamHoldsWhileItHandles(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer near.Close()
		defer far.Close()
		s := &stream{conn: near, out: newWriter(1<<20, 0, 0), began: time.Now()}
		go s.out.run(t.Context(), near, time.Minute)
		got := make(chan string, 10)
		go func() {
			for b := make([]byte, 100); ; {
				n, err := far.Read(b)
				if err != nil {
					return
				}
				got <- string(b[:n])
			}
		}()
		synctest.Wait()
		go far.Write([]byte("something"))
		if n, err := s.Read(make([]byte, 100)); n != 9 || err != nil || !s.out.holds() {
			t.Errorf("%d bytes, %v, holds %v", n, err, s.out.holds())
		}
		s.out.offer([]byte("a"))
		s.out.put([]byte("b"))
		synctest.Wait()
		if len(got) != 0 {
			t.Error("written while it handles")
		}
		go s.Read(make([]byte, 100))
		synctest.Wait()
		if len(got) != 2 || s.out.holds() {
			t.Errorf("%d written, holds %v", len(got), s.out.holds())
		}
		s.out.offer([]byte("c"))
		synctest.Wait()
		if len(got) != 3 {
			t.Error("not written while it waits")
		}
	})
}

// scribbler is a connection that uses all spare memory before it takes what is
// written.
type scribbler struct {
	net.Conn
	spare *buffers
	got   bytes.Buffer
}

func (s *scribbler) SetWriteDeadline(time.Time) error { return nil }

func (s *scribbler) Write(p []byte) (int, error) {
	for range 4 {
		b := s.spare.get(minBuffer)
		clear(b[:cap(b)])
	}
	return s.got.Write(p)
}

// Memory is used again when what was in it has been written, by one at a time.
func TestBuffersAreUsedAgainOnceWritten(t *testing.T) {
	spare := &buffers{}
	conn := &scribbler{spare: spare}
	for round := range 20 {
		q := newWriter(1<<20, 0, 0)
		q.spare = spare
		want := conn.got.String()
		for i := range 4 {
			b := append(spare.get(minBuffer), bytes.Repeat([]byte{byte('a' + i)}, minBuffer)...)
			want += string(b)
			if err := q.put(b); err != nil {
				t.Fatal(err)
			}
		}
		q.close()
		if err := q.run(t.Context(), conn, time.Minute); err != nil {
			t.Fatal(err)
		}
		if conn.got.String() != want {
			t.Fatalf("round %d: something else was written", round)
		}
		seen := make(map[*byte]bool)
		for range 20 {
			b := append(spare.get(minBuffer), 'x')
			if seen[&b[0]] {
				t.Fatalf("round %d: one buffer for two", round)
			}
			seen[&b[0]] = true
		}
	}
}

// Those who were answered before the last half a minute began are known as long as
// those who were answered in it.
func TestBarrierOfTwoGenerations(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var f barrier
		one := func(s string) []jid.JID { return []jid.JID{mustJID(t, s+"@example.org/x")} }
		check := func(when string, want map[string]bool) {
			t.Helper()
			for s, waits := range want {
				if f.blocks(one(s)) != waits {
					t.Errorf("%s: %s waits: %v", when, s, !waits)
				}
			}
		}
		note := func(s string) { f.answered(one(s)[0]) }
		note("a")
		time.Sleep(20 * time.Second)
		note("b")
		note("c")
		time.Sleep(11 * time.Second) // 31 s
		note("d")
		note("c")
		check("at the change", map[string]bool{"a": false, "b": true, "c": true, "d": true})
		f.pass(one("c"), time.Now().Add(-time.Second)) // an answer before the last one
		check("an older answer has passed", map[string]bool{"c": true})
		f.pass(one("c"), time.Now())
		f.pass(one("b"), time.Now())
		check("they have passed", map[string]bool{"b": false, "c": false, "d": true})
		note("e")
		time.Sleep(29 * time.Second) // 60 s
		note("f")
		check("before the next change", map[string]bool{"d": true, "e": true, "f": true})
		time.Sleep(2 * time.Second) // 62 s
		note("g")
		check("after it", map[string]bool{"d": false, "e": false, "f": true, "g": true})
		time.Sleep(28*time.Second - 1)
		check("for as long as that", map[string]bool{"f": true, "g": true})
		time.Sleep(time.Nanosecond)
		check("and no longer", map[string]bool{"f": false, "g": true})
	})
}

// The answer to who has the roster already may be lost with the stream, as any.
func TestCurrentVersionLostWithTheStream(t *testing.T) {
	r := fault(t, only)
	r.rosters.current = "v1"
	k := r.server.serve()
	k.send("%s", delegate(nsDelegation2, "<iq xmlns='jabber:client' type='get' id='q' from='"+juliet+"'><query xmlns='jabber:iq:roster' ver='v1'/></iq>"))
	k.expect(answered(nsDelegation2, "<iq xmlns='jabber:client' type='result' id='q' to='"+juliet+"'></iq>"))
	k.Close()
	if full := receive(t, r.rosters.lost); full != mustJID(t, juliet) {
		t.Errorf("lost %v", full)
	}
}

// Long buffers are not kept.
func TestBuffersAreBounded(t *testing.T) {
	var b buffers
	for range 10 {
		b.put(make([]byte, maxBuffer+1))
		b.put(make([]byte, minBuffer-1))
		if n := cap(b.get(minBuffer)); n < minBuffer || n > maxBuffer {
			t.Errorf("kept one of %d bytes", n)
		}
	}
}

// An answer that lacks contacts does not name the version that has them: what
// follows may be lost.
func TestVersionOfAnAnswerThatLacksContacts(t *testing.T) {
	r := roster.New([]roster.Item{item(t, "benvolio@example.org", "B"), item(t, "nurse@example.org", "N"), item(t, "romeo@example.org", "R")})
	for _, max := range []int{1, r.Size() / 2, r.Size() - 1, r.Size()} {
		b, rest := appendRoster(nil, r, max, r.Version())
		want := r.Version()
		if len(rest) > 0 {
			want = roster.Partial(want, len(rest))
		}
		if !strings.Contains(string(b), " ver='"+want+"'>") || (len(rest) == 0) != (max == r.Size()) {
			t.Errorf("%d bytes: %d left out: %s", max, len(rest), b)
		}
	}
}

// What an answer has around its payload is not longer than it is said to be.
func TestAround(t *testing.T) {
	for _, d := range []envelope{{inner: reply(" id='1'")}, {outer: reply(" id='1'"), delegation: nsDelegation2, inner: reply(" id='2'")}} {
		if n := len(d.open(nil, stanza.IQTypeResult)) + len(d.end()); n > d.around() {
			t.Errorf("%d, not %d", n, d.around())
		}
	}
}
