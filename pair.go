package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"syscall"
	"time"

	"rosterd/config"
	"rosterd/jid"
	"rosterd/refresh"
	"rosterd/roster"
	"rosterd/store"
)

const (
	tellWithin = 4 * time.Second // before this instance goes on, as the other may be gone
	handWithin = 5 * time.Second // that one waits to be asked for what it could not write
	tellFor    = 2 * time.Minute // it is told each lookAfter, as it may have been cut off
	tellSeldom = 2 * time.Second // how often afterwards; well below handWithin, so that it is not missed
	lookAfter  = time.Second     // how often is looked whether who was passed a refresh is active
	someUsers  = 10_000          // that are entered, or refreshed for having been, at a time
	readAfter  = time.Second     // what could not be read when this instance took over is read again
)

// pair is this instance of a pair: it stands by until it has the lease, works while it does,
// and ends when it has lost it. A nil pair is none.
type pair struct {
	*app
	db        *store.Pair
	peer      *refresh.Peer
	advertise string
	maxBytes  int64 // of a request

	leases  chan *store.Lease // receives one
	ends    context.Context   // with the program
	end     context.CancelFunc
	running sync.WaitGroup
	closed  chan struct{} // when the stream is, as the lease is lost
	left    refresh.Left  // set before closed is
	hand    sync.Once
	handed  chan struct{} // when somebody has asked for what is left

	lease  *store.Lease // set by takeOver before working is; read by others while working
	before *before      // of the lease, once that one was told; nil: it was not. Of serve's loop
}

// before is what the instance that was active before has left.
type before struct {
	left     refresh.Left
	doubtful bool // see tell
}

// newPair connects to nothing yet.
func (a *app) newPair(cfg config.Config, log *slog.Logger) (*pair, error) {
	db, err := store.NewPair(cfg.State.URL.Reveal(), cfg.XMPP.Domain, cfg.Refresh.Advertise, log)
	if err != nil {
		return nil, fmt.Errorf("state.url: %w", err)
	}
	p := &pair{app: a, db: db, peer: refresh.NewPeer(a.tokens.First, a.certificates), advertise: cfg.Refresh.Advertise, maxBytes: cfg.Refresh.MaxBytes, leases: make(chan *store.Lease, 1), closed: make(chan struct{}), handed: make(chan struct{})}
	p.ends, p.end = context.WithCancel(context.Background())
	return p, nil
}

// stand begins to stand by.
func (p *pair) stand() {
	p.log.Info("standing by: another instance may be active", "advertise", p.advertise)
	p.running.Go(func() {
		switch lease, err := p.db.Stand(p.ends); {
		case err == nil:
			p.leases <- lease
		case p.ends.Err() == nil:
			p.failed <- fmt.Errorf("state.url: %w", err)
		}
	})
}

// active receives the lease when this instance is the active one.
func (p *pair) active() <-chan *store.Lease {
	if p == nil {
		return nil
	}
	return p.leases
}

// over is closed when this instance is not the active one any more.
func (p *pair) over() <-chan struct{} {
	if p == nil || !p.working.Load() { // see takeOver
		return nil
	}
	return p.lease.Lost()
}

// confirm is how the server is kept from hearing of an instance that is not the active one any
// more; nil: there is no pair.
func (p *pair) confirm() func(context.Context) error {
	if p == nil {
		return nil
	}
	return p.lease.Confirm
}

// answers returns an error unless this instance may answer for what it was told, as the active
// one: who was paused may not be that any more, and what it keeps in memory is lost.
func (p *pair) answers(ctx context.Context) error {
	if p != nil && p.lease.Confirm(ctx) != nil {
		return roster.ErrNotKept
	}
	return nil
}

// takeOver makes this instance, which has the lease, work. If the database goes away before it
// does, nobody was told anything yet: it is called with the lease again.
func (a *app) takeOver(l *store.Lease) error {
	p := a.pair
	select {
	case <-l.Lost():
		l.Release(false)
		p.lease, p.before = nil, nil
		p.stand()
		return nil
	default:
	}
	p.lease = l
	began := time.Now()
	if p.before == nil {
		p.before = new(before)
		if is := l.Before; is.Term > 0 && !is.Ended {
			p.before.left, p.before.doubtful = p.tell(is.URL)
		}
	}
	left, doubtful := p.before.left, p.before.doubtful
	cfg := *a.cfg.Load()
	switch err := a.open(l, cfg, doubtful, left.Unwritten); {
	case errors.Is(err, store.ErrAway):
		a.log.Warn("what is kept cannot be read: this instance works as soon as it can", "err", err)
		p.running.Go(func() {
			select {
			case <-p.ends.Done():
			case <-time.After(readAfter):
				p.leases <- l
			}
		})
		return nil
	case err != nil:
		return err
	}
	a.listenAdmin(cfg.State.Path)
	a.counters.Takeovers.Inc()
	a.run()
	p.running.Go(p.entered)
	a.log.Info("this instance is the active one", "term", l.Term, "before", l.Before.URL, "it_ended", l.Before.Ended, "doubtful", doubtful, "handed_over_bytes", len(left.Unwritten), "took", time.Since(began))
	return nil
}

// open opens the state, and makes what needs it. If it fails, there is no state.
func (a *app) open(l *store.Lease, cfg config.Config, doubtful bool, left []byte) error {
	state, err := l.Open(a.storeOptions(cfg, a.log), doubtful, left)
	if err != nil {
		return fmt.Errorf("state.url: %w", err)
	}
	a.state = state
	if err := a.work(cfg, a.log); err != nil {
		a.state = nil
		_ = state.Close() // err is the cause; what it could not write is put again, or in doubt
		return err
	}
	return nil
}

// tell tells the instance before that it is not the active one any more, and returns what it
// could not write. doubtful says that it may have told users what it does not say: it did not
// write for long before it died, or it does not answer, and may live. It is told again unless it
// has answered, as it may be cut off from the database alone. Who refuses the connection has ended
// most likely; if not, something between the two refuses it for now.
func (p *pair) tell(url string) (left refresh.Left, doubtful bool) {
	if url == "" || url == p.advertise { // it was this one
		return refresh.Left{}, p.lease.Doubtful()
	}
	lease := p.lease
	once := func() (refresh.Left, error) {
		ctx, cancel := context.WithTimeout(p.ends, tellWithin)
		defer cancel()
		return p.peer.Tell(ctx, url, lease.Term)
	}
	left, err := once()
	switch {
	case err == nil && left.Unknown: // it has ended
		return left, lease.Doubtful()
	case err == nil:
		return left, left.Lost
	}
	refused := errors.Is(err, syscall.ECONNREFUSED)
	if !refused {
		p.log.Warn("the instance that was active does not answer: all that clients were told is in doubt", "advertise", url, "err", err)
	}
	p.running.Go(func() { p.tellAgain(lease, refused, once) })
	return refresh.Left{}, !refused || lease.Doubtful()
}

// tellAgain tells the instance before until it answers, or until this one is not the active one
// any more. refused says that its port was closed at the first try: it has ended most likely.
// Else it may have gone on as the active one until it answers, or until its port is closed.
func (p *pair) tellAgain(lease *store.Lease, refused bool, once func() (refresh.Left, error)) {
	lived := !refused // it may have gone on
	caught := false   // that was caught up with
	for begun := time.Now(); ; {
		pause := lookAfter
		if time.Since(begun) > tellFor {
			pause = tellSeldom
		}
		select {
		case <-p.ends.Done():
			return
		case <-lease.Lost():
			return
		case <-time.After(pause):
		}
		late, err := once()
		closed := errors.Is(err, syscall.ECONNREFUSED)
		lived = lived || err != nil && !closed
		if err == nil && !late.Unknown || lived && !caught && (err == nil || closed) {
			p.tookLate(lease, late)
			caught = true
		}
		if err == nil {
			return
		}
	}
}

// tookLate takes over from the instance before what it has told and heard since this one is the
// active one.
func (p *pair) tookLate(lease *store.Lease, left refresh.Left) {
	for !p.working.Load() {
		select {
		case <-p.ends.Done():
			return
		case <-lease.Lost():
			return
		case <-time.After(lookAfter):
		}
	}
	told, err := store.HandedUsers(left.Unwritten)
	if err != nil {
		p.log.Error("what the instance that was active has handed over cannot be read", "err", err)
	}
	for _, user := range told {
		if err := p.manager.ToldElsewhere(user); err != nil {
			p.log.Error("what the instance that was active has told a user cannot be read", "user", user.JID, "err", err)
		}
	}
	if left.Lost {
		p.log.Error("the instance that was active cannot say all that it told: some clients may show contacts that are no more until their next login")
	}
	p.catchUp(len(told))
}

// catchUp refreshes everybody: the instance before may have been told of changes that it has
// answered for.
func (p *pair) catchUp(told int) {
	users := 0
	for _, host := range p.cfg.Load().XMPP.Hosts {
		if p.serverRosters != nil && p.serverRosters.Keeps(host) { // it may have written there, too
			p.serverRosters.Resume(host)
		}
		n, err := p.manager.RefreshAll(p.ends, host)
		if users += n; err != nil {
			p.log.Error("that all are to be refreshed once more cannot be kept", "host", host, "err", err)
		}
	}
	p.log.Warn("the instance that was active has ended only now: all are refreshed once more", "users", users, "told_by_it", told)
}

// told is told that another instance is active, and returns what this one leaves when its
// stream is closed. Whoever may report users can say so: if the database is reached, that has
// to say so, too.
func (p *pair) told(ctx context.Context, term int64) refresh.Left {
	if !p.working.Load() || term <= p.lease.Term || p.denied(ctx) {
		return refresh.Left{Unknown: true}
	}
	p.lease.Lose()
	select {
	case <-p.closed:
		p.hand.Do(func() { close(p.handed) })
		return p.left
	case <-ctx.Done():
		return refresh.Left{Lost: true}
	}
}

// denied reports whether the database says that this instance is the active one still.
func (p *pair) denied(ctx context.Context) bool {
	if p.lease.Err() != nil { // it is away, or says that another one is
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	active, err := p.db.Active(ctx)
	return err == nil && active.Term <= p.lease.Term
}

// giveUp closes the stream: another instance is active. It is given what could not be written.
func (a *app) giveUp() {
	a.log.Error("another instance has become the active one: this one closes its stream and ends", "err", a.pair.lease.Err())
	a.counters.Active.Set(0)
	a.cease()
	a.stream.Wait()
	a.manager.Close()
	if a.serverRosters != nil {
		a.serverRosters.Close() // else it goes on by ejabberd's API
	}
	p := a.pair
	var err error
	if p.left.Unwritten, err = a.state.Unwritten(); err != nil {
		a.log.Error("what could not be written cannot be handed over", "err", err)
		p.left.Lost = true
	}
	close(p.closed)
	if p.left.Lost || p.left.Unwritten != nil {
		select {
		case <-p.handed:
		case <-time.After(handWithin):
			a.log.Error("nobody has asked for what could not be written")
		}
	}
}

// cease has nobody told anything any more, nor anything written.
func (a *app) cease() {
	a.endStreams()
	a.component.Cease()
	a.state.Abandon() // who waits for it may keep the stream, or the program, from ending
}

// leave ends what this instance does as one of a pair, but for holding the lease.
func (p *pair) leave() {
	if p != nil {
		p.end()
		p.db.End()
	}
}

// close ends the lease. clean says that all is written.
func (p *pair) close(clean bool) {
	if p == nil {
		return
	}
	p.end()
	p.running.Wait()
	select {
	case lease := <-p.leases: // nobody has taken it
		p.lease = lease
	default:
	}
	if p.lease != nil {
		p.lease.Release(clean)
	}
	p.peer.Close()
	p.db.Close()
}

// The answers of who stands by.
const (
	isEntered  = "the active instance is not there: the users are refreshed as soon as one is"
	notPassed  = "this instance stands by, and the active one is not there: nothing was refreshed, try again"
	notEntered = "this instance stands by, and cannot reach the database: nothing was refreshed, try again"
	manyWait   = "this instance stands by, the active one is not there, and too many users wait for it: nothing was refreshed, try again"
)

// pass has users refreshed by the active instance while this one stands by. If that is not
// there, they are entered, so that the next one does it.
func (p *pair) pass(ctx context.Context, users []jid.JID, passed, async bool) (refresh.Answer, bool) {
	if p.working.Load() {
		return refresh.Answer{}, false
	}
	active, err := p.db.Active(ctx)
	if err == nil && !passed && active.URL != "" && active.URL != p.advertise && !active.Ended {
		answer, err := p.passTo(ctx, active, func(ctx context.Context) (refresh.Answer, error) {
			return p.peer.Pass(ctx, active.URL, users, p.maxBytes, async)
		})
		if err == nil {
			return answer, true
		}
		p.log.Warn("a refresh could not be passed to the active instance", "advertise", active.URL, "users", len(users), "err", err)
	}
	for rest := users; len(rest) > 0 && err == nil; {
		var names []string
		for _, user := range rest[:min(len(rest), someUsers)] {
			names = append(names, user.String())
		}
		rest = rest[len(names):]
		err = p.db.Enter(p.ends, names)
	}
	if err != nil {
		p.log.Error("users that are to be refreshed could not be entered", "users", len(users), "err", err)
		why := notEntered
		if errors.Is(err, store.ErrManyEntered) {
			why = manyWait
		}
		return refresh.Unavailable(why, len(users), true), true
	}
	return refresh.Unavailable(isEntered, len(users), false), true
}

// passAll is pass for all users of a domain. Nothing is entered: whoever takes over goes on with
// what the active instance has accepted.
func (p *pair) passAll(ctx context.Context, domain string, passed bool) (refresh.Answer, bool) {
	if p.working.Load() {
		return refresh.Answer{}, false
	}
	if active, err := p.db.Active(ctx); err == nil && !passed && active.URL != "" && active.URL != p.advertise && !active.Ended {
		answer, err := p.passTo(ctx, active, func(ctx context.Context) (refresh.Answer, error) { return p.peer.PassAll(ctx, active.URL, domain) })
		if err == nil {
			return answer, true
		}
	}
	return refresh.Unavailable(notPassed, 0, true), true
}

// passTo passes something to the active instance, and gives it up when another one is.
func (p *pair) passTo(ctx context.Context, to store.Term, pass func(context.Context) (refresh.Answer, error)) (refresh.Answer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-p.ends.Done():
				cancel(p.ends.Err())
				return
			case <-time.After(lookAfter):
			}
			if now, err := p.db.Active(ctx); err == nil && (now.Term != to.Term || now.Ended) {
				cancel(store.ErrSuperseded)
			}
		}
	}()
	answer, err := pass(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	return answer, err
}

// entered refreshes those who were entered, until the program ends.
func (p *pair) entered() {
	for {
		entries, err := p.lease.Entries(p.ends, someUsers)
		if err == nil && len(entries) > 0 {
			if err = p.refreshEntered(entries); err == nil {
				continue
			}
		}
		if err != nil && !errors.Is(err, roster.ErrManyOffline) && p.ends.Err() == nil { // those have their turn later
			p.log.Warn("users who were entered to be refreshed are not yet", "users", len(entries), "err", err)
		}
		select {
		case <-p.ends.Done():
			return
		case <-p.lease.Entered():
		}
	}
}

// refreshEntered refreshes entries, and strikes them out when that, or that it is to be tried
// again, is in the store.
func (p *pair) refreshEntered(entries []store.Entry) error {
	all := len(entries)
	var users []jid.JID
	for _, e := range entries {
		if user, err := jid.Parse(e.JID); err == nil {
			users = append(users, user)
		}
	}
	failed, err := p.manager.Refresh(p.ends, users)
	if err != nil && !errors.Is(err, roster.ErrNotConnected) {
		return err
	}
	refreshed := slices.DeleteFunc(entries, func(e store.Entry) bool {
		user, err := jid.Parse(e.JID)
		return err == nil && errors.Is(failed[user], roster.ErrManyOffline)
	})
	written := make(chan struct{})
	p.state.Sync(func() { close(written) })
	<-written
	if err := p.state.Err(); err != nil {
		return err
	}
	if err := p.lease.Strike(p.ends, refreshed); err != nil || len(refreshed) == all {
		return err
	}
	return roster.ErrManyOffline
}
