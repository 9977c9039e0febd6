package refresh

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"rosterd/internal/testcert"
	"rosterd/jid"
)

// standby has a handler pass refreshes on by way of a peer, to a URL.
func standby(t *testing.T, token string, url func() string) func(*Options) {
	return func(o *Options) {
		peer := NewPeer(func() string { return token }, nil)
		t.Cleanup(peer.Close)
		o.Pass = func(ctx context.Context, users []jid.JID, passed, async bool) (Answer, bool) {
			if passed {
				return Unavailable("passed twice", len(users), false), true
			}
			a, err := peer.Pass(ctx, url(), users, o.MaxBytes, async)
			if err != nil {
				return Unavailable(err.Error(), len(users), false), true
			}
			return a, true
		}
		o.PassAll = func(ctx context.Context, domain string, passed bool) (Answer, bool) {
			if passed {
				return Unavailable("passed twice", 0, true), true
			}
			a, err := peer.PassAll(ctx, url(), domain)
			if err != nil {
				return Unavailable(err.Error(), 0, true), true
			}
			return a, true
		}
	}
}

// What the one that stands by is asked is done by the active one, in several requests if it
// has to, and the answer is as from there, with the names that the caller knows.
func TestPassed(t *testing.T) {
	active := start(t, func(o *Options) { o.Tokens = NewTokens("old", "t0ken") })
	active.failed = map[string]error{"juliet@example.org": fmt.Errorf("no route"), "paris@example.org": fmt.Errorf("no route")}
	other := start(t, standby(t, "t0ken", func() string { return active.url + "/" }))
	for _, test := range []struct {
		body            string
		code            int
		updated, errors int
		failed          []string
	}{
		{`["romeo"]`, 200, 1, 0, nil},
		{`["romeo","juliet",[],"x y@example.org"]`, 200, 1, 3, []string{"[2]", "juliet", "x y@example.org"}},
		{`["juliet@EXAMPLE.org","paris"]`, 500, 0, 2, []string{"juliet@EXAMPLE.org", "paris"}},
		{`[[]]`, 500, 0, 1, []string{"[0]"}},
		{`[]`, 200, 0, 0, nil},
	} {
		a := other.post(test.body)
		var failed []string
		for name := range a.Failed {
			failed = append(failed, name)
		}
		if slices.Sort(failed); a.code != test.code || a.Updated != test.updated || a.Errors != test.errors || !slices.Equal(failed, test.failed) {
			t.Errorf("%s: %+v", test.body, a)
		}
	}
	var many []string
	for n := range 300 { // more than 1000 bytes, in two requests here
		many = append(many, fmt.Sprintf("%d", n))
	}
	for half := range 2 {
		other.post("[" + strings.Join(many[150*half:150*half+150], ",") + "]")
	}
	if asked := strings.Join(active.asked, " "); !strings.Contains(asked, " 0@example.org 1@example.org") || !strings.Contains(asked, "299@example.org") {
		t.Errorf("asked for %.200s", asked)
	}
	if len(other.asked) > 0 {
		t.Errorf("the one that stands by did it itself: %q", other.asked)
	}
}

// That all of a domain are to be refreshed is passed on as it was asked, and answered as by the
// active one.
func TestAllPassed(t *testing.T) {
	hosts := func(o *Options) { o.Hosts = []string{"example.org", "b\u00FCcher.example"} }
	active := start(t, hosts, func(o *Options) { o.Tokens = NewTokens("t0ken") })
	other := start(t, hosts, standby(t, "t0ken", func() string { return active.url }))
	for _, domain := range []string{"example.org", "b\u00FCcher.example"} {
		code, a, _ := other.ask("POST", Path+"?all="+url.QueryEscape(domain), "")
		if code != http.StatusAccepted || a.Accepted != 3 || a.Status != "ok" || a.Retry {
			t.Errorf("%s: %d %+v", domain, code, a)
		}
	}
	if want := []string{"example.org", "b\u00FCcher.example"}; !slices.Equal(active.later, want) || len(other.later) > 0 {
		t.Errorf("refreshed %q, and %q by the one that stands by", active.later, other.later)
	}
	if code, a, _ := other.ask("POST", Path+"?all=example.net", ""); code != http.StatusBadRequest || a.Retry {
		t.Errorf("a foreign domain: %d %+v", code, a)
	}
	stranger := start(t, hosts, standby(t, "wrong", func() string { return active.url }))
	if code, a, _ := stranger.ask("POST", Path+"?all=example.org", ""); code != http.StatusServiceUnavailable || !a.Retry {
		t.Errorf("without the token: %d %+v", code, a)
	}
	// Who was passed it and stands by, too, does not pass it back.
	var second *rig
	first := start(t, standby(t, "", func() string { return second.url }))
	second = start(t, standby(t, "", func() string { return first.url }))
	if code, a, _ := first.ask("POST", Path+"?all=example.org", ""); code != http.StatusServiceUnavailable || a.Message != "passed twice" || !a.Retry {
		t.Errorf("in a circle: %d %+v", code, a)
	}
}

// An answer that does not say what became of the users is none.
func TestNotPassed(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"refused": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"status":"error"}`)
		},
		"no JSON":   func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") },
		"another":   func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") },
		"elsewhere": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", http.StatusFound) },
		"cut":       func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(answer)
			defer server.Close()
			other := start(t, standby(t, "", func() string { return server.URL }))
			if a := other.post(`["romeo"]`); a.code != http.StatusServiceUnavailable || a.Errors != 1 {
				t.Errorf("%+v", a)
			}
		})
	}
	// A circle of two ends at the second.
	var second *rig
	first := start(t, standby(t, "", func() string { return second.url }))
	second = start(t, standby(t, "", func() string { return first.url }))
	if a := first.post(`["romeo"]`); a.code != http.StatusServiceUnavailable || a.Message != "passed twice" {
		t.Errorf("%+v", a)
	}
}

// The instance that was active is told, by who has the token, and says what it leaves.
func TestTold(t *testing.T) {
	var terms []int64
	active := start(t, func(o *Options) {
		o.Tokens = NewTokens("t0ken")
		o.Told = func(_ context.Context, term int64) Left {
			terms = append(terms, term)
			return Left{Unwritten: []byte("all")}
		}
	})
	for token, want := range map[string]string{"t0ken": "all", "wrong": ""} {
		peer := NewPeer(func() string { return token }, nil)
		left, err := peer.Tell(t.Context(), active.url, 7)
		if string(left.Unwritten) != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", token, left.Unwritten, err)
		}
		peer.Close()
	}
	if len(terms) != 1 || terms[0] != 7 {
		t.Errorf("told %v", terms)
	}
	alone := start(t)
	peer := NewPeer(NewTokens().First, nil)
	defer peer.Close()
	if _, err := peer.Tell(t.Context(), alone.url, 7); err == nil {
		t.Error("an instance without another was told")
	}
}

// With TLS, instances show each other the endpoint's certificate, and trust each other's: those
// that are in the files when they connect.
func TestPassedWithTLS(t *testing.T) {
	f := newFiles(t)
	issue := func() {
		authority := testcert.New(t, "authority")
		f.pair(authority.Issue(t, "127.0.0.1", tomorrow()))
		f.write(f.clientCA, authority.PEM)
	}
	issue()
	certificates, err := LoadCertificates(f.cert, f.key, f.clientCA, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	certificates.every = 0
	peer := NewPeer(NewTokens().First, certificates)
	r := &rig{refresher: &refresher{}}
	r.codes = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "codes"}, []string{"code"})
	r.users = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "users"}, []string{"result"})
	server := httptest.NewUnstartedServer(Handler(Options{Hosts: []string{"example.org"}, MaxBytes: 1000, Certificates: certificates,
		Logger: slog.New(slog.DiscardHandler), Requests: r.codes, Users: r.users}, r.refresher))
	server.TLS = certificates.config()
	server.StartTLS()
	defer server.Close()
	user, _ := jid.Parse("romeo@example.org")
	for n := range 2 {
		if a, err := peer.Pass(t.Context(), server.URL, []jid.JID{user}, 1000, false); err != nil || a.Updated != 1 {
			t.Errorf("%d: %+v, %v", n, a, err)
		}
		issue()
		peer.Close() // it connects anew
	}
}

// post refreshes users.
func (r *rig) post(body string) Answer {
	r.t.Helper()
	code, a, _ := r.ask("POST", Path, body)
	a.code = code
	return a
}
