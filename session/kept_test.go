package session

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"rosterd/internal/bubble"
	"rosterd/jid"
	"rosterd/store"
)

func memory(t testing.TB) *store.Store {
	t.Helper()
	s, err := store.Open("", store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func load(t testing.TB, s Store) *Table {
	t.Helper()
	table, err := Load(s)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestTableIsKept(t *testing.T) {
	kept := memory(t)
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
	got := again.InterestedOf(a.Bare())
	if slices.SortFunc(got, jid.JID.Compare); !slices.Equal(got, []jid.JID{a, b}) {
		t.Errorf("interested %v", got)
	}
	if again.Available(a) || !again.Available(b) || !again.Available(c) {
		t.Error("Available")
	}
	if got := again.Users("example.org"); !slices.Equal(got, []jid.JID{a.Bare()}) {
		t.Errorf("users %v", got)
	}
	if got := slices.Collect(again.Unheard(time.Now().Add(-time.Hour))); len(got) != 3 {
		t.Errorf("unheard %v: there was no sign of any", got)
	}
	again.Gone(a)
	again.Gone(b)
	again.Gone(c)
	if connected, _ := load(t, kept).Counts(); connected != 0 {
		t.Errorf("%d connected", connected)
	}
}

// What cannot be understood is no reason not to start.
func FuzzLoad(f *testing.F) {
	f.Add("juliet@example.org/a", true, true, true, "", false)
	f.Add("juliet@example.org/a", true, false, false, "JULIET@Example.org", true)
	f.Add("juliet@example.org", true, false, false, "", false)
	f.Add("@/\x00", false, true, true, "", true)
	f.Fuzz(func(t *testing.T, full string, connected, interested, available bool, stamped string, left bool) {
		kept := memory(t)
		r := store.Resource{JID: full, Connected: connected, Interested: interested, Available: available, Stamped: stamped}
		if left {
			r.Left = time.Now()
		}
		kept.PutResource(r, false)
		r.JID += "\x00"
		kept.PutResource(r, false)
		table := load(t, kept)
		connectedNow, interestedNow := table.Counts()
		if interestedNow > connectedNow || connectedNow > 1 {
			t.Errorf("%d connected, %d interested", connectedNow, interestedNow)
		}
		for _, full := range slices.Collect(table.Unheard(time.Now())) {
			if full.IsBare() || !table.HasConnected(full.Bare()) || len(table.InterestedOf(full.Bare())) != interestedNow {
				t.Errorf("%v", full)
			}
			table.Gone(full)
		}
		if n, _ := table.Counts(); n != 0 {
			t.Errorf("%d connected", n)
		}
	})
}

// behind is a store in which only what is put soon is not lost with the process.
type behind struct{ *store.Store }

func (b behind) PutResource(r store.Resource, soon bool) {
	if soon {
		b.Store.PutResource(r, soon)
	}
}

func (behind) DeleteResource(string) {}

// What others may have been told of is known after a kill: who has become available
// a moment before, and who has left a short time before, but not for ever.
func TestShown(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		kept := memory(t)
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
		if err := kept.Resources(func(r store.Resource) error {
			if r.JID == tomb.String() {
				t.Errorf("kept of who has left long ago: %v", r)
			}
			return nil
		}); err != nil {
			t.Error(err)
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
