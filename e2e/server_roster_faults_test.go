package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rosterd/e2e/harness"
)

// gate stands before ejabberd's API and has calls go wrong. Its methods may be called by
// several goroutines.
type gate struct {
	*httptest.Server

	mu     sync.Mutex
	fault  func(w http.ResponseWriter, r *http.Request) (done bool) // nil: none; guarded by mu, as all below
	ended  chan struct{}                                            // closed when the fault ends
	calls  map[string]int                                           // by command, those with a fault
	writes int                                                      // that reached the API, of one item
}

// startGate starts a gate before a server's API.
func startGate(t *testing.T, api string) *gate {
	t.Helper()
	target, err := url.Parse(strings.TrimSuffix(api, "/api"))
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{calls: map[string]int{}, ended: make(chan struct{})}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport = &http.Transport{DisableKeepAlives: true}
	proxy.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) } // the server is down
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		command := path.Base(r.URL.Path)
		g.mu.Lock()
		fault := g.fault
		if fault != nil {
			g.calls[command]++
		}
		g.mu.Unlock()
		if fault != nil && fault(w, r) {
			return
		}
		if strings.HasSuffix(command, "_rosteritem") && bytes.Contains(body, []byte(`"localuser":"juliet"`)) {
			g.mu.Lock()
			g.writes++
			g.mu.Unlock()
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		g.set(nil)
		g.CloseClientConnections()
		g.Close()
	})
	return g
}

// set begins a fault; nil ends it.
func (g *gate) set(fault func(w http.ResponseWriter, r *http.Request) (done bool)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fault, g.calls = fault, map[string]int{}
	close(g.ended)
	g.ended = make(chan struct{})
}

// hold waits until the fault ends, or the caller goes.
func (g *gate) hold(r *http.Request) {
	g.mu.Lock()
	ended := g.ended
	g.mu.Unlock()
	select {
	case <-ended:
	case <-r.Context().Done():
	}
}

// called waits until a command was called so often since the fault began.
func (g *gate) called(ctx context.Context, t *testing.T, command string, n int) {
	t.Helper()
	got := 0
	poll(ctx, t, func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		got = g.calls[command]
		return got >= n
	}, func() string { return fmt.Sprintf("%s was called %d times, not %d", command, got, n) })
}

// startGated is startKept for an ejabberd whose API rosterd uses through a gate.
func startGated(t *testing.T, s setup) (*world, *gate) {
	t.Helper()
	s.server, s.later = kept(ejabberd), true
	w := startKept(t, s)
	g := startGate(t, w.server.APIURL())
	w.opts.Settings["ejabberd.api"] = map[string]any{"url": g.URL + "/api"}
	w.connect(bounded(t), t)
	return w, g
}

// answer answers every call with a status.
func answer(status int) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, `{"status":"error","message":"no"}`, status)
		return true
	}
}

// While ejabberd's API refuses, fails, is slow, is silent or loses its answers, clients get
// their rosters, and none of it is taken for an empty roster: when it works again, the
// server's roster ends as the backend's.
func TestServerRosterAPIFails(t *testing.T) {
	t.Parallel()
	faults := map[string]func(*gate) func(http.ResponseWriter, *http.Request) bool{
		"refuses": func(*gate) func(http.ResponseWriter, *http.Request) bool { // who calls, and what is called
			return func(w http.ResponseWriter, r *http.Request) bool {
				return answer(map[bool]int{true: http.StatusUnauthorized, false: http.StatusForbidden}[strings.Contains(r.URL.Path, "get_")])(w, r)
			}
		},
		"fails": func(*gate) func(http.ResponseWriter, *http.Request) bool {
			return answer(http.StatusInternalServerError)
		},
		"is cut": func(*gate) func(http.ResponseWriter, *http.Request) bool {
			panicked := func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }
			return panicked
		},
		"is silent": func(g *gate) func(http.ResponseWriter, *http.Request) bool {
			return func(_ http.ResponseWriter, r *http.Request) bool { g.hold(r); panic(http.ErrAbortHandler) }
		},
		"says nonsense": func(*gate) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, _ *http.Request) bool { _, _ = io.WriteString(w, "null"); return true }
		},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := bounded(t)
			w, g := startGated(t, setup{options: harness.ServerOptions{Users: users("juliet", "romeo", "gate-"+strings.ReplaceAll(name, " ", "-"))}})
			w.lists("Juliet", "Romeo")
			w.inStep(ctx, t, "juliet", "romeo")
			juliet := w.loginPEP(ctx, t, slixmpp, julietFull)

			g.set(fault(g))
			list, items := many(15, "c")
			list["romeo@example.org"] = harness.Contact{Name: "Romeo"}
			items = append(items, own("Romeo"))
			w.backend.Set("juliet", list)
			// It says that she was not pushed it, as that is the API's, or not within 2 s.
			if _, err := w.post(ctx, "juliet"); err != nil {
				t.Fatal(err)
			}
			g.called(ctx, t, "add_rosteritem", 1)
			wantRoster(ctx, t, juliet, items...)
			w.backend.Set("romeo", contacts())
			romeo := w.login(ctx, t, gosrc, romeoFull)
			wantRoster(ctx, t, romeo)
			w.wantOwn(ctx, t, "juliet", own("Romeo")) // as it was
			w.wantOwn(ctx, t, "romeo", own("Juliet"))

			g.set(nil)
			w.waitOwn(ctx, t, "juliet", items...)
			w.waitOwn(ctx, t, "romeo")
			w.refresh(ctx, t, "juliet")
			wantQuietCopy(ctx, t, juliet, items)
		})
	}
}

// An API whose answers are lost has done what was asked for, or a part of it: it is seen,
// and nothing is written again and again.
func TestServerRosterAPIAnswersLost(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	w, g := startGated(t, setup{options: harness.ServerOptions{Users: users("juliet", "romeo", "gate-lost")}})
	list, items := many(15, "c")
	w.backend.Set("juliet", contacts("Romeo"))
	w.inStep(ctx, t, "juliet")
	lost := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: strings.TrimSuffix(strings.TrimPrefix(w.server.APIURL(), "http://"), "/api")})
	lost.Transport = &http.Transport{DisableKeepAlives: true}
	n := 0
	var mu sync.Mutex
	g.set(func(_ http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if n++; n%2 == 1 {
			return false
		}
		lost.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	})
	w.backend.Set("juliet", list)
	if _, err := w.post(ctx, "juliet"); err != nil {
		t.Fatal(err)
	}
	g.called(ctx, t, "add_rosteritem", 3)
	g.set(nil)
	w.waitOwn(ctx, t, "juliet", items...)
	w.wantNoWrites(ctx, t)
}

// An API that says it has written, and has not, is found out, and left alone until it may
// have become another: after a restart of the server the roster ends as the backend's.
func TestServerRosterAPILies(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	w, g := startGated(t, setup{own: true})
	g.set(func(rw http.ResponseWriter, r *http.Request) bool {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		var args struct{ LocalUser string }
		lies := strings.HasSuffix(r.URL.Path, "_rosteritem") && json.Unmarshal(body, &args) == nil && !slices.Contains([]string{"", "@"}, args.LocalUser)
		if lies {
			_, _ = io.WriteString(rw, "0")
		}
		return lies
	})
	list, items := many(15, "c")
	for _, user := range []string{"juliet", "mercutio", "nurse"} {
		w.backend.Set(user, list)
		w.refresh(ctx, t, user)
	}
	w.waitLog(ctx, t, "what was written is not there")
	juliet := w.loginPEP(ctx, t, slixmpp, julietFull)
	wantRoster(ctx, t, juliet, items...)
	waitMetric(ctx, t, w.rosterd, "rosterd_server_roster_waiting_users", 0)
	g.mu.Lock()
	calls := g.calls["add_rosteritem"]
	g.mu.Unlock()
	w.refresh(ctx, t, "juliet")
	roster(ctx, t, juliet)
	g.mu.Lock()
	if again := g.calls["add_rosteritem"]; again != calls || calls > 60 {
		t.Errorf("%d calls, and %d more when it was known that they are in vain", calls, again-calls)
	}
	g.mu.Unlock()
	status, err := w.rosterd.Metrics("/status").Get(ctx)
	if err != nil || !strings.Contains(string(status.Body), `"broken"`) || !strings.Contains(string(status.Body), `"server_roster":"none"`) {
		t.Errorf("/status does not say so: %s %v", status.Body, err)
	}

	g.set(nil)
	if err := w.server.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"juliet", "mercutio", "nurse"} {
		w.waitOwn(ctx, t, user, items...)
	}
}

// Contacts whom ejabberd adds by itself are left there, and all else is kept in step.
func TestServerRosterShared(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	srv := kept(ejabberd)
	srv.start = func(ctx context.Context, o harness.ServerOptions) (*harness.Server, error) {
		return harness.StartEjabberd(ctx, harness.EjabberdOptions{ServerOptions: o, ModulesYAML: "  mod_shared_roster: {}"})
	}
	w := startKept(t, setup{server: srv, own: true, later: true})
	call := func(command string, args map[string]any) {
		t.Helper()
		body, err := json.Marshal(args)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.Post(w.server.APIURL()+"/"+command, "application/json", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if answer, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s %s", command, resp.Status, answer)
		}
	}
	display := any("staff")
	if ejabberdVersion >= "24.02" {
		display = []string{"staff"}
	}
	call("srg_create", map[string]any{"group": "staff", "host": "example.org", "label": "Staff", "description": "", "display": display})
	var staff []harness.Item
	for _, user := range []string{"juliet", "romeo", "s1", "s2", "s3", "s4", "s5", "s6"} {
		call("srg_user_add", map[string]any{"user": user, "host": "example.org", "group": "staff", "grouphost": "example.org"})
		if strings.HasPrefix(user, "s") {
			staff = append(staff, harness.Item{JID: user + "@example.org"})
		}
	}
	w.backend.Set("juliet", contacts())
	w.backend.Set("romeo", contacts())
	w.connect(ctx, t)
	w.refresh(ctx, t, "juliet", "romeo")
	poll(ctx, t, func() bool { return strings.Count(w.rosterd.Log(), "left as they are") == 2 }, func() string { return "they are not left" })
	list, items := many(3, "c")
	for _, user := range []string{"juliet", "romeo"} {
		w.backend.Set(user, list)
		w.refresh(ctx, t, user)
		w.waitOwnItems(ctx, t, user, len(items)+len(staff)+1) // and the other of the two
	}
	w.wantNoWrites(ctx, t)
	if log := w.rosterd.Log(); strings.Contains(log, "what was written is not there") || !strings.Contains(log, "server_roster=api") {
		t.Error("the way is given up")
	}
}

// A slow API holds up no login for longer than a login can wait, and no other user's for
// long, and all is written in the end.
func TestServerRosterAPISlow(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	w, g := startGated(t, setup{options: harness.ServerOptions{Users: users("juliet", "romeo", "mercutio", "gate-slow")}})
	w.inStepEmpty(ctx, t, "juliet", "romeo", "mercutio")
	g.set(func(_ http.ResponseWriter, r *http.Request) bool {
		select {
		case <-time.After(300 * time.Millisecond):
		case <-r.Context().Done():
		}
		return false
	})
	list, items := many(12, "c")
	for _, user := range []string{"juliet", "romeo", "mercutio"} {
		w.backend.Set(user, list)
		client := w.loginAs(ctx, t, slixmpp, harness.ClientOptions{JID: user + "@example.org/slow", Invisible: true})
		wantRoster(ctx, t, client, items...)
	}
	g.called(ctx, t, "add_rosteritem", 2)
	g.set(nil)
	for _, user := range []string{"juliet", "romeo", "mercutio"} {
		w.waitOwn(ctx, t, user, items...)
	}
}

// inStepEmpty has the server's own rosters of users be empty, whoever used it before.
func (w *world) inStepEmpty(ctx context.Context, t *testing.T, users ...string) {
	t.Helper()
	for _, user := range users {
		w.backend.Set(user, contacts())
	}
	w.inStep(ctx, t, users...)
}

// What a user changes through the backend while rosterd writes what changed before ends in
// the server's roster as in the backend's.
func TestServerRosterEditedThroughTheBackend(t *testing.T) {
	onKept(t, testServerRosterEditedThroughTheBackend)
}

func testServerRosterEditedThroughTheBackend(t *testing.T, srv server) {
	ctx := bounded(t)
	w := startKept(t, setup{server: srv, own: true, later: true})
	w.opts.Settings["contacts.edit_url"] = w.backend.EditURL()
	w.connect(ctx, t)
	list, items := many(40, "c")
	w.backend.Set("juliet", list)
	juliet := w.enter(ctx, t, gosrc, julietFull)
	w.waitOwnItems(ctx, t, "juliet", 2)
	edits := []string{"<item jid='nurse@example.org' name='Nurse'><group>A;B</group></item>", "<item jid='" + items[39].JID + "' name='Renamed'/>",
		"<item jid='" + items[0].JID + "' subscription='remove'/>", "<item jid='nurse@example.org' name='N'/>", "<item jid='" + items[1].JID + "' name='First'/>",
		"<item jid='" + items[1].JID + "' subscription='remove'/>", "<item jid='" + items[1].JID + "' name='Again'/>"}
	for i, it := range edits {
		send(t, juliet, edit(fmt.Sprint("edit ", i), it))
	}
	for i := range edits {
		wantDone(t, answerTo(ctx, t, juliet, fmt.Sprint("edit ", i)))
	}
	w.waitOwn(ctx, t, "juliet", w.backend.Items("juliet")...)
	w.wantNoWrites(ctx, t)
}

// wantNoWrites wants that nothing is written to the server's rosters any more, whatever is
// refreshed or asked for.
func (w *world) wantNoWrites(ctx context.Context, t *testing.T) {
	t.Helper()
	w.settled(ctx, t)
	before := w.writes(ctx, t)
	w.refresh(ctx, t, "juliet")
	w.settled(ctx, t)
	if got := w.writes(ctx, t) - before; got > 0 {
		t.Errorf("%d writes though nothing has changed", got)
	}
}
