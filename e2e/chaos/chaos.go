// Package chaos shows that nothing is lost: it runs users, their rosters, their
// sessions and their clients against the built rosterd, while everything around
// it fails, and checks two promises:
//
//   - As soon as the faults stop, every connected client's roster becomes, item by
//     item, what the backend says. A client knows only what it has received: the
//     answer to its roster query, then pushes.
//   - At no moment does a client see a contact vanish, by a push or by an answer
//     without it, that the backend still lists and has listed since the client was
//     told of it.
//
// And besides: what a client is told is something that the backend has once said
// of this very user, a query is answered once, no stanza breaks the protocol,
// rosterd neither ends by itself nor fails to end when it is told to.
//
// What happens is decided by a seed beforehand, see [plan]; when exactly, by the
// machine. So a run that is repeated does the same things, and most of the time
// fails in the same way. The server is a fake one, with the habits of Prosody or
// of ejabberd, or a real one.
package chaos

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"rosterd/e2e/harness"
)

// Kind is the server of a run.
type Kind string

// The kinds.
const (
	LikeProsody  Kind = "like-prosody" // a fake one
	LikeEjabberd Kind = "like-ejabberd"
	PushesAlone  Kind = "pushes-alone" // like ejabberd, with check_from: true
	Prosody      Kind = "prosody"
	Ejabberd     Kind = "ejabberd"
)

// habit is how a server of the kind behaves, and whether it is a real one.
func (k Kind) habit() (h habit, real bool) {
	switch k {
	case PushesAlone:
		return pushesAlone, false
	case LikeEjabberd:
		return likeEjabberd, false
	case Prosody:
		return likeProsody, true
	case Ejabberd:
		return likeEjabberd, true
	}
	return likeProsody, false
}

// Options of a run.
type Options struct {
	Kind    Kind
	Seed    uint64
	Binary  string // rosterd
	Logs    string // folder for the logs of failed runs
	KeepLog bool   // also of others

	// Server is the real server for those kinds, on which the users are those of
	// [Accounts] for this Prefix. No other run uses it at the same time.
	Server *harness.Server
	Prefix string

	Pair bool // two instances of rosterd, which share a PostgreSQL

	plan     *plan                                                  // in place of the seed's
	sabotage func(string, bool, []Item) (list []Item, deliver bool) // see fake
	misplace func(Item) (instead Item, store bool)                  // see fake
	patience time.Duration                                          // in place of the ordinary one
}

// Report is what has become of a run.
type Report struct {
	Figures    *Figures
	Violations []string
	Log        string // the file, if there are violations
}

// Run carries out a run. Its error is that of the stage, not of rosterd.
func Run(ctx context.Context, o Options) (*Report, error) {
	p := o.plan
	if p == nil {
		p = newPlan(o)
	}
	w, err := build(o, p)
	if err != nil {
		return nil, fmt.Errorf("seed %d: %w", o.Seed, err)
	}
	defer w.close()
	p.people(w, o)
	if err := w.run(ctx, o, p); err != nil {
		return nil, fmt.Errorf("seed %d: %w", o.Seed, err)
	}
	for _, d := range w.daemons {
		d.close() // its log belongs to the journal
	}
	w.figures.SlowestIn = fmt.Sprintf("%s, seed %d", o.Kind, o.Seed)
	report := &Report{Figures: w.figures, Violations: w.journal.broken()}
	w.figures.Violations = len(report.Violations)
	if len(report.Violations) > 0 || o.KeepLog {
		report.Log, err = w.journal.save(o, p)
	}
	return report, err
}

// save writes the journal of a failed run to a file.
func (j *journal) save(o Options, p *plan) (file string, err error) {
	file = filepath.Join(o.Logs, fmt.Sprintf("chaos-%s%s-%d.log", o.Kind, map[bool]string{true: "-pair"}[o.Pair], o.Seed))
	if err := os.MkdirAll(o.Logs, 0o700); err != nil {
		return "", err
	}
	f, err := os.Create(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	fmt.Fprintf(f, "%s, seed %d\n%s\n", o.Kind, o.Seed, p)
	for _, v := range j.broken() {
		fmt.Fprintf(f, "VIOLATION: %s\n", v)
	}
	return file, j.write(f)
}
