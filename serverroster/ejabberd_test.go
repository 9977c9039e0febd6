package serverroster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

// secret is in every login of these tests, and may be in nothing that is said.
const secret = "s3cr3t"

// fakeEjabberd is as much of ejabberd as the tests of e2e have found true.
type fakeEjabberd struct {
	t     *testing.T
	hosts []string
	lists bool // groups are lists, as from 24.02 on

	mu      sync.Mutex
	rosters map[string]map[string]map[string]any // by user and contact; guarded by mu
	calls   []string                             // that were let through; guarded by mu
	answer  func(command string, args map[string]any) (status int, body string)
	sends   bool // send_stanza is permitted
}

// set has all calls answered by answer, until it returns the status 0.
func (f *fakeEjabberd) set(answer func(command string, args map[string]any) (int, string)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

func (f *fakeEjabberd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	command, _ := strings.CutPrefix(r.URL.Path, "/api/")
	var args map[string]any
	if r.Method != http.MethodPost || json.NewDecoder(r.Body).Decode(&args) != nil || !strings.Contains(r.Header.Get("Authorization"), "Bearer "+secret) {
		f.t.Errorf("%s %s", r.Method, r.URL)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	status, body := 0, ""
	if f.answer != nil {
		status, body = f.answer(command, args)
	}
	if status == 0 {
		status, body = f.do(command, args)
	}
	if status == http.StatusFound {
		w.Header().Set("Location", "/elsewhere")
	}
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body))
}

func (f *fakeEjabberd) do(command string, args map[string]any) (int, string) {
	text := func(name string) string { s, _ := args[name].(string); return s }
	_, list := args["groups"]
	switch {
	case command == "send_stanza" && !f.sends:
		return 403, ""
	case command == "send_stanza" && (text("from") == "@" || text("to") == "@"):
		return 400, `"JID malformed"`
	case command == "send_stanza":
		f.calls = append(f.calls, fmt.Sprint(command, " ", text("from"), " ", text("to"), " ", text("stanza")))
		return 200, "0"
	case command == "add_rosteritem" && list && !f.lists:
		return 400, `"Request have missing argument: group"`
	case command == "add_rosteritem" && !list && f.lists:
		return 400, `"Request have unknown arguments: [group]"`
	case strings.Contains(text("localuser"), "@"):
		return 400, `"Invalid 'localuser'/'localserver'"`
	case strings.ContainsAny(text("user"), "@'"):
		return 400, `"Invalid 'user'/'server'"`
	case command == "get_roster":
		contacts := []any{}
		for _, c := range f.rosters[text("user")+"@"+text("host")] {
			contacts = append(contacts, c)
		}
		b, _ := json.Marshal(contacts)
		return 200, string(b)
	case !slices.Contains(f.hosts, text("localhost")):
		return 500, `"internal_error"`
	}
	user, contact := text("localuser")+"@"+text("localhost"), text("user")+"@"+text("host")
	f.calls = append(f.calls, strings.TrimSpace(fmt.Sprint(command, " ", contact, " ", text("subs"), " ", text("nick"))))
	if command == "delete_rosteritem" {
		delete(f.rosters[user], contact)
		return 200, "0"
	}
	if f.rosters[user] == nil {
		f.rosters[user] = make(map[string]map[string]any)
	}
	groups := args["groups"]
	if !f.lists {
		groups = strings.Split(text("group"), ";")
	}
	f.rosters[user][contact] = map[string]any{"jid": contact, "nick": text("nick"), "subscription": text("subs"), "groups": groups}
	return 200, "0"
}

// startFake starts a fake, and an Ejabberd for example.org.
func startFake(t *testing.T) (*fakeEjabberd, *Ejabberd, *bytes.Buffer) {
	f := &fakeEjabberd{t: t, hosts: []string{"example.org"}, lists: true, rosters: make(map[string]map[string]map[string]any)}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	log := &bytes.Buffer{}
	e, err := NewEjabberd(EjabberdOptions{URL: server.URL + "/api/", Login: EjabberdLogin{Token: secret}, Hosts: []string{"example.org"},
		Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return f, e, log
}

// proven is startFake with an API that works.
func proven(t *testing.T) (*fakeEjabberd, *Ejabberd) {
	f, e, _ := startFake(t)
	e.Prove(t.Context())
	if works, why := e.State("example.org"); !works {
		t.Fatal(why)
	}
	return f, e
}

func added(contacts ...string) (changes []roster.Change) {
	for _, contact := range contacts {
		changes = append(changes, roster.Change{Action: roster.Added, Item: roster.Item{JID: mustJID(contact), Subscription: roster.SubscriptionBoth}})
	}
	return changes
}

// set calls Set of juliet, and returns whom written was called for.
func set(ctx context.Context, e *Ejabberd, changes []roster.Change) (written []string, err error) {
	err = ejabberdWay{e}.Set(ctx, juliet, changes, func(c roster.Change) { written = append(written, c.Item.JID.String()) })
	return written, err
}

// What is written is read again, in both editions of the API.
func TestEjabberdRoundTrip(t *testing.T) {
	for _, lists := range []bool{false, true} {
		f, e, _ := startFake(t)
		f.lists = lists
		if e.Way("example.org") != nil || e.Way("example.net") != nil {
			t.Error("a way that was not proven")
		}
		e.Prove(t.Context())
		if works, why := e.State("example.org"); !works || e.Way("example.org") == nil {
			t.Fatal(why)
		}
		if len(f.rosters) != 0 {
			t.Errorf("the proof wrote %v", f.rosters)
		}
		items := []roster.Item{
			{JID: romeo, Name: "Roméo <&'\">", Subscription: roster.SubscriptionBoth, Groups: []string{"A", "B ü"}},
			{JID: mustJID("nurse@example.net"), Subscription: roster.SubscriptionNone},
		}
		want := roster.New(items)
		if _, err := set(t.Context(), e, roster.Diff(nil, want)); err != nil {
			t.Fatal(err)
		}
		got, err := e.Way("example.org").Get(t.Context(), juliet)
		if err != nil || !got.Equal(want) {
			t.Errorf("got %s, %v", got.XML(), err)
		}
	}
}

// Before 23.10 a contact comes once for each group. What cannot be a roster's item is made
// one, or left out: never an error that hides the others.
func TestEjabberdGet(t *testing.T) {
	f, e := proven(t)
	f.set(func(string, map[string]any) (int, string) {
		return 200, ` [{"jid":"a@example.org","nick":"A\u0001","subscription":"bogus","ask":"undefined","group":"y"},
			{"jid":"a@example.org","nick":"A","subscription":"bogus","ask":"undefined","group":"x"},
			{"jid":"a@example.org","nick":"A","subscription":"bogus","ask":"undefined","group":"y"},
			{"jid":"exa mple@","nick":"","subscription":"both","ask":"undefined","group":""},
			{"jid":"a@example.org/r","nick":"","subscription":"both","ask":"undefined","group":""},
			{"jid":"example.net","nick":"N","subscription":"to","ask":"undefined","group":""}] `
	})
	got, err := e.Way("example.org").Get(t.Context(), juliet)
	want := []roster.Item{
		{JID: mustJID("a@example.org"), Name: "A", Subscription: roster.SubscriptionNone, Groups: []string{"x", "y"}},
		{JID: mustJID("example.net"), Name: "N", Subscription: roster.SubscriptionTo},
	}
	if err != nil || !reflect.DeepEqual(got.Items(), want) {
		t.Errorf("got %+v, %v", got.Items(), err)
	}
}

// A contact is first one without a subscription: nothing is sent to who is removed. That is
// pushed, and looks as before.
func TestEjabberdRemoval(t *testing.T) {
	f, e := proven(t)
	f.calls = nil
	gone := []roster.Change{{Action: roster.Removed, Item: roster.Item{JID: romeo, Name: "Romeo", Subscription: roster.SubscriptionBoth}}}
	if written, err := set(t.Context(), e, gone); err != nil || len(written) != 1 {
		t.Error(written, err)
	}
	if want := []string{"add_rosteritem romeo@example.org none Romeo", "delete_rosteritem romeo@example.org"}; !slices.Equal(f.calls, want) {
		t.Errorf("calls %q", f.calls)
	}
}

// Who has no subscription is removed at once.
func TestEjabberdRemovalWithoutSubscription(t *testing.T) {
	f, e := proven(t)
	f.calls = nil
	gone := []roster.Change{{Action: roster.Removed, Item: roster.Item{JID: romeo, Subscription: roster.SubscriptionNone}}}
	if written, err := set(t.Context(), e, gone); err != nil || len(written) != 1 || !slices.Equal(f.calls, []string{"delete_rosteritem romeo@example.org"}) {
		t.Error(written, err, f.calls)
	}
}

// Presence is asked for in the name of a user alone who may see the contact, if ejabberd
// permits to send stanzas.
func TestEjabberdProbe(t *testing.T) {
	f, e := proven(t)
	probe := func() (bool, error) {
		return ejabberdWay{e}.Probe(t.Context(), juliet, mustJID("romeo@example.net"))
	}
	f.calls = nil
	if permitted, err := probe(); permitted || err != nil || f.calls != nil {
		t.Error(permitted, err, f.calls)
	}
	f.sends = true
	e.Prove(t.Context())
	if slices.ContainsFunc(f.calls, func(call string) bool { return strings.HasPrefix(call, "send_stanza") }) {
		t.Errorf("to find it out it sent %q", f.calls)
	}
	f.calls = nil
	if permitted, err := probe(); !permitted || err != nil || !slices.Equal(f.calls, []string{"send_stanza juliet@example.org romeo@example.net <presence type='probe'/>"}) {
		t.Error(permitted, err, f.calls)
	}
	f.sends = false
	if _, err := probe(); err == nil || len(e.doubts) != 1 {
		t.Error("it is permitted no more, and nobody says so")
	}
}

// One item that ejabberd cannot have is no reason to keep the others back.
func TestEjabberdRefusesItems(t *testing.T) {
	f, e := proven(t)
	broken := []string{"b"}
	f.set(func(command string, args map[string]any) (int, string) {
		if slices.Contains(broken, args["user"].(string)) {
			return 200, "1"
		}
		if args["user"] == "c" {
			return 400, `"Invalid 'user'/'server'"`
		}
		return 0, ""
	})
	written, err := set(t.Context(), e, added("a@example.org", "b@example.org", "c@example.org", "d@example.org"))
	var refused *RefusedError
	if !errors.As(err, &refused) || !slices.Equal(written, []string{"a@example.org", "d@example.org"}) ||
		!slices.Equal(refused.Contacts, []jid.JID{mustJID("b@example.org"), mustJID("c@example.org")}) {
		t.Errorf("wrote %v, %v", written, err)
	}
	// Who cannot be there is removed already.
	if written, err := set(t.Context(), e, []roster.Change{{Action: roster.Removed, Item: roster.Item{JID: mustJID("c@example.org")}}}); err != nil || len(written) != 1 {
		t.Error(written, err)
	}
	if len(e.doubts) != 0 {
		t.Error("the API is in doubt because of an item")
	}
	// A fault that passes is none of the item's.
	faults := 0
	f.set(func(command string, _ map[string]any) (int, string) {
		if faults++; faults == 1 || faults == 3 {
			return 500, ""
		}
		return 0, ""
	})
	if written, err := set(t.Context(), e, added("a@example.org")); err != nil || len(written) != 1 {
		t.Error(written, err)
	}
	f.set(func(command string, args map[string]any) (int, string) {
		if slices.Contains(broken, args["user"].(string)) {
			return 200, "1"
		}
		return 0, ""
	})
	// A database that is down is nobody's item.
	broken = append(broken, "")
	written, err = set(t.Context(), e, added("a@example.org", "b@example.org", "e@example.org"))
	if err == nil || errors.As(err, &refused) || !slices.Equal(written, []string{"a@example.org"}) {
		t.Errorf("wrote %v, %v", written, err)
	}
	if len(e.doubts) != 1 {
		t.Error("the API is not looked at again")
	}
}

func TestEjabberdNoAccount(t *testing.T) {
	f, e := proven(t)
	f.set(func(command string, args map[string]any) (int, string) {
		if command == "get_roster" {
			return 400, `"Invalid 'user'/'server'"`
		}
		return 400, `"Invalid 'localuser'/'localserver'"`
	})
	if _, err := e.Way("example.org").Get(t.Context(), juliet); err != ErrNoAccount {
		t.Error(err)
	}
	if _, err := set(t.Context(), e, added("a@example.org")); err != ErrNoAccount {
		t.Error(err)
	}
}

// Whatever answers, it is no roster and no success, and nothing of it is repeated.
func TestEjabberdLies(t *testing.T) {
	f, e, log := startFake(t)
	for _, lie := range []struct {
		status int
		body   string
	}{
		{200, ""}, {200, "null"}, {200, "{}"}, {200, "[1]"}, {200, "[null]"}, {200, `[{}]`}, {200, `[{"jid":"a@example.org"}]`}, {200, `"0"`}, {200, "00"},
		{200, "<html>" + secret}, {200, `{"status":"error","code":10,"message":"` + secret + `"}`}, {200, "[" + strings.Repeat("[", 100_000)},
		{200, strings.Repeat(" ", maxRosterBody+1) + "[]"}, {200, `[{"jid":"a@example.org","subscription":"both","groups":"x"}]`},
		{201, "0"}, {204, ""}, {302, "0"}, {400, secret}, {400, `"` + secret + `"`}, {401, secret}, {403, secret}, {404, secret}, {500, `"internal_error"`}, {503, secret},
	} {
		f.set(func(string, map[string]any) (int, string) { return lie.status, lie.body })
		e.Prove(t.Context())
		if works, why := e.State("example.org"); works || why == "" || strings.Contains(why, secret) {
			t.Errorf("%d %.40q: %v %q", lie.status, lie.body, works, why)
		}
		r, err := ejabberdWay{e}.Get(t.Context(), juliet)
		if err == nil || r != nil || strings.Contains(err.Error(), secret) {
			t.Errorf("get: %d %.40q: %v %v", lie.status, lie.body, r, err)
		}
		if written, err := set(t.Context(), e, added("a@example.org")); err == nil || written != nil || strings.Contains(err.Error(), secret) {
			t.Errorf("set: %d %.40q: %v", lie.status, lie.body, err)
		}
	}
	// Each command is proven by itself.
	for _, command := range []string{"get_roster", "add_rosteritem", "delete_rosteritem"} {
		f.set(func(c string, _ map[string]any) (int, string) {
			if c == command {
				return 403, ""
			}
			return 0, ""
		})
		e.Prove(t.Context())
		if works, why := e.State("example.org"); works || !strings.Contains(why, command+": 403") {
			t.Errorf("%s: %v %q", command, works, why)
		}
	}
	if strings.Contains(log.String(), secret) {
		t.Error("a secret in the log")
	}
}

// A host that ejabberd does not have has no empty rosters.
func TestEjabberdWithoutHost(t *testing.T) {
	f, e, _ := startFake(t)
	f.hosts = []string{"example.net"}
	e.Prove(t.Context())
	if works, why := e.State("example.org"); works || !strings.Contains(why, "does not have this domain") {
		t.Error(works, why)
	}
	// COMPAT one that is set up with A-labels is asked for by them.
	f.hosts = []string{"xn--mnchen-3ya.example"}
	e.options.Hosts = []string{"münchen.example"}
	e.Prove(t.Context())
	if works, why := e.State("münchen.example"); !works {
		t.Fatal(why)
	}
	user := mustJID("a@münchen.example")
	if err := (ejabberdWay{e}).Set(t.Context(), user, added("b@münchen.example"), func(roster.Change) {}); err != nil || len(f.rosters["a@xn--mnchen-3ya.example"]) != 1 {
		t.Error(f.rosters, err)
	}
}

// Nobody waits longer than they want, or than the API is given.
func TestEjabberdSlow(t *testing.T) {
	_, e, _ := startFake(t)
	asked, release := make(chan struct{}, 8), make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		asked <- struct{}{}
		<-release
	}))
	defer slow.Close()
	defer close(release)
	e.options.URL = slow.URL
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	if _, err := (ejabberdWay{e}).Get(ctx, juliet); !errors.Is(err, context.Canceled) || len(e.doubts) != 0 {
		t.Error(err)
	}
	e.timeout = 10 * time.Millisecond
	e.Prove(t.Context())
	if _, why := e.State("example.org"); !strings.Contains(why, "no answer within") {
		t.Error(why)
	}
}

// Run proves again while the API does not work, after a failure, and with a new login.
func TestEjabberdRun(t *testing.T) {
	f, e, _ := startFake(t)
	e.again, e.soon = time.Millisecond, time.Millisecond
	var mu sync.Mutex
	down := true
	f.set(func(string, map[string]any) (int, string) {
		mu.Lock()
		defer mu.Unlock()
		if down {
			return 401, ""
		}
		return 0, ""
	})
	changed := make(chan string, 100)
	e.options.Changed = func(host string) { changed <- host }
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); e.Run(ctx) }()
	want := func(works bool) {
		t.Helper()
		<-changed
		if now, why := e.State("example.org"); now != works {
			t.Fatal(now, why)
		}
	}
	want(false)
	mu.Lock()
	down = false
	mu.Unlock()
	want(true)
	mu.Lock()
	down = true
	mu.Unlock()
	if _, err := (ejabberdWay{e}).Get(ctx, juliet); err == nil {
		t.Error("no error")
	}
	want(false)
	mu.Lock()
	down = false
	mu.Unlock()
	e.Renew(EjabberdLogin{Token: secret + "2"})
	want(true)
	cancel()
	<-ended
}

func TestEjabberdURL(t *testing.T) {
	if _, err := NewEjabberd(EjabberdOptions{URL: "http://" + secret + "%zz/"}); err == nil || strings.Contains(err.Error(), secret) {
		t.Error(err)
	}
}

// A proxy of the environment, which is for the backend, is not given ejabberd's login.
func TestEjabberdWithoutProxy(t *testing.T) {
	_, e, _ := startFake(t)
	if e.transport.Proxy != nil {
		t.Error("the API is called through a proxy")
	}
}

// What nobody confirms is not written.
func TestEjabberdUnconfirmed(t *testing.T) {
	f, e := proven(t)
	e.options.Confirm = func(context.Context) error { return errors.New("another one is active") }
	change := roster.Change{Action: roster.Added, Item: roster.Item{JID: romeo}}
	err := ejabberdWay{e}.Set(t.Context(), juliet, []roster.Change{change}, func(roster.Change) { t.Error("it says that it is written") })
	if err == nil || !strings.Contains(err.Error(), "another one is active") || len(f.rosters) > 0 {
		t.Errorf("%v, %v", err, f.rosters)
	}
}
