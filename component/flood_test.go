package component

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"rosterd/internal/leak"
)

// budgeted is what config has by default.
func budgeted(o *Options) { o.QueriesBurst, o.QueriesPerSecond = 60, 2 }

// answers reads one answer for each of n requests, and counts the results and
// the errors resource-constraint, of type wait. It fails at anything else.
func (k *link) answers(n int) (results, refusals int) {
	k.t.Helper()
	for range n {
		switch got := k.next(); {
		case strings.Contains(got, "<error type='wait'><resource-constraint "):
			refusals++
		case strings.Contains(got, "known-to-"):
			results++
		default:
			k.t.Errorf("got %.500s", got)
		}
	}
	return results, refusals
}

// A user who asks without end gets an answer each time, soon an error; all his
// resources have one budget, and nobody else's is smaller.
func TestFloodOfQueries(t *testing.T) {
	leak.Check(t)
	for name, query := range map[string]func(full, id string) string{
		"delegated": queryOf,
		"plain": func(full, id string) string {
			return "<iq type='get' id='" + id + "' from='" + full + "' to='contacts.example.org'>" + rosterGet + "</iq>"
		},
		"by turns": func(full, id string) string {
			if len(id)%2 == 0 {
				return queryOf(full, id)
			}
			return "<iq type='get' id='" + id + "' from='" + full + "'>" + rosterGet + "</iq>"
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, k, _, outcome := hostiles(t, budgeted)
			began := time.Now()
			for i := range 1000 {
				k.send("%s", query(fmt.Sprintf("romeo@example.org/%d", i%100), strings.Repeat("x", 1+i%7)))
			}
			results, refusals := k.answers(1000)
			most := 60 + int(2*time.Since(began).Seconds()) + 1
			if results < 60 || results > most || results+refusals != 1000 {
				t.Errorf("%d results, %d refusals", results, refusals)
			}
			for i := range 59 { // the one who sends the push is not limited either
				k.send("%s", query(fmt.Sprintf("user%d@example.org/x", i), "1"))
				k.send("%s", query("mercutio@example.org/x", "1"))
			}
			if results, _ := k.answers(2 * 59); results != 2*59 {
				t.Errorf("%d results for others", results)
			}
			if n := r.counted(t, "rosterd_queries_total", "limited"); n != float64(refusals) {
				t.Errorf("%v counted, %d refused", n, refusals)
			}
			if n := strings.Count(r.log.String(), "limits.queries_burst"); n != 1 {
				t.Errorf("logged %d times", n)
			}
			r.unmoved(t, k, outcome)
		})
	}
}

// Queries that would be refused anyway count, too: those of others' rosters,
// and sets.
func TestFloodOfForbiddenQueries(t *testing.T) {
	r, k, _, outcome := hostile(t, budgeted)
	conditions := make(map[string]int)
	for i := range 500 {
		inner := fmt.Sprintf("<iq xmlns='jabber:client' type='%s' id='1' from='romeo@example.org/x' to='%s'>%s</iq>",
			[]string{"get", "set"}[i%2], []string{"juliet@example.org", "romeo@example.org"}[i%2], rosterGet)
		k.send("%s", delegate(nsDelegation2, inner))
		got := k.next()
		for _, condition := range []string{"forbidden", "not-allowed", "resource-constraint"} {
			if strings.Contains(got, "<"+condition+" ") {
				conditions[condition]++
			}
		}
	}
	if n := conditions["resource-constraint"]; n < 300 || n+conditions["forbidden"]+conditions["not-allowed"] != 500 {
		t.Errorf("%v", conditions)
	}
	r.unmoved(t, k, outcome)
}

// Who runs a server of his own has as many addresses as he likes: that takes
// neither memory without bound nor anything from the users.
func TestFloodOfStrangers(t *testing.T) {
	// No budget is full again before the end, however slow the machine is.
	r, k, _, outcome := hostile(t, budgeted, func(o *Options) { o.QueriesPerSecond = 1e-6 })
	const most, flood = 500, 2000
	r.strangerBudgets.max = most // before the reader looks
	done := make(chan struct{})
	go func() {
		defer close(done)
		var b strings.Builder
		for i := range flood {
			b.WriteString(delegate(nsDelegation2, fmt.Sprintf("<iq xmlns='jabber:client' type='get' id='1' from='mallory%d@evil%d.example/x' to='juliet@example.org'>%s</iq>", i, i%100, rosterGet)))
			if i%100 == 99 {
				if _, err := k.Conn.Write([]byte(b.String())); err != nil {
					t.Error(err)
					return
				}
				b.Reset()
			}
		}
		k.Conn.Write([]byte(b.String()))
	}()
	for range flood {
		if got := k.next(); !strings.Contains(got, "<forbidden ") && !strings.Contains(got, "<resource-constraint ") {
			t.Errorf("got %s", got)
		}
	}
	receive(t, done)
	k.quiet()
	r.unmoved(t, k, outcome)
	r.stop()
	receive(t, r.done) // the budgets are the reader's
	if n := len(r.strangerBudgets.own); n != most {
		t.Errorf("%d budgets", n)
	}
	if n := len(r.userBudgets.own); n > 2 {
		t.Errorf("%d budgets of users", n)
	}
}

// Floods of what needs no query: each request has one answer, and the stream
// lives.
func TestFloodOfOtherStanzas(t *testing.T) {
	leak.Check(t)
	const n = 3000
	for name, flood := range map[string]struct {
		stanza  string
		answers int // to each
	}{
		"pings":              {"<iq type='get' id='1' from='romeo@example.org/x' to='contacts.example.org'><ping xmlns='urn:xmpp:ping'/></iq>", 1},
		"unknown requests":   {"<iq type='set' id='1' from='romeo@example.org/x'><x xmlns='urn:x'/></iq>", 1},
		"forged delegations": {strings.Replace(queryOf(juliet, "1"), "from='example.org'", "from='romeo@example.org/x'", 1), 1},
		"results":            {"<iq type='result' id='1' from='romeo@example.org/x'/>", 0},
		"presence":           {"<presence from='romeo@example.org/x'/><presence type='unavailable' from='romeo@example.org/x'/>", 0},
		"announcements":      {"<message from='evil.example'><privilege xmlns='urn:xmpp:privilege:2'/></message>", 0},
		"bounces":            {"<message type='error' from='romeo@example.org/x'/>", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, k, _, outcome := hostiles(t, budgeted)
			done := make(chan struct{})
			go func() {
				defer close(done)
				k.Conn.Write([]byte(strings.Repeat(flood.stanza, n)))
			}()
			for range n * flood.answers {
				if got := k.next(); !strings.Contains(got, " id='1' ") && !strings.Contains(got, " id='D' ") {
					t.Errorf("got %.500s", got)
				}
			}
			receive(t, done)
			k.quiet()
			r.unmoved(t, k, outcome)
		})
	}
}
