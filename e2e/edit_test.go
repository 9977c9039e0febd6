package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"rosterd/e2e/harness"
)

// edit is a roster set of one item.
func edit(id, item string) string {
	return iq("set", id, "", "<query xmlns='jabber:iq:roster'>"+item+"</query>")
}

// wantDone wants an edit to be answered with a result.
func wantDone(t *testing.T, s harness.Stanza) {
	t.Helper()
	if s.Type != "result" {
		t.Errorf("got %s, want a result", s.XML)
	}
}

// editing is a world whose backend takes edits.
func editing(t *testing.T, srv server, settings map[string]any) *world {
	t.Helper()
	w := start(t, setup{server: srv, later: true, settings: settings})
	w.opts.Settings["contacts.edit_url"] = w.backend.EditURL()
	w.connect(bounded(t), t)
	return w
}

// Who adds, renames, regroups or removes a contact is answered when the backend has taken it,
// and all their clients are pushed what it says then.
func TestEdits(t *testing.T) { onServers(t, testEdits) }

func testEdits(t *testing.T, srv server) {
	w := editing(t, srv, map[string]any{"contacts.headers": map[string]string{"X-Key": "k"}, "contacts.token": "t"})
	w.backend.RequireHeader("X-Key", "k")
	w.backend.RequireHeader("Authorization", "Bearer t")
	ctx := bounded(t)
	sent := 0
	for _, lib := range libraries {
		t.Run(lib.name, func(t *testing.T) {
			user := map[string]string{"gosrc": "juliet", "slixmpp": "mercutio"}[lib.name]
			w.backend.Set(user, contacts("Romeo"))
			client := w.login(ctx, t, lib, user+"@example.org/"+lib.name)
			wantRoster(ctx, t, client, item("Romeo"))
			other := w.login(ctx, t, gosrc, user+"@example.org/other")
			wantRoster(ctx, t, other, item("Romeo"))
			nurse := harness.Item{JID: "nurse@example.org", Name: `Nurse <&> 🌹`, Subscription: "both", Groups: []string{"A & B", "C"}}
			renamed := nurse
			renamed.Name, renamed.Groups = "N", nil
			for i, c := range []struct {
				set  string
				body string
				now  harness.Item
			}{
				{"<item jid='Nurse@Example.org' name='Nurse &lt;&amp;&gt; 🌹'><group>C</group><group>A &amp; B</group></item>",
					`{"user":"` + user + `","action":"add","jid":"nurse@example.org","name":"Nurse <&> 🌹","groups":["A & B","C"]}`, nurse},
				{"<item jid='nurse@example.org' name='N'/>",
					`{"user":"` + user + `","action":"update","jid":"nurse@example.org","name":"N","groups":[]}`, renamed},
				{"<item jid='nurse@example.org' subscription='remove'/>",
					`{"user":"` + user + `","action":"remove","jid":"nurse@example.org","name":"","groups":[]}`, removed("Nurse")},
			} {
				id := fmt.Sprintf("edit %d", i)
				send(t, client, edit(id, c.set))
				wantPushes(ctx, t, client, understood(lib, c.now)...)
				wantDone(t, answerTo(ctx, t, client, id))
				wantPushes(ctx, t, other, c.now)
				requests := w.backend.Requests(harness.Edits)
				if sent++; len(requests) != sent || !sameJSON(requests[sent-1].Body, c.body) {
					t.Fatalf("%d edits, the last %+v, want %s", len(requests), requests[len(requests)-1], c.body)
				}
			}
		})
	}
	if got := metric(ctx, t, w.rosterd, `rosterd_edits_total{result="ok"}`); got != float64(sent) {
		t.Errorf("%v edits counted", got)
	}
}

func sameJSON(a, b string) bool {
	var x, y any
	return json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil && fmt.Sprint(x) == fmt.Sprint(y)
}

// A client that does not wait for the answers has its edits done in order.
func TestEditsInARow(t *testing.T) { onServers(t, testEditsInARow) }

func testEditsInARow(t *testing.T, srv server) {
	w := editing(t, srv, nil)
	ctx := bounded(t)
	w.backend.Set("juliet", contacts())
	client := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, client)
	held := make(chan struct{})
	w.backend.SetFault(harness.Edits, harness.Fault{Until: held})
	const n = 10
	for i := range n {
		send(t, client, edit(fmt.Sprint(i), fmt.Sprintf("<item jid='nurse@example.org' name='N%d'/>", i)))
	}
	if err := w.backend.WaitRequests(ctx, harness.Edits, 1); err != nil {
		t.Fatal(err)
	}
	w.backend.ClearFault(harness.Edits)
	close(held)
	for i := range n {
		wantDone(t, answerTo(ctx, t, client, fmt.Sprint(i)))
	}
	for i, r := range w.backend.Requests(harness.Edits) {
		if !strings.Contains(r.Body, fmt.Sprintf(`"N%d"`, i)) {
			t.Errorf("edit %d is %s", i, r.Body)
		}
	}
	wantRoster(ctx, t, client, harness.Item{JID: "nurse@example.org", Name: fmt.Sprintf("N%d", n-1), Subscription: "both"})
}

// What the backend does not permit is refused in its words. Where nobody knows what became of
// an edit, the client is told to wait, and what is true.
func TestEditsThatFail(t *testing.T) { onServers(t, testEditsThatFail) }

func testEditsThatFail(t *testing.T, srv server) {
	w := editing(t, srv, map[string]any{"contacts.timeout": "2s"})
	ctx := bounded(t)
	w.backend.Set("juliet", contacts("Romeo"))
	client := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, client, item("Romeo"))
	const rename = "<item jid='romeo@example.org' name='R'/>"

	w.backend.SetFault(harness.Edits, harness.Fault{Status: http.StatusUnprocessableEntity, Body: []byte(`{"message": "Frag <deine> Lehrerin 🌹"}`)})
	answer := request(ctx, t, client, "refused", edit("refused", rename))
	wantError(t, answer, "not-allowed")
	if !strings.Contains(answer.XML, "Frag &lt;deine") || !strings.Contains(answer.XML, "Lehrerin 🌹") {
		t.Errorf("got %s", answer.XML)
	}
	wantPushes(ctx, t, client, item("Romeo"))
	w.backend.SetFault(harness.Edits, harness.Fault{Status: http.StatusNotFound, Body: []byte("<html>")})
	answer = request(ctx, t, client, "silent", edit("silent", rename))
	wantError(t, answer, "not-allowed")
	if !strings.Contains(answer.XML, "does not permit this change") {
		t.Errorf("got %s", answer.XML)
	}
	wantPushes(ctx, t, client, item("Romeo"))
	w.waitLog(ctx, t, "the backend refuses an edit of a user")

	for id, fault := range map[string]harness.Fault{
		"503":  {Status: http.StatusServiceUnavailable, Body: []byte("x")},
		"429":  {Status: http.StatusTooManyRequests, Body: []byte("{}")},
		"hang": {Hang: true},
	} {
		w.backend.SetFault(harness.Edits, fault)
		answer := request(ctx, t, client, id, edit(id, rename))
		wantError(t, answer, map[string]string{"503": "internal-server-error", "429": "resource-constraint", "hang": "remote-server-timeout"}[id])
		wantPushes(ctx, t, client, item("Romeo"))
	}

	w.backend.Refuse()
	wantError(t, request(ctx, t, client, "down", edit("down", rename)), "internal-server-error")
	wantPushes(ctx, t, client, item("Romeo"))
	w.backend.ClearFault(harness.Edits)
	if err := w.backend.Accept(); err != nil {
		t.Fatal(err)
	}
	send(t, client, edit("up", rename))
	waitBrought(ctx, t, client, harness.Item{JID: "romeo@example.org", Name: "R", Subscription: "both"})
	wantDone(t, answerTo(ctx, t, client, "up"))
}

// Whatever clients send, no edit reaches the backend that is not one of the user's own
// contacts, and the user's next one is done as ever.
func TestHostileEdits(t *testing.T) { onServers(t, testHostileEdits) }

func testHostileEdits(t *testing.T, srv server) {
	w := editing(t, srv, nil)
	ctx := bounded(t)
	w.backend.Set("juliet", contacts("Romeo"))
	w.backend.Set("romeo", contacts())
	client := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, client, item("Romeo"))
	for id, item := range map[string]string{
		"several": "<item jid='romeo@example.org'/><item jid='nurse@example.org'/>", "nothing": "", "resource": "<item jid='romeo@example.org/x'/>",
		"self": "<item jid='juliet@example.org'/>", "twice": "<item jid='romeo@example.org'><group>A</group><group>A</group></item>",
		"empty": "<item jid='romeo@example.org'><group/></item>", "long": "<item jid='romeo@example.org' name='" + strings.Repeat("n", 100<<10) + "'/>",
	} {
		if answer := request(ctx, t, client, id, edit(id, item)); answer.Type != "error" {
			t.Errorf("%s: %s", id, answer.XML)
		}
	}
	// Somebody else's roster.
	other := request(ctx, t, client, "other", iq("set", "other", "romeo@example.org", "<query xmlns='jabber:iq:roster'><item jid='nurse@example.org'/></query>"))
	if other.Type != "error" {
		t.Errorf("got %s", other.XML)
	}
	if requests := w.backend.Requests(harness.Edits); len(requests) > 0 {
		t.Errorf("passed on %+v", requests)
	}
	const n = 1000
	for i := range n {
		send(t, client, edit(fmt.Sprint(i), "<item jid='nurse@example.org' name='N'/>"))
	}
	limited := 0
	for i := range n {
		if strings.Contains(answerTo(ctx, t, client, fmt.Sprint(i)).XML, "resource-constraint") {
			limited++
		}
	}
	if limited == 0 || limited == n {
		t.Errorf("%d of %d are refused", limited, n)
	}
	if passed := len(w.backend.Requests(harness.Edits)); passed != n-limited {
		t.Errorf("%d passed on, and %d refused", passed, limited)
	}
	waitBrought(ctx, t, client, harness.Item{JID: "nurse@example.org", Name: "N", Subscription: "both"})
}

// Who asks rosterd itself for their roster edits it there, too.
func TestEditWithoutDelegation(t *testing.T) { onServers(t, testEditWithoutDelegation) }

func testEditWithoutDelegation(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv, later: true, options: harness.ServerOptions{Grants: harness.Grants{Plain: true}}})
	w.opts.Settings["contacts.edit_url"] = w.backend.EditURL()
	w.connect(ctx, t)
	w.backend.Set("juliet", contacts())
	client := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	set := "<query xmlns='jabber:iq:roster'><item jid='nurse@example.org' name='N'><group>Ä</group></item></query>"
	wantDone(t, request(ctx, t, client, "plain", iq("set", "plain", domain, set)))
	if answer := request(ctx, t, client, "get", iq("get", "get", domain, rosterQuery)); !strings.Contains(answer.XML, "nurse@example.org") || !strings.Contains(answer.XML, ">Ä<") {
		t.Errorf("answer %s", answer.XML)
	}
}
