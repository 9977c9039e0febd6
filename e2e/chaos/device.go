package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// How a client behaves whose roster query is not answered with a roster. Real
// ones differ: some ask again only at their next login, which no server can do
// anything about. Ours, as good ones do, asks again a while after an error, and
// gives up a query that nobody answers (their usual 10 to 60 s are 5 s here) to
// ask again. What comes for a query that it gave up it ignores. Otherwise it
// asks once in a session.
const (
	askAgainMin = 300 * time.Millisecond
	askAgainMax = 900 * time.Millisecond
	giveUpAfter = 5 * time.Second
)

// device is a user's client program: it is to be online, or not. When the server
// ends its session, it logs in again.
type device struct {
	world    *world
	user     string
	resource string
	orders   chan order
	wake     chan struct{} // 1: something has changed

	mu     sync.Mutex
	todo   int    // orders that are not carried out; guarded by mu, as all below
	online bool   // is to be
	visit  *visit // nil: none
	visits int
}

// order is what a device is to do.
type order struct {
	online bool
	how    leaving
}

func newDevice(w *world, user, resource string) *device {
	return &device{world: w, user: user, resource: resource, orders: make(chan order, 64), wake: make(chan struct{}, 1)}
}

func (d *device) String() string { return d.user + "/" + d.resource }

// run does what the orders say until ctx ends.
func (d *device) run(ctx context.Context, rng *rand.Rand) {
	pause := func(from, to time.Duration) time.Duration { return from + time.Duration(rng.Int64N(int64(to-from))) }
	timer := time.NewTimer(0)
	defer timer.Stop()
	var loginAt, askAt, giveUpAt time.Time // zero: not
	for {
		now := time.Now()
		v, online := d.now()
		if v != nil && v.isOver() {
			d.set(nil)
			d.world.journal.note("%s: the session has ended", v)
			v, askAt, giveUpAt, loginAt = nil, time.Time{}, time.Time{}, now.Add(pause(20*time.Millisecond, 400*time.Millisecond))
		}
		switch {
		case !online || v != nil:
		case loginAt.After(now):
		default:
			var err error
			if v, err = d.login(ctx); err != nil {
				d.world.journal.note("%s: cannot log in: %v", d, err)
				loginAt = time.Now().Add(pause(50*time.Millisecond, 200*time.Millisecond))
				break
			}
			if presenceFirst := rng.IntN(3) == 0; presenceFirst {
				v.session.presence()
				askAt = time.Now().Add(pause(0, 50*time.Millisecond) + 1)
			} else {
				v.ask()
				giveUpAt = time.Now().Add(giveUpAfter)
				if rng.IntN(2) == 0 {
					time.Sleep(pause(0, 30*time.Millisecond))
				}
				v.session.presence()
			}
		}
		if v != nil {
			now = time.Now()
			waiting, refused := v.state()
			switch {
			case waiting && now.After(giveUpAt):
				v.giveUp()
				askAt = now
			case refused && askAt.IsZero():
				askAt = now.Add(pause(askAgainMin, askAgainMax))
			}
			if !askAt.IsZero() && !now.Before(askAt) {
				v.ask()
				askAt, giveUpAt = time.Time{}, now.Add(giveUpAfter)
			}
		}
		timer.Reset(d.until(loginAt, askAt, giveUpAt, v, online))
		select {
		case <-ctx.Done():
			if v, _ := d.now(); v != nil {
				v.session.leave(inOrder)
			}
			return
		case o := <-d.orders:
			d.obey(o)
			askAt, loginAt = time.Time{}, time.Time{}
			if v, _ := d.now(); v != nil { // it was online already
				if waiting, _ := v.state(); !waiting && !v.steady(0) {
					askAt = time.Now()
				}
			}
		case <-d.wake:
		case <-timer.C:
		}
	}
}

// until is how long nothing is due.
func (d *device) until(loginAt, askAt, giveUpAt time.Time, v *visit, online bool) time.Duration {
	due := time.Now().Add(time.Hour)
	consider := func(t time.Time) {
		if !t.IsZero() && t.Before(due) {
			due = t
		}
	}
	if v == nil && online {
		consider(loginAt)
	}
	if v != nil {
		consider(askAt)
		if waiting, _ := v.state(); waiting {
			consider(giveUpAt)
		}
	}
	return max(time.Until(due), 0) + time.Millisecond
}

// order has the device do something.
func (d *device) order(o order) {
	d.mu.Lock()
	d.todo++
	d.mu.Unlock()
	d.orders <- o
}

func (d *device) obey(o order) {
	d.mu.Lock()
	v := d.visit
	d.todo--
	d.online = o.online
	if !o.online {
		d.visit = nil
	}
	d.mu.Unlock()
	if o.online || v == nil {
		return
	}
	d.world.journal.note("%s: leaves, %s", v, o.how)
	if o.how == inOrder {
		d.world.figures.count(&d.world.figures.Logouts)
	} else {
		d.world.figures.count(&d.world.figures.Cuts)
	}
	v.session.leave(o.how)
}

// login begins a visit.
func (d *device) login(ctx context.Context) (*visit, error) {
	if err := d.world.awaitLogins(ctx); err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.visits++
	v := &visit{device: d, number: d.visits, roster: items{}, settled: map[string]bool{}, changed: d.signal}
	d.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	session, err := d.world.server.login(ctx, d.user, d.resource, v)
	if err != nil {
		return nil, err
	}
	v.session = session
	d.world.journal.note("%s: logs in", v)
	d.world.figures.count(&d.world.figures.Logins)
	d.set(v)
	return v, nil
}

func (d *device) now() (v *visit, online bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.visit, d.online
}

func (d *device) set(v *visit) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.visit = v
}

func (d *device) signal() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// differs says how the client differs from what it is to be, or "".
func (d *device) differs() string {
	d.mu.Lock()
	v, online, todo := d.visit, d.online, d.todo
	d.mu.Unlock()
	switch {
	case todo > 0:
		return "has something to do"
	case !online:
		return ""
	case v == nil || v.isOver():
		return "is not logged in"
	}
	return v.differs()
}

func (v *visit) isOver() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.over
}

// state says whether a query waits for its answer, and whether the last one was
// answered with an error.
func (v *visit) state() (waiting, refused bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.waiting != "", v.refused
}

var _ fmt.Stringer = (*device)(nil)
