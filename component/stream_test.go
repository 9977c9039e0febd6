package component

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rosterd/internal/bubble"
	"rosterd/jid"
	"rosterd/roster"
	"rosterd/xmlstream"
)

func TestReady(t *testing.T) {
	r := start(t, func(o *Options) { o.Hosts = []string{"example.org"} })
	if _, err := r.Ready(); err == nil || !strings.Contains(err.Error(), "not connected") {
		t.Errorf("before the handshake: %v", err)
	}
	k := r.server.serve()
	k.quiet()
	if _, err := r.Ready(); err == nil || !strings.Contains(err.Error(), "example.org does not delegate jabber:iq:roster") {
		t.Errorf("before the announcement: %v", err)
	}
	if r.counted(t, "rosterd_connected") != 1 {
		t.Error("rosterd_connected is not 1")
	}
	r.announced(t, k)
	if _, err := r.Ready(); err != nil {
		t.Errorf("after the announcement: %v", err)
	}
	// The server was reconfigured.
	k.send("<message from='example.org'><delegation xmlns='urn:xmpp:delegation:2'><delegated namespace='urn:other'/></delegation></message>")
	k.quiet()
	if _, err := r.Ready(); err == nil {
		t.Error("ready though another namespace is delegated")
	}
	k.Close()
	r.server.accept()
	if _, err := r.Ready(); err == nil || !strings.Contains(err.Error(), "not connected") || r.counted(t, "rosterd_connected") != 0 {
		t.Errorf("after the stream was lost: %v", err)
	}
}

func TestAnnouncementsOfEitherVersion(t *testing.T) {
	for _, version := range []string{"1", "2"} {
		r := start(t, func(o *Options) { o.Hosts = []string{"example.org"} })
		k := r.server.serve()
		for range 2 { // they may come twice
			k.send("<message from='example.org'><privilege xmlns='urn:xmpp:privilege:%s'><perm access='iq'><namespace ns='jabber:iq:roster' type='both'/></perm></privilege></message>", version)
			k.send("<message from='example.org'><delegation xmlns='urn:xmpp:delegation:%s'><delegated namespace='jabber:iq:roster'><attribute name='node'/></delegated></delegation></message>", version)
		}
		k.quiet()
		if _, err := r.Ready(); err != nil {
			t.Error(err)
		}
		r.push(t, "balcony")
		if got := k.next(); !strings.Contains(got, "<privileged_iq xmlns='urn:xmpp:privilege:"+version+"'>") {
			t.Errorf("got %s", got)
		}
		if n := len(r.rosters.resumed); n != 1 {
			t.Errorf("resumed %d times", n)
		}
	}
}

func TestReconnects(t *testing.T) {
	r := start(t)
	ends := map[string]func(k *link){
		"the connection breaks":   func(k *link) { k.Close() },
		"the connection is reset": func(k *link) { k.Conn.(*read).SetLinger(0); k.Close() },
		"the stream is closed":    func(k *link) { k.send("</stream:stream>"); k.ended() },
		"a stream error": func(k *link) {
			k.send("<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/><text xmlns='urn:ietf:params:xml:ns:xmpp-streams'>x</text></stream:error></stream:stream>")
			k.ended()
		},
		"a document type": func(k *link) { k.send("<!DOCTYPE x>"); k.ended() },
	}
	reconnects := 0.0
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			k := r.server.serve()
			k.quiet()
			if got := r.counted(t, "rosterd_reconnects_total"); got != reconnects {
				t.Errorf("%v reconnects, want %v", got, reconnects)
			}
			end(k)
			reconnects++
		})
	}
	waitFor(t, "the conflict is logged", func() bool {
		log := r.log.String()
		return strings.Contains(log, "the server ended the stream: conflict") && strings.Contains(log, "is another rosterd connected")
	})
}

func TestRefusedHandshake(t *testing.T) {
	r := start(t)
	tests := []struct{ name, answer, err, check string }{
		{"wrong secret", "<stream:error><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>",
			"the server refused the handshake: not-authorized", "is xmpp.secret the secret of contacts.example.org"},
		{"unknown domain", "<stream:error><host-unknown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>",
			"the server refused the handshake: host-unknown", "is a component contacts.example.org"},
		{"closed", "</stream:stream>", "the server closed the stream", "xmpp.address"},
		{"another protocol", "<stream:features xmlns:stream='http://etherx.jabber.org/streams'/>", "does not speak XEP-0114", "xmpp.address"},
		{"garbage", "<handshake></oops>", "no XMPP server", "xmpp.address"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := r.server.accept()
			k.next()
			k.send("%s", tt.answer)
			k.ended()
			waitFor(t, "logged", func() bool {
				return strings.Contains(r.log.String(), tt.err) && strings.Contains(r.log.String(), tt.check)
			})
		})
	}
	if strings.Contains(r.log.String(), "secret\"") || r.Connected() {
		t.Error(r.log.String())
	}
	r.server.serve().quiet() // and it still tries
}

func TestServerThatIsNone(t *testing.T) {
	t.Parallel()
	for name, greeting := range map[string]string{
		"another protocol": "220 mail.example.org ESMTP <x>",
		"silent":           "",
		"endless":          strings.Repeat("x", 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, func(o *Options) { o.Timing.Dial = 2 * time.Second })
			conn := r.server.connection()
			io.WriteString(conn, greeting)
			conn.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "reset") {
				t.Errorf("the component did not give up: %v", err)
			}
			conn.Close()
			r.server.serve().quiet()
		})
	}
}

func TestStopsInOrder(t *testing.T) {
	r := start(t)
	k := r.server.serve()
	k.quiet()
	r.stop()
	if _, _, err := k.f.Next(); err != io.EOF {
		t.Errorf("no closing tag: %v", err)
	}
	k.send("<message from='example.org'/></stream:stream>")
	k.ended()
	receive(t, r.done)
}

func TestStopsThoughTheServerDoesNot(t *testing.T) {
	r := start(t, func(o *Options) { o.Timing.Close = 20 * time.Millisecond })
	r.server.serve().quiet()
	r.stop()
	receive(t, r.done)
}

func TestSilentServerIsFoundDead(t *testing.T) {
	t.Parallel()
	r := start(t, func(o *Options) { o.Timing.Ping, o.Timing.Dead = 20*time.Millisecond, 3*time.Second })
	k := r.server.serve()
	e := k.nextElement()
	if e.Get("type") != "get" || !strings.HasSuffix(e.Get("to"), "@example.org/nowhere") || e.Child(nsPing, "ping") == nil {
		t.Errorf("got %v", e)
	}
	// It answers: whatever it says, it lives.
	k.send("<iq type='error' id='%s' from='%s'/>", e.Get("id"), e.Get("to"))
	k.nextElement()
	k.ended() // and now it does not
	r.server.serve()
	if !strings.Contains(r.log.String(), "the server was silent for") {
		t.Errorf("log:\n%s", r.log.String())
	}
}

// A server that stops reading blocks neither the reading nor the stop, and its
// stream is given up.
func TestServerThatStopsReading(t *testing.T) {
	t.Parallel()
	r := start(t, func(o *Options) {
		o.Queue = 64 << 10
		o.Timing.Write = time.Second
	})
	big := roster.New([]roster.Item{item(t, "romeo@example.org", strings.Repeat("x", 100_000))})
	r.rosters.answer = func(jid.JID) (*roster.Roster, error) { return big, nil }
	k := r.server.serve()
	r.announced(t, k)
	query := delegate(nsDelegation2, "<iq xmlns='jabber:client' type='set' id='1' from='"+juliet+"'>"+rosterGet+"</iq>")
	done := make(chan struct{})
	go func() { // many users' goroutines, whose pushes fill the queue
		defer close(done)
		for range 200 {
			r.Push([]jid.JID{mustJID(t, juliet)}, []roster.Change{{Action: roster.Added, Item: big.Items()[0]}}, func(roster.Outcome) {})
		}
	}()
	// The reading goes on, beyond what can be answered.
	for range 100 {
		if _, err := k.Write([]byte(strings.Repeat(query, 100))); err != nil {
			break // given up in the meantime
		}
	}
	receive(t, done)
	r.server.serve().quiet()
	if r.counted(t, "rosterd_replies_dropped_total") == 0 {
		t.Error("no answer was dropped")
	}
}

func TestBackoff(t *testing.T) {
	b := backoff{min: time.Second, max: time.Minute}
	for i, full := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60} {
		full *= time.Second
		got := b.next()
		if got < max(full*3/4, b.min) || got > min(full*5/4, b.max) {
			t.Errorf("pause %d is %v", i, got)
		}
	}
	b.reset()
	if got := b.next(); got > 1250*time.Millisecond {
		t.Errorf("pause after reset is %v", got)
	}
	spread := make(map[time.Duration]bool)
	for range 20 {
		b.reset()
		b.next()
		spread[b.next()] = true
	}
	if len(spread) < 5 {
		t.Errorf("only %d different pauses", len(spread))
	}
}

func TestTracker(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		tr := newTracker(time.Minute, "t-")
		var mu sync.Mutex // callbacks come from timers, too
		var got []string
		register := func(name string) string {
			id, err := tr.register(request{to: "example.org"}, func(a answer) {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, fmt.Sprintf("%s %v %v", name, a.iq != nil, a.lost()))
			})
			if err != nil {
				t.Fatal(err)
			}
			return id
		}
		expect := func(want string) {
			t.Helper()
			mu.Lock()
			defer mu.Unlock()
			if s := strings.Join(got, ", "); s != want {
				t.Errorf("got %q, want %q", s, want)
			}
			got = nil
		}
		iq := func(from, id string) *xmlstream.Element {
			e, _ := xmlstream.Decode([]byte("<iq type='result' from='" + from + "' id='" + id + "'/>"))
			return e
		}
		a, b := register("a"), register("b")
		if a == b {
			t.Error("one id twice")
		}
		if tr.answered(iq("example.net", a)) || tr.answered(iq("", a)) || tr.answered(iq("example.org", "x")) || !tr.answered(iq("example.org", b)) || tr.answered(iq("example.org", b)) {
			t.Error("answered")
		}
		expect("b true false")
		time.Sleep(time.Minute - 1)
		c := register("c")
		synctest.Wait()
		expect("")
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		expect("a false false")
		if !tr.cancel(c) || tr.cancel(c) {
			t.Error("cancel")
		}
		for i := range maxPending {
			register(fmt.Sprint(i))
		}
		register("one more")
		expect("0 false false")
		tr.close()
		if len(got) != maxPending || !strings.Contains(got[0], "true") {
			t.Errorf("%d lost, %s", len(got), got[0])
		}
		if _, err := tr.register(request{to: "example.org"}, nil); err != errStreamClosed {
			t.Error("registered after close")
		}
	})
}

// One IQ without an answer does not keep those behind it.
func TestTrackerForgetsWhatIsAnswered(t *testing.T) {
	t.Parallel()
	tr := newTracker(time.Minute, "t-")
	tr.register(request{to: "example.org"}, func(answer) {})
	for range 10_000 {
		id, _ := tr.register(request{to: "example.org"}, func(answer) {})
		e, _ := xmlstream.Decode([]byte("<iq from='example.org' id='" + id + "'/>"))
		tr.answered(e)
	}
	if n := tr.order.Len(); n != 1 || len(tr.pending) != 1 {
		t.Errorf("%d kept", n)
	}
	tr.close()
}

// What nobody confirms is not sent: no stanza, and no handshake.
func TestNothingIsSentUnconfirmed(t *testing.T) {
	const ping = "<iq type='get' id='p' from='example.org' to='contacts.example.org'><ping xmlns='urn:xmpp:ping'/></iq>"
	var asks atomic.Bool
	asked, answers := make(chan struct{}), make(chan error)
	r := fault(t, only, func(o *Options) {
		o.Confirm = func(ctx context.Context) error {
			if !asks.Load() {
				return nil
			}
			select {
			case asked <- struct{}{}:
				return <-answers
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	confirm := func(err error) {
		t.Helper()
		receive(t, asked)
		answers <- err
	}
	nothing := func(k *link) {
		t.Helper()
		k.SetReadDeadline(time.Now().Add(patience))
		if got, err := io.ReadAll(k); len(got) > 0 || err != nil {
			t.Errorf("got %s, %v", got, err)
		}
	}
	superseded := errors.New("another one is active")
	k := r.server.serve()
	r.announced(t, k)
	k.quiet()
	asks.Store(true)
	k.send(ping)
	confirm(nil)
	k.expect("<iq type='result' id='p' from='contacts.example.org' to='example.org'></iq>")
	k.send(ping)
	confirm(superseded)
	nothing(k)
	confirm(superseded) // and it does not connect
	confirm(nil)
	k = r.server.accept()
	confirm(superseded) // nor shakes hands
	nothing(k)
	asks.Store(false)
	r.server.serve()
	if !strings.Contains(r.log.String(), superseded.Error()) {
		t.Errorf("it does not say why:\n%s", r.log.String())
	}
}
