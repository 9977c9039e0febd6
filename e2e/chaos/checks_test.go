package chaos

import (
	"context"
	"encoding/xml"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// The checks can fail: whatever is broken on purpose on the way to a client is
// reported.
func TestChecks(t *testing.T) {
	t.Parallel()
	binary := built(t)
	for _, c := range []struct {
		name     string
		sabotage func() func(full string, push bool, list []Item) ([]Item, bool)
		want     string // the violation; "": there is none
	}{
		{"nothing", func() func(string, bool, []Item) ([]Item, bool) { return nil }, ""},
		{"the last push is dropped", func() func(string, bool, []Item) ([]Item, bool) {
			var pushes atomic.Int32
			return func(_ string, push bool, list []Item) ([]Item, bool) {
				return list, !push || pushes.Add(1) < 3
			}
		}, "not in line 1s after the last fault: u0/phone lacks"},
		{"an empty answer", func() func(string, bool, []Item) ([]Item, bool) {
			return func(_ string, push bool, list []Item) ([]Item, bool) {
				if !push {
					return nil, true
				}
				return list, true
			}
		}, "is nothing that the backend has ever said"},
		{"a removal of what is listed", onPush(2, func(item Item) Item { return Item{JID: "c0@example.org", Subscription: "remove"} }),
			"a contact vanishes that the backend still lists"},
		{"another group", onPush(3, func(item Item) Item {
			item.Groups += "Strangers\n"
			return item
		}), "a push has what the backend has never said"},
		{"a group less", onPush(3, func(item Item) Item {
			item.Groups, item.Approved = "", !item.Approved
			return item
		}), "a push has what the backend has never said"},
		{"an item of somebody else", onPush(3, func(item Item) Item {
			item.Name = strings.Replace(item.Name, "of u0", "of u1", 1)
			return item
		}), "a push has what the backend has never said"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			wantViolation(t, Options{Binary: binary, sabotage: c.sabotage()}, c.want)
		})
	}
}

// The checks of the server's own rosters can fail, too.
func TestOwnRosterChecks(t *testing.T) {
	t.Parallel()
	binary := built(t)
	for _, c := range []struct {
		name  string
		spoil func(Item) (Item, bool) // what becomes of what is written when the way is proven
		want  string
	}{
		{"nothing", func(item Item) (Item, bool) { return item, true }, ""},
		{"it is not stored", func(item Item) (Item, bool) { return item, false }, "not in line 1s after the last fault: the server's roster of u0 lacks"},
		{"it is removed", func(item Item) (Item, bool) { return Item{JID: "c0@example.org", Subscription: "remove"}, true },
			"the server's roster of u0: a contact vanishes that the backend still lists"},
		{"another group", func(item Item) (Item, bool) { item.Groups += "Strangers\n"; return item, true }, "gets what the backend has never said"},
		{"an item of somebody else", func(item Item) (Item, bool) {
			item.Name = strings.Replace(item.Name, "of u0", "of u1", 1)
			return item, true
		}, "gets what the backend has never said"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var writes atomic.Int32
			wantViolation(t, Options{Binary: binary, misplace: func(item Item) (Item, bool) {
				if writes.Add(1) == 4 { // two are there at first
					return c.spoil(item)
				}
				return item, true
			}}, c.want)
		})
	}
}

// wantViolation adds three contacts, and wants a violation; "": none.
func wantViolation(t *testing.T, o Options, want string) {
	t.Helper()
	o.Kind, o.Seed, o.Logs, o.plan, o.patience = LikeProsody, 1, t.TempDir(), additions(3), time.Second
	report, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	found := strings.Join(report.Violations, "\n")
	if want == "" && found != "" || !strings.Contains(found, want) {
		t.Errorf("violations %q, want %q", found, want)
	}
}

// onPush changes the push of a number.
func onPush(number int32, change func(Item) Item) func() func(string, bool, []Item) ([]Item, bool) {
	return func() func(string, bool, []Item) ([]Item, bool) {
		var pushes atomic.Int32
		return func(_ string, push bool, list []Item) ([]Item, bool) {
			if push && pushes.Add(1) == number {
				list = []Item{change(list[0])}
			}
			return list, true
		}
	}
}

// additions is a plan of one client and of n contacts that are added, without a
// fault.
func additions(n int) *plan {
	p := &plan{users: []string{"u0"}, contacts: map[string]int{"u0": 2}, devices: []place{{"u0", "phone"}}, tracks: map[string][]step{}}
	steps := []step{
		{whenUp: true, do: func(_ context.Context, w *world) { w.devices[0].order(order{online: true}) }},
		{do: awaitLine}, // else what is added is in the answer, and not pushed
	}
	for i := range n {
		steps = append(steps, step{do: func(ctx context.Context, w *world) {
			w.truth.change("u0", func(a *account) string {
				a.put("u0", fmt.Sprintf("new%d@example.org", i), chance(1, "additions"))
				return "one more"
			})
			w.reports.changed("u0")
			sleep(ctx, 100*time.Millisecond)
		}})
	}
	p.tracks["u0"] = steps
	return p
}

// A contact that was taken off the list and listed again may vanish, one that
// was renamed may not.
func TestListedSince(t *testing.T) {
	truth, rng := newTruth(), chance(1, "")
	truth.add("u0", func(*account) {})
	item := func() (item Item) {
		truth.change("u0", func(a *account) string {
			a.put("u0", "c0@example.org", rng)
			item = a.now["c0@example.org"]
			return ""
		})
		return item
	}
	first, renamed := item(), item()
	if !truth.listedSince("u0", first) || !truth.listedSince("u0", renamed) {
		t.Error("a contact that was renamed counts as taken off")
	}
	truth.change("u0", func(a *account) string { clear(a.now); return "" })
	if truth.listedSince("u0", renamed) {
		t.Error("a contact that is taken off counts as listed")
	}
	again := item()
	if truth.listedSince("u0", renamed) || !truth.listedSince("u0", again) {
		t.Error("a contact that is listed again counts as listed all the time")
	}
}

// A server that delegates no more delegates no probe of the component's either: else the
// component never learns of it.
func TestFakeDelegatesNoProbes(t *testing.T) {
	f, err := startFake(likeEjabberd, newJournal(), chance(1, "server"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	for _, delegated := range []bool{true, false} {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		s := &fakeStream{conn: ours, more: make(chan struct{}, 1), delegated: delegated}
		f.mu.Lock()
		f.stream = s
		f.handle(s, &element{name: xml.Name{Space: nsAccept, Local: "iq"},
			attrs:    []xml.Attr{{Name: xml.Name{Local: "type"}, Value: "get"}, {Name: xml.Name{Local: "from"}, Value: component + "/rosterd"}, {Name: xml.Name{Local: "to"}, Value: "nobody@" + host}, {Name: xml.Name{Local: "id"}, Value: "1"}},
			children: []*element{{name: xml.Name{Space: nsRoster, Local: "query"}}}}, nil)
		f.mu.Unlock()
		if got := s.out.String(); strings.Contains(got, "<delegation") != delegated || strings.Contains(got, "type='error'") == delegated {
			t.Errorf("delegated %t: the component gets %s", delegated, got)
		}
	}
}

// A life that begins while a run ends would keep it from ending.
func TestNoLifeAfterTheEnd(t *testing.T) {
	w, err := build(Options{Kind: LikeProsody, Seed: 1, Binary: built(t), Logs: t.TempDir()}, additions(1))
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	d := w.daemon
	d.close()
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	if d.current() != nil {
		t.Error("there is one more life")
		d.close()
	}
}
