package serverroster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"rosterd/jid"
	"rosterd/roster"
	"rosterd/store"
)

const (
	// A portion takes about portionTakes of the server's time, which is how long others
	// wait behind it, and has maxPortion items at most. All of them take 1/share of it.
	portionTakes = 4 * time.Millisecond
	maxPortion   = 20
	share        = 5
	// smallRoster is the size up to which what an item takes hardly depends on the roster.
	// Beyond, it may grow with it: Prosody saves the whole roster for each.
	smallRoster = 50
	// maxRounds is how often what was written is looked at, and was not as written, before
	// the rest is left as it is.
	maxRounds = 3
	// What the server has a fault with is written so often again, for about four minutes.
	maxFaults = 8
	// A way is broken if it has not done what it said for so many items, or users, and did
	// it for nobody.
	manyUndone, manyDoubters = 5, 2
)

// turn is one turn of a job.
type turn struct {
	*Keeper
	h       *host
	j       *job
	way     Way
	name    string
	waiters []*waiter
	resumed time.Time
	proven  bool
	began   time.Time

	row        store.ServerRoster
	kept       store.ServerRoster // row, as the store has it
	have, want *roster.Roster
	inStep     bool            // at the end
	unknown    bool            // nothing is known of what the server has
	unsaid     bool            // the backend is to say first what is to be written
	sent       []roster.Change // confirmed since the server was asked last
	refused    map[jid.JID]bool
	faulty     bool // some of those were, by a fault that may pass

	tried     bool // something was to be written
	killed    bool // the process was, while it wrote
	toPush    []*serverPush
	confirmed map[jid.JID]bool     // of what was written; nil: nothing is to be pushed
	repeated  map[jid.JID]struct{} // written again for those

	lookedFirst bool // see looksFirst
}

var (
	errStopping = errors.New("rosterd is stopping")
	errBroken   = errors.New("the server does not do what it says")
)

func (k *Keeper) newTurn(h *host, j *job, waiters []*waiter) *turn {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := &turn{Keeper: k, h: h, j: j, waiters: waiters, resumed: h.resumed, proven: h.proven, began: k.Store.Now(),
		refused: make(map[jid.JID]bool), toPush: j.pushes}
	j.pushes = nil
	return t
}

// run goes on with the job, until it is done or another's turn has come.
func (t *turn) run() (done bool, err error) {
	done, err = t.keep()
	if err != nil {
		t.correctFailed()
	}
	t.settlePushes(done || err != nil, err)
	if errors.Is(err, errBroken) {
		return true, nil
	}
	return done, err
}

func (t *turn) keep() (done bool, err error) {
	if t.way, t.name = t.Ways(t.h.name); t.way == nil {
		return true, nil // Resume finds them
	}
	var known bool
	if t.want, known = t.Rosters.Known(t.j.user); !known {
		return true, nil // a failure never empties a roster
	}
	ask := t.load()
	if t.j.faulty { // what is left is written once more
		t.j.faulty, t.row.Residue, ask = false, "", true
	}
	if !ask && t.row.Version == t.want.Version() && len(t.toPush) == 0 {
		t.finish()
		return true, nil
	}
	complete := false // all that differed was written since the server was asked
	for first := true; ; first = false {
		if ask {
			if err := t.ask(first); err != nil {
				return false, err
			}
		}
		if t.unknown && !t.Rosters.Believes(t.j.user, t.have) {
			t.unsaid = true
			return true, nil
		}
		t.unknown = false
		changes := difference(t.have, t.want)
		name := nameOf(changes, t.have)
		if ask && complete {
			t.judge(changes, name)
		}
		if ask {
			complete = false
		}
		if ask = false; name == "" || name == t.row.Residue {
			if t.j.wrote && (t.j.verify || len(t.refused) > 0 || !t.proven) {
				ask = true
				continue
			}
			if t.moved() {
				continue
			}
			if t.looksFirst() {
				ask = true
				continue
			}
			if again := t.pushAgain(); len(again) > 0 {
				over, err := t.writeAgain(again)
				if err != nil {
					return false, err
				}
				if over {
					t.leave()
					return false, nil
				}
				continue
			}
			t.row.Residue = name
			t.finish()
			return true, nil
		}
		if t.unsaid = !t.Rosters.Confirmed(t.j.user); t.unsaid {
			return true, nil
		}
		if len(changes) > fewItems {
			release(t.waiters, false)
			t.waiters = nil
		}
		left, over, err := t.write(changes)
		if left && err == nil && !t.proven && !t.j.tried && len(t.sent) > 0 {
			t.j.tried = !over // else it is tried again: those may be too few items
			err = t.ask(false)
		}
		if err != nil {
			return false, err
		}
		if over {
			t.leave()
			return false, nil
		}
		if complete = !left; t.moved() || left {
			continue
		}
		// What was neither confirmed nor refused is seen, so that it is not written for ever.
		ask = len(t.refused) > 0 || nameOf(difference(t.have, t.want), t.have) == name
	}
}

// load reads what is kept, and reports whether the server is to be asked.
func (t *turn) load() (ask bool) {
	row, err := t.Store.ServerRoster(t.j.user.String())
	if err == nil && row.JID != "" && !row.Writing && row.Residue != noAccount {
		t.have, err = roster.Unpack(row.Roster, row.Items, "")
	}
	if err != nil {
		t.Logger.Error("what was kept of the server's roster of a user cannot be read", "user", t.j.user, "err", err)
		row = store.ServerRoster{}
	}
	t.killed = (row.Writing || row.JID != "" && row.Checked.IsZero()) && !t.j.began
	if t.killed {
		t.unanswered()
	}
	t.j.began, t.j.owes, t.j.yields = true, false, false
	// A server that cannot read what it has may say that it has nothing.
	t.row, t.kept, t.unknown = row, row, row.JID == "" || row.Items == 0 || row.Residue == noAccount
	t.row.JID = t.j.user.String()
	if row.Residue == noAccount {
		t.row.Residue = ""
	}
	return !isCurrent(row, t.resumed, t.Store.Now())
}

// moved reports whether the last known roster is another one by now.
func (t *turn) moved() bool {
	now, known := t.Rosters.Known(t.j.user)
	if !known || now.Version() == t.want.Version() {
		return false
	}
	t.want = now
	return true
}

// lockPushes has the clients told nothing while the server pushes what it is given, if it does.
// It fails while they are being told something.
func (t *turn) lockPushes() (unlock func(), ok bool) {
	if !t.pushes() || len(t.toPush) > 0 || !t.rest() { // nobody waits while the server rests
		return func() {}, true
	}
	unlock, ok = t.Rosters.LockPushes(t.j.user)
	t.j.yields = !ok
	return unlock, ok
}

// ask asks the server what it has, first before anything is written.
func (t *turn) ask(first bool) error {
	at := t.Store.Now()
	var got *roster.Roster
	_, err := t.call(func(ctx context.Context) (err error) {
		got, err = t.way.Get(ctx, t.j.user)
		return err
	})
	if err != nil {
		return err
	}
	t.count(func(s *Status) { s.Checked++ })
	got = plain(got)
	if first && t.have != nil && !got.Equal(t.have) { // it is not as it was left
		t.j.verify = true
		if t.row.Version == t.want.Version() {
			t.j.suspects = append(t.j.suspects, nameOf(difference(got, t.want), got))
		}
	}
	t.have, t.row.Checked, t.j.wrote = got, at, false
	sent := t.sent
	if t.sent = nil; t.proven || len(sent) == 0 {
		return nil
	}
	return t.prove(sent)
}

// judge says what is made of a difference that the server has. If it is still there though
// it was written twice, the server makes it, and it is left.
func (t *turn) judge(changes []roster.Change, name string) {
	if t.j.verify = false; name == "" || name == t.row.Residue {
		return
	}
	refused := true
	for _, c := range changes {
		refused = refused && t.refused[c.Item.JID]
	}
	if !refused && t.j.rounds < maxRounds && !slices.Contains(t.j.suspects, name) {
		t.j.suspects = append(t.j.suspects, name)
		t.j.rounds++
		t.j.verify = true
		return
	}
	t.row.Residue = name
	if t.faulty && t.j.faults < maxFaults {
		t.j.faults++
		t.j.faulty = true
	}
	t.count(func(s *Status) { s.Residue++ })
	t.Logger.Info("the server does not have some items of a user as they were written: they are left as they are",
		"user", t.j.user, "items", len(changes), "refused", len(t.refused))
}

// write writes changes, until another's turn has come, there is enough to prove the way, or
// the last known roster is another one: what is left would take back what clients are told.
func (t *turn) write(changes []roster.Change) (left, over bool, err error) {
	if !t.row.Writing { // a kill does not lose that
		t.row.Writing = true
		t.kept = store.ServerRoster{JID: t.row.JID, Checked: t.row.Checked, Writing: true, Items: t.have.Len(), Residue: t.row.Residue}
		kept := make(chan struct{})
		t.Store.PutServerRoster(t.kept, func() { close(kept) })
		<-kept
	}
	if t.Watcher != nil { // what it was before says what follows from what is written
		t.Watcher.InStep(t.j.user, t.have)
	}
	had := t.have.Lookup(contactsOf(changes))
	from := len(t.sent)
	for want := t.want; len(changes) > 0 && !over && err == nil; {
		n := min(t.h.portionInto(t.have.Len()+len(t.sent)-from), len(changes))
		if t.pushes() { // else a portion would be pushed behind what clients were told meanwhile
			n = 1
		}
		if !t.proven && !t.j.tried {
			// Removals prove nothing, and each may hide an item that is not there: see prove.
			removed := removals(t.sent) + removals(changes)
			if n = min(n, 2*removed+manyUndone-len(t.sent)); n <= 0 {
				break
			}
		}
		unlock, ok := t.lockPushes()
		if !ok {
			over = true
			break
		}
		if t.moved(); t.want == want {
			err = t.set(changes[:n], had[:n])
		}
		if unlock(); t.want != want {
			break
		}
		if err == nil {
			changes, had = changes[n:], had[n:]
			over = len(changes) > 0 && t.over()
		}
	}
	t.have = applied(t.have, t.sent[from:])
	return len(changes) > 0, over, err
}

// set writes a portion, of contacts whom the server has as had says.
func (t *turn) set(portion []roster.Change, had []roster.Item) error {
	var mu sync.Mutex // guards both
	var confirmed []roster.Change
	returned := false
	written := func(c roster.Change) {
		mu.Lock()
		defer mu.Unlock()
		if returned {
			return
		}
		confirmed = append(confirmed, c)
		if t.Watcher != nil {
			i := slices.IndexFunc(portion, func(one roster.Change) bool { return one.Item.JID == c.Item.JID })
			t.Watcher.Written(t.j.user, subscriptionChange(had[i], c), t.exchanges())
		}
	}
	t.j.wrote = true
	t.touch(portion, had)
	took, err := t.call(func(ctx context.Context) error { return t.way.Set(ctx, t.j.user, portion, written) })
	mu.Lock()
	returned = true
	mu.Unlock()
	t.sent = append(t.sent, confirmed...)
	t.confirm(confirmed)
	refused := 0
	var refusal *RefusedError
	if errors.As(err, &refusal) {
		for _, contact := range refusal.Contacts {
			t.refused[contact] = true
		}
		t.faulty = t.faulty || refusal.Faulty
		refused, err = len(refusal.Contacts), nil
	}
	removed := removals(confirmed)
	t.Metrics.Items.WithLabelValues(resultRemoved).Add(float64(removed))
	t.Metrics.Items.WithLabelValues(resultWritten).Add(float64(len(confirmed) - removed))
	t.Metrics.Items.WithLabelValues(resultRefused).Add(float64(refused))
	if err != nil && !errors.Is(err, ErrNoAccount) {
		t.unanswered()
	}
	if err != nil && !errors.Is(err, errStopping) {
		t.Metrics.Items.WithLabelValues(resultFailed).Add(float64(max(0, len(portion)-len(confirmed)-refused)))
	}
	t.count(func(s *Status) {
		s.Removed += uint64(removed)
		s.Written += uint64(len(confirmed) - removed)
	})
	t.h.measured(len(portion), took)
	return err
}

// portionInto is how many items are written together into a roster of a size: as many as
// last time, and fewer if it is larger than that one was.
func (h *host) portionInto(size int) int {
	size = max(size, smallRoster)
	if h.portion == 0 {
		h.portion, h.portionFor = 1, size
	}
	h.portion, h.portionFor = max(1, h.portion*min(h.portionFor, size)/size), size
	return h.portion
}

// measured says how long it took to write some items of the last portion.
func (h *host) measured(items int, took time.Duration) {
	next := 2 * h.portion
	if each := took / time.Duration(items); each > 0 {
		next = min(next, int(portionTakes/each))
	}
	h.portion = min(max(next, 1), maxPortion)
}

// exchanges reports whether the server sends the presences that follow from what is written.
func (t *turn) exchanges() bool {
	way, tells := t.way.(exchanger)
	return t.name == "api" || tells && way.Exchanges()
}

// call calls a way to rosters when the server may be used, and notes whether it works.
func (t *turn) call(f func(ctx context.Context) error) (took time.Duration, err error) {
	took, err = t.measure(f)
	var refusal *RefusedError
	switch {
	case err == nil, errors.As(err, &refusal), errors.Is(err, ErrNoAccount):
		t.well(t.h, took)
	case t.calls.Err() != nil:
		err = errStopping
	}
	return took, err
}

// measure calls a way when the server may be used, and has the server rest for it.
func (t *turn) measure(f func(ctx context.Context) error) (took time.Duration, err error) {
	if !t.rest() {
		return 0, errStopping
	}
	ctx, cancel := context.WithTimeout(t.calls, callTakes)
	defer cancel()
	began := time.Now()
	err = f(ctx)
	took = time.Since(began)
	t.Metrics.Seconds.Add(took.Seconds())
	t.mu.Lock()
	t.h.spend(took)
	pause := time.Duration(share*max(1, t.busy())-1) * took // the hosts are on one server
	released := t.h.owe(min(pause, callTakes))
	t.mu.Unlock()
	release(released, false)
	return took, err
}

// rest waits until the server may be used: at once if a query waits, unless too much is
// owed. It returns false if the keeper is closed first.
func (t *turn) rest() bool {
	for t.stopping.Err() == nil {
		t.mu.Lock()
		until := t.h.free
		if t.waiters != nil || t.h.urgent.Len() > 0 {
			until = until.Add(-maxOwed)
		}
		wait := time.Until(until)
		inVain := t.waiters != nil && wait > slowCall
		t.h.slow = t.h.slow || inVain
		t.mu.Unlock()
		if inVain {
			release(t.waiters, false)
			t.waiters = nil
		}
		if wait <= 0 {
			return true
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-t.h.wake: // it may be that a query waits
		case <-t.stopping.Done():
		}
		timer.Stop()
	}
	return false
}

// over reports whether another's turn has come.
func (t *turn) over() bool {
	if !t.rest() {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.waiters == nil && t.h.urgent.Len() > 0:
		return true
	case t.j.soon:
		return t.h.soon.Len() > 0 && t.Store.Now().Sub(t.began) > turnTakes
	case t.j.fails > 0:
		return t.h.soon.Len() > 0 || t.h.background.Len() > 0
	}
	return t.h.soon.Len() > 0
}

// finish keeps that the user is in step, but for what the server makes otherwise.
func (t *turn) finish() {
	t.correct()
	row := store.ServerRoster{JID: t.row.JID, Version: t.want.Version(), Items: t.have.Len(), Checked: t.checked(), Residue: t.row.Residue, Roster: t.have.Packed()}
	if k := t.kept; k.Version != row.Version || k.Residue != row.Residue || !k.Checked.Equal(row.Checked) {
		t.Store.PutServerRoster(row, nil)
	}
	t.inStep = true
	t.count(func(s *Status) { s.InStep++ })
	if t.Watcher != nil {
		t.Watcher.InStep(t.j.user, t.have)
	}
	t.wantPresence()
}

// leave keeps what the server has by now.
func (t *turn) leave() {
	t.correct()
	t.Store.PutServerRoster(store.ServerRoster{JID: t.row.JID, Items: t.have.Len(), Checked: t.checked(), Residue: t.row.Residue, Roster: t.have.Packed()}, nil)
}

// noAccount is the residue of a user of whom the server has no account, at present: they are
// tried again whenever they are fetched, as others are once a day.
const noAccount = "no account"

func (t *turn) leaveNoAccount() {
	t.Store.PutServerRoster(store.ServerRoster{JID: t.row.JID, Version: t.want.Version(), Checked: t.began, Residue: noAccount}, nil)
}

// prove compares what the server has with what it has confirmed since it was asked last.
// It returns an error if the way does not do what it says. These are no proof of that: what
// single servers make otherwise, of addresses and names; and contacts whom the server adds by
// itself (mod_shared_roster, mod_groups), which are still there when they were removed, and
// are both whatever was written.
func (t *turn) prove(sent []roster.Change) error {
	last := make(map[jid.JID]roster.Change, len(sent))
	var contacts []jid.JID
	for _, c := range sent {
		if _, twice := last[c.Item.JID]; !twice {
			contacts = append(contacts, c.Item.JID)
		}
		last[c.Item.JID] = c
	}
	done, undone, lacking := 0, 0, 0
	for i, has := range t.have.Lookup(contacts) {
		c := last[contacts[i]]
		switch {
		case c.Action == roster.Removed:
		case has.JID.IsZero():
			lacking++
		case has.Subscription != c.Item.Subscription:
			if has.Subscription != roster.SubscriptionBoth {
				undone++
			}
		case has.Subscription != roster.SubscriptionNone && has.Equal(plainItem(c.Item)):
			done++
		}
	}
	// What is there and is not to be may be one of those, by another address.
	undone += max(0, lacking-removals(difference(t.have, t.want)))
	t.mu.Lock()
	h := t.h
	if !h.resumed.Equal(t.resumed) {
		t.mu.Unlock()
		return nil
	}
	if done > 0 {
		h.proven, t.proven = true, true
	}
	broken := false
	if !h.proven && undone > 0 {
		h.undone += undone
		if !t.j.doubted {
			t.j.doubted = true
			h.doubters++
		}
		broken = h.undone >= manyUndone || h.doubters >= manyDoubters
		undone = h.undone
	}
	t.mu.Unlock()
	if broken {
		t.fail(h, fmt.Sprintf("%d items are not as the server has confirmed them", undone))
		return errBroken
	}
	return nil
}

// count counts.
func (t *turn) count(f func(*Status)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f(&t.h.status)
}
