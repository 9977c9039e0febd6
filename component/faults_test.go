package component

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rosterd/internal/leak"
	"rosterd/internal/locked"
	"rosterd/jid"
	"rosterd/metrics"
	"rosterd/roster"
	"rosterd/session"

	"github.com/prometheus/client_golang/prometheus"
)

// A connection that is there, and nothing comes: no data, no end, no reset.
func TestHalfOpenConnection(t *testing.T) {
	leak.Check(t)
	for name, upTo := range map[string]func(r *rig) (push chan roster.Outcome){
		"before the header":                func(r *rig) chan roster.Outcome { r.server.connection(); return nil },
		"before the handshake's answer":    func(r *rig) chan roster.Outcome { r.server.accept(); return nil },
		"after a push":                     func(r *rig) chan roster.Outcome { return r.pushUnanswered(r.server.t, "") },
		"in the middle of a stanza":        func(r *rig) chan roster.Outcome { return r.pushUnanswered(r.server.t, "<message from='exam") },
		"in the middle of its closing tag": func(r *rig) chan roster.Outcome { return r.pushUnanswered(r.server.t, "</stream:str") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := faulty(t, func(o *Options) {
				o.Timing.Dial, o.Timing.Ping, o.Timing.Dead = 2*time.Second, 100*time.Millisecond, 2*time.Second
			})
			outcome := upTo(r)
			if outcome != nil {
				if o := receive(t, outcome); !o.Lost || fmt.Sprint(o.Owed) != "[romeo@example.org]" {
					t.Errorf("outcome %+v", o)
				}
			}
			r.server.serve() // a new stream
			if outcome != nil && !strings.Contains(r.log.String(), "the server was silent for") {
				t.Errorf("log:\n%s", r.log.String())
			}
		})
	}
}

// A server that sends, and never comes to the end of a stanza: the stream is as
// dead as a silent one.
func TestServerThatEndsNoStanza(t *testing.T) {
	leak.Check(t)
	for name, begin := range map[string]string{
		"an element":      "<message from='example.org'>",
		"an attribute":    "<message from='",
		"a CDATA section": "<message><![CDATA[",
		"a comment":       "<message><!--",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := faulty(t, func(o *Options) { o.Timing.Ping, o.Timing.Stanza = 20*time.Millisecond, 300*time.Millisecond })
			k := r.server.serve()
			k.send("%s", begin)
			piece := "<iq from='example.org'/>"
			if strings.HasSuffix(begin, "='") {
				piece = "example.org/" // a < would end it
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				for { // until the component closes
					if _, err := io.WriteString(k.Conn, piece); err != nil {
						return
					}
					time.Sleep(time.Millisecond)
				}
			}()
			receive(t, done)
			r.server.serve()
			if !strings.Contains(r.log.String(), "no whole stanza") {
				t.Errorf("log:\n%s", r.log.String())
			}
		})
	}
}

// A server that stops reading in the middle of pushes: the queue keeps its
// bound, each call of Push hears of the loss once, and nothing is forgotten. On a
// slow machine, the wait for room ends before the stream does: then what found
// none is refused, which is a loss, too.
func TestServerThatStopsReadingPushes(t *testing.T) {
	const users, size = 60, 100_000
	leak.Check(t)
	for _, way := range []string{PushPrivileged, PushDirect, PushExchange} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			r := faulty(t, only, func(o *Options) {
				o.Queue, o.Timing.Write, o.Unrestricted = 256<<10, time.Second, way == PushDirect
			})
			k := r.server.serve()
			r.goes(t, k, way)
			s, _ := r.current()
			changes := make([]roster.Change, 4)
			for i := range changes {
				changes[i] = roster.Change{Action: roster.Added, Item: item(t, fmt.Sprintf("romeo%d@example.org", i), strings.Repeat("x", size))}
			}
			outcomes := make(chan roster.Outcome, 2*users)
			var work sync.WaitGroup
			for _, full := range resources(t, users) {
				work.Go(func() {
					if err := r.Push([]jid.JID{full}, changes, func(o roster.Outcome) { outcomes <- o }); err != nil {
						outcomes <- roster.Outcome{Err: err, Lost: true, Owed: make([]jid.JID, len(changes))}
					}
				})
			}
			peak := s.out.watch(func() { work.Wait() })
			if peak > 256<<10+defaultMaxStanza { // and one stanza: it was not full before
				t.Errorf("%d bytes were queued", peak)
			}
			k.Close() // it has ended, unless all that is left was refused
			for range users {
				if o := receive(t, outcomes); !o.Lost && !errors.Is(o.Err, errQueueFull) || len(o.Owed) != len(changes) {
					t.Errorf("lost %v, %d owed, %v", o.Lost, len(o.Owed), o.Err)
				}
			}
			r.server.serve().quiet()
			if len(outcomes) != 0 {
				t.Errorf("%d settled twice", len(outcomes))
			}
		})
	}
}

// A server that stops reading in the middle of answers: each answer that was
// not written, or not known to be read, is reported once. The answers begin when
// all queries have been read: what is not read when the stream ends has no answer.
func TestServerThatStopsReadingAnswers(t *testing.T) {
	const users, size = 200, 100_000
	r := fault(t, only, func(o *Options) { o.Queue, o.Timing.Write = 256<<10, time.Second })
	var asked sync.WaitGroup
	asked.Add(users)
	long := roster.New([]roster.Item{item(t, "romeo@example.org", strings.Repeat("x", size))})
	r.rosters.later = true
	r.rosters.answer = func(jid.JID) (*roster.Roster, error) {
		asked.Done()
		asked.Wait()
		return long, nil
	}
	k := r.server.serve()
	k.quiet()
	s, _ := r.current()
	var queries bytes.Buffer
	for i, full := range resources(t, users) {
		queries.WriteString(queryOf(full.String(), fmt.Sprint(i)))
	}
	peak := s.out.watch(func() {
		k.send("%s", queries.String())
		asked.Wait()
		r.rosters.replies.Wait()
	})
	if peak > 256<<10+size+32<<10 { // and one stanza
		t.Errorf("%d bytes were queued", peak)
	}
	k.Close() // it has ended, unless a slow machine has given up all that is left
	lost := make(map[jid.JID]bool)
	for range users {
		lost[receive(t, r.rosters.lost)] = true
	}
	r.server.serve().quiet()
	if len(lost) != users || len(r.rosters.lost) != 0 {
		t.Errorf("%d lost, and %d more than once", len(lost), users-len(lost)+len(r.rosters.lost))
	}
}

// Whatever the server says when it ends the stream: the component comes back,
// says why, and what was under way is not lost.
func TestStreamErrors(t *testing.T) {
	for _, condition := range streamErrors {
		t.Run(condition, func(t *testing.T) {
			r := fault(t, only)
			asked, answer := make(chan struct{}, 1), make(chan struct{})
			inner := r.rosters.answer
			r.rosters.later = true
			r.rosters.answer = func(full jid.JID) (*roster.Roster, error) {
				asked <- struct{}{}
				<-answer
				return inner(full)
			}
			k := r.server.serve()
			r.announced(t, k)
			k.send("%s", queryOf("nurse@example.org/kitchen", "1"))
			receive(t, asked)
			outcome := r.push(t, "balcony")
			k.next()
			k.send("<stream:error><%s xmlns='urn:ietf:params:xml:ns:xmpp-streams'>127.0.0.1:1</%s><text xmlns='urn:ietf:params:xml:ns:xmpp-streams' xml:lang='en'>x</text>"+
				"<odd xmlns='urn:odd'/></stream:error></stream:stream>", condition, condition)
			if o := receive(t, outcome); !o.Lost || fmt.Sprint(o.Owed) != "[romeo@example.org]" {
				t.Errorf("outcome %+v", o)
			}
			k.ended()
			k = r.server.serve()
			r.announced(t, k) // and what is owed can be sent again
			close(answer)
			if got := k.next(); !strings.Contains(got, "known-to-nurse@example.org") {
				t.Errorf("got %s", got)
			}
			if n := strings.Count(r.log.String(), "the server ended the stream: "+condition); n != 1 {
				t.Errorf("logged %d times:\n%s", n, r.log.String())
			}
			if n, _ := r.sessions.Counts(); n != 1 {
				t.Errorf("%d sessions", n)
			}
		})
	}
}

// streamErrors are the conditions of RFC 6120, section 4.9.3.
var streamErrors = []string{
	"bad-format", "bad-namespace-prefix", "conflict", "connection-timeout", "host-gone", "host-unknown",
	"improper-addressing", "internal-server-error", "invalid-from", "invalid-namespace", "invalid-xml",
	"not-authorized", "not-well-formed", "policy-violation", "remote-connection-failed", "reset",
	"resource-constraint", "restricted-xml", "see-other-host", "system-shutdown", "undefined-condition",
	"unsupported-encoding", "unsupported-feature", "unsupported-stanza-type", "unsupported-version",
}

// A stream error may come in place of the handshake's answer.
func TestStreamErrorsInTheHandshake(t *testing.T) {
	r := fault(t)
	for _, condition := range streamErrors {
		k := r.server.accept()
		k.next()
		k.send("<stream:error><%s xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>", condition)
		k.ended()
		waitFor(t, condition+" is logged", func() bool {
			return strings.Contains(r.log.String(), "the server refused the handshake: "+condition)
		})
	}
	r.server.serve().quiet()
}

var retryIn = regexp.MustCompile(`retry_in=(\S+)`)

// pauses are those before each new attempt, as they were logged.
func pauses(t *testing.T, log string) []time.Duration {
	t.Helper()
	var list []time.Duration
	for _, found := range retryIn.FindAllStringSubmatch(log, -1) {
		d, err := time.ParseDuration(found[1])
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, d)
	}
	return list
}

// Two rosterds with one name, and a server that gives up the older stream for
// the newer: each comes back more and more slowly, so that they do not fight. One
// that refuses the newer is asked again and again: the older may be gone by then.
func TestConflict(t *testing.T) {
	leak.Check(t)
	for _, kicked := range []string{"the older stream", "the newer stream"} {
		t.Run(kicked, func(t *testing.T) {
			t.Parallel()
			slow := func(o *Options) { o.Timing.MinRetry, o.Timing.MaxRetry = 4*time.Millisecond, time.Hour }
			one := faulty(t, slow, only)
			log := &locked.Buffer{}
			second := New(Options{
				Address: one.server.l.Addr().String(), Domain: "contacts.example.org", Secret: "secret",
				Hosts: []string{"example.org"}, Timing: one.opts.Timing,
				Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})), Metrics: metrics.New(prometheus.NewRegistry()),
			}, session.NewTable())
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); second.Run(ctx, one.rosters) }()
			t.Cleanup(func() { cancel(); receive(t, done) })

			const conflict = "<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>"
			var older *link
			streams := map[string]int{"the older stream": 14, "the newer stream": 9}[kicked]
			for range streams {
				if kicked == "the newer stream" && older != nil {
					newer := one.server.accept()
					newer.next()
					newer.send(conflict)
					newer.ended()
					continue
				}
				newer := one.server.serve()
				if older != nil {
					older.send(conflict)
					older.ended()
				}
				older = newer
			}
			n := 0
			for _, log := range []string{one.log.String(), log.String()} {
				for i, pause := range pauses(t, log) {
					n++
					least := 4 * time.Millisecond << i * 3 / 4
					if kicked == "the newer stream" {
						least = 4 * time.Millisecond
						if pause > least {
							t.Errorf("pause %d is %v, want %v", i, pause, least)
						}
					}
					if pause < min(least, 2*time.Second*3/4).Round(time.Millisecond) {
						t.Errorf("pause %d is %v, want %v", i, pause, least)
					}
				}
			}
			if n < streams-2 {
				t.Errorf("%d pauses", n)
			}
			if !strings.Contains(log.String()+one.log.String(), "is another rosterd connected as contacts.example.org?") {
				t.Errorf("log:\n%s", log.String())
			}
		})
	}
}

// A server that restarts in the middle of a push, whichever way pushes go: what
// is not known to have arrived is owed, and nobody counts as gone.
func TestRestartInTheMiddleOfAPush(t *testing.T) {
	for way, ends := range map[string]string{PushPrivileged: "", PushDirect: "</stream:stream>", PushExchange: "<stream:error>" +
		"<system-shutdown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>"} {
		t.Run(way, func(t *testing.T) {
			r := fault(t, only, func(o *Options) { o.Unrestricted = way == PushDirect })
			k := r.server.serve()
			r.goes(t, k, way)
			outcome := make(chan roster.Outcome, 2)
			var changes []roster.Change
			for _, contact := range []string{"romeo", "nurse", "paris"} {
				changes = append(changes, roster.Change{Action: roster.Added, Item: item(t, contact+"@example.org", "")})
			}
			r.sessions.Interested(mustJID(t, juliet))
			go r.Push([]jid.JID{mustJID(t, juliet)}, changes, func(o roster.Outcome) { outcome <- o })
			id := k.nextElement().Get("id")
			owed := 3
			if way == PushPrivileged { // the others cannot be confirmed one by one
				k.next()
				k.send("<iq type='result' id='%s' from='juliet@example.org'/><iq type='resu", id)
				owed = 2
			}
			k.send("%s", ends)
			k.Close()
			if o := receive(t, outcome); !o.Lost || len(o.Owed) != owed {
				t.Errorf("outcome %+v", o)
			}
			if n, _ := r.sessions.Counts(); n != 1 {
				t.Errorf("%d sessions", n)
			}
			k = r.server.serve()
			r.goes(t, k, way)
			again := r.push(t, "balcony")
			k.confirm(way)
			if o := receive(t, again); o.Err != nil {
				t.Errorf("outcome %+v", o)
			}
		})
	}
}

// A server that lost the connection, and nothing else, may not have read the
// last answers: those are reported, those it has read are not.
func TestAnswersThatTheServerMayNotHaveRead(t *testing.T) {
	r := fault(t, only, func(o *Options) { o.Timing.Ping, o.Timing.Dead = 200*time.Millisecond, time.Hour })
	k := r.server.serve()
	k.send("%s", queryOf("juliet@example.org/balcony", "1"))
	if got := k.next(); !strings.Contains(got, "known-to-juliet") {
		t.Fatalf("got %s", got)
	}
	for { // it goes on reading, and says so
		e := k.nextElement()
		k.send("<iq type='result' id='%s' from='%s'/>", e.Get("id"), e.Get("to"))
		k.send("<iq type='get' id='seen' from='example.org'><ping xmlns='urn:xmpp:ping'/></iq>")
		if e := k.nextElement(); e.Get("id") == "seen" {
			break
		}
	}
	k.send("%s", queryOf("romeo@example.org/street", "2"))
	for !strings.Contains(k.next(), "known-to-romeo") {
	}
	k.Close()
	if full := receive(t, r.rosters.lost); full.String() != "romeo@example.org/street" {
		t.Errorf("%v lost", full)
	}
	r.server.serve()
	if len(r.rosters.lost) != 0 {
		t.Errorf("%v lost, too", <-r.rosters.lost)
	}
}

// What a server announces can change at any time, as its configuration is
// loaded again.
func TestAnnouncementsThatChange(t *testing.T) {
	const (
		delegated   = "<message from='example.org'><delegation xmlns='urn:xmpp:delegation:2'><delegated namespace='jabber:iq:roster'/></delegation></message>"
		undelegated = "<message from='example.org'><delegation xmlns='urn:xmpp:delegation:2'/></message>"
		other       = "<message from='example.org'><delegation xmlns='urn:xmpp:delegation:2'><delegated namespace='urn:other'/></delegation></message>"
		push        = "<message from='example.org'><privilege xmlns='urn:xmpp:privilege:2'><perm access='iq'><namespace ns='jabber:iq:roster' type='set'/></perm></privilege></message>"
		nothing     = "<message from='example.org'><privilege xmlns='urn:xmpp:privilege:2'/></message>"
		older       = "<message from='example.org'><privilege xmlns='urn:xmpp:privilege:1'><perm access='roster' type='both'/></privilege></message>"
	)
	r := fault(t, only)
	k := r.server.serve()
	for i, step := range []struct {
		announced string
		query     string
		push      string
		ready     bool
		resumed   bool
	}{
		{delegated + push, QueryDelegated, PushPrivileged, true, true},
		{delegated + push, QueryDelegated, PushPrivileged, true, false}, // the same again is no news
		{nothing, QueryDelegated, PushExchange, true, false},
		{push, QueryDelegated, PushPrivileged, true, true},
		{undelegated, QueryUnknown, PushPrivileged, false, false},
		{other, QueryUnknown, PushPrivileged, false, false},
		{delegated, QueryDelegated, PushPrivileged, true, false},
		{older, QueryDelegated, PushExchange, true, false},
		{undelegated + nothing, QueryUnknown, PushExchange, false, false},
		{push + delegated, QueryDelegated, PushPrivileged, true, true},
	} {
		k.send("%s", step.announced)
		k.quiet()
		got := r.Status().Hosts[0]
		if _, err := r.Ready(); got.Query != step.query || got.Push != step.push || (err == nil) != step.ready {
			t.Errorf("step %d: %+v, %v", i, got, err)
		}
		if n := len(r.rosters.resumed); (n != 0) != step.resumed {
			t.Errorf("step %d: resumed %d times", i, n)
		}
		for len(r.rosters.resumed) > 0 {
			<-r.rosters.resumed
		}
	}
	r.lives(t, k)
}

// Privileges that are taken away while a push is under way: the user is owed,
// and all goes on when they are back.
func TestPrivilegesTakenInTheMiddleOfAPush(t *testing.T) {
	r := fault(t, only)
	k := r.server.serve()
	r.announced(t, k)
	outcome := r.push(t, "balcony")
	id := k.nextElement().Get("id")
	k.send("<message from='example.org'><privilege xmlns='urn:xmpp:privilege:2'/></message>"+
		"<iq type='error' id='%s' from='juliet@example.org'><error type='auth'><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>", id)
	if o := receive(t, outcome); o.Err == nil || o.Lost || fmt.Sprint(o.Owed) != "[romeo@example.org]" {
		t.Errorf("outcome %+v", o)
	}
	r.announced(t, k) // resumed: what is owed is sent again
	outcome = r.push(t, "balcony")
	k.send("<iq type='result' id='%s' from='juliet@example.org'/>", k.nextElement().Get("id"))
	if o := receive(t, outcome); o.Err != nil {
		t.Errorf("outcome %+v", o)
	}
}

// Results that never come hold nothing for good.
func TestResultsThatNeverCome(t *testing.T) {
	r := fault(t, only, func(o *Options) { o.Timing.Answer, o.Timing.Ping = 100*time.Millisecond, 200*time.Millisecond })
	k := r.server.serve()
	r.announced(t, k)
	s, _ := r.current()
	outcomes := make(chan roster.Outcome, 2000)
	read := make(chan struct{})
	go func() { defer close(read); io.Copy(io.Discard, k) }() // and answers nothing
	for _, full := range resources(t, 1000) {
		if err := r.Push([]jid.JID{full}, []roster.Change{{Action: roster.Added, Item: item(t, "romeo@example.org", "")}},
			func(o roster.Outcome) { outcomes <- o }); err != nil {
			t.Fatal(err)
		}
	}
	for range 1000 {
		if o := receive(t, outcomes); o.Err != nil {
			t.Errorf("outcome %+v", o)
		}
	}
	waitFor(t, "nothing is waited for", func() bool {
		s.iqs.mu.Lock()
		defer s.iqs.mu.Unlock()
		return len(s.iqs.pending) <= 3 && s.iqs.order.Len() <= 3 // but for pings
	})
	k.Close()
	receive(t, read)
	if len(outcomes) != 0 {
		t.Error("settled twice")
	}
}

// The same result many times, early, late, and on a later stream.
func TestSameResultManyTimes(t *testing.T) {
	r := fault(t, only)
	k := r.server.serve()
	r.announced(t, k)
	outcome := r.push(t, "balcony", "chamber")
	first, second := k.nextElement().Get("id"), k.nextElement().Get("id")
	result := func(id string) string { return "<iq type='result' id='" + id + "' from='juliet@example.org'/>" }
	k.send("%s", strings.Repeat(result(first), 2000))
	k.quiet()
	if len(outcome) != 0 {
		t.Error("one result was taken for both pushes")
	}
	k.send("%s", strings.Repeat(result(second), 2000)+strings.ReplaceAll(strings.Repeat(result(second), 100), "'result'", "'error'"))
	if o := receive(t, outcome); o.Err != nil {
		t.Errorf("outcome %+v", o)
	}
	k.quiet()
	if n := r.counted(t, "rosterd_pushes_total", "changed", "ok"); n != 2 || len(outcome) != 0 {
		t.Errorf("%v pushes confirmed, settled again: %v", n, len(outcome) != 0)
	}
	k.Close()
	k = r.server.serve()
	r.announced(t, k)
	outcome = r.push(t, "balcony")
	third := k.nextElement().Get("id")
	k.send("%s", result(first)+result(second))
	k.quiet()
	if len(outcome) != 0 || third == first || third == second {
		t.Error("a result of an earlier stream counts")
	}
}

// A connection that is cut after any byte of a dialogue: each time the
// component comes back, and each push and each answer has one end.
func TestCutAtEveryByte(t *testing.T) {
	r := fault(t, only, func(o *Options) { o.Timing.MinRetry, o.Timing.MaxRetry = time.Microsecond, 20*time.Microsecond })
	dialogue := "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' from='contacts.example.org' id='s1'>" +
		"<handshake/>" + delegationOnly + mayPush + "<presence from='juliet@example.org/balcony'><show>away</show></presence>" +
		queryOf("juliet@example.org/balcony", "1") + "<iq type='get' id='2' from='example.org'><ping xmlns='urn:xmpp:ping'/></iq></stream:stream>"
	// Somebody pushes all the time.
	ctx, cancel := context.WithCancel(t.Context())
	var pushed, ended sync.WaitGroup
	var mu sync.Mutex
	settled := make(map[int]int)
	ended.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			pushed.Add(1)
			if r.Push([]jid.JID{mustJID(t, juliet)}, []roster.Change{{Action: roster.Added, Item: item(t, "romeo@example.org", "")}}, func(roster.Outcome) {
				mu.Lock()
				settled[i]++
				mu.Unlock()
				pushed.Done()
			}) != nil {
				pushed.Done()
				time.Sleep(time.Millisecond) // there is no stream
			}
		}
	})
	for i := range len(dialogue) {
		conn := r.server.connection()
		if _, err := io.WriteString(conn, dialogue[:i]); err != nil {
			t.Logf("after %d bytes: %v", i, err)
		}
		if i%3 == 0 { // else the component's own stanzas make a reset of it
			conn.(*read).CloseWrite()
			conn.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.Copy(io.Discard, conn); err != nil && !isReset(err) {
				t.Errorf("after %d bytes: %v", i, err)
			}
		}
		conn.Close()
	}
	k := r.server.serve()
	cancel()
	ended.Wait()
	k.Close() // the pushes under way are lost
	pushed.Wait()
	for i, n := range settled {
		if n != 1 {
			t.Errorf("push %d settled %d times", i, n)
		}
	}
	r.server.serve().quiet()
}

func isReset(err error) bool {
	return strings.Contains(err.Error(), "reset") || strings.Contains(err.Error(), "broken pipe")
}

// A wrong secret, for as long as it is wrong: the pauses grow, and nobody learns
// the secret that was tried.
func TestWrongSecret(t *testing.T) {
	r := fault(t, func(o *Options) {
		o.Secret, o.Timing.MinRetry, o.Timing.MaxRetry = "Tell-Nobody", 4*time.Millisecond, 200*time.Millisecond
	})
	for range 8 {
		k := r.server.accept()
		k.next()
		k.send("<stream:error><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/><text xmlns='urn:ietf:params:xml:ns:xmpp-streams'>no: Tell-Somebody</text></stream:error></stream:stream>")
		k.ended()
	}
	waitFor(t, "eight lines", func() bool { return len(pauses(t, r.log.String())) == 8 })
	list := pauses(t, r.log.String())
	if slices.Max(list) > 200*time.Millisecond || list[7] < 150*time.Millisecond || list[0] > 5*time.Millisecond {
		t.Errorf("pauses %v", list)
	}
	status := r.Status()
	_, err := r.Ready()
	for _, text := range []string{r.log.String(), fmt.Sprintf("%+v", status), err.Error()} {
		if strings.Contains(text, "Tell-") || strings.Contains(text, "handshake>") {
			t.Errorf("the secret, or what the server says of it, is told: %s", text)
		}
	}
	if status.Condition != "not-authorized" || status.Connected {
		t.Errorf("status %+v", status)
	}
}
