package component

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"rosterd/internal/bubble"
	"rosterd/jid"
	"rosterd/roster"
	"rosterd/xmlstream"
)

func TestBudgets(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		b := newBudgets(3, 2, 100)
		take := func(sender string) (n int) {
			for n < 1000 && b.take(sender, time.Now()) {
				n++
			}
			return n
		}
		if n := take("juliet@example.org"); n != 3 {
			t.Errorf("%d at once, want the burst", n)
		}
		if n := take("romeo@example.org"); n != 3 {
			t.Errorf("%d, want the budget of another to be untouched", n)
		}
		time.Sleep(time.Second)
		if n := take("juliet@example.org"); n != 2 {
			t.Errorf("%d after a second", n)
		}
		time.Sleep(time.Hour)
		if n := take("juliet@example.org"); n != 3 {
			t.Errorf("%d after an hour", n)
		}
	})
}

func TestBudgetsAreBounded(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		b := newBudgets(2, 1, 50)
		for i := range 10_000 { // all at once: the table is full of budgets in use
			b.take(fmt.Sprintf("user%d@example.org", i), time.Now())
			if len(b.own)+len(b.before) > 50 {
				t.Fatalf("%d budgets", len(b.own)+len(b.before))
			}
		}
		if b.take("juliet@example.org", time.Now()) {
			t.Error("the shared budget has no end")
		}
		time.Sleep(time.Hour)
		for range 100 { // the others have gone: what they had does not stay
			b.take("juliet@example.org", time.Now())
			b.take(fmt.Sprint(time.Now()), time.Now())
			time.Sleep(time.Minute)
		}
		if n := len(b.own) + len(b.before); n > 4 {
			t.Errorf("%d budgets are kept", n)
		}
		if !b.take("juliet@example.org", time.Now()) {
			t.Error("not allowed after a while")
		}
	})
}

// What is ours, a request behind the answers, is never refused for that.
func TestOwnQueriesHaveNoBudget(t *testing.T) {
	r := fault(t, only, func(o *Options) { o.QueriesBurst, o.QueriesPerSecond = 1, 0.001 })
	k := r.server.serve()
	for range 5 {
		k.send("%s", delegate(nsDelegation2, "<iq xmlns='jabber:client' type='get' id='1' from='contacts.example.org/rosterd' to='example.org'>"+rosterGet+"</iq>"))
		if got := k.next(); !strings.Contains(got, "<conflict ") { // but as it is not this stream's
			t.Errorf("got %s", got)
		}
	}
}

// A stranger's server has as many addresses as it likes: it takes no place from
// the users.
func TestStrangersHaveATableOfTheirOwn(t *testing.T) {
	r := start(t, only, func(o *Options) { o.QueriesBurst, o.QueriesPerSecond = 1, 0.001 })
	for i := range maxStrangers + 2*sharedBy {
		r.withinBudget(fmt.Sprintf("m%d@evil.example/x", i), sender{})
	}
	if r.withinBudget("one-more@evil.example/x", sender{}) || len(r.strangerBudgets.own) > maxStrangers {
		t.Error("strangers are not bounded")
	}
	if !r.withinBudget("juliet@example.org/x", sender{full: mustJID(t, "juliet@example.org/x")}) || len(r.userBudgets.own) != 1 {
		t.Error("a user pays for strangers")
	}
}

// The longest stanza that is sent is the server's to say.
func TestMaxStanza(t *testing.T) {
	const limit = 10_000
	long := strings.Repeat("x", limit)
	for name, tt := range map[string]struct {
		items []roster.Item
		want  []string // in the answer
		not   string
		rest  int
	}{
		"fits":               {[]roster.Item{item(t, "a@example.org", "")}, []string{"type='result'", "'a@example.org'"}, "error", 0},
		"empty":              {nil, []string{"type='result'", "<query xmlns='jabber:iq:roster'/>"}, "error", 0},
		"one is too long":    {[]roster.Item{item(t, "a@example.org", long), item(t, "b@example.org", "")}, []string{"type='result'", "'b@example.org'"}, "'a@", 1},
		"all are too long":   {[]roster.Item{item(t, "a@example.org", long)}, []string{"type='error'", "<internal-server-error "}, "<query", 0},
		"they are too many":  {many(t, 200, ""), []string{"type='result'", "'contact000@"}, "contact199", -1},
		"long and too many":  {append(many(t, 200, ""), item(t, "a@example.org", long)), []string{"type='result'", "'contact000@"}, "'a@", -1},
		"half a limit each":  {many(t, 5, long[:3500]), []string{"'contact000@", "'contact001@"}, "contact002", 3},
		"full of quotes":     {many(t, 5, strings.Repeat("'", 1000)), []string{"'contact000@"}, "contact001", 4},
		"the last is longer": {[]roster.Item{item(t, "a@example.org", ""), item(t, "b@example.org", long)}, []string{"'a@example.org'"}, "'b@", 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, only, func(o *Options) { o.MaxStanza = limit })
			r.rosters.answer = func(jid.JID) (*roster.Roster, error) { return roster.New(tt.items), nil }
			r.rosters.rest = make(chan []roster.Item, 1)
			k := r.server.serve()
			k.send("%s", queryOf(juliet, strings.Repeat("i", 1500)))
			got := k.next()
			if len(got) > limit {
				t.Errorf("%d bytes", len(got))
			}
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("no %s in %.300s", want, got)
				}
			}
			rest := receive(t, r.rosters.rest)
			if strings.Contains(got, tt.not) || tt.rest >= 0 && len(rest) != tt.rest {
				t.Errorf("%d left, %.300s", len(rest), got)
			}
			if n := strings.Count(got, "<item "); n > 0 && n+len(rest) != len(tt.items) {
				t.Errorf("%d and %d items of %d", n, len(rest), len(tt.items))
			}
		})
	}
}

func many(t *testing.T, n int, name string) []roster.Item {
	var items []roster.Item
	for i := range n {
		items = append(items, item(t, fmt.Sprintf("contact%03d@example.org", i), name))
	}
	return items
}

func TestMaxStanzaOfPushes(t *testing.T) {
	const limit = 10_000
	for _, way := range []string{PushPrivileged, PushDirect, PushExchange} {
		t.Run(way, func(t *testing.T) {
			r := fault(t, only, func(o *Options) { o.MaxStanza, o.Unrestricted = limit, way == PushDirect })
			k := r.server.serve()
			r.goes(t, k, way)
			var changes []roster.Change
			for _, length := range []int{3000, limit, 3000, 3000, 3000} {
				changes = append(changes, roster.Change{Action: roster.Added, Item: item(t, fmt.Sprintf("c%d@example.org", len(changes)), strings.Repeat("x", length))})
			}
			outcome := make(chan roster.Outcome, 1)
			go r.Push([]jid.JID{mustJID(t, juliet)}, changes, func(o roster.Outcome) { outcome <- o })
			for items := 0; items < 4; {
				got := k.next()
				if len(got) > limit {
					t.Errorf("%d bytes", len(got))
				}
				items += strings.Count(got, "<item ")
				e, _ := xmlstream.Decode([]byte(got))
				if way == PushPrivileged {
					k.send("<iq type='result' id='%s' from='juliet@example.org'/>", e.Get("id"))
				}
			}
			if way != PushPrivileged {
				k.answerPing()
			}
			o := receive(t, outcome)
			if fmt.Sprint(o.Owed) != "[c1@example.org]" || o.Err == nil || o.Lost || !o.Refused {
				t.Errorf("outcome %+v", o)
			}
			k.quiet()
		})
	}
}

// A request whose answer would be too long for this server is not answered,
// rather than that the stream ends.
func TestMaxStanzaOfErrors(t *testing.T) {
	r := fault(t, only, func(o *Options) { o.MaxStanza = 10_000 })
	k := r.server.serve()
	k.send("<iq type='get' id='%s' from='juliet@example.org/x'><x xmlns='y'/></iq>", strings.Repeat("i", 5000))
	k.send("%s", queryOf(juliet, strings.Repeat("'", 0)+strings.Repeat("&apos;", 500)))
	if got := k.next(); len(got) > 10_000 || !strings.Contains(got, "<bad-request ") {
		t.Errorf("%d bytes: %.200s", len(got), got)
	}
	r.lives(t, k)
}
