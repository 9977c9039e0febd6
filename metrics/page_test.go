package metrics

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rosterd/internal/bubble"
)

// newPage is a page of a registry, and the handler that serves it.
func newPage(t *testing.T, registry *prometheus.Registry, overview Overview) Page {
	t.Helper()
	history := NewHistory(registry)
	t.Cleanup(history.Close)
	return Page{Overview: func() Overview { return overview }, History: history, Events: new(Events)}
}

func TestPage(t *testing.T) {
	o := Overview{Version: "1.2", Commit: "abc", Started: time.Now().Add(-3 * time.Hour), Connected: true, Domain: "contacts.example.org", Address: "localhost:5347",
		State: "/var/lib/rosterd/state.db", Hosts: []HostOverview{{Host: "example.org", Software: "Prosody <0.12>", Level: "warn", Ways: []string{"roster queries are delegated"},
			Lacks: []Lack{{Text: "no pushes <script>", Lines: []string{`privileged_entities = { ["x"] }`}}}}},
		Backends: []Backend{{Name: "backend:80"}}, Users: []Count{{"held by the removal guard", 17}},
		ServerRosters: []RosterProgress{{Host: "example.org", Waiting: 12, Busy: .2}}}
	page := newPage(t, prometheus.NewRegistry(), o)
	slog.New(page.Events.Handler(slog.NewTextHandler(io.Discard, nil))).Info("roster queries arrive", "host", "example.org")
	h := Handler(prometheus.NewRegistry(), nil, nil, page)
	code, body := get(t, h, "GET", "/")
	if code != 200 {
		t.Fatalf("%d %s", code, body)
	}
	for _, want := range []string{"Version 1.2 (abc)", "up for 3 h 0 min", "Everything works.", "roster queries are delegated", "example.org <small>Prosody &lt;0.12&gt;</small>", "no pushes &lt;script&gt;",
		"privileged_entities", "backend:80", "held by the removal guard</th><td class=\"number\">17", "20 %", "roster queries arrive <small>host=example.org"} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for path, kind := range map[string]string{"/page.css": "--ink", "/page.js": "setInterval"} {
		if code, body := get(t, h, "GET", path); code != 200 || !strings.Contains(body, kind) {
			t.Errorf("%s: %d %.80q", path, code, body)
		}
	}
	if code, _ := get(t, h, "POST", "/"); code != 405 {
		t.Errorf("POST /: %d", code)
	}
}

// What is wrong stands first, in words, and not that everything works.
func TestPageTrouble(t *testing.T) {
	for want, o := range map[string]Overview{
		"Not connected to the XMPP server: conflict":                {Reason: "conflict"},
		"Users of example.org get no roster":                        {Connected: true, Hosts: []HostOverview{{Host: "example.org", Level: "bad"}}},
		"The backend b:80 is down: timed out":                       {Connected: true, Backends: []Backend{{Name: "b:80", Down: true, LastError: "timed out"}}},
		"The server&#39;s own rosters of example.org: unauthorized": {Connected: true, ServerRosters: []RosterProgress{{Host: "example.org", Error: "unauthorized"}}},
		"The state is not written: disk full":                       {Connected: true, StateError: "disk full"},
	} {
		_, body := get(t, Handler(prometheus.NewRegistry(), nil, nil, newPage(t, prometheus.NewRegistry(), o)), "GET", "/")
		if !strings.Contains(body, want) || strings.Contains(body, "Everything works") {
			t.Errorf("want %q: %s", want, body)
		}
	}
	_, body := get(t, Handler(prometheus.NewRegistry(), nil, nil, newPage(t, prometheus.NewRegistry(), Overview{Role: "standby"})), "GET", "/")
	if !strings.Contains(body, "Standing by") || strings.Contains(body, "Not connected") {
		t.Errorf("a standby: %s", body)
	}
}

func TestEvents(t *testing.T) {
	events := new(Events)
	log := slog.New(events.Handler(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError})))
	log.Debug("too low", "host", "example.org")
	log.Warn("the removal guard", "user", "juliet@example.org", "removed", 9, "err", errors.New("romeo@example.org"))
	log.With("host", "example.org").Info("a stream", "err", errors.New("conflict"), "secret", "x")
	log.WithGroup("g").Info(strings.Repeat("m", 10), "why", strings.Repeat("ü", maxEventText))
	recent := events.Recent()
	if len(recent) != 3 {
		t.Fatalf("%d events", len(recent))
	}
	if got := recent[1].Details; got != "host=example.org err=conflict" {
		t.Errorf("%q", got)
	}
	if got := recent[2]; got.Details != "removed=9" || got.Level != slog.LevelWarn {
		t.Errorf("%+v: a user is named", got)
	}
	if got := recent[0].Details; len(got) > maxEventText+10 {
		t.Errorf("%d bytes of details", len(got))
	}
	for i := range 3 * maxEvents {
		log.Info(fmt.Sprint(i))
	}
	if recent = events.Recent(); len(recent) != maxEvents || recent[0].Message != fmt.Sprint(3*maxEvents-1) || recent[maxEvents-1].Message != fmt.Sprint(2*maxEvents) {
		t.Errorf("%d events, from %q to %q", len(recent), recent[0].Message, recent[len(recent)-1].Message)
	}
}

func TestHistory(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		m, sessions := New(registry), 5
		RegisterSessions(registry, func() (int, int) { return sessions, 2 })
		h := NewHistory(registry)
		defer h.Close()
		m.Queries.WithLabelValues("ok").Add(20)
		m.Queries.WithLabelValues("error").Add(10)
		m.ServerRosterItems.WithLabelValues("written").Add(50)
		m.ServerRosterItems.WithLabelValues("failed").Add(500)
		time.Sleep(sampleEvery)
		synctest.Wait()
		for title, want := range map[string]string{"Connected resources": "5", "Roster queries": "3/s", "Items written to the server's own rosters": "5/s"} {
			found := false
			for i := range series {
				if series[i].title == title {
					found = true
					if c := h.chart(i, time.Now()); c.Now != want || c.Line == "" {
						t.Errorf("%s: %+v, want %s", title, c, want)
					}
				}
			}
			if !found {
				t.Errorf("no series %s", title)
			}
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if points := h.points(0); len(points) != maxSamples {
			t.Errorf("%d points", len(points))
		}
	})
}
