// Package examples tests the example backends: each is started as a developer
// would start it, and asked by rosterd's own fetcher.
package examples

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rosterd/fetcher"
	"rosterd/internal/freeport"
	"rosterd/jid"
	"rosterd/metrics"
	"rosterd/roster"
)

func TestGo(t *testing.T) {
	program := filepath.Join(t.TempDir(), "backend")
	if out, err := exec.Command("go", "build", "-o", program, "./backend").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	listen := freeport.Of(t)
	start(t, listen, exec.Command(program, "-listen", listen))
	serves(t, "http://"+listen)
}

func TestPython(t *testing.T) {
	listen := freeport.Of(t)
	start(t, listen, python(t, "LISTEN="+listen))
	serves(t, "http://"+listen)
}

// A change is reported when it can be fetched.
func TestPythonReports(t *testing.T) {
	listen := freeport.Of(t)
	rosterd, reported := takesReports(t, listen)
	defer rosterd.Close()
	start(t, listen, python(t, "LISTEN="+listen, "REFRESH="+rosterd.URL+"/roster_admin/refresh", "TOKEN=x"))
	change, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+listen+"/contacts/juliet", strings.NewReader(`{"nurse@example.org": {}}`))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(change)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	const want = `POST /roster_admin/refresh Bearer x ["juliet"] {"nurse@example.org": {}}`
	if got := <-reported; got != want || answer.StatusCode != 200 {
		t.Errorf("%d, reported %s, want %s", answer.StatusCode, got, want)
	}
}

// takesReports is a rosterd, and what is reported to it: the request, and what the backend
// has for juliet by then.
func takesReports(t *testing.T, backend string) (rosterd *httptest.Server, reported <-chan string) {
	reports := make(chan string, 10)
	rosterd = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		answer, err := http.Get("http://" + backend + "/contacts/juliet")
		if err != nil {
			t.Error(err)
			return
		}
		defer answer.Body.Close()
		contacts, _ := io.ReadAll(answer.Body)
		reports <- r.Method + " " + r.URL.Path + " " + r.Header.Get("Authorization") + " " + string(body) + " " + string(contacts)
		io.WriteString(w, `{"status": "ok", "message": "", "updated": 1, "errors": 0, "retry": false}`)
	}))
	return rosterd, reports
}

// python is the example in Python.
func python(t *testing.T, env ...string) *exec.Cmd {
	t.Helper()
	program, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3")
	}
	c := exec.Command(program, "backend.py")
	c.Env = append(os.Environ(), env...)
	return c
}

// start runs a backend until the end of the test.
func start(t *testing.T, listen string, c *exec.Cmd) {
	t.Helper()
	var out strings.Builder
	c.Stdout, c.Stderr = &out, &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		if t.Failed() {
			t.Log(out.String())
		}
	})
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", listen)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// serves wants what rosterd makes use of: contacts, 304, many users at once, edits.
func serves(t *testing.T, backend string) {
	t.Helper()
	f := newFetcher(t, backend, fetcher.Options{
		BulkURL:  func(string) (string, bool) { return backend + "/bulk", true },
		EditURL:  func(string) (string, bool) { return backend + "/edit", true },
		BulkSize: 10, Timeout: 30 * time.Second,
	})
	juliet, romeo, stranger := mustParse("juliet@example.org"), mustParse("romeo@example.org"), mustParse("stranger@example.org")

	first, err := f.Fetch(t.Context(), roster.Request{User: juliet, Hurry: true})
	if err != nil || first.Validator == "" {
		t.Fatal(first, err)
	}
	if i := first.Roster.Lookup([]jid.JID{romeo})[0]; i.JID != romeo || i.Name != "Romeo" || len(i.Groups) != 1 || i.Subscription != roster.SubscriptionBoth {
		t.Errorf("the contact is %+v", i)
	}
	again, err := f.Fetch(t.Context(), roster.Request{User: juliet, Hurry: true, Validator: first.Validator})
	if err != nil || again.Roster != nil || again.Validator != first.Validator {
		t.Errorf("again: %+v, %v", again, err)
	}
	if _, err := f.Fetch(t.Context(), roster.Request{User: stranger, Hurry: true}); err == nil {
		t.Error("somebody unknown has a roster")
	}
	for user, found := range map[jid.JID]bool{juliet: true, romeo: true, stranger: false} {
		if i, ok := f.InspectBulk(t.Context(), user); !ok || i.Err != nil || i.Missing == found || found && i.Items != 1 {
			t.Errorf("%s in bulk: %+v", user, i)
		}
	}
	var wg sync.WaitGroup
	for range 20 {
		for user, known := range map[jid.JID]bool{juliet: true, romeo: true, stranger: false} {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if got, err := f.Fetch(ctx, roster.Request{User: user}); (err == nil) != known || known && got.Roster.Len() != 1 {
					t.Errorf("%s at once: %+v, %v", user, got, err)
				}
			})
		}
	}
	wg.Wait()

	for _, c := range []struct {
		action roster.Action
		name   string
		groups []string
	}{
		{roster.Added, "Nurse", []string{"A", "B"}}, {roster.Changed, "N", nil}, {roster.Removed, "", nil}, {roster.Removed, "", nil},
	} {
		item := roster.Item{JID: mustParse("nurse@example.org"), Name: c.name, Groups: c.groups, Subscription: roster.SubscriptionBoth}
		if err := f.Edit(t.Context(), juliet, roster.Change{Action: c.action, Item: item}); err != nil {
			t.Errorf("%s: %v", c.action, err)
		}
		got, err := f.Fetch(t.Context(), roster.Request{User: juliet, Hurry: true})
		if err != nil {
			t.Fatal(err)
		}
		if now, there := got.Roster.Item(item.JID); there != (c.action != roster.Removed) || there && !now.Equal(item) || got.Roster.Len() < 1 {
			t.Errorf("%s: %+v", c.action, now)
		}
	}
	err = f.Edit(t.Context(), stranger, roster.Change{Action: roster.Added, Item: roster.Item{JID: romeo}})
	if refused, ok := errors.AsType[*roster.NotAllowedError](err); !ok || refused.Message == "" {
		t.Errorf("an edit of somebody unknown: %v", err)
	}
}

// newFetcher is a fetcher of contacts of a backend, until the end of the test.
func newFetcher(t *testing.T, backend string, o fetcher.Options) *fetcher.Fetcher {
	t.Helper()
	m := metrics.New(prometheus.NewRegistry())
	o.URL = func(user jid.JID) (string, error) { return backend + "/contacts/" + user.Local(), nil }
	o.MaxInFlight, o.MaxBytes, o.Logger = 4, 1<<20, slog.New(slog.DiscardHandler)
	o.Metrics = fetcher.Metrics{Fetches: m.Fetches, Duration: m.FetchDuration, InFlight: m.FetchInFlight, Skipped: m.ItemsSkipped, Ignored: m.FieldsIgnored,
		CircuitsOpen: m.CircuitsOpen, BulkFetches: m.BulkFetches}
	f := fetcher.New(o)
	t.Cleanup(f.Close)
	return f
}

func mustParse(s string) jid.JID {
	j, err := jid.Parse(s)
	if err != nil {
		panic(err)
	}
	return j
}
