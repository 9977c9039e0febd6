package session

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"rosterd/internal/bubble"
	"rosterd/jid"
)

func full(t testing.TB, s string) jid.JID {
	t.Helper()
	j, err := jid.ParseStamped(s)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestTable(t *testing.T) {
	table := NewTable()
	balcony, chamber := full(t, "juliet@example.org/balcony"), full(t, "juliet@example.org/chamber")
	romeo := full(t, "romeo@example.org/orchard")
	steps := []struct {
		name                  string
		do                    func()
		connected, interested int
		juliet                []jid.JID // interested
	}{
		{"nothing", func() {}, 0, 0, nil},
		{"connected", func() { table.Connected(balcony) }, 1, 0, nil},
		{"connected again", func() { table.Connected(balcony) }, 1, 0, nil},
		{"interested", func() { table.Interested(balcony) }, 1, 1, []jid.JID{balcony}},
		{"stays interested", func() { table.Connected(balcony) }, 1, 1, []jid.JID{balcony}},
		{"interested at once", func() { table.Interested(chamber) }, 2, 2, []jid.JID{balcony, chamber}},
		{"another user", func() { table.Connected(romeo) }, 3, 2, []jid.JID{balcony, chamber}},
		{"gone", func() { table.Gone(balcony) }, 2, 1, []jid.JID{chamber}},
		{"gone again", func() { table.Gone(balcony) }, 2, 1, []jid.JID{chamber}},
		{"the last", func() { table.Gone(chamber) }, 1, 0, nil},
		{"back", func() { table.Connected(chamber) }, 2, 0, nil},
	}
	for _, s := range steps {
		s.do()
		if c, i := table.Counts(); c != s.connected || i != s.interested {
			t.Errorf("%s: %d connected, %d interested", s.name, c, i)
		}
		if got := table.InterestedOf(balcony.Bare()); !slices.Equal(got, s.juliet) {
			t.Errorf("%s: interested %v", s.name, got)
		}
	}
	if !table.HasConnected(romeo.Bare()) || table.HasConnected(full(t, "nurse@example.org")) {
		t.Error("HasConnected")
	}
}

func TestUnheard(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		table := NewTable()
		a, b, c := full(t, "juliet@example.org/a"), full(t, "juliet@example.org/b"), full(t, "romeo@example.org/c")
		table.Connected(a)
		table.Connected(b)
		time.Sleep(time.Minute)
		table.Connected(c)
		table.Heard(b)
		table.Heard(full(t, "nurse@example.org/x"))
		if got := slices.Collect(table.Unheard(time.Now())); !slices.Equal(got, []jid.JID{a}) {
			t.Errorf("unheard %v", got)
		}
		table.Connected(a)
		if got := slices.Collect(table.Unheard(time.Now())); len(got) != 0 {
			t.Errorf("unheard %v", got)
		}
	})
}

// Sessions whose end nobody reports do not pile up.
func TestTableIsBounded(t *testing.T) {
	table := NewTable()
	for i := range 10 * MaxResources {
		table.Interested(full(t, fmt.Sprintf("juliet@example.org/%d", i)))
	}
	if c, i := table.Counts(); c != MaxResources || i != MaxResources {
		t.Errorf("%d connected, %d interested", c, i)
	}
	kept := table.InterestedOf(full(t, "juliet@example.org"))
	if last := kept[len(kept)-1].Resource(); len(kept) != MaxResources || last != fmt.Sprint(10*MaxResources-1) {
		t.Errorf("%d kept, the last is %s", len(kept), last)
	}
}

func TestTableConcurrently(t *testing.T) {
	table := NewTable()
	var work sync.WaitGroup
	for i := range 8 {
		work.Go(func() {
			j := full(t, fmt.Sprintf("juliet@example.org/%d", i))
			for range 200 {
				table.Connected(j)
				table.Interested(j)
				table.InterestedOf(j.Bare())
				table.Counts()
				table.Gone(j)
			}
		})
	}
	work.Wait()
	if c, i := table.Counts(); c != 0 || i != 0 || table.HasConnected(full(t, "juliet@example.org")) {
		t.Errorf("%d connected, %d interested", c, i)
	}
}

// The address of each resource is as it was stamped last, for as long as it is there.
func TestSpellings(t *testing.T) {
	kept := memory(t)
	table := load(t, kept)
	a, b := full(t, "juliet@example.org/a"), full(t, "juliet@example.org/b")
	table.Spell(a, "") // nothing to note
	if n, _ := table.Counts(); n != 0 {
		t.Errorf("%d connected", n)
	}
	table.Spell(a, "JULIET@Example.org")
	table.Interested(a)
	table.Connected(b)
	for _, table := range []*Table{table, load(t, kept)} {
		if x, y := table.Spelled(a), table.Spelled(b); x != "JULIET@Example.org" || y != "" {
			t.Errorf("spelled %q, %q", x, y)
		}
		if n, interested := table.Counts(); n != 2 || interested != 1 {
			t.Errorf("%d connected, %d interested", n, interested)
		}
	}
	table.Spell(a, "")
	if got := load(t, kept).Spelled(a); table.Spelled(a) != "" || got != "" {
		t.Errorf("still spelled, kept %q", got)
	}
	table.Spell(b, "JuliEt@example.org")
	table.Gone(b)
	if table.Spelled(b) != "" || table.spelled.Load() != 0 {
		t.Error("still spelled")
	}
	for i := range MaxResources + 1 {
		table.Spell(full(t, fmt.Sprint("juliet@example.org/", i)), "jULIET@example.org")
	}
	if n := table.spelled.Load(); n != MaxResources {
		t.Errorf("%d spelled", n)
	}
}

// Who asks a second time may be another session of the name.
func TestAskedAgain(t *testing.T) {
	table, full, began := NewTable(), full(t, "juliet@example.org/balcony"), time.Now()
	again := func(since time.Time) bool { return table.AskedAgainSince(full, since) }
	table.Connected(full)
	if table.Interested(full); again(began) {
		t.Error("it asked once")
	}
	if table.Interested(full); !again(began) || again(time.Now().Add(time.Hour)) {
		t.Error("it asked twice, and not in an hour")
	}
	table.Gone(full)
	if table.Interested(full); again(began) {
		t.Error("it is gone, and another one asked once")
	}
}
