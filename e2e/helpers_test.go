package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"rosterd/e2e/harness"
	"rosterd/jid"
)

func mustJID(t *testing.T, s string) jid.JID {
	t.Helper()
	j, err := jid.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// contacts are one contact for each name, as the backend has them.
func contacts(names ...string) harness.Contacts {
	list := harness.Contacts{}
	for _, name := range names {
		list[strings.ToLower(name)+"@example.org"] = harness.Contact{Name: name}
	}
	return list
}

// item is a contact as a client has it after contacts.
func item(name string) harness.Item {
	return harness.Item{JID: strings.ToLower(name) + "@example.org", Name: name, Subscription: "both"}
}

// removed is a push that takes a contact away.
func removed(name string) harness.Item {
	return harness.Item{JID: strings.ToLower(name) + "@example.org", Subscription: "remove"}
}

// roster asks for the roster, which must be given.
func roster(ctx context.Context, t *testing.T, client harness.Client) []harness.Item {
	t.Helper()
	items, err := client.Roster(ctx)
	if err != nil {
		t.Fatalf("roster: %v", err)
	}
	return items
}

// wantRoster asks for the roster and compares; the order does not count.
func wantRoster(ctx context.Context, t *testing.T, client harness.Client, want ...harness.Item) {
	t.Helper()
	got := map[string]harness.Item{}
	items := roster(ctx, t, client)
	for _, it := range items {
		got[it.JID] = it
	}
	if len(items) != len(want) {
		t.Errorf("%d items: %+v, want %d: %+v", len(items), items, len(want), want)
	}
	for _, it := range want {
		if !equal(got[it.JID], it) {
			t.Errorf("item %+v, want %+v", got[it.JID], it)
		}
	}
}

// wantNoRoster asks for the roster and wants an error of type wait, or where the
// library names a version to be told that nothing has changed: after
// anything else, the empty roster above all, a client forgets its contacts.
func wantNoRoster(ctx context.Context, t *testing.T, client harness.Client) *harness.StanzaError {
	t.Helper()
	items, err := client.Roster(ctx)
	if errors.Is(err, harness.ErrUnchanged) {
		return nil
	}
	var refused *harness.StanzaError
	if !errors.As(err, &refused) || refused.Type != "wait" {
		t.Fatalf("roster %+v, %v, want a stanza error of type wait", items, err)
	}
	return refused
}

func equal(a, b harness.Item) bool {
	if len(a.Groups) == 0 && len(b.Groups) == 0 {
		a.Groups, b.Groups = nil, nil
	}
	return reflect.DeepEqual(a, b)
}

// wantPushes waits for the pushes of these items, in any order, and nothing
// else.
func wantPushes(ctx context.Context, t *testing.T, client harness.Client, want ...harness.Item) {
	t.Helper()
	patient := ctx
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	missing := append([]harness.Item(nil), want...)
next:
	for range want {
		got, err := client.WaitPush(ctx)
		if err != nil {
			t.Fatalf("%v, still wants %+v", err, missing)
		}
		for i, it := range missing {
			if equal(got, it) {
				missing = append(missing[:i], missing[i+1:]...)
				continue next
			}
		}
		t.Fatalf("push %+v, want %+v", got, missing)
	}
	wantQuiet(patient, t, client)
}

// wantQuiet wants no more pushes of all that rosterd has sent so far.
func wantQuiet(ctx context.Context, t *testing.T, client harness.Client) {
	t.Helper()
	handled(ctx, t, client)
	if pending := client.PendingPushes(); len(pending) > 0 {
		t.Errorf("unexpected pushes: %q", pending)
	}
}

// waitBrought waits until a client was told items, whatever else it is told again.
func waitBrought(ctx context.Context, t *testing.T, client harness.Client, want ...harness.Item) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	brought := make(map[string]harness.Item)
	for slices.ContainsFunc(want, func(it harness.Item) bool { return brought[it.JID].Subscription != it.Subscription }) {
		it, err := client.WaitPush(ctx)
		if err != nil {
			t.Fatalf("%v, got %v", err, brought)
		}
		brought[it.JID] = it
	}
}

// handled waits until rosterd has handled all that the client has sent so far,
// and until all has arrived that rosterd has sent: the servers keep the order.
func handled(ctx context.Context, t *testing.T, client harness.Client) {
	t.Helper()
	if err := client.Ping(ctx, domain); err != nil {
		t.Fatalf("ping: %v", err)
	}
}

// refresh reports users, all of whom must be updated.
func (w *world) refresh(ctx context.Context, t *testing.T, names ...string) {
	t.Helper()
	answer, err := w.post(ctx, names...)
	if err != nil {
		t.Fatal(err)
	}
	if want := (harness.RefreshAnswer{Code: http.StatusOK, Status: "ok", Message: "roster update complete",
		Updated: len(names)}); !reflect.DeepEqual(answer, want) {
		t.Fatalf("answer %+v, want %+v", answer, want)
	}
}

func (w *world) post(ctx context.Context, names ...string) (harness.RefreshAnswer, error) {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = fmt.Sprintf("%q", name)
	}
	return w.rosterd.PostRefresh(ctx, "["+strings.Join(quoted, ",")+"]")
}

// wantFailedRefresh reports a user who must fail, and returns the reason.
func (w *world) wantFailedRefresh(ctx context.Context, t *testing.T, name string) string {
	t.Helper()
	answer, err := w.post(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	reason := answer.Failed[name]
	if answer.Code != http.StatusInternalServerError || answer.Status != "error" || answer.Updated != 0 ||
		answer.Errors != 1 || len(answer.Failed) != 1 || reason == "" {
		t.Fatalf("answer %+v, want code 500 and why %s failed", answer, name)
	}
	return reason
}

// wantCode wants a status of a refresh with a token, on a connection of its own.
func wantCode(ctx context.Context, t *testing.T, config *tls.Config, url, token string, code int) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: config}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(`["juliet"]`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != code {
		t.Errorf("refresh with the token %s: %d, want %d", token, resp.StatusCode, code)
	}
}

// metric is the value of a series, 0 if it is not there.
func metric(ctx context.Context, t *testing.T, r *harness.Rosterd, series string) float64 {
	t.Helper()
	values, err := r.Scrape(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return values[series]
}

// waitMetric waits until a series has a value. Nothing tells when it changes,
// so that it has to be asked again and again.
func waitMetric(ctx context.Context, t *testing.T, r *harness.Rosterd, series string, want float64) {
	t.Helper()
	var got float64
	poll(ctx, t, func() bool {
		got = metric(ctx, t, r, series)
		return got == want
	}, func() string { return fmt.Sprintf("%s is %v, not %v", series, got, want) })
}

// waitReadyz waits until /readyz answers with a status and a text.
func waitReadyz(ctx context.Context, t *testing.T, r *harness.Rosterd, status int, text string) {
	t.Helper()
	var last string
	poll(ctx, t, func() bool {
		answer, err := r.Metrics("/readyz").Get(ctx)
		last = fmt.Sprint(answer.Status, " ", string(answer.Body), err)
		return answer.Status == status && strings.Contains(string(answer.Body), text)
	}, func() string { return fmt.Sprintf("/readyz: %s, want %d %s", last, status, text) })
}

// patience is how long a test waits for what is to happen soon, on a busy machine,
// too.
const patience = time.Minute

// poll asks until done says yes.
func poll(ctx context.Context, t *testing.T, done func() bool, why func() string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for !done() {
		select {
		case <-retry.C:
		case <-ctx.Done():
			t.Fatal(why())
		}
	}
}

// waitRequests waits until the backend was asked for a user n times, and no
// more often.
func waitRequests(ctx context.Context, t *testing.T, w *world, user string, n int) {
	t.Helper()
	if err := w.backend.WaitRequests(ctx, user, n); err != nil {
		t.Fatal(err)
	}
	wantRequests(t, w, user, n)
}

// wantRequests wants that the backend was asked for a user n times so far.
func wantRequests(t *testing.T, w *world, user string, n int) {
	t.Helper()
	if got := len(w.backend.Requests(user)); got != n {
		t.Errorf("the backend was asked for %s %d times, want %d", user, got, n)
	}
}

// waitLog waits until rosterd has logged a line that contains text.
func (w *world) waitLog(ctx context.Context, t *testing.T, text string) {
	t.Helper()
	if err := w.rosterd.WaitLog(ctx, text); err != nil {
		t.Fatal(err)
	}
}

// request sends an IQ of which the id is given, and waits for its answer.
func request(ctx context.Context, t *testing.T, client harness.Client, id, xml string) harness.Stanza {
	t.Helper()
	send(t, client, xml)
	return answerTo(ctx, t, client, id)
}

func send(t *testing.T, client harness.Client, xml string) {
	t.Helper()
	if err := client.SendRaw(xml); err != nil {
		t.Fatal(err)
	}
}

func answerTo(ctx context.Context, t *testing.T, client harness.Client, id string) harness.Stanza {
	t.Helper()
	answer, err := client.WaitStanza(ctx, func(s harness.Stanza) bool {
		return s.Name == "iq" && s.ID == id && (s.Type == "result" || s.Type == "error")
	})
	if err != nil {
		t.Fatalf("answer to %.40s: %v", id, err)
	}
	return answer
}

// wantError wants a stanza error with a condition (RFC 6120, section 8.3.3).
func wantError(t *testing.T, s harness.Stanza, condition string) {
	t.Helper()
	if s.Type != "error" || !strings.Contains(s.XML, "<"+condition+" ") {
		t.Errorf("answer %.500s, want the error %s", s.XML, condition)
	}
}

const rosterQuery = "<query xmlns='jabber:iq:roster'/>"

// iq writes a request; to may be empty.
func iq(kind, id, to, payload string) string {
	if to != "" {
		to = "' to='" + to
	}
	return "<iq type='" + kind + "' id='" + id + to + "'>" + payload + "</iq>"
}

// refreshAll reports everybody of example.org.
func (w *world) refreshAll(ctx context.Context, t *testing.T) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.rosterd.RefreshURL()+"?all=example.org", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		t.Fatal(resp.Status)
	}
}
