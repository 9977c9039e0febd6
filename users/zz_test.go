package users

import (
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"rosterd/jid"
	"rosterd/roster"
	"rosterd/session"
	"rosterd/store"
)

func BenchmarkColdOnDisk(b *testing.B) {
	list := listOf(b, 200, "x")
	st, err := store.Open(b.TempDir()+"/r.db", store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	sessions, _ := session.Load(st)
	q := quick{func(jid.JID) *roster.Roster { return roster.New(list) }}
	m, err := NewManager(Options{Source: q, Pusher: q, Sessions: sessions, Store: st, Logger: slog.New(slog.DiscardHandler), Rules: Rules{MaxRemoved: 1}})
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	sem := make(chan struct{}, 64)
	var wg sync.WaitGroup
	i := 0
	for b.Loop() {
		i++
		full := mustJID(b, fmt.Sprintf("user%d@example.org/a", i))
		sem <- struct{}{}
		wg.Add(1)
		if err := m.Get(full, nil, func(roster.Answer) []roster.Item { <-sem; wg.Done(); return nil }); err != nil {
			b.Fatal(err)
		}
	}
	wg.Wait()
}

func BenchmarkRefreshOnDisk(b *testing.B) {
	lists := [][]roster.Item{listOf(b, 200, "x"), listOf(b, 200, "x")}
	lists[1] = append([]roster.Item(nil), lists[1]...)
	lists[1][7].Name = "other"
	st, err := store.Open(b.TempDir()+"/r.db", store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	sessions, _ := session.Load(st)
	var n int
	q := quick{func(jid.JID) *roster.Roster { return roster.New(lists[n%2]) }}
	m, err := NewManager(Options{Source: q, Pusher: q, Sessions: sessions, Store: st, Logger: slog.New(slog.DiscardHandler), Rules: Rules{MaxRemoved: 1}})
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	var users []jid.JID
	for i := range 1000 {
		full := mustJID(b, fmt.Sprintf("user%d@example.org/a", i))
		users = append(users, full.Bare())
		m.askAndWait(b, full)
	}
	b.ResetTimer()
	for b.Loop() {
		n++
		if failed, err := m.Refresh(b.Context(), users); err != nil || len(failed) > 0 {
			b.Fatal(failed, err)
		}
	}
}
