package roster

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"testing"

	"rosterd/jid"
	"rosterd/session"
	"rosterd/store"
)

// listOf is a roster as a backend may have it; item 0 has a name of its own.
func listOf(b testing.TB, n int, name string) []Item {
	list := make([]Item, n)
	for i := range list {
		list[i] = Item{JID: mustJID(b, fmt.Sprintf("contact%05d@example.org", i)), Name: fmt.Sprintf("Contact Number %d", i), Subscription: SubscriptionBoth, Groups: []string{"Class 7b"}}
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
				New(list)
			}
		})
	}
}

func BenchmarkDiff(b *testing.B) {
	for _, n := range []int{200, 10_000} {
		x, y := New(listOf(b, n, "x")), New(listOf(b, n, "y"))
		b.Run(fmt.Sprintf("%d one changed", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Diff(x, y)
			}
		})
		b.Run(fmt.Sprintf("%d same", n), func(b *testing.B) {
			same := New(listOf(b, n, "x"))
			b.ReportAllocs()
			for b.Loop() {
				Diff(x, same)
			}
		})
	}
}

func BenchmarkRecord(b *testing.B) {
	juliet := mustJID(b, "juliet@example.org")
	r := New(listOf(b, 200, "x"))
	s := state{last: r, told: map[jid.JID]told{mustJID(b, "juliet@example.org/a"): {roster: r}, mustJID(b, "juliet@example.org/b"): {roster: r}}}
	roster, record := encodeRoster(r), s.encode()
	b.Run("encode state", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.encode()
		}
	})
	b.Run("encode roster", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			encodeRoster(r)
		}
	})
	b.Run("decode both", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			last, err := decodeRoster(roster)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := decodeState(juliet, record, last); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// quick is a Pusher and a Source that take no time.
type quick struct {
	now func(jid.JID) *Roster
}

func (quick) Connected() bool { return true }

func (quick) Push(_ []jid.JID, _ []Change, settled func(Outcome)) error {
	settled(Outcome{})
	return nil
}

func (q quick) Fetch(_ context.Context, r Request) (Fetched, error) {
	return Fetched{Roster: q.now(r.User)}, nil
}

func benchManager(b *testing.B, cache int, now func(jid.JID) *Roster) *Manager {
	q := quick{now}
	m, err := NewManager(Options{Source: q, Pusher: q, Sessions: session.NewTable(), Store: store.NewMemory(),
		Logger: slog.New(slog.DiscardHandler), Rules: Rules{MaxRemoved: 1}, Limits: Limits{Cache: cache}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(m.Close)
	return m
}

func (m *Manager) askAndWait(b *testing.B, full jid.JID) {
	done := make(chan struct{})
	if _, err := m.Get(full, nil, func(Answer) []Item { close(done); return nil }); err != nil {
		b.Fatal(err)
	}
	<-done
}

func BenchmarkGet(b *testing.B) {
	for _, cache := range []int{-1, 0} {
		b.Run(map[int]string{-1: "from the store", 0: "cached"}[cache], func(b *testing.B) {
			list := listOf(b, 200, "x")
			m := benchManager(b, cache, func(jid.JID) *Roster { return New(list) })
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
			lists := [][]Item{listOf(b, 200, "x"), listOf(b, 200, "y")}
			n := 0
			m := benchManager(b, cache, func(jid.JID) *Roster { n++; return New(lists[n%2]) })
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
		m := benchManager(b, -1, func(user jid.JID) *Roster { return New(listOf(b, 200, user.String())) })
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
