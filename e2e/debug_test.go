package e2e

import (
	"regexp"
	"strings"
	"testing"
)

// The log at level debug tells what became of a query and of a refresh, and at no
// level who is whose contact.
func TestLogTellsTheStory(t *testing.T) { onServers(t, testLogTellsTheStory) }

func testLogTellsTheStory(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv, counts: true})
	w.backend.Set("romeo", contacts("Mercutio", "Benvolio"))
	romeo := w.login(ctx, t, gosrc, "romeo@example.org/square")
	wantRoster(ctx, t, romeo, item("Mercutio"), item("Benvolio"))
	w.backend.Set("romeo", contacts("Benvolio", "Paris", "Abram"))
	if answer, err := w.post(ctx, "romeo", "nurse"); err != nil || answer.Updated != 2 {
		t.Fatalf("%+v, %v", answer, err)
	}
	wantPushes(ctx, t, romeo, item("Paris"), item("Abram"), removed("Mercutio"))
	const took = ` took=[0-9.]+[µm]?s`
	story := []string{
		`msg="contacts fetched" user=romeo@example.org query_waits=true result=ok items=2` + took,
		`msg="roster known" user=romeo@example.org items=2 queries=1 pushes=0`,
		`msg="roster query answered" user=romeo@example.org/square answer=roster items=2` + took,
		`msg=refresh users=2 first="\[romeo@example.org nurse@example.org\]"`,
		`msg="not fetched, no client of the user is connected" user=nurse@example.org`,
		`msg="contacts fetched" user=romeo@example.org query_waits=false result=ok items=3` + took,
		`msg="roster known" user=romeo@example.org items=3 queries=0 pushes=3`,
		`msg="refresh request answered" caller=127.0.0.1:[0-9]+ code=200 updated=2 errors=0` + took,
	}
	w.waitLog(ctx, t, `msg="pushes settled" user=romeo@example.org clients=1 pushes=3`)
	w.waitLog(ctx, t, `msg="refresh request answered"`)
	log := w.rosterd.Log()
	for _, name := range []string{"mercutio", "benvolio", "paris", "abram"} {
		if strings.Contains(strings.ToLower(log), name) {
			t.Errorf("the log names %s", name)
		}
	}
	for _, line := range story {
		if !regexp.MustCompile("level=DEBUG " + line).MatchString(log) {
			t.Errorf("the log does not tell %s", line)
		}
	}
}
