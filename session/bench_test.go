package session

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"rosterd/jid"
)

// many makes a table of n users with a resource each.
func many(t testing.TB, n int) *Table {
	table := NewTable()
	for i := range n {
		j := full(t, fmt.Sprintf("user%07d@example.org/balcony.%d", i, i))
		table.Connected(j)
		table.Interested(j)
	}
	return table
}

// An operation is to look for who has been silent for long, as is done every 2 s, of
// 500,000 resources of which that is 400.
func BenchmarkUnheard(b *testing.B) {
	table := many(b, 500_000)
	since := time.Now()
	n := 0
	for user := range table.users {
		if n++; n > 400 {
			table.Heard(table.users[user][0].full)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for range table.Unheard(since) {
			n++
		}
		if n != 400 {
			b.Fatal(n)
		}
	}
}

func BenchmarkHeard(b *testing.B) {
	table := many(b, 100_000)
	var all []jid.JID
	for user := range table.users {
		all = append(all, table.users[user][0].full)
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		table.Heard(all[n%len(all)])
	}
}

// The memory of a session, of users with one each, without the texts of the JID.
func BenchmarkMemory(b *testing.B) {
	const n = 100_000
	for b.Loop() {
		all := make([]jid.JID, n)
		for i := range all {
			all[i] = full(b, fmt.Sprintf("user%07d@example.org/balcony.%d", i, i))
		}
		used := func() float64 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			return float64(m.HeapAlloc)
		}
		before := used()
		table := NewTable()
		for _, j := range all {
			table.Connected(j)
		}
		b.ReportMetric((used()-before)/n, "B/session")
		runtime.KeepAlive(table)
		runtime.KeepAlive(all)
	}
}
