package session

import (
	"slices"
	"testing"
	"time"

	"rosterd/jid"
	"rosterd/store"
)

func load(t testing.TB, s Store) *Table {
	t.Helper()
	table, err := Load(s)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestTableIsKept(t *testing.T) {
	kept := store.NewMemory()
	table := load(t, kept)
	a, b, c := full(t, "juliet@example.org/a"), full(t, "juliet@example.org/b \u00e9"), full(t, "romeo@example.net/c")
	table.Interested(a)
	table.Connected(b)
	table.Interested(b)
	table.Connected(c)
	table.Interested(full(t, "nurse@example.org/x"))
	table.Gone(full(t, "nurse@example.org/x"))
	again := load(t, kept)
	if connected, interested := again.Counts(); connected != 3 || interested != 2 {
		t.Errorf("%d connected, %d interested", connected, interested)
	}
	if got := again.InterestedOf(a.Bare()); !slices.Equal(got, []jid.JID{a, b}) {
		t.Errorf("interested %v", got)
	}
	if again.Available(a) || !again.Available(b) || !again.Available(c) {
		t.Error("Available")
	}
	if got := again.Users("example.org"); !slices.Equal(got, []jid.JID{a.Bare()}) {
		t.Errorf("users %v", got)
	}
	if got := again.Unheard(time.Now().Add(-time.Hour)); len(got) != 3 {
		t.Errorf("unheard %v: there was no sign of any", got)
	}
	again.Gone(a)
	again.Gone(b)
	again.Gone(c)
	if connected, _ := load(t, kept).Counts(); connected != 0 {
		t.Errorf("%d connected", connected)
	}
}

// A record that cannot be understood is no reason not to start.
func FuzzRestore(f *testing.F) {
	kept := store.NewMemory()
	table := load(f, kept)
	table.Interested(full(f, "juliet@example.org/a"))
	table.Connected(full(f, "juliet@example.org/b"))
	entry, err := kept.Get(store.Sessions, "juliet@example.org")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(entry.Record)
	f.Add([]byte{recordFormat, 1, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F})
	f.Fuzz(func(t *testing.T, record []byte) {
		kept := store.NewMemory()
		kept.Put(store.Sessions, "juliet@example.org", record)
		table := load(t, kept)
		connected, interested := table.Counts()
		if n := len(table.InterestedOf(full(t, "juliet@example.org/a").Bare())); n != interested || interested > connected || connected > MaxResources {
			t.Errorf("%d connected, %d interested, %d listed", connected, interested, n)
		}
	})
}
