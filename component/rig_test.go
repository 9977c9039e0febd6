package component

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"rosterd/internal/leak"
	"rosterd/internal/locked"
	"rosterd/jid"
	"rosterd/roster"
	"rosterd/xmlstream"
)

// TestMain lets more tests run in parallel than there are processors: those that
// do wait most of the time.
func TestMain(m *testing.M) {
	flag.Parse()
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		_ = parallel.Value.Set("8")
	}
	os.Exit(m.Run())
}

// fault starts a component for a test of what others do wrong. Nothing may be
// left of it after the test: no goroutine, no file descriptor. Every user's
// roster has one contact, which tells whose roster it is.
func fault(t *testing.T, change ...func(*Options)) *rig {
	t.Helper()
	leak.Check(t)
	return faulty(t, change...)
}

// faulty is fault for one of several tests that run in parallel: their parent
// has called leak.Check, which waits for all of them.
func faulty(t *testing.T, change ...func(*Options)) *rig {
	t.Helper()
	r := start(t, change...)
	r.rosters.answer = func(full jid.JID) (*roster.Roster, error) {
		return roster.New([]roster.Item{item(t, marker(full), "")}), nil
	}
	return r
}

// marker is the contact that is in the roster of a user, and in no other.
func marker(full jid.JID) string { return "known-to-" + full.Local() + "@" + full.Domain() }

// watch keeps all that the component sends on a link, which must have nothing
// under way, and checks after the test that nobody was told the roster of
// somebody else.
func (k *link) watch(t *testing.T) {
	sent := &locked.Buffer{}
	k.f = xmlstream.NewReader(io.TeeReader(k.Conn, sent), 16<<20)
	t.Cleanup(func() { nobodyElses(t, sent.String()) })
}

// nobodyElses checks that the marker of a user stands only in what is sent to
// him, be it wrapped or not.
func nobodyElses(t *testing.T, sent string) {
	frames := xmlstream.NewReader(strings.NewReader(sent), 16<<20)
	for {
		data, _, err := frames.Next()
		if err != nil {
			return
		}
		_, after, told := strings.Cut(string(data), "known-to-")
		if !told {
			continue
		}
		local, _, _ := strings.Cut(after, "@")
		innermost := string(data[bytes.LastIndex(data, []byte("<iq")):])
		if !strings.Contains(innermost, " to='"+local+"@example.org/") {
			t.Errorf("told the roster of %s: %.1000s", local, data)
		}
	}
}

// refused checks that exactly one answer comes to the request that was sent
// last, an error with a condition, or a result if condition is "". It returns
// the answer.
func (k *link) refused(condition string) string {
	k.t.Helper()
	got := k.next()
	if condition == "" {
		if !strings.Contains(got, "type='result'") || strings.Contains(got, "type='error'") {
			k.t.Errorf("got %.1000s, want a result", got)
		}
	} else if !strings.Contains(got, "type='error'") || !strings.Contains(got, "<"+condition+" ") {
		k.t.Errorf("got %.1000s, want the error %s", got, condition)
	}
	k.quiet()
	return got
}

// lives checks that a stream is still the first one, and that a user still gets
// his roster.
func (r *rig) lives(t *testing.T, k *link) {
	t.Helper()
	k.t = t
	k.send("%s", queryOf("nurse@example.org/kitchen", "last"))
	if got := k.next(); !strings.Contains(got, "known-to-nurse@example.org") {
		t.Errorf("got %s", got)
	}
	if n := r.counted(t, "rosterd_reconnects_total"); n != 0 || !r.Connected() {
		t.Errorf("%v reconnects", n)
	}
}

// queryOf is the roster query of a resource, as its server forwards it.
func queryOf(full, id string) string {
	return delegate(nsDelegation2, "<iq xmlns='jabber:client' type='get' id='"+id+"' from='"+full+"'>"+rosterGet+"</iq>")
}

// resources are n resources of as many users.
func resources(t *testing.T, n int) []jid.JID {
	list := make([]jid.JID, n)
	for i := range list {
		list[i] = mustJID(t, fmt.Sprintf("user%d@example.org/x", i))
	}
	return list
}

// connection is the next connection of a component, of which nothing was read, but for those
// with which it looks whether the port takes any.
func (s *server) connection() net.Conn {
	s.t.Helper()
	for {
		s.l.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
		conn, err := s.l.Accept()
		if err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() { conn.Close() })
		first := make([]byte, 1)
		conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := conn.Read(first); err != io.EOF {
			conn.SetReadDeadline(time.Time{})
			return &read{conn.(*net.TCPConn), first}
		}
	}
}

// read is a connection of which something was read.
type read struct {
	*net.TCPConn
	first []byte // and is read again
}

func (r *read) Read(b []byte) (n int, err error) {
	if len(r.first) == 0 {
		return r.TCPConn.Read(b)
	}
	n = copy(b, r.first)
	r.first = r.first[n:]
	return n, nil
}

// pushUnanswered sends a push that nobody answers; then the server says
// something, and nothing more.
func (r *rig) pushUnanswered(t *testing.T, last string) chan roster.Outcome {
	k := r.server.serve()
	r.announced(t, k)
	outcome := r.push(t, "balcony")
	k.send("%s", last)
	return outcome
}

// goes has the server announce what makes pushes of example.org go one way.
func (r *rig) goes(t *testing.T, k *link, way string) {
	t.Helper()
	if way == PushPrivileged {
		r.announced(t, k)
	} else {
		k.send("%s", delegationOnly+noPrivilege)
		k.quiet()
		for len(r.rosters.resumed) > 0 {
			<-r.rosters.resumed
		}
	}
	if got := r.Status().Hosts[0].Push; got != way {
		t.Fatalf("pushes go %s, not %s", got, way)
	}
}

// confirm plays the server for one push: a privileged one has a result, any
// other goes before a request of the component's own.
func (k *link) confirm(way string) {
	k.t.Helper()
	e := k.nextElement()
	if way != PushPrivileged {
		e = k.nextElement()
	}
	k.send("<iq type='result' id='%s' from='%s'/>", e.Get("id"), e.Get("to"))
}

// watch is the most that was queued while f ran.
func (q *writer) watch(f func()) (peak int) {
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	for {
		select {
		case <-done:
			return peak
		case <-time.After(time.Millisecond):
			q.mu.Lock()
			peak = max(peak, q.size)
			q.mu.Unlock()
		}
	}
}
