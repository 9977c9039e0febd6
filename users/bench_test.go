package users

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"rosterd/jid"
	"rosterd/roster"
	"rosterd/session"
)

// listOf is a roster as a backend may have it; item 0 has a name of its own.
func listOf(b testing.TB, n int, name string) []roster.Item {
	list := make([]roster.Item, n)
	for i := range list {
		list[i] = roster.Item{JID: mustJID(b, fmt.Sprintf("contact%05d@example.org", i)), Name: fmt.Sprintf("Contact Number %d", i), Subscription: roster.SubscriptionBoth, Groups: []string{"Class 7b"}}
	}
	list[n/2].Name = name
	return list
}

func BenchmarkNew(b *testing.B) {
	for _, n := range []int{200, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			list := listOf(b, n, "x")
			b.ReportAllocs()
			for b.Loop() {
				roster.New(list)
			}
		})
	}
}

func BenchmarkDiff(b *testing.B) {
	for _, n := range []int{200, 10_000} {
		x, y := roster.New(listOf(b, n, "x")), roster.New(listOf(b, n, "y"))
		b.Run(fmt.Sprintf("%d one changed", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				roster.Diff(x, y)
			}
		})
		b.Run(fmt.Sprintf("%d same", n), func(b *testing.B) {
			same := roster.New(listOf(b, n, "x"))
			b.ReportAllocs()
			for b.Loop() {
				roster.Diff(x, same)
			}
		})
	}
}

// What is written before somebody is told something, and what is read when a user comes
// back.
func BenchmarkRecord(b *testing.B) {
	juliet := mustJID(b, "juliet@example.org")
	r := roster.New(listOf(b, 200, "x"))
	u := &user{jid: juliet, state: state{last: r, told: map[jid.JID]told{mustJID(b, "juliet@example.org/a"): {}, mustJID(b, "juliet@example.org/b"): {}}}}
	kept := u.record()
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			u.record()
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := stateOf(juliet, kept, time.Now()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// quick is a Pusher and a Source that take no time.
type quick struct {
	now func(jid.JID) *roster.Roster
}

func (quick) Connected() bool { return true }

func (quick) Push(_ []jid.JID, _ []roster.Change, settled func(roster.Outcome)) error {
	settled(roster.Outcome{})
	return nil
}

func (q quick) Fetch(_ context.Context, r roster.Request) (roster.Fetched, error) {
	return roster.Fetched{Roster: q.now(r.User)}, nil
}

func (q quick) FetchMany(ctx context.Context, rs []roster.Request, done func(int, roster.Fetched, error)) {
	each(ctx, q, rs, done)
}

func (quick) BatchSize(string) int { return 1 }

func benchManager(b *testing.B, cache int, now func(jid.JID) *roster.Roster) *Manager {
	q := quick{now}
	m, err := NewManager(Options{Source: q, Pusher: q, Sessions: session.NewTable(), Store: newDisk(),
		Logger: slog.New(slog.DiscardHandler), Rules: Rules{MaxRemoved: 1}, Limits: Limits{Cache: cache}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(m.Close)
	return m
}

func (m *Manager) askAndWait(b *testing.B, full jid.JID) {
	done := make(chan struct{})
	if err := m.Get(full, nil, func(roster.Answer) []roster.Item { close(done); return nil }); err != nil {
		b.Fatal(err)
	}
	<-done
}

func BenchmarkGet(b *testing.B) {
	for _, cache := range []int{-1, 0} {
		b.Run(map[int]string{-1: "from the store", 0: "cached"}[cache], func(b *testing.B) {
			list := listOf(b, 200, "x")
			m := benchManager(b, cache, func(jid.JID) *roster.Roster { return roster.New(list) })
			full := mustJID(b, "juliet@example.org/a")
			b.ReportAllocs()
			for b.Loop() {
				m.askAndWait(b, full)
			}
		})
	}
}

func BenchmarkRefresh(b *testing.B) {
	for _, cache := range []int{-1, 0} {
		b.Run(map[int]string{-1: "from the store", 0: "cached"}[cache], func(b *testing.B) {
			lists := [][]roster.Item{listOf(b, 200, "x"), listOf(b, 200, "y")}
			n := 0
			m := benchManager(b, cache, func(jid.JID) *roster.Roster { n++; return roster.New(lists[n%2]) })
			full := mustJID(b, "juliet@example.org/a")
			m.askAndWait(b, full)
			b.ReportAllocs()
			for b.Loop() {
				if failed, err := m.Refresh(b.Context(), []jid.JID{full.Bare()}); err != nil || len(failed) > 0 {
					b.Fatal(failed, err)
				}
			}
		})
	}
}

// BenchmarkAtRest reports what a user takes for whom there is nothing to do.
func BenchmarkAtRest(b *testing.B) {
	const users = 5000
	for b.Loop() {
		var before, after runtime.MemStats
		m := benchManager(b, -1, func(user jid.JID) *roster.Roster { return roster.New(listOf(b, 200, user.String())) })
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range users {
			m.askAndWait(b, mustJID(b, fmt.Sprintf("user%d@example.org/phone", i)))
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/users, "bytes/user")
		b.ReportMetric(float64(len(m.users)), "users")
	}
}

// A stream is lost with 8,000 pushes of one user in flight: what a try that fails costs, and
// one that succeeds.
func BenchmarkManyMissed(b *testing.B) {
	last := roster.New(listOf(b, 8000, "x"))
	for name, do := range map[string]func(*user){
		"failed": func(u *user) { u.coversMissed() },
		"succeeded": func(u *user) {
			_ = u.guard(roster.Fetched{Roster: last})
			u.replace(last, time.Now(), time.Time{}).changes()
		},
	} {
		b.Run(name, func(b *testing.B) {
			m := benchManager(b, 0, nil)
			for b.Loop() {
				b.StopTimer()
				u := &user{m: m, jid: mustJID(b, "juliet@example.org"), state: state{last: last}}
				for _, item := range last.Items() {
					u.miss(item.JID, time.Now())
				}
				b.StartTimer()
				do(u)
			}
		})
	}
}
