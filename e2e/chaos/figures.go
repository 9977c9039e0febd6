package chaos

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"
)

// Figures are what runs come to. A run's own are guarded by a mutex of theirs;
// those of several are added up by [Figures.Add].
type Figures struct {
	mu sync.Mutex

	Runs       int
	Faults     map[string]int // that were injected, by their kind
	Changes    int            // of the backend's rosters
	Refreshes  int            // reports of changed users that rosterd has answered
	Lost       int            // those that did not reach it, and were made again later
	Doubled    int            // those that it got twice
	Fetches    int            // that the backend has seen
	Logins     int
	Logouts    int           // in order
	Cuts       int           // sessions that ended in another way
	Queries    int           // roster queries of clients
	Answers    int           // with a roster
	Refused    int           // with an error
	Unanswered int           // that a client gave up
	Pushes     int           // that clients have received
	Removed    int           // of these, removals
	Anew       int           // clients that logged in anew, as an instance ended without its database
	Written    int           // items of the server's own rosters, as far as they were counted
	Slowest    time.Duration // from when it was quiet until every client was in line
	SlowestIn  string        // the run
	Violations int
}

func (f *Figures) count(field *int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	*field++
}

func (f *Figures) fault(kind string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.Faults == nil {
		f.Faults = map[string]int{}
	}
	f.Faults[kind]++
}

// Add adds the figures of another run, which is over.
func (f *Figures) Add(o *Figures) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.Faults == nil {
		f.Faults = map[string]int{}
	}
	for kind, n := range o.Faults {
		f.Faults[kind] += n
	}
	mine, others := f.counts(), o.counts()
	for i := range mine {
		*mine[i] += *others[i]
	}
	if o.Slowest > f.Slowest {
		f.Slowest, f.SlowestIn = o.Slowest, o.SlowestIn
	}
}

func (f *Figures) counts() []*int {
	return []*int{&f.Runs, &f.Changes, &f.Refreshes, &f.Lost, &f.Doubled, &f.Fetches, &f.Logins, &f.Logouts, &f.Cuts,
		&f.Queries, &f.Answers, &f.Refused, &f.Unanswered, &f.Pushes, &f.Removed, &f.Anew, &f.Written, &f.Violations}
}

// Print writes the figures for people.
func (f *Figures) Print(w io.Writer, title string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	faults := 0
	for _, n := range f.Faults {
		faults += n
	}
	fmt.Fprintf(w, "%s: %d runs, %d violations\n", title, f.Runs, f.Violations)
	fmt.Fprintf(w, "  %d faults:\n", faults)
	for _, kind := range slices.Sorted(maps.Keys(f.Faults)) {
		fmt.Fprintf(w, "    %7d  %s\n", f.Faults[kind], kind)
	}
	fmt.Fprintf(w, "  %d changes in the backend; %d refreshes answered, %d more lost on the way, %d doubled; %d fetches\n",
		f.Changes, f.Refreshes, f.Lost, f.Doubled, f.Fetches)
	fmt.Fprintf(w, "  %d logins, %d logouts, %d sessions cut; %d queries: %d answered with a roster, %d with an error, %d not\n",
		f.Logins, f.Logouts, f.Cuts, f.Queries, f.Answers, f.Refused, f.Unanswered)
	fmt.Fprintf(w, "  %d pushes, of which %d removals", f.Pushes, f.Removed)
	if f.Written > 0 { // only fake servers count them
		fmt.Fprintf(w, "; %d items of the server's own rosters written", f.Written)
	}
	fmt.Fprintln(w)
	if f.Anew > 0 {
		fmt.Fprintf(w, "  %d clients had to log in anew, as an instance had ended that could not write what it told them\n", f.Anew)
	}
	fmt.Fprintf(w, "  slowest convergence %s (%s)\n", f.Slowest.Round(time.Millisecond), f.SlowestIn)
}
