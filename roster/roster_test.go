package roster

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"rosterd/jid"
)

func mustJID(t testing.TB, s string) jid.JID {
	t.Helper()
	j, err := jid.Parse(s)
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return j
}

// contacts makes a roster from lines like "romeo@example.org Romeo Friends,Work".
func contacts(t testing.TB, lines ...string) *Roster {
	t.Helper()
	var items []Item
	for _, line := range lines {
		f := strings.Fields(line)
		item := Item{JID: mustJID(t, f[0]), Subscription: SubscriptionBoth}
		if len(f) > 1 {
			item.Name = f[1]
		}
		if len(f) > 2 {
			item.Groups = strings.Split(f[2], ",")
		}
		items = append(items, item)
	}
	return New(items)
}

func TestNewSortsAndKeepsTheFirst(t *testing.T) {
	r := contacts(t, "romeo@example.org Romeo", "benvolio@example.org B", "romeo@example.org Other")
	if r.Len() != 2 || r.Items()[0].JID.Local() != "benvolio" || r.Items()[1].Name != "Romeo" {
		t.Errorf("items = %v", r.Items())
	}
	if item, ok := r.Item(mustJID(t, "romeo@example.org")); !ok || item.Name != "Romeo" {
		t.Errorf("Item(romeo) = %v, %v", item, ok)
	}
	if _, ok := r.Item(mustJID(t, "tybalt@example.org")); ok {
		t.Error("Item(tybalt) found")
	}
}

func TestDiff(t *testing.T) {
	romeo := Item{JID: mustJID(t, "romeo@example.org"), Name: "Romeo", Subscription: SubscriptionBoth, Groups: []string{"Friends"}}
	with := func(change func(*Item)) *Roster {
		item := romeo
		change(&item)
		return New([]Item{item})
	}
	same := with(func(*Item) {})
	tests := map[string]struct {
		old, now *Roster
		want     []Action
	}{
		"nothing to nothing": {nil, nil, nil},
		"nil to empty":       {nil, New(nil), nil},
		"same":               {same, with(func(*Item) {}), nil},
		"added":              {nil, same, []Action{Added}},
		"removed":            {same, New(nil), []Action{Removed}},
		"renamed":            {same, with(func(i *Item) { i.Name = "R" }), []Action{Changed}},
		"regrouped":          {same, with(func(i *Item) { i.Groups = []string{"Foes"} }), []Action{Changed}},
		"ungrouped":          {same, with(func(i *Item) { i.Groups = nil }), []Action{Changed}},
		"re-subscribed":      {same, with(func(i *Item) { i.Subscription = SubscriptionTo }), []Action{Changed}},
		"ask":                {same, with(func(i *Item) { i.Ask = true }), []Action{Changed}},
		"approved":           {same, with(func(i *Item) { i.Approved = true }), []Action{Changed}},
		"one for another": {contacts(t, "a@example.org", "c@example.org"), contacts(t, "b@example.org", "c@example.org"),
			[]Action{Removed, Added}},
		"at both ends": {contacts(t, "b@example.org"), contacts(t, "a@example.org", "b@example.org B", "c@example.org"),
			[]Action{Added, Changed, Added}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			changes := Diff(tt.old, tt.now)
			var got []Action
			for _, c := range changes {
				got = append(got, c.Action)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Fatalf("Diff = %v, want %v", got, tt.want)
			}
			if applied := apply(tt.old, changes); !reflect.DeepEqual(Diff(applied, tt.now), []Change(nil)) {
				t.Errorf("the changes lead to %v, not to %v", applied.Items(), tt.now.Items())
			}
		})
	}
}

// apply does to a roster what a client does with pushes.
func apply(r *Roster, changes []Change) *Roster {
	m := make(map[jid.JID]Item)
	for _, item := range r.Items() {
		m[item.JID] = item
	}
	for _, c := range changes {
		if delete(m, c.Item.JID); c.Action != Removed {
			m[c.Item.JID] = c.Item
		}
	}
	var items []Item
	for _, item := range m {
		items = append(items, item)
	}
	return New(items)
}

func TestCleanText(t *testing.T) {
	for in, want := range map[string]string{
		"Romeo":                 "Romeo",
		"":                      "",
		"a\x00b\x0bc":           "abc",
		"tab\tline\nreturn\r":   "tab\tline\nreturn\r",
		"\uFFFE\uFFFFx":         "x",
		"\xff\xfe":              "",
		"kept \uFFFD replaced":  "kept \uFFFD replaced",
		"\u202eright to left":   "\u202eright to left",
		"nel\u0085 \U0001F600!": "nel\u0085 \U0001F600!",
	} {
		if got := CleanText(in); got != want {
			t.Errorf("CleanText(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestSubscriptionValid(t *testing.T) {
	for s, want := range map[Subscription]bool{"none": true, "to": true, "from": true, "both": true, "remove": false, "": false, "Both": false} {
		if s.Valid() != want {
			t.Errorf("%q.Valid() = %v", s, !want)
		}
	}
}

// SubscriptionChanges sees what Diff sees of subscriptions, whatever else stands in an item.
func TestSubscriptionChanges(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	pick := func() (list []Item, of map[jid.JID]Subscription) {
		of = make(map[jid.JID]Subscription)
		for i := range 12 {
			if random.IntN(3) == 0 {
				continue
			}
			item := Item{JID: mustJID(t, fmt.Sprintf("c%d@example.org", i)), Ask: random.IntN(2) == 0,
				Name:         []string{"", "another", " subscription='both'", "<item jid='"}[random.IntN(4)],
				Subscription: []Subscription{SubscriptionNone, SubscriptionTo, SubscriptionFrom, SubscriptionBoth}[random.IntN(4)]}
			list, of[item.JID] = append(list, item), item.Subscription
		}
		return list, of
	}
	for range 2_000 {
		old, before := pick()
		now, after := pick()
		changes := SubscriptionChanges(New(old), New(now))
		seen := make(map[jid.JID]bool)
		for _, c := range changes {
			if before[c.JID] != c.Before || after[c.JID] != c.After || c.Before == c.After || seen[c.JID] {
				t.Fatalf("%+v of %v to %v", c, before, after)
			}
			seen[c.JID], before[c.JID] = true, c.After
		}
		for j, s := range after {
			if before[j] != s {
				t.Fatalf("%v is missing", j)
			}
		}
	}
	if changes := SubscriptionChanges(nil, nil); changes != nil {
		t.Errorf("nothing: %v", changes)
	}
}

// What Diff finds is what a comparison item by item finds.
func TestDiffOfAnything(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pick := func() (list []Item) {
		for i := range 12 {
			if random.IntN(3) > 0 {
				item := Item{JID: mustJID(t, fmt.Sprintf("c%d@example.org", i)), Subscription: SubscriptionBoth, Name: strings.Repeat("<item ", random.IntN(3))}
				if random.IntN(4) == 0 {
					item.Groups = []string{strings.Repeat("g", 300)}
				}
				list = append(list, item)
			}
		}
		return list
	}
	for range 20_000 {
		old, now := pick(), pick()
		if random.IntN(2) == 0 {
			now = slices.Clone(old)
			if len(now) > 0 {
				now = slices.Delete(now, 0, random.IntN(2))
			}
			if len(now) > 0 {
				now[random.IntN(len(now))].Name = "other"
			}
		}
		got := make(map[jid.JID]Item)
		for _, item := range old {
			got[item.JID] = item
		}
		for _, c := range Diff(New(old), New(now)) {
			if was, ok := got[c.Item.JID]; ok == (c.Action == Added) || was.Equal(c.Item) {
				t.Fatalf("%+v of\n%+v and\n%+v", c, old, now)
			}
			if got[c.Item.JID] = c.Item; c.Action == Removed {
				delete(got, c.Item.JID)
			}
		}
		if !New(slices.Collect(maps.Values(got))).Equal(New(now)) {
			t.Fatalf("%+v became %+v, want %+v", old, got, now)
		}
	}
}
