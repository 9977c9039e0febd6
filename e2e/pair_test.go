package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"rosterd/e2e/harness"
	"rosterd/internal/freeport"
	"rosterd/internal/pgserver"
)

// postgres is one PostgreSQL for all tests that leave it alone. TestMain closes it.
var postgres = sync.OnceValues(func() (*pgserver.Server, error) { return pgserver.Start() })

// postgresUsed says that postgres was started.
var postgresUsed atomic.Bool

func closePostgres() {
	if postgresUsed.Load() {
		if s, err := postgres(); err == nil {
			s.Close()
		}
	}
}

// newDatabase is the name of a database of its own, on that server.
func newDatabase(ctx context.Context, t *testing.T) (s *pgserver.Server, name string) {
	t.Helper()
	s, err := postgres()
	if err != nil {
		t.Fatal(err)
	}
	postgresUsed.Store(true)
	if name, err = s.Database(ctx); err != nil {
		t.Fatal(err)
	}
	return s, name
}

// stateURL is the URL of a database of its own.
func stateURL(ctx context.Context, t *testing.T) string {
	t.Helper()
	s, name := newDatabase(ctx, t)
	return s.At(s.Address(), name)
}

// twins are two instances of rosterd, of which w.rosterd is active.
type twins struct {
	*world
	other *harness.Rosterd // stands by
}

// startTwins starts a server with two instances, which reach the database at these URLs.
func startTwins(ctx context.Context, t *testing.T, srv server, first, second string) *twins {
	t.Helper()
	w := start(t, setup{server: srv, own: true, settings: map[string]any{"state.url": first}})
	return w.twin(ctx, t, map[string]any{"state.url": second})
}

// twin starts the other instance, with some other settings.
func (w *world) twin(ctx context.Context, t *testing.T, settings map[string]any) *twins {
	t.Helper()
	opts := w.opts
	opts.Settings = maps.Clone(opts.Settings)
	maps.Copy(opts.Settings, settings)
	both := &twins{w, run(t, opts)}
	if err := both.other.WaitStandby(ctx); err != nil {
		t.Fatal(err)
	}
	return both
}

// pairOf is what an instance says of the pair.
func pairOf(ctx context.Context, t *testing.T, r *harness.Rosterd) (s struct {
	Role, Active, Error string
	Term                int
	Since               time.Time
}) {
	t.Helper()
	answer, err := r.Metrics("/status").Get(ctx)
	var status struct{ Pair any }
	status.Pair = &s
	if err != nil || json.Unmarshal(answer.Body, &status) != nil {
		t.Fatalf("%v: %s", err, answer.Body)
	}
	return s
}

// wantCheck wants rosterd check to find all in order, and to say something. It disturbs nobody.
func wantCheck(ctx context.Context, t *testing.T, r *harness.Rosterd, want string) {
	t.Helper()
	file, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	said, err := exec.CommandContext(ctx, file, "check", "--config", r.File(), "--user", "juliet").CombinedOutput()
	if err != nil || !strings.Contains(string(said), want) {
		t.Errorf("check, which is to say %q: %v\n%s", want, err, said)
	}
}

// swap waits until the other one is the active one, and serves the users.
func (w *twins) swap(ctx context.Context, t *testing.T) {
	t.Helper()
	if err := w.other.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	w.rosterd, w.other = w.other, w.rosterd
	waitBest(ctx, t, w.world)
}

// One of two is killed, or stopped: the other one knows what clients were told, brings them
// in line, and answers queries.
func TestPair(t *testing.T) { onServers(t, testPair) }

func testPair(t *testing.T, srv server) {
	for _, kill := range []bool{true, false} {
		t.Run(fmt.Sprintf("killed %v", kill), func(t *testing.T) {
			t.Parallel()
			ctx := bounded(t)
			url := stateURL(ctx, t)
			w := startTwins(ctx, t, srv, url, url)
			w.backend.Set("juliet", contacts("Romeo", "Paris"))
			juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
			wantRoster(ctx, t, juliet, item("Romeo"), item("Paris"))
			if s := pairOf(ctx, t, w.other); s.Role != "standby" || s.Term != 1 || s.Active != strings.TrimSuffix(w.rosterd.RefreshURL(), "/roster_admin/refresh") {
				t.Errorf("%+v", s)
			}
			if s := pairOf(ctx, t, w.rosterd); s.Role != "active" || s.Term != 1 || s.Since.IsZero() {
				t.Errorf("%+v", s)
			}
			if metric(ctx, t, w.other, "rosterd_active") != 0 || metric(ctx, t, w.rosterd, "rosterd_active") != 1 || metric(ctx, t, w.rosterd, "rosterd_takeovers_total") != 1 {
				t.Error("the metrics do not say who is active")
			}
			wantCheck(ctx, t, w.rosterd, "this instance is the active one since ")
			wantCheck(ctx, t, w.other, "this instance stands by, or would")
			w.backend.Set("juliet", contacts("Romeo", "Paris", "Nurse"))
			w.refresh(ctx, t, "juliet")
			wantPushes(ctx, t, juliet, item("Nurse"))
			w.backend.Set("juliet", contacts("Romeo", "Tybalt"))
			began := time.Now()
			if kill {
				w.rosterd.Kill()
			} else {
				w.rosterd.Signal(syscall.SIGTERM)
			}
			w.swap(ctx, t)
			t.Logf("the other one was ready after %v", time.Since(began).Round(time.Millisecond))
			if code, err := w.other.WaitExit(ctx); !kill && code != 0 || err != nil {
				t.Errorf("exit code %d, %v", code, err)
			}
			waitBrought(ctx, t, juliet, item("Tybalt"), removed("Nurse"), removed("Paris"))
			wantRoster(ctx, t, juliet, item("Romeo"), item("Tybalt"))
			if s := pairOf(ctx, t, w.rosterd); s.Role != "active" || s.Term != 2 {
				t.Errorf("%+v", s)
			}
			w.backend.Set("juliet", contacts("Romeo"))
			w.refresh(ctx, t, "juliet")
			wantPushes(ctx, t, juliet, removed("Tybalt"))
		})
	}
}

// A refresh may be sent to either. While nobody is active, it is entered, and done by who is
// next.
func TestPairRefresh(t *testing.T) { onServers(t, testPairRefresh) }

func testPairRefresh(t *testing.T, srv server) {
	ctx := bounded(t)
	url := stateURL(ctx, t)
	w := startTwins(ctx, t, srv, url, url)
	w.backend.Set("juliet", contacts("Romeo"))
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, juliet, item("Romeo"))
	w.backend.Set("juliet", contacts("Romeo", "Nurse"))
	answer, err := w.other.PostRefresh(ctx, `["juliet", "a b@example.org", [], "juliet@elsewhere.example"]`)
	if err != nil || answer.Code != http.StatusOK || answer.Updated != 1 || answer.Errors != 3 || len(answer.Failed) != 3 || answer.Failed["[2]"] == "" {
		t.Errorf("%+v, %v", answer, err)
	}
	wantPushes(ctx, t, juliet, item("Nurse"))
	w.backend.SetFault("juliet", harness.Fault{Status: http.StatusInternalServerError})
	if answer, err = w.other.PostRefresh(ctx, `["juliet"]`); err != nil || answer.Code != http.StatusInternalServerError || answer.Failed["juliet"] == "" {
		t.Errorf("%+v, %v", answer, err)
	}

	// The active one is paused, so that nobody answers, and nobody is active for a while.
	w.backend.ClearFault("juliet")
	w.backend.Set("juliet", contacts("Romeo"))
	w.rosterd.Signal(syscall.SIGSTOP)
	answer, err = w.other.PostRefresh(ctx, `["juliet"]`)
	if err != nil || answer.Code != http.StatusServiceUnavailable || answer.Errors != 1 || !strings.Contains(answer.Message, "as soon as") {
		t.Errorf("%+v, %v", answer, err)
	}
	w.rosterd.Kill()
	w.swap(ctx, t)
	waitBrought(ctx, t, juliet, removed("Nurse"))
	wantRoster(ctx, t, juliet, item("Romeo"))
}

// The active one does not answer the other one, but is there: it does what that one enters, while
// it is active.
func TestPairEntered(t *testing.T) { onServers(t, testPairEntered) }

func testPairEntered(t *testing.T, srv server) {
	ctx := bounded(t)
	url := stateURL(ctx, t)
	w := start(t, setup{server: srv, own: true, settings: map[string]any{"state.url": url, "refresh.advertise": "http://" + freeport.Of(t)}})
	both := w.twin(ctx, t, map[string]any{"refresh.advertise": nil})
	w.backend.Set("juliet", contacts("Romeo"))
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, juliet, item("Romeo"))
	w.backend.Set("juliet", contacts("Romeo", "Nurse"))
	answer, err := both.other.PostRefresh(ctx, `["juliet"]`)
	if err != nil || answer.Code != http.StatusServiceUnavailable || answer.Errors != 1 || !strings.Contains(answer.Message, "as soon as") {
		t.Errorf("%+v, %v", answer, err)
	}
	wantPushes(ctx, t, juliet, item("Nurse"))
	if s := pairOf(ctx, t, w.rosterd); s.Role != "active" || s.Term != 1 {
		t.Errorf("%+v", s)
	}
}

// waitServed waits until roster queries are answered: ejabberd takes the delegation away with
// the instance that leaves, and the other one connects anew when it has noticed that. Meanwhile
// there is nobody to ask (service-unavailable), or nobody who is known yet (internal-server-error).
func waitServed(ctx context.Context, t *testing.T, client harness.Client) {
	t.Helper()
	for {
		_, err := client.Roster(ctx)
		if err == nil || errors.Is(err, harness.ErrUnchanged) {
			return
		}
		var refused *harness.StanzaError
		if !errors.As(err, &refused) || refused.Condition != "service-unavailable" && refused.Condition != "internal-server-error" {
			t.Fatal(err)
		}
	}
}

// The active one is paused for longer than it may be: the other one takes over. When it goes
// on, it tells nobody anything, and ends.
func TestPairPaused(t *testing.T) { onServers(t, testPairPaused) }

func testPairPaused(t *testing.T, srv server) {
	ctx := bounded(t)
	first, relay := behindRelay(t, setup{server: srv, own: true, settings: map[string]any{"state.url": stateURL(ctx, t)}})
	first.connect(ctx, t)
	w := first.twin(ctx, t, map[string]any{"xmpp.address": first.server.ComponentAddress()})
	w.backend.Set("juliet", contacts("Romeo"))
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, juliet, item("Romeo"))
	w.rosterd.Signal(syscall.SIGSTOP)
	if err := w.other.WaitLog(ctx, "this instance is the active one"); err != nil {
		t.Fatal(err)
	}
	w.backend.Set("juliet", contacts("Romeo", "Nurse"))
	// What it is asked meanwhile waits for it.
	before, asked := relay.Passed()
	n := 0
	poll(ctx, t, func() bool {
		send(t, juliet, fmt.Sprintf("<iq type='get' id='paused%d' to='%s'><ping xmlns='urn:xmpp:ping'/></iq>", n, w.server.Options().Component))
		n++
		_, now := relay.Passed()
		return now != asked
	}, func() string { return "nothing that rosterd is asked passes the relay" })
	w.rosterd.Signal(syscall.SIGCONT)
	if code, err := w.rosterd.WaitExit(ctx); code != 1 || err != nil || !strings.Contains(w.rosterd.Log(), "another instance has become the active one") {
		t.Errorf("exit code %d, %v", code, err)
	}
	if after, _ := relay.Passed(); after != before {
		t.Errorf("it has sent %d bytes", after-before)
	}
	w.swap(ctx, t)
	waitBrought(ctx, t, juliet, item("Nurse"))
	waitServed(ctx, t, juliet)
	wantRoster(ctx, t, juliet, item("Romeo"), item("Nurse"))
	w.backend.Set("juliet", contacts("Nurse"))
	w.refresh(ctx, t, "juliet")
	waitBrought(ctx, t, juliet, removed("Romeo"))
}

// What waits for an instance that was paused is not answered for when it wakes up, and another
// one is active.
func TestPairWoken(t *testing.T) {
	t.Parallel()
	for _, call := range []string{"", "?all=example.org"} {
		t.Run(call, func(t *testing.T) {
			t.Parallel()
			ctx := bounded(t)
			w := start(t, setup{server: prosody, own: true, settings: map[string]any{"state.url": stateURL(ctx, t), "xmpp.server_roster": "off"}})
			both := w.twin(ctx, t, nil)
			w.rosterd.Signal(syscall.SIGSTOP)
			if err := both.other.WaitLog(ctx, "this instance is the active one"); err != nil {
				t.Fatal(err)
			}
			at, err := url.Parse(w.rosterd.RefreshURL() + call)
			if err != nil {
				t.Fatal(err)
			}
			conn, err := net.Dial("tcp", at.Host)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			context.AfterFunc(ctx, func() { conn.Close() })
			body := `["juliet"]`
			if call != "" {
				body = ""
			}
			fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", at.RequestURI(), at.Host, len(body), body)
			w.rosterd.Signal(syscall.SIGCONT)
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil { // no answer: to be repeated, too
				return
			}
			defer resp.Body.Close()
			var answer struct{ Retry bool }
			if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || resp.StatusCode != http.StatusServiceUnavailable || !answer.Retry {
				t.Errorf("answered %d, %+v, %v", resp.StatusCode, answer, err)
			}
		})
	}
}

// The database is away: the active one goes on from memory, and stays active. What it told
// is written when the database is back.
func TestPairWithoutDatabase(t *testing.T) { onServers(t, testPairWithoutDatabase) }

func testPairWithoutDatabase(t *testing.T, srv server) {
	ctx := bounded(t)
	database, err := pgserver.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { database.Close() })
	w := startTwins(ctx, t, srv, database.URL(), database.URL())
	w.backend.Set("juliet", contacts("Romeo"))
	w.backend.Set("mercutio", contacts("Romeo"))
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, juliet, item("Romeo"))
	if err := database.Kill(); err != nil {
		t.Fatal(err)
	}
	w.backend.Set("juliet", contacts("Romeo", "Nurse"))
	w.refresh(ctx, t, "juliet")
	wantPushes(ctx, t, juliet, item("Nurse"))
	mercutio := w.login(ctx, t, gosrc, "mercutio@example.org/street")
	wantRoster(ctx, t, mercutio, item("Romeo"))
	poll(ctx, t, func() bool { s := pairOf(ctx, t, w.rosterd); return s.Role == "active" && s.Error != "" }, func() string { return "the active one does not say that the database is away" })
	waitReadyz(ctx, t, w.other, http.StatusServiceUnavailable, "standby, but it cannot take over")
	waitReadyz(ctx, t, w.rosterd, http.StatusOK, "database")
	if answer, err := w.other.PostRefresh(ctx, `["juliet"]`); err != nil || answer.Code != http.StatusServiceUnavailable || !strings.Contains(answer.Message, "try again") {
		t.Errorf("%+v, %v", answer, err)
	}
	if err := database.Resume(); err != nil {
		t.Fatal(err)
	}
	// Whoever has the lock now serves. The other one is told by the lock alone.
	select {
	case <-w.rosterd.Done():
		t.Log("the other one was faster")
		w.swap(ctx, t)
	case <-func() chan struct{} {
		c := make(chan struct{})
		go func() {
			defer close(c)
			_ = w.rosterd.WaitLog(ctx, "this instance is the active one still")
		}()
		return c
	}():
		if err := w.other.WaitStandby(ctx); err != nil {
			t.Fatal(err)
		}
		if err := w.rosterd.WaitWritten(ctx); err != nil {
			t.Fatal(err)
		}
		w.backend.Set("juliet", contacts("Romeo"))
		w.backend.Set("mercutio", contacts("Romeo", "Nurse"))
		w.rosterd.Kill()
		w.swap(ctx, t)
		waitBrought(ctx, t, juliet, removed("Nurse"))
		waitBrought(ctx, t, mercutio, item("Nurse"))
	}
	w.backend.Set("juliet", contacts("Paris"))
	w.refresh(ctx, t, "juliet")
	waitBrought(ctx, t, juliet, item("Paris"))
	wantRoster(ctx, t, juliet, item("Paris"))
}

// The active one is cut off from the database: the other one takes over, tells it, and it
// closes its stream and ends.
func TestPairCut(t *testing.T) { onServers(t, testPairCut) }

func testPairCut(t *testing.T, srv server) {
	for _, how := range []string{"broken", "silent"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			ctx := bounded(t)
			s, name := newDatabase(ctx, t)
			relay, err := harness.StartRelay(s.Address())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(relay.Close)
			w := startTwins(ctx, t, srv, s.At(relay.Address(), name), s.At(s.Address(), name))
			w.backend.Set("juliet", contacts("Romeo"))
			juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
			wantRoster(ctx, t, juliet, item("Romeo"))
			if how == "silent" {
				relay.Stall()
			} else {
				relay.Refuse()
				relay.Cut()
			}
			if code, err := w.rosterd.WaitExit(ctx); code != 1 || err != nil || strings.Contains(w.rosterd.Log(), "was paused") {
				t.Errorf("exit code %d, %v:\n%s", code, err, w.rosterd.Log())
			}
			w.backend.Set("juliet", contacts("Romeo", "Nurse"))
			w.swap(ctx, t)
			w.refresh(ctx, t, "juliet")
			waitBrought(ctx, t, juliet, item("Nurse"))
			wantRoster(ctx, t, juliet, item("Romeo"), item("Nurse"))
		})
	}
}

// The active one is cut off from the database and from the other one, and goes on. When it is
// reached, it hands over what it told meanwhile, and nobody keeps what is no more.
func TestPairCutFromBoth(t *testing.T) { onServers(t, testPairCutFromBoth) }

func testPairCutFromBoth(t *testing.T, srv server) {
	ctx := bounded(t)
	s, name := newDatabase(ctx, t)
	listen := freeport.Of(t)
	var database, peer *harness.Relay
	for target, relay := range map[string]**harness.Relay{s.Address(): &database, listen: &peer} {
		var err error
		if *relay, err = harness.StartRelay(target); err != nil {
			t.Fatal(err)
		}
		t.Cleanup((*relay).Close)
	}
	w := start(t, setup{server: srv, own: true, settings: map[string]any{
		"state.url": s.At(database.Address(), name), "refresh.listen": listen, "refresh.advertise": "http://" + peer.Address()}})
	both := w.twin(ctx, t, map[string]any{"state.url": s.At(s.Address(), name), "refresh.listen": freeport.Of(t), "refresh.advertise": nil})
	peer.Refuse()
	database.Refuse()
	database.Cut()
	w.backend.Set("mercutio", contacts("Romeo", "Paris"))
	mercutio := w.login(ctx, t, gosrc, "mercutio@example.org/street")
	wantRoster(ctx, t, mercutio, item("Romeo"), item("Paris"))
	if err := both.other.WaitLog(ctx, "this instance is the active one"); err != nil {
		t.Fatal(err)
	}
	w.backend.Set("mercutio", contacts("Romeo"))
	if err := peer.Accept(); err != nil {
		t.Fatal(err)
	}
	if code, err := w.rosterd.WaitExit(ctx); code != 1 || err != nil {
		t.Errorf("exit code %d, %v:\n%s", code, err, w.rosterd.Log())
	}
	both.swap(ctx, t)
	waitBrought(ctx, t, mercutio, removed("Paris"))
	waitServed(ctx, t, mercutio)
	wantRoster(ctx, t, mercutio, item("Romeo"))
}
