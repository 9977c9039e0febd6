package component

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"rosterd/internal/bubble"
	"rosterd/internal/leak"
	"rosterd/jid"
	"rosterd/roster"
	"rosterd/serverroster"
	"rosterd/xmlstream"
)

const (
	hasRosters  = "<iq type='result' id='%s' from='%s' to='contacts.example.org'><query xmlns='jabber:iq:roster'/></iq>"
	forbidden   = "<iq type='error' id='%s' from='%s' to='contacts.example.org'><error type='auth'><forbidden xmlns='" + nsStanzas + "'/></error></iq>"
	rostersOnly = "<message from='example.org'><privilege xmlns='urn:xmpp:privilege:2'><perm access='roster' type='both'/><perm access='presence' type='managed_entity'/></privilege></message>"
)

// own is a component to whom a host has announced the privilege roster, and given a roster
// by it.
func own(t *testing.T, announced string, change ...func(*Options)) (*rig, *link, serverroster.Way) {
	t.Helper()
	leak.Check(t)
	ready := make(chan string, 16)
	r := start(t, append([]func(*Options){only, func(o *Options) { o.ServerRosterReady = func(host string) { ready <- host } }}, change...)...)
	k := r.server.serve()
	k.rosters = hasRosters
	k.send("%s", announced)
	k.quiet()
	if host := receive(t, ready); host != "example.org" {
		t.Errorf("%s is ready", host)
	}
	way := r.OwnRosters("example.org")
	if got := r.Status().Hosts[0]; way == nil || got.ServerRoster != ServerRosterPrivilege || len(got.Missing) > 0 && strings.Contains(fmt.Sprint(got.Missing), "own rosters") {
		t.Fatalf("way %v, %+v", way, got)
	}
	return r, k, way
}

// noWay wants that there is none, and that why is said.
func (r *rig) noWay(t *testing.T, k *link, why string) {
	t.Helper()
	waitFor(t, "no way: "+why, func() bool {
		k.quiet() // and answers what proves it
		got := r.Status().Hosts[0]
		return got.ServerRoster == ServerRosterNone && strings.Contains(fmt.Sprint(got.Missing), why)
	})
	if way := r.OwnRosters("example.org"); way != nil {
		t.Errorf("got %v", way)
	}
}

// An announcement of the privilege is no proof, and no answer, an error, or one that comes
// back to us is none either.
func TestOwnRostersAreProven(t *testing.T) {
	late := func(o *Options) { o.Timing.Announce = 50 * time.Millisecond }
	for name, test := range map[string]struct{ answer, why string }{
		"no answer": {"", "has no answer by it"},
		"forbidden": {forbidden, "answered forbidden"},
		"odd":       {"<iq type='result' id='%s' from='%s'/>", "without a roster"},
		"comes back": {delegate(nsDelegation1, "<iq xmlns='jabber:client' type='get' id='%[1]s' from='contacts.example.org' to='%[2]s'>"+rosterGet+"</iq>") +
			forbidden, "it delegates the queries of contacts.example.org, too"},
	} {
		t.Run(name, func(t *testing.T) {
			r := fault(t, only, late)
			k := r.server.serve()
			k.rosters = test.answer
			k.send("%s", delegationOnly+rostersOnly)
			r.noWay(t, k, test.why)
		})
	}
	t.Run("not announced", func(t *testing.T) {
		r := fault(t, only)
		k := r.server.serve()
		k.rosters = hasRosters
		k.send("%s", delegationOnly+mayPush)
		k.quiet()
		r.noWay(t, k, "is not announced")
	})
	t.Run("off", func(t *testing.T) {
		r := fault(t, only, func(o *Options) { o.ServerRoster = "off" })
		k := r.server.serve()
		k.rosters = hasRosters
		k.send("%s", delegationOnly+rostersOnly)
		k.quiet()
		if got := r.Status().Hosts[0]; got.ServerRoster != ServerRosterOff || r.OwnRosters("example.org") != nil {
			t.Errorf("got %+v", got)
		}
	})
}

// A proof is for one stream, and until it fails.
func TestOwnRostersThatAreGone(t *testing.T) {
	r, k, way := own(t, delegationOnly+rostersOnly, func(o *Options) { o.Timing.Prove = 200 * time.Millisecond })
	k.rosters = forbidden
	for r.OwnRosters("example.org") != nil {
		k.quiet()
	}
	r.noWay(t, k, "answered forbidden")
	k.rosters = hasRosters
	for r.OwnRosters("example.org") == nil {
		k.quiet()
	}
	k.Close()
	k = r.server.serve()
	k.quiet()
	if r.OwnRosters("example.org") != nil {
		t.Error("there is a way on a new stream, without a proof")
	}
	if _, err := way.Get(context.Background(), mustJID(t, "juliet@example.org")); !errors.Is(err, roster.ErrNotConnected) {
		t.Errorf("on the old stream: %v", err)
	}
}

// Who confirms and does not write is not asked any more on this stream.
func TestBrokenOwnRosters(t *testing.T) {
	r, k, way := own(t, delegationOnly+rostersOnly, func(o *Options) { o.Timing.Prove = 200 * time.Millisecond })
	r.BrokenOwnRosters("example.org", "a subscription was not written")
	r.noWay(t, k, "a subscription was not written")
	done := make(chan error, 1)
	go func() {
		_, err := way.Get(context.Background(), mustJID(t, "juliet@example.org"))
		done <- err
	}()
	e := k.nextElement()
	k.send(hasRosters, e.Get("id"), e.Get("to"))
	if err := receive(t, done); err != errNoOwnRosters {
		t.Errorf("got %v", err)
	}
}

// A call ends with its context though the queue to the server is full, and leaves nothing in
// it.
func TestOwnRostersWhileTheServerReadsNothing(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		hosts := []string{"example.org"}
		s := &stream{domain: "contacts.example.org", out: newWriter(100, 100, time.Minute), iqs: newTracker(time.Minute, "t-"), grants: newGrants(hosts, nil), began: time.Now()}
		if err := s.out.put(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		way := &privilegeWay{&Component{names: newNames(s.domain, hosts), opts: Options{MaxStanza: 1 << 18}}, s, "example.org"}
		changes := roster.Diff(roster.New(nil), roster.New([]roster.Item{{JID: mustJID(t, "romeo@example.org"), Subscription: "both"}, {JID: mustJID(t, "nurse@example.org"), Subscription: "both"}}))
		for name, call := range map[string]func(context.Context) error{
			"get": func(ctx context.Context) error { _, err := way.Get(ctx, mustJID(t, "juliet@example.org")); return err },
			"set": func(ctx context.Context) error {
				return way.Set(ctx, mustJID(t, "juliet@example.org"), changes, func(roster.Change) { t.Error("something was confirmed") })
			},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			began := time.Now()
			if err := call(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
				t.Errorf("%s: %v after %v", name, err, time.Since(began))
			}
			cancel()
		}
		if q := &s.out.normal; q.held != 0 || len(q.waiting) != 0 || len(s.iqs.pending) != 0 {
			t.Errorf("%d held, %d wait, %d pending", q.held, len(q.waiting), len(s.iqs.pending))
		}
	})
}

// get is one Get, which the test answers.
func get(t *testing.T, k *link, way serverroster.Way, answer func(e *xmlstream.Element)) (*roster.Roster, error) {
	t.Helper()
	type result struct {
		r   *roster.Roster
		err error
	}
	done := make(chan result, 1)
	go func() {
		got, err := way.Get(context.Background(), mustJID(t, "juliet@example.org"))
		done <- result{got, err}
	}()
	e := k.nextElement()
	if e.Get("type") != "get" || e.Get("to") != "juliet@example.org" || e.Get("from") != "contacts.example.org" || e.Child(nsRoster, "query") == nil {
		t.Errorf("got %+v", e)
	}
	answer(e)
	got := receive(t, done)
	return got.r, got.err
}

func TestGetOwnRoster(t *testing.T) {
	r, k, way := own(t, delegationOnly+rostersOnly)
	result := func(query string) func(*xmlstream.Element) {
		return func(e *xmlstream.Element) {
			k.send("<iq type='result' id='%s' from='%s'>%s</iq>", e.Get("id"), e.Get("to"), query)
		}
	}
	got, err := get(t, k, way, result("<query xmlns='jabber:iq:roster'><item jid='Romeo@Example.org' name='R &amp; J' subscription='both' ask='subscribe'><group>b</group><group>a</group><group>b</group><group/></item>"+
		"<item jid='not a jid@'/><item jid='tybalt@example.org/x'/><item jid='nurse@example.org' subscription='?'/></query>"))
	want := roster.New([]roster.Item{item(t, "romeo@example.org", "R & J", "a", "b"), {JID: mustJID(t, "nurse@example.org"), Subscription: roster.SubscriptionNone}})
	if err != nil || !got.Equal(want) {
		t.Errorf("got %s, %v", got.XML(), err)
	}
	if !strings.Contains(r.log.String(), "contacts=2") {
		t.Errorf("log:\n%s", r.log.String())
	}
	if got, err := get(t, k, way, result("<query xmlns='jabber:iq:roster'/>")); err != nil || got.Len() != 0 {
		t.Errorf("empty: %v, %v", got, err)
	}
	// 5,000 contacts, in more elements than are decoded, and in more bytes.
	for _, name := range []string{"n", strings.Repeat("Romeo ", 60)} {
		var items []roster.Item
		for i := range 5000 {
			items = append(items, item(t, fmt.Sprintf("contact%d@example.org", i), name, "Friends"))
		}
		many := roster.New(items)
		if got, err := get(t, k, way, result("<query xmlns='jabber:iq:roster'>"+string(many.XML())+"</query>")); err != nil || !got.Equal(many) {
			t.Errorf("%d of %d bytes: %d contacts, %v", many.Len(), many.Size(), got.Len(), err)
		}
	}
	// No failure is an empty roster.
	for name, query := range map[string]string{
		"no query": "", "another query": "<query xmlns='jabber:iq:version'/>", "too long": "<query xmlns='jabber:iq:roster'>" + strings.Repeat("<item jid='a.example'/>", maxKept/20) + "</query>",
	} {
		if got, err := get(t, k, way, result(query)); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got, err := get(t, k, way, func(e *xmlstream.Element) { k.send(forbidden, e.Get("id"), e.Get("to")) }); err == nil {
		t.Errorf("forbidden: %v", got)
	}
	notFound := strings.ReplaceAll(forbidden, "forbidden", "item-not-found")
	if got, err := get(t, k, way, func(e *xmlstream.Element) { k.send(notFound, e.Get("id"), e.Get("to")) }); err != serverroster.ErrNoAccount {
		t.Errorf("no account: %v, %v", got, err)
	}
	// Only the server answers for the account.
	got, err = get(t, k, way, func(e *xmlstream.Element) {
		k.send("<iq type='result' id='%s' from='juliet@example.org/x' to='contacts.example.org'><query xmlns='jabber:iq:roster'/></iq>", e.Get("id"))
		k.send("<iq type='result' id='%s' from='romeo@example.org' to='contacts.example.org'><query xmlns='jabber:iq:roster'/></iq>", e.Get("id"))
		result("<query xmlns='jabber:iq:roster'><item jid='nurse@example.org'/></query>")(e)
	})
	if err != nil || got.Len() != 1 {
		t.Errorf("forged: %v, %v", got, err)
	}
	if got, err := get(t, k, way, func(*xmlstream.Element) { k.Close() }); !errors.Is(err, roster.ErrNotConnected) {
		t.Errorf("lost: %v, %v", got, err)
	}
}

func TestSetOwnRoster(t *testing.T) {
	_, k, way := own(t, delegationOnly+rostersOnly)
	user := mustJID(t, "juliet@example.org")
	changes := []roster.Change{
		{Action: roster.Added, Item: item(t, "romeo@example.org", "R & J", "Friends"), Version: "1"},
		{Action: roster.Changed, Item: roster.Item{JID: mustJID(t, "nurse@example.org"), Subscription: roster.SubscriptionTo, Ask: true, Approved: true}},
		{Action: roster.Removed, Item: roster.Item{JID: mustJID(t, "tybalt@example.org")}},
	}
	const result = "<iq type='result' id='%s' from='%s'/>"
	failure := func(kind, condition string) string {
		return "<iq type='error' id='%s' from='%s'><error type='" + kind + "'><" + condition + " xmlns='" + nsStanzas + "'/></error></iq>"
	}
	gone := errors.New("the server's own roster: ")
	for name, test := range map[string]struct {
		answers [3]string
		written int
		want    error // nil, ErrNoAccount, a RefusedError, or any with that beginning
	}{
		"all":               {[3]string{result, result, result}, 3, nil},
		"removed before":    {[3]string{result, result, failure("modify", "item-not-found")}, 3, nil},
		"refused":           {[3]string{failure("modify", "bad-request"), result, failure("cancel", "not-allowed")}, 1, &serverroster.RefusedError{Why: "bad-request"}},
		"not there":         {[3]string{failure("modify", "item-not-found"), result, result}, 2, &serverroster.RefusedError{Why: "item-not-found"}},
		"cannot save":       {[3]string{result, failure("wait", "internal-server-error"), result}, 2, gone},
		"COMPAT ejabberd":   {[3]string{result, failure("cancel", "internal-server-error"), result}, 2, gone},
		"no permission":     {[3]string{failure("auth", "forbidden"), failure("auth", "forbidden"), failure("auth", "forbidden")}, 0, gone},
		"of all conditions": {[3]string{failure("wait", "not-allowed"), "<iq type='error' id='%s' from='%s'/>", failure("cancel", "gone")}, 0, gone},
		"no account":        {[3]string{failure("cancel", "service-unavailable"), failure("cancel", "service-unavailable"), failure("cancel", "service-unavailable")}, 0, serverroster.ErrNoAccount},
	} {
		t.Run(name, func(t *testing.T) {
			k.t = t
			var written []roster.Change
			done := make(chan error, 1)
			go func() {
				done <- way.Set(context.Background(), user, changes, func(c roster.Change) { written = append(written, c) })
			}()
			for i, query := range []string{
				"<query xmlns='jabber:iq:roster'><item jid='romeo@example.org' subscription='both' name='R &amp; J'><group>Friends</group></item></query>",
				"<query xmlns='jabber:iq:roster'><item jid='nurse@example.org' subscription='to'/></query>",
				"<query xmlns='jabber:iq:roster'><item jid='tybalt@example.org' subscription='remove'/></query>",
			} {
				got := k.next() // before any of them is answered
				e, err := xmlstream.Decode([]byte(got))
				if err != nil || got != "<iq type='set' id='"+e.Get("id")+"' from='contacts.example.org' to='juliet@example.org'>"+query+"</iq>" {
					t.Errorf("got %s, %v", got, err)
				}
				defer func(i int) {}(i)
				test.answers[i] = fmt.Sprintf(test.answers[i], e.Get("id"), e.Get("to"))
			}
			k.send("%s", strings.Join(test.answers[:], ""))
			if test.want == serverroster.ErrNoAccount {
				e := k.nextElement() // is nobody there, or does the server give nothing any more?
				k.send(hasRosters, e.Get("id"), e.Get("to"))
			}
			err := receive(t, done)
			refused, isRefused := errors.AsType[*serverroster.RefusedError](err)
			switch want := test.want.(type) {
			case *serverroster.RefusedError:
				if !isRefused || refused.Why != want.Why || len(refused.Contacts) != 3-test.written {
					t.Errorf("got %v", err)
				}
			default:
				if want == gone && (err == nil || isRefused || !strings.HasPrefix(err.Error(), gone.Error())) || want != gone && err != want {
					t.Errorf("got %v", err)
				}
			}
			if len(written) != test.written || !slices.IsSortedFunc(written, func(a, b roster.Change) int {
				return slices.IndexFunc(changes, func(c roster.Change) bool { return c.Item.JID == a.Item.JID }) - slices.IndexFunc(changes, func(c roster.Change) bool { return c.Item.JID == b.Item.JID })
			}) {
				t.Errorf("written %+v", written)
			}
		})
	}
	k.t = t
	t.Run("abandoned", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		first := make(chan struct{})
		done := make(chan error, 1)
		go func() { done <- way.Set(ctx, user, changes, func(roster.Change) { close(first) }) }()
		var es []*xmlstream.Element
		for range changes {
			es = append(es, k.nextElement())
		}
		k.send(result, es[0].Get("id"), es[0].Get("to"))
		<-first
		cancel()
		if err := receive(t, done); err != context.Canceled {
			t.Errorf("got %v", err)
		}
		k.send(result, es[1].Get("id"), es[1].Get("to")) // written is not called any more: it would panic
		k.quiet()
	})
	t.Run("no answer", func(t *testing.T) { // COMPAT Prosody, which fails at an address that it does not take
		k.t, k.showProbes = t, true
		done, written := make(chan error, 1), 0
		odd := append(changes, roster.Change{Action: roster.Added, Item: item(t, "romeo@straße.example", "")}, roster.Change{Action: roster.Added, Item: item(t, "romeo@bücher.example", "")})
		go func() { done <- way.Set(context.Background(), user, odd, func(roster.Change) { written++ }) }()
		for i, want := range []string{"romeo@example.org", "nurse@example.org", "tybalt@example.org", "romeo@xn--strae-oqa.example", "romeo@bücher.example"} {
			e := k.nextElement()
			if got := e.Child(nsRoster, "query").Child(nsRoster, "item").Get("jid"); got != want {
				t.Errorf("got %s", got)
			}
			if i > 0 && i < 4 {
				k.send(result, e.Get("id"), e.Get("to"))
			}
		}
		e := k.nextElement() // behind them
		k.send(result, e.Get("id"), e.Get("to"))
		refused, is := errors.AsType[*serverroster.RefusedError](receive(t, done))
		if !is || len(refused.Contacts) != 2 || written != 3 {
			t.Errorf("%+v, %d written", refused, written)
		}
		k.showProbes = false
	})
	k.t = t
	t.Run("lost", func(t *testing.T) {
		done := make(chan error, 1)
		go func() { done <- way.Set(context.Background(), user, changes, func(roster.Change) {}) }()
		e := k.nextElement()
		k.send(result, e.Get("id"), e.Get("to"))
		k.Close()
		if err := receive(t, done); !errors.Is(err, roster.ErrNotConnected) {
			t.Errorf("got %v", err)
		}
	})
}

// serverPushes pushes what it is to.
func serverPushes(_ jid.JID, _ []jid.JID, settled func([]jid.JID, error)) { settled(nil, nil) }

// What the server is to push is settled by what it has confirmed, and by nothing else.
func TestPushByServer(t *testing.T) {
	var missing []jid.JID
	var fails error
	var asked []jid.JID
	r := start(t, only, func(o *Options) {
		o.API = api{}
		o.ServerPush = func(user jid.JID, contacts []jid.JID, settled func([]jid.JID, error)) {
			asked = append([]jid.JID{user}, contacts...)
			go settled(missing, fails)
		}
	})
	k := r.server.serve()
	k.send("%s", delegationOnly+rostersOnly)
	k.quiet()
	k.quiet()
	if !r.PushesByServer("example.org") {
		t.Fatalf("%+v", r.Status().Hosts[0])
	}
	romeo := mustJID(t, "romeo@example.org")
	for _, test := range []struct {
		missing []jid.JID
		fails   error
		refused bool
	}{
		{},
		{[]jid.JID{romeo}, errors.New("connection refused"), false},
		{[]jid.JID{romeo}, serverroster.ErrNotPushed, true},
	} {
		missing, fails = test.missing, test.fails
		o := receive(t, r.push(t, "balcony"))
		if !slices.Equal(o.Owed, test.missing) || (o.Err == nil) != (test.fails == nil) || o.Refused != test.refused || o.Lost {
			t.Errorf("%+v: got %+v", test, o)
		}
		if len(asked) != 2 || asked[0] != mustJID(t, "juliet@example.org") || asked[1] != romeo {
			t.Errorf("asked for %v", asked)
		}
		k.quiet() // nothing is sent
	}
}

// Where an API is to be used that does not work, for whatever reason, nothing counts as pushed,
// and what a client shows after a refused edit is made up for once it works.
func TestPushAwaitsAPI(t *testing.T) {
	r := start(t, only, func(o *Options) { o.API, o.ServerPush = api{"api_permissions does not permit it"}, serverPushes })
	r.rosters.refused = make(chan string, 1)
	k := r.server.serve()
	k.send("%s", delegationOnly+rostersOnly)
	k.quiet()
	k.quiet()
	if o := receive(t, r.push(t, "balcony")); o.Err == nil || o.Refused {
		t.Errorf("got %+v", o)
	}
	k.quiet()
	k.send("%s", delegate(nsDelegation2, "<iq xmlns='jabber:client' type='set' id='1' from='tybalt@example.org/street'><query xmlns='jabber:iq:roster'><item jid='nurse@example.org'/></query></iq>"))
	k.refused("not-allowed")
	if got, want := receive(t, r.rosters.refused), "tybalt@example.org/street [nurse@example.org]"; got != want {
		t.Errorf("refused %s, not %s", got, want)
	}
}

// Edits that never come here, as the server answers by itself, are said not to.
func TestQueryServerTakesNoEdits(t *testing.T) {
	r, k, _ := own(t, rostersOnly, func(o *Options) {
		o.Timing.Announce, o.Edits = time.Second, func(string) bool { return true }
	})
	waitFor(t, "it is said", func() bool {
		k.quiet()
		got := r.Status().Hosts[0]
		return got.Query == QueryServer && strings.Contains(fmt.Sprint(got.Missing), "contacts.edit_url is not used for example.org")
	})
}

// Where nothing is delegated and the server's own rosters can be kept, the server answers
// by itself: nothing is pushed, and who comes is looked up.
func TestQueryServer(t *testing.T) {
	r, k, _ := own(t, rostersOnly, func(o *Options) { o.Timing.Announce, o.ServerPush = time.Second, serverPushes })
	k.send("<presence from='%s' to='contacts.example.org'/>", juliet) // before it is known
	waitFor(t, "the server answers by itself", func() bool {
		k.quiet()
		got := r.Status().Hosts[0]
		return got.Query == QueryServer && got.Push == PushServer && got.Presence == PresenceServer && len(got.Missing) == 0
	})
	waitFor(t, "the users are resumed: by the announcement, and when it is known", func() bool { return len(r.rosters.resumed) == 2 })
	if _, err := r.Ready(); err != nil {
		t.Error(err)
	}
	k.quiet()
	k.send("<presence from='romeo@example.org/street' to='contacts.example.org'/><presence from='romeo@example.org/street' to='contacts.example.org'><show>away</show></presence>")
	if user := receive(t, r.rosters.wanted); user != mustJID(t, "romeo@example.org") {
		t.Errorf("%v is wanted", user)
	}
	k.quiet()
	if o := receive(t, r.push(t, "balcony")); o.Err != nil || len(o.Owed) > 0 {
		t.Errorf("push: %+v", o)
	}
	k.quiet()
	if len(r.rosters.wanted)+len(r.rosters.unasked) > 0 {
		t.Error("somebody else is looked up, or told")
	}
	// Who asks the component is answered all the same.
	r.rosters.answer = func(jid.JID) (*roster.Roster, error) {
		return roster.New([]roster.Item{item(t, "nurse@example.org", "")}), nil
	}
	k.send("<iq type='get' id='1' from='%s' to='contacts.example.org'>%s</iq>", juliet, rosterGet)
	if got := k.next(); !strings.Contains(got, "nurse@example.org") {
		t.Errorf("got %s", got)
	}
}

// api is an [API].
type api struct{ why string }

func (a api) State(string) (bool, string) { return a.why == "", a.why }

func TestRoutesOfAPI(t *testing.T) {
	for _, test := range []struct {
		why, announced, way, push string
		unrestricted              bool
		missing                   string
	}{
		{"", delegationOnly + mayPush, ServerRosterAPI, PushPrivileged, true, ""},
		{"connection refused", delegationOnly + mayPush, ServerRosterNone, PushPrivileged, true, "ejabberd's API: connection refused"},
		{"connection refused", delegationOnly + rostersOnly, ServerRosterNone, PushDirect, true, "ejabberd's API: connection refused"}, // the privilege does not stand in
		{"", delegationOnly + rostersOnly, ServerRosterAPI, PushDirect, true, ""},
		{"", delegationOnly, ServerRosterAPI, PushServer, false, ""},                                              // ejabberd pushes what is written
		{"connection refused", delegationOnly, ServerRosterNone, PushServer, false, "until ejabberd's API works"}, // nothing is suggested meanwhile
	} {
		r := start(t, only, func(o *Options) { o.API, o.Unrestricted = api{test.why}, test.unrestricted })
		k := r.server.serve()
		k.rosters = hasRosters
		k.send("%s", test.announced)
		k.quiet()
		k.quiet()
		got := r.Status().Hosts[0]
		if missing := strings.Join(got.Missing, " "); got.ServerRoster != test.way || got.Push != test.push || (missing == "") != (test.missing == "") || !strings.Contains(missing, test.missing) {
			t.Errorf("%+v: got %+v", test, got)
		}
	}
}

// COMPAT ejabberd, whose delegation may begin when the way is proven already: what comes
// back is answered once, nothing is written, and there is no way any more.
func TestDelegationBeginsLater(t *testing.T) {
	r, k, way := own(t, rostersOnly)
	loop := func(e *xmlstream.Element) {
		k.delegates["example.org"] = true
		k.send("%s", delegate(nsDelegation1, "<iq xmlns='jabber:client' type='"+e.Get("type")+"' id='"+e.Get("id")+"' from='contacts.example.org' to='juliet@example.org'>"+rosterGet+"</iq>"))
		k.refused("not-allowed")
		k.send("<iq type='error' id='%s' from='%s'><error type='cancel'><not-allowed xmlns='%s'/></error></iq>", e.Get("id"), e.Get("to"), nsStanzas)
	}
	if got, err := get(t, k, way, loop); err != errNoOwnRosters {
		t.Errorf("got %v, %v", got, err)
	}
	r.noWay(t, k, "it delegates the queries of contacts.example.org, too")
	done := make(chan error, 1)
	go func() {
		done <- way.Set(context.Background(), mustJID(t, "juliet@example.org"), []roster.Change{{Action: roster.Added, Item: item(t, "romeo@example.org", "")}}, func(c roster.Change) { t.Errorf("written: %+v", c) })
	}()
	loop(k.nextElement())
	if err := receive(t, done); err != errNoOwnRosters {
		t.Errorf("got %v", err)
	}
}

// COMPAT ejabberd gives a roster by the privilege as long as it does not delegate, and
// writes none that is worth it.
func TestNoOwnRostersOnEjabberd(t *testing.T) {
	r := fault(t, only)
	k := r.server.serve()
	k.rosters = hasRosters
	k.send("%s", delegationOnly+strings.Replace(rostersOnly, nsPrivilege2, nsPrivilege1, 1)) // before 24.10
	r.noWay(t, k, "ejabberd writes no subscriptions")
}

// Only the server's answer for the user who does not exist says what becomes of requests.
func TestSubscriptionsAreTried(t *testing.T) {
	const exchanges = "<exchanges xmlns='" + nsExchanges + "'/>"
	for _, test := range []struct {
		answer, want string
		exchanges    bool
	}{
		{"<presence type='unavailable' from='%s'/>", SubscriptionsTaken, false},
		{"<presence type='error' from='%s'><error type='cancel'><not-allowed xmlns='" + nsStanzas + "'/></error></presence>", SubscriptionsRefused, false},
		{"<presence type='error' from='%s'><error type='cancel'><not-allowed xmlns='" + nsStanzas + "'/>" + exchanges + "</error></presence>", SubscriptionsRefused, true},
		{"<presence type='error' from='%s'><error type='cancel'><service-unavailable xmlns='" + nsStanzas + "'/>" + exchanges + "</error></presence>", "", false},
		{"<presence type='unsubscribed' from='%s'/><presence type='unavailable' from='juliet@example.org/x'/>", "", false},
		{"<presence type='error' from='juliet@example.org'><error type='cancel'><not-allowed xmlns='" + nsStanzas + "'/>" + exchanges + "</error></presence>", "", false},
	} {
		r, k, _ := own(t, delegationOnly+rostersOnly)
		k.send("%s", strings.ReplaceAll(test.answer, "%s", r.nobody+"@example.org"))
		k.quiet()
		if got := r.Status().Hosts[0].Subscriptions; got != test.want {
			t.Errorf("%s: got %q", test.answer, got)
		}
		if got := r.OwnRosters("example.org").(*privilegeWay).Exchanges(); got != test.exchanges {
			t.Errorf("%s: exchanges presence: %v", test.answer, got)
		}
	}
}
