package session

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
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

// behind is a store whose records are lost with the process: what is noted is not.
type behind struct{ *store.Memory }

func (behind) Put(store.Kind, string, []byte) {}

// What others may have been told of is known after a kill: who has become available
// a moment before, and who has left a short time before, but not for ever.
func TestShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept := store.NewMemory()
		table := load(t, kept)
		hall, street, tomb := full(t, "tybalt@example.org/hall"), full(t, "tybalt@example.org/street"), full(t, "paris@example.net/tomb")
		table.Connected(hall)
		table.Connected(street)
		table.Interested(full(t, "tybalt@example.org/asked-only"))
		table.Connected(tomb)
		table.Gone(tomb)
		table.Gone(hall)
		table.Connected(hall)
		table.Gone(hall)
		want := func(table *Table, all ...jid.JID) {
			t.Helper()
			got := table.Shown()
			slices.SortFunc(got, jid.JID.Compare)
			if slices.SortFunc(all, jid.JID.Compare); !slices.Equal(got, all) {
				t.Errorf("shown %v, not %v", got, all)
			}
		}
		want(load(t, kept), hall, street, tomb)
		killed := load(t, behind{kept})
		killed.Connected(full(t, "nurse@example.org/kitchen"))
		killed.Gone(street) // which is lost
		again := load(t, kept)
		want(again, hall, street, tomb, full(t, "nurse@example.org/kitchen"))
		if connected, interested := again.Counts(); connected != 3 || interested != 1 || again.HasConnected(tomb.Bare()) {
			t.Errorf("%d connected, %d interested", connected, interested)
		}
		time.Sleep(Linger)
		again.Connected(street) // something happens
		want(again, street, full(t, "nurse@example.org/kitchen"))
		want(load(t, kept), street, full(t, "nurse@example.org/kitchen"))
		if e, err := kept.Get(store.Sessions, "paris@example.net"); err != nil || !e.Empty() {
			t.Errorf("kept of who has left long ago: %v, %v", e, err)
		}
	})
}

func TestDeparturesAreBounded(t *testing.T) {
	table := NewTable()
	for i := range 3 * MaxResources {
		j := full(t, fmt.Sprintf("tybalt@example.org/%d", i))
		table.Connected(j)
		table.Gone(j)
	}
	if n := len(table.Shown()); n != MaxResources {
		t.Errorf("%d are kept", n)
	}
}
