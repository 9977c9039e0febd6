package chaos

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"rosterd/e2e/harness"
	"rosterd/internal/leak"
)

// rosterd is killed while it refreshes many users. Nobody reports them again,
// nobody logs in again: each client gets what has changed all the same, and no
// client loses a contact.
//
// It goes before all that runs in parallel: with a thousand clients, as in make
// chaos, there is no time for anything else.
func TestKillUnderRefresh(t *testing.T) {
	moments, fake, n := []int{300}, 300, 100 // with more users, Prosody takes its time
	if *full {
		moments, fake, n = []int{1, 300, 1000, 1900}, 1000, 1000
	}
	for _, kind := range []Kind{LikeProsody, LikeEjabberd} {
		for _, pushes := range moments {
			t.Run(fmt.Sprintf("%s after %d pushes", kind, pushes), func(t *testing.T) {
				leak.Check(t)
				killUnderRefresh(t, Options{Kind: kind}, fake, pushes)
			})
		}
	}
	t.Run("prosody", func(t *testing.T) {
		harness.Require(t.Context(), t)
		leak.Check(t)
		accounts := map[string]string{}
		for _, user := range thousand(n) {
			accounts[user] = password
		}
		server, err := harness.StartProsody(t.Context(), harness.ProsodyOptions{ServerOptions: harness.ServerOptions{
			Host: host, Component: component, Secret: secret, Users: accounts, OwnRosters: true}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(server.Close)
		killUnderRefresh(t, Options{Kind: Prosody, Server: server}, n, n)
	})
}

func thousand(n int) []string {
	users := make([]string, n)
	for i := range users {
		users[i] = fmt.Sprint("u", i)
	}
	return users
}

// killUnderRefresh refreshes n users, each with two changes, and kills rosterd
// after a number of pushes.
func killUnderRefresh(t *testing.T, o Options, n, pushes int) {
	o.Seed, o.Binary, o.Logs = 1, built(t), *logs
	p := &plan{users: thousand(n), contacts: map[string]int{}, tracks: map[string][]step{},
		settings: map[string]any{"contacts.timeout": "10s"}} // the backend's share of a busy machine
	for _, user := range p.users {
		p.contacts[user] = 5
		p.devices = append(p.devices, place{user, "phone"})
	}
	p.tracks["refresh"] = []step{
		{what: "all log in", whenUp: true, do: func(_ context.Context, w *world) {
			for _, d := range w.devices {
				d.order(order{online: true})
			}
		}},
		{what: "all are in line", do: awaitLine},
		{what: "all change", do: func(ctx context.Context, w *world) {
			for _, user := range p.users {
				w.truth.change(user, func(a *account) string {
					delete(a.now, "c0@example.org")
					a.put(user, "new@example.org", chance(1, user))
					return ""
				})
			}
			// Once: the answer, if there is one, is nobody's business here.
			answered := make(chan struct{})
			go func() {
				defer close(answered)
				_, _ = w.daemon.current().PostRefresh(ctx, `["`+strings.Join(p.users, `","`)+`"]`)
			}()
			w.moments.wait(ctx, clientPushed, pushes, time.Minute)
			w.daemon.kill()
			w.toServer.Cut()
			<-answered
			if err := w.daemon.start(); err != nil {
				w.journal.violation("%v", err)
			}
		}},
	}
	o.plan = p
	report, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range report.Violations {
		t.Error(v)
	}
	if len(report.Violations) > 0 {
		t.Logf("log: %s", report.Log)
	}
	t.Logf("%d pushes to %d clients, in line %v after the kill", report.Figures.Pushes, n, report.Figures.Slowest.Round(time.Millisecond))
	if report.Figures.Pushes < 2*n {
		t.Errorf("%d pushes, want %d at least", report.Figures.Pushes, 2*n)
	}
	if logins := report.Figures.Logins; logins != n {
		t.Errorf("%d logins, want one of each client", logins)
	}
}

// awaitLine waits until all clients are in line, or something is wrong: on a busy machine it
// takes as long as it takes, if only fewer are late each time.
func awaitLine(ctx context.Context, w *world) {
	before := math.MaxInt // late when the last limit ended
	for limit := time.Now().Add(patience); len(w.late(ctx, 1)) > 0 && len(w.journal.broken()) == 0 && ctx.Err() == nil; sleep(ctx, 20*time.Millisecond) {
		if time.Now().Before(limit) {
			continue
		}
		late := w.late(ctx, before)
		if len(late) > 0 && len(late) >= before {
			w.journal.violation("not in line to begin with: %s", late[0])
			return
		}
		before, limit = len(late), time.Now().Add(patience)
	}
}
