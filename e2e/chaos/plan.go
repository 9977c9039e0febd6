package chaos

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// plan is what happens in a run: who there is, and what is done when.
type plan struct {
	users      []string
	contacts   map[string]int // how many each begins with
	devices    []place
	length     time.Duration
	maxStanza  int
	noPresence bool
	pair       bool
	settings   map[string]any // of rosterd
	tracks     map[string][]step
}

// place is a device of a user.
type place struct{ user, resource string }

// step is something that is done.
type step struct {
	at    time.Duration // since the beginning, or when the step before it is done
	what  string        // "": see fault
	fault string        // its kind, to be counted; "": it is none

	// whenUp has a fault wait until rosterd is connected, on until something has
	// happened so many times; not for long.
	whenUp bool
	on     occasion
	nth    int

	do func(ctx context.Context, w *world)
}

// Accounts are the users that runs with a prefix may have.
func Accounts(prefix string) []string {
	var names []string
	for i := range maxUsers {
		names = append(names, fmt.Sprint(prefix, "u", i))
	}
	return names
}

const maxUsers = 5

// newPlan makes the plan of a seed. Each seed has some kinds of faults and not
// others: what goes wrong seldom goes wrong between all the rest.
func newPlan(o Options) *plan {
	rng := chance(o.Seed, "plan")
	p := &plan{contacts: map[string]int{}, tracks: map[string][]step{}, length: between(rng, 2*time.Second, 5*time.Second)}
	if p.pair = o.Pair; p.pair { // what a pair does takes seconds
		p.length *= 2
	}
	p.users = Accounts(o.Prefix)[:1+rng.IntN(maxUsers)]
	for _, user := range p.users {
		p.contacts[user] = []int{0, 3, 12, 20, 40}[rng.IntN(5)]
		for i := range 1 + rng.IntN(2) {
			p.devices = append(p.devices, place{user, fmt.Sprint("device", i)})
		}
	}
	p.noPresence = rng.IntN(2) == 0
	if rng.IntN(8) == 0 { // with a roster that does not fit
		p.maxStanza = 10_000
		p.contacts[p.users[0]] = 200
	}
	for _, d := range p.devices {
		p.sessions(chance(o.Seed, "sessions of "+d.user+d.resource), d)
	}
	for _, user := range p.users {
		p.changes(chance(o.Seed, "changes of "+user), user)
	}
	for _, track := range []struct {
		name  string
		steps func(*plan, *rand.Rand, time.Duration, Kind) (step, time.Duration)
		of    int // it is in one of so many runs
	}{
		{"rosterd", (*plan).rosterdFault, 2}, {"server", (*plan).serverFault, 3}, {"link", (*plan).linkFault, 2},
		{"backend", (*plan).backendFault, 2}, {"link to the backend", (*plan).backendLinkFault, 3},
		{"api", (*plan).apiFault, 2},
	} {
		if chosen := rng.IntN(track.of) == 0; chosen && !(o.Pair && track.name == "rosterd") {
			p.faults(chance(o.Seed, track.name), track.name, o.Kind, track.steps)
		}
	}
	if o.Pair {
		p.pairFaults(o, rng)
	}
	return p
}

// faults fills a track.
func (p *plan) faults(rng *rand.Rand, name string, kind Kind, next func(*plan, *rand.Rand, time.Duration, Kind) (step, time.Duration)) {
	for at := between(rng, 100*time.Millisecond, 1500*time.Millisecond); at < p.length; {
		s, takes := next(p, rng, at, kind)
		s.whenUp = rng.IntN(5) > 0
		if s.nth = 1 + rng.IntN(4)*rng.IntN(3); rng.IntN(5) > 1 {
			s.on = occasionsAll[rng.IntN(len(occasionsAll))]
		}
		p.tracks[name] = append(p.tracks[name], s)
		at += takes + between(rng, 50*time.Millisecond, 1200*time.Millisecond)
	}
}

// sessions plans when a device is online.
func (p *plan) sessions(rng *rand.Rand, at place) {
	track := "device " + at.user + "/" + at.resource
	add := func(when time.Duration, o order) {
		what := "online"
		if !o.online {
			what = "offline, " + string(o.how)
		}
		p.tracks[track] = append(p.tracks[track], step{at: when, what: what, do: func(_ context.Context, w *world) {
			for _, d := range w.devices {
				if d.user == at.user && d.resource == at.resource {
					d.order(o)
				}
			}
		}})
	}
	add(between(rng, 0, 300*time.Millisecond), order{online: true})
	if rng.IntN(2) == 0 {
		return // it stays
	}
	online := true
	for when := between(rng, 500*time.Millisecond, 2*time.Second); when < p.length*3/2; when += between(rng, 100*time.Millisecond, 1500*time.Millisecond) {
		online = !online
		add(when, order{online, []leaving{inOrder, closing, cutOff}[rng.IntN(3)]})
	}
}

// changes plans how a user's contacts change.
func (p *plan) changes(rng *rand.Rand, user string) {
	pause := []time.Duration{100 * time.Millisecond, 400 * time.Millisecond, 1200 * time.Millisecond}[rng.IntN(3)]
	for when := between(rng, 100*time.Millisecond, time.Second); when < p.length*3/2; when += between(rng, pause/4, 2*pause) {
		f, what := change(rng, user)
		p.tracks["contacts of "+user] = append(p.tracks["contacts of "+user], step{at: when, what: what, do: func(_ context.Context, w *world) {
			happened, version := w.truth.change(user, f)
			w.figures.count(&w.figures.Changes)
			w.journal.note("truth: %s: version %d: %s", user, version, happened)
			w.reports.changed(user)
		}})
	}
}

// change makes a change of contacts.
func change(rng *rand.Rand, user string) (f func(*account) string, what string) {
	inner := rand.New(rand.NewPCG(rng.Uint64(), 0))
	contact := func() string { return fmt.Sprintf("c%d@example.org", inner.IntN(45)) }
	switch n := rng.IntN(20); {
	case n < 8:
		return func(a *account) string {
			c := contact()
			a.put(user, c, inner)
			return c + " is " + a.now[c].Name
		}, "put one"
	case n < 13:
		return func(a *account) string {
			for _, c := range slices.Sorted(maps.Keys(a.now)) {
				if inner.IntN(len(a.now)) == 0 || len(a.now) == 1 {
					delete(a.now, c)
					return c + " is taken off"
				}
			}
			return "nothing"
		}, "take one off"
	case n < 17:
		return func(a *account) string {
			var done []string
			for range 1 + inner.IntN(8) {
				c := contact()
				if _, listed := a.now[c]; listed && inner.IntN(2) == 0 {
					delete(a.now, c)
					done = append(done, c+" is taken off")
				} else {
					a.put(user, c, inner)
					done = append(done, c+" is "+a.now[c].Name)
				}
			}
			return strings.Join(done, ", ")
		}, "several"
	case n < 18:
		return func(a *account) string {
			clear(a.now)
			return "all are taken off"
		}, "take all off"
	case n < 19:
		return func(a *account) string {
			kept := 0
			for _, c := range slices.Sorted(maps.Keys(a.now)) {
				if kept++; kept > 1 {
					delete(a.now, c)
				}
			}
			return "all but one are taken off"
		}, "take all but one off"
	}
	return func(a *account) string {
		for i := range 15 + inner.IntN(20) {
			a.put(user, fmt.Sprintf("c%d@example.org", i), inner)
		}
		return "many are put"
	}, "put many"
}

// people makes the users, their contacts and their devices.
func (p *plan) people(w *world, o Options) {
	for _, user := range p.users {
		rng := chance(o.Seed, "contacts of "+user)
		w.truth.add(user, func(a *account) {
			for i := range p.contacts[user] {
				a.put(user, fmt.Sprintf("c%d@example.org", i), rng)
			}
		})
	}
	for _, d := range p.devices {
		w.devices = append(w.devices, newDevice(w, d.user, d.resource))
	}
}

// String is the plan for people.
func (p *plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "users with contacts %v, devices %v, %v, max_stanza_bytes %d, presence off %t\n",
		p.contacts, p.devices, p.length.Round(time.Millisecond), p.maxStanza, p.noPresence)
	for _, track := range slices.Sorted(maps.Keys(p.tracks)) {
		fmt.Fprintf(&b, "%s:", track)
		for _, s := range p.tracks[track] {
			fmt.Fprintf(&b, " %.3f %s%s", s.at.Seconds(), s.what, s.fault)
			if s.on != "" {
				fmt.Fprintf(&b, " (when %s, %d)", s.on, s.nth)
			}
			b.WriteByte(';')
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func between(rng *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(rng.Int64N(int64(to-from)))
}
