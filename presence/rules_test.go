package presence

import (
	"testing"
	"time"

	"rosterd/roster"
)

// step does something; send is exactly what must be sent because of it.
type step struct {
	name string
	do   func(*stage)
	send []string
}

func on(who ...string) func(*stage)  { return func(s *stage) { s.on(who...) } }
func off(who ...string) func(*stage) { return func(s *stage) { s.off(who...) } }
func lists(user string, lines ...string) func(*stage) {
	return func(s *stage) { s.roster(user, lines...) }
}

func send(stanzas ...string) []string { return stanzas }

func TestRules(t *testing.T) {
	both := func(s *stage) {
		s.roster("x", "y both")
		s.roster("y", "x both")
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"come, away, back, go", []step{
			{"rosters", both, nil},
			{"x alone", on("x/1"), nil},
			{"y comes", on("y/1"), send("y/1>x: hi", "x/1>y/1: hi")},
			{"away", on("x/1 away"), send("x/1>y: away")},
			{"back", on("x/1"), send("x/1>y: hi")},
			{"x goes", off("x/1 bye"), send("x/1>y! bye")},
			{"x goes again", off("x/1 bye"), nil},
			{"x comes", on("x/1"), send("x/1>y: hi", "y/1>x/1: hi")},
			{"y goes", off("y/1"), send("y/1>x!")},
			{"nobody there", on("x/1 away"), nil},
			{"y comes late", on("y/1"), send("y/1>x: hi", "x/1>y/1: away")},
		}},
		{"two resources", []step{
			{"rosters", both, nil},
			{"y", on("y/1"), nil},
			{"x/1", on("x/1"), send("x/1>y: hi", "y/1>x/1: hi")},
			{"x/2", on("x/2"), send("x/2>y: hi", "y/1>x/2: hi")},
			{"update of one", on("x/1 away"), send("x/1>y: away")},
			{"y/2 gets both", on("y/2"), send("y/2>x: hi", "x/1>y/2: away", "x/2>y/2: hi")},
			{"one goes", off("x/1"), send("x/1>y!")},
			{"y/1 goes", off("y/1"), send("y/1>x!")},
			{"still told", on("x/2 away"), send("x/2>y: away")},
			{"the other goes", off("x/2"), send("x/2>y!")},
		}},
		{"x lists y, y does not list x", []step{
			{"rosters", func(s *stage) { s.roster("x", "y from"); s.roster("y") }, nil},
			{"y", on("y/1"), nil},
			{"x is shown, and is shown nothing", on("x/1"), send("x/1>y: hi")},
			{"y's update", on("y/1 away"), nil},
			{"y goes", off("y/1"), nil},
			{"y comes again", on("y/1"), send("x/1>y/1: hi")},
			{"x goes", off("x/1"), send("x/1>y!")},
		}},
		{"z lists x, x does not list z", []step{
			{"rosters", func(s *stage) { s.roster("x"); s.roster("z", "x both") }, nil},
			{"z", on("z/1"), nil},
			{"x gets z's", on("x/1"), send("z/1>x/1: hi")},
			{"x's update", on("x/1 away"), nil},
			{"z's update", on("z/1 away"), send("z/1>x: away")},
		}},
		{"subscriptions that open nothing", []step{
			{"rosters", func(s *stage) { s.roster("x", "y to", "z none"); s.roster("y", "x to"); s.roster("z", "x none") }, nil},
			{"all", on("x/1", "y/1", "z/1", "x/1 away"), nil},
			{"gone", off("x/1", "y/1", "z/1"), nil},
		}},
		{"oneself", []step{
			{"roster", lists("x", "x both"), nil},
			{"never", on("x/1", "x/2", "x/1 away"), nil},
			{"taken away", lists("x"), nil},
			{"never", off("x/1", "x/2"), nil},
		}},
		{"elsewhere", []step{
			{"roster", lists("x", "z@c.example from", "w@c.example to"), nil},
			{"comes", on("x/1"), send("x/1>z@c.example: hi")},
			{"update", on("x/1 away"), send("x/1>z@c.example: away")},
			{"second", on("x/2"), send("x/2>z@c.example: hi")},
			{"one more contact", lists("x", "z@c.example from", "w@c.example from"), send("x/1>w@c.example: away", "x/2>w@c.example: hi")},
			{"one less", lists("x", "w@c.example from"), send("x/1>z@c.example!", "x/2>z@c.example!")},
			{"goes", off("x/1"), send("x/1>w@c.example!")},
		}},
		{"another served host", []step{
			{"rosters", func(s *stage) { s.roster("x", "y@b.example both"); s.roster("y@b.example", "x both") }, nil},
			{"nobody there", on("x/1"), nil},
			{"y comes", on("y@b.example/1"), send("y@b.example/1>x: hi", "x/1>y@b.example/1: hi")},
		}},
		{"a refresh adds and removes", []step{
			{"rosters", func(s *stage) { s.roster("x"); s.roster("y", "x from") }, nil},
			{"online", on("x/1", "x/2", "y/1"), send("y/1>x: hi")},
			{"added", lists("x", "y both"), send("x/1>y: hi", "x/2>y: hi")},
			{"renamed", lists("x", "y from"), nil},
			{"from taken away", lists("x", "y to"), send("x/1>y!", "x/2>y!")},
			{"update", on("x/1 away"), nil},
			{"from given", lists("x", "y both"), send("x/1>y: away", "x/2>y: hi")},
			{"removed", lists("x"), send("x/1>y!", "x/2>y!")},
			{"removed for y", lists("y"), send("y/1>x!")},
			{"gone", off("x/1", "x/2", "y/1"), nil},
		}},
		{"a refresh while the contact is away", []step{
			{"rosters", func(s *stage) { s.roster("x"); s.roster("y") }, nil},
			{"x", on("x/1"), nil},
			{"added", lists("x", "y from"), nil},
			{"y comes", on("y/1"), send("x/1>y/1: hi")},
			{"y goes", off("y/1"), nil},
			{"removed", lists("x"), nil},
			{"y comes", on("y/1"), nil},
			{"what may have been on its way is taken back", func(*stage) { time.Sleep(3 * time.Minute) }, send("x/1>y!")},
		}},
		{"a session whose end went unnoticed", []step{
			{"rosters", both, nil},
			{"online", on("x/1", "y/1"), send("x/1>y/1: hi", "y/1>x: hi")},
			{"the client is there again", func(s *stage) { s.hub.Login(address("y/1")); s.hub.Login(address("z/1")); s.on("y/1") },
				send("y/1>x: hi", "x/1>y/1: hi")},
			{"an update", on("y/1 away"), send("y/1>x: away")},
		}},
		{"what is not for the hub", []step{
			{"not served, no resource, no user", on("x@c.example/1", "x", "a.example/1"), nil},
			{"unknown", off("x@c.example/1", "x/1"), nil},
			{"a roster of nobody", lists("x", "y from"), nil},
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			play(t, Limits{}, func(t *testing.T, s *stage) {
				for _, step := range test.steps {
					time.Sleep(5 * time.Second) // nobody comes and goes too often
					step.do(s)
					s.expect(step.name, step.send...)
				}
				time.Sleep(time.Hour)
				s.expect("the hour after")
				for _, full := range s.hub.Unheard(time.Now()) {
					s.hub.Unavailable(full, nil)
				}
				time.Sleep(time.Hour)
				if queued, resources, nodes := s.counts(); queued+resources+nodes > 0 {
					t.Errorf("when all are gone: %d in queues, %d resources, %d nodes", queued, resources, nodes)
				}
			})
		})
	}
}

// TestDecide is each case of the rule. The subscriber was sent the facts up to 10.
func TestDecide(t *testing.T) {
	var (
		shown   = resource{since: 5, changed: 8, shown: true}
		updated = resource{since: 5, changed: 12, shown: true}
		initial = resource{since: 12, changed: 12}
		left    = resource{since: 5, changed: 12, shown: true, end: untold}
		absent  = resource{since: 5, changed: 8, shown: true, end: told}
		passed  = resource{since: 11, changed: 12, shown: true, end: untold} // others were sent it
		sent    = subscriber{sent: 10}
		none    = subscriber{}
		lost    = subscriber{sent: 10, lost: true}
		former  = subscriber{sent: 10, end: untold}
	)
	tests := []struct {
		name             string
		r                resource
		uncertain        bool
		to               subscriber
		available, fresh int
		want             action
	}{
		{"not certain: nothing yet", updated, true, sent, 1, 0, later},
		{"not certain: nor to a new resource", shown, true, sent, 1, 1, later},
		{"initial presence", initial, false, sent, 1, 0, toBare},
		{"later presence", updated, false, sent, 2, 0, toBare},
		{"a new subscriber", shown, false, none, 1, 1, toBare},
		{"a new subscriber elsewhere", shown, false, none, 0, 0, toBare},
		{"elsewhere: an update", updated, false, sent, 0, 0, toBare},
		{"may be lost with the stream", shown, false, lost, 1, 0, toBare},
		{"may be lost, and there is a new resource", shown, false, lost, 1, 1, toBare},
		{"one new resource gets the answer to its probe", shown, false, sent, 2, 1, toResource},
		{"more new resources", shown, false, sent, 2, 2, toBare},
		{"news, and the only resource is new", updated, false, sent, 1, 1, toResource},
		{"news, and one of two is new", updated, false, sent, 2, 1, toBare},
		{"was sent it", shown, false, sent, 1, 0, nothing},
		{"elsewhere: was sent it", shown, false, sent, 0, 0, nothing},

		{"gone", left, false, sent, 1, 0, unavailable},
		{"gone, whether certain or not", left, true, sent, 1, 0, unavailable},
		{"gone, and it may be lost", left, false, lost, 1, 0, unavailable},
		{"gone, and was told", absent, false, sent, 1, 0, nothing},
		{"gone, and a new resource has not seen it", absent, false, sent, 2, 1, nothing},
		{"came and went since", passed, false, sent, 1, 0, nothing},
		{"gone, and nothing was ever sent", left, false, none, 1, 1, nothing},

		{"no subscriber any more", shown, false, former, 1, 0, withdraw},
		{"no more, with news", updated, false, former, 1, 0, withdraw},
		{"no more, whether certain or not", shown, true, former, 1, 0, withdraw},
		{"no more, and is not told why it left", left, false, former, 1, 0, withdraw},
		{"no more, and was told that it left", absent, false, former, 1, 0, nothing},
		{"no more, and was never sent it", initial, false, former, 1, 0, nothing},
		{"no more, and it came and went since", passed, false, former, 1, 0, nothing},
		{"no more, and nobody was sent it", resource{since: 5, changed: 8}, false, former, 1, 0, nothing},
	}
	for _, test := range tests {
		if got := decide(&test.r, !test.uncertain, &test.to, test.available, test.fresh, server{}); got != test.want {
			t.Errorf("%s: %d and not %d", test.name, got, test.want)
		}
	}
	var (
		native   = server{native: true}
		answered = server{answered: true}
		hidden   = subscriber{sent: 10, end: told}

		doubted       = subscriber{sent: 10, doubt: true}
		takenBack     = subscriber{sent: 10, doubt: true, end: told}
		toBeTakenBack = subscriber{sent: 10, doubt: true, end: untold}
	)
	for _, test := range []struct {
		name             string
		r                resource
		to               subscriber
		available, fresh int
		by               server
		want             action
	}{
		{"the server has sent it", updated, sent, 1, 0, native, nothing},
		{"and initial presence", initial, none, 1, 0, native, nothing},
		{"and to whom nothing may have arrived", updated, lost, 1, 0, native, nothing},
		{"and that it is gone", left, sent, 1, 0, native, nothing},
		{"but the new resource was not answered", shown, sent, 2, 1, native, toResource},
		{"nor were two", shown, sent, 3, 2, native, toBare},
		{"it was answered", shown, sent, 2, 1, answered, nothing},
		{"and it is the only one", updated, sent, 1, 1, answered, nothing},
		{"but the others lack the news: the gap", updated, sent, 2, 1, answered, toBare},
		{"both", updated, sent, 2, 1, server{true, true}, nothing},
		{"who may not see it was sent it", updated, hidden, 1, 0, native, withdraw},
		{"who may not see it was answered", shown, hidden, 1, 1, native, withdraw},
		{"who may not see it was sent nothing new", shown, hidden, 1, 0, native, nothing},

		{"in doubt: whatever the server has sent", shown, doubted, 1, 0, server{true, true}, toBare},
		{"in doubt, with a new resource", shown, doubted, 2, 1, answered, toBare},
		{"in doubt, and it is gone", left, doubted, 1, 0, native, unavailable},
		{"in doubt, and it came and went since", passed, doubted, 1, 0, native, unavailable},
		{"in doubt, and was told that it left", absent, doubted, 1, 0, server{}, nothing},
		{"in doubt, who may not see it", shown, toBeTakenBack, 1, 0, server{}, withdraw},
		{"in doubt, who may not see it: it is gone", left, toBeTakenBack, 1, 0, server{}, withdraw},
		{"in doubt, and was told", shown, takenBack, 1, 0, server{}, nothing},
		{"in doubt, and was told, but the server shows it", shown, takenBack, 1, 0, native, withdraw},
	} {
		if got := decide(&test.r, true, &test.to, test.available, test.fresh, test.by); got != test.want {
			t.Errorf("%s: %d and not %d", test.name, got, test.want)
		}
	}
}

// TestSubscriptions is who sees whom by each subscription (RFC 6121, section 2.1.2.5).
func TestSubscriptions(t *testing.T) {
	for s, want := range map[roster.Subscription][2]bool{
		"none": {}, "to": {false, true}, "from": {true, false}, "both": {true, true}, "": {}, "remove": {},
	} {
		if got := [2]bool{opens(s), sees(s)}; got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
}
