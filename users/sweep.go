package users

import (
	"context"
	"slices"
	"sync"
	"time"

	"rosterd/jid"
	"rosterd/roster"
	"rosterd/store"
)

// sweepAgain is when what could not be read or written is tried again.
const sweepAgain = 10 * time.Second

// Sweeps keeps over a restart whose domains' users are all to be refreshed, and how far that
// has come. Its methods do not block, but for Sweeps and UsersWithRoster.
type Sweeps interface {
	PutSweep(domain string, s store.Sweep)
	DeleteSweep(domain string)
	Sweeps(each func(domain string, s store.Sweep) error) error
	// UsersWithRoster are those with a last known roster of the first limit users behind
	// one, and behind whom to go on; "": no one.
	UsersWithRoster(after string, limit int) (users []string, next string, err error)
}

// sweeper has all users of a domain fetched whose last known roster is in the store, and who
// have no connected resource. It enters some into the fetch queue whenever few of them wait
// there, marked, and keeps how far it has come when those marks are written. It is safe for
// concurrent use.
type sweeper struct {
	m    *Manager
	wake chan struct{} // capacity 1: there may be something to do

	mu     sync.Mutex // guards all below
	sweeps map[string]store.Sweep
	order  []string // of those, the next one in front
}

func newSweeper(m *Manager) (*sweeper, error) {
	w := &sweeper{m: m, wake: make(chan struct{}, 1), sweeps: make(map[string]store.Sweep)}
	return w, m.Store.Sweeps(func(domain string, s store.Sweep) error {
		w.sweeps[domain] = s
		w.order = append(w.order, domain)
		return nil
	})
}

// begin has a domain swept, and returns when a kill of the process cannot lose that, or an
// error if that is not sure. If it is being swept, that goes on, and is done again afterwards:
// who comes last is not to wait for ever.
func (w *sweeper) begin(ctx context.Context, domain string) error {
	w.mu.Lock()
	s, is := w.sweeps[domain]
	if s.Again = is; !is {
		w.order = append(w.order, domain)
	}
	w.sweeps[domain] = s
	w.m.Store.PutSweep(domain, s)
	w.mu.Unlock()
	w.look()
	if w.m.sync(ctx) != nil {
		return roster.ErrNotKept
	}
	return nil
}

// look says that there may be something to do. It does not block.
func (w *sweeper) look() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run sweeps until the manager is closed.
func (w *sweeper) run() {
	for w.m.ctx.Err() == nil {
		var later <-chan time.Time
		if domain, s, is := w.next(); is && w.m.queue.mayTakeMore() {
			err := w.enter(domain, s)
			if err == nil {
				continue
			}
			w.m.Logger.Error("who is to be refreshed of a domain of which everybody is cannot be looked up", "host", domain, "err", err)
			later = time.After(sweepAgain)
		}
		select {
		case <-w.wake:
		case <-later:
		case <-w.m.ctx.Done():
		}
	}
}

// next is the domain whose turn it is.
func (w *sweeper) next() (domain string, s store.Sweep, is bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, domain := range w.order {
		if w.m.keeps(domain) { // else it waits until that is so again
			w.order = append(append(w.order[:i:i], w.order[i+1:]...), domain)
			return domain, w.sweeps[domain], true
		}
	}
	return "", s, false
}

// enter enters the next users of a domain.
func (w *sweeper) enter(domain string, s store.Sweep) error {
	m := w.m
	names, next, err := m.Store.UsersWithRoster(s.After, sweepChunk)
	if err != nil {
		return err
	}
	var away []jid.JID
	for _, name := range names {
		// Who is connected was reported with the others who are, or has come since.
		if user, err := jid.Parse(name); err == nil && user.Domain() == domain && !m.Sessions.HasConnected(user) {
			away = append(away, user)
		}
	}
	m.queue.keep(everybody, away, false)
	if err := m.sync(m.ctx); err != nil {
		return err // who is entered twice is fetched once
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s = w.sweeps[domain] // it may have been reported meanwhile
	switch s.After = next; {
	case next != "" || s.Again:
		s.Again = s.Again && next != ""
		w.sweeps[domain] = s
		m.Store.PutSweep(domain, s)
		return nil
	}
	delete(w.sweeps, domain)
	w.order = slices.DeleteFunc(w.order, func(of string) bool { return of == domain })
	m.Store.DeleteSweep(domain)
	m.Logger.Info("everybody of a domain was reported: the last of them wait to be fetched", "host", domain)
	return nil
}
