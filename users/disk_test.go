package users

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"rosterd/jid"
	"rosterd/store"
)

// disk is a store as one on a disk is: what is put is written behind, in order, and lost if
// the process is killed first. What somebody waits for is written at once, with all before.
type disk struct {
	clock  *store.Clock
	mu     sync.Mutex
	now    tables     // what the process sees
	unread store.User // what PutUnread got last
	kept   tables     // what the next one will
	behind []change
	killed bool
	act    func(func()) bool // reports whether the process lives to do it; nil: it does
	full   bool              // nothing is written
	away   error             // nothing is read; nil: it is
	slow   time.Duration     // what somebody waits for takes so long
	puts   atomic.Int64      // of users
}

type change struct {
	at time.Time
	do func(*tables)
}

type tables struct {
	users     map[string]store.User
	resources map[string]store.Resource
	marks     map[string]string
	rejected  map[string]string
	sweeps    map[string]store.Sweep
}

func (t tables) clone() tables {
	return tables{maps.Clone(t.users), maps.Clone(t.resources), maps.Clone(t.marks), maps.Clone(t.rejected), maps.Clone(t.sweeps)}
}

func newDisk() *disk {
	t := tables{make(map[string]store.User), make(map[string]store.Resource), make(map[string]string), make(map[string]string), make(map[string]store.Sweep)}
	return &disk{clock: clockAhead(0, time.Time{}), now: t, kept: t.clone()}
}

// clockAhead is the clock of a process whose machine's is ahead of the others, and which goes on
// after a time.
func clockAhead(by time.Duration, after time.Time) *store.Clock {
	return store.NewClock(after, func() time.Time { return time.Now().Add(by) })
}

func (d *disk) Now() time.Time { return d.clock.Now() }

// change does something, on the disk if it comes to that.
func (d *disk) change(atOnce bool, do func(*tables)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	do(&d.now)
	lives := func() {
		if !d.killed {
			d.behind = append(d.behind, change{time.Now(), do})
		}
		if atOnce && !d.full {
			d.write(len(d.behind))
		}
	}
	if d.act == nil {
		lives()
	} else {
		d.act(lives)
	}
}

// write writes the first n of what is behind. d.mu is held.
func (d *disk) write(n int) {
	for _, c := range d.behind[:n] {
		c.do(&d.kept)
	}
	d.behind = d.behind[n:]
}

// flush writes the next n of what is behind, or all if n is negative. Nothing is behind for
// longer than a second.
func (d *disk) flush(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n < 0 || n > len(d.behind) {
		n = len(d.behind)
	}
	if d.full {
		return
	}
	for n < len(d.behind) && time.Since(d.behind[n].at) >= time.Second {
		n++
	}
	d.write(n)
}

// kill loses what is behind, and what comes.
func (d *disk) kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.killed, d.behind = true, nil
}

// doubt has all users in doubt, as the store has them when the process before may have told
// them what it did not write.
func (d *disk) doubt() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range []tables{d.now, d.kept} {
		for name, u := range t.users {
			u.Unsure, u.Answered = true, time.Time{}
			t.users[name] = u
		}
	}
}

// next is the disk of the next process, whose machine's clock is ahead by so much. The one before
// ended at a time, by its clock.
func (d *disk) next(ended time.Time, ahead time.Duration) *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := &disk{clock: clockAhead(ahead, ended), now: d.kept.clone(), full: d.full, slow: d.slow}
	for name, u := range n.now.users {
		if u.Answered.After(ended.Add(-2 * store.Unsent)) {
			u.Unsure = true
			n.now.users[name] = u
		}
	}
	n.kept = n.now.clone()
	return n
}

// toldOf reports whether the next process will know what a resource was told.
func (d *disk) toldOf(full jid.JID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	told := d.kept.users[full.Bare().String()].Told
	return slices.ContainsFunc(told, func(t store.Told) bool { return t.Resource == full.Resource() })
}

// knowsOf reports whether the next process will know that a resource asked, and may have no
// answer.
func (d *disk) knowsOf(full jid.JID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.kept.resources[full.String()].Interested {
		return false
	}
	u := d.kept.users[full.Bare().String()]
	i := slices.IndexFunc(u.Told, func(t store.Told) bool { return t.Resource == full.Resource() })
	return i < 0 || u.Told[i].Doubt || u.Told[i].Asked.After(d.Now().Add(-60*time.Second))
}

func (d *disk) User(jid string) (store.User, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.away != nil {
		return store.User{}, d.away
	}
	return d.now.users[jid], nil
}

// row is what is kept of a user.
func (d *disk) row(jid string) store.User {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now.users[jid]
}

// lose says that nothing can be read at present, or that all is well again.
func (d *disk) lose(away error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.away = away
}

func (d *disk) PutUser(u store.User, withRoster bool, done func()) {
	d.change(done != nil && !d.isSlow(), func(t *tables) {
		put := u
		if !withRoster {
			put.Roster = t.users[u.JID].Roster
		}
		t.users[u.JID] = put
	})
	d.puts.Add(1)
	if done != nil {
		go d.wait(done)
	}
}

// PutUnread implements Store. What it is for cannot be read here until the end: see lose.
func (d *disk) PutUnread(u store.User) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unread = u
}

// wait calls done when what was put is on the disk, or the disk is full.
func (d *disk) wait(done func()) {
	d.mu.Lock()
	slow := d.slow
	d.mu.Unlock()
	if slow > 0 {
		time.Sleep(slow)
		d.mu.Lock()
		if !d.full {
			d.write(len(d.behind))
		}
		d.mu.Unlock()
	}
	done()
}

func (d *disk) Sync(done func()) {
	d.change(!d.isSlow(), func(*tables) {})
	go d.wait(done)
}

func (d *disk) DeleteUser(jid string) {
	d.change(false, func(t *tables) { delete(t.users, jid) })
}

func (d *disk) PutResource(r store.Resource, soon bool) {
	d.change(soon, func(t *tables) { t.resources[r.JID] = r })
}

func (d *disk) DeleteResource(full string) {
	d.change(false, func(t *tables) { delete(t.resources, full) })
}

func (d *disk) Resources(each func(store.Resource) error) error {
	d.mu.Lock()
	list := maps.Clone(d.now.resources)
	d.mu.Unlock()
	for _, r := range list {
		if err := each(r); err != nil {
			return err
		}
	}
	return nil
}

func (d *disk) Mark(user, why string) { d.change(false, func(t *tables) { t.marks[user] = why }) }

func (d *disk) Unmark(user string) { d.change(false, func(t *tables) { delete(t.marks, user) }) }

func (d *disk) Marks(each func(user, why string, since time.Time) error) error {
	d.mu.Lock()
	list := maps.Clone(d.now.marks)
	d.mu.Unlock()
	for user, why := range list {
		if err := each(user, why, time.Time{}); err != nil {
			return err
		}
	}
	return nil
}

func (d *disk) MarkOf(user string) (why string, since time.Time, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now.marks[user], time.Time{}, nil
}

func (d *disk) Err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full {
		return errors.New("the disk is full")
	}
	return nil
}

func (d *disk) Reject(user, version string) {
	d.change(false, func(t *tables) { t.rejected[user] = version })
}

func (d *disk) Unreject(user string) { d.change(false, func(t *tables) { delete(t.rejected, user) }) }

func (d *disk) Rejections(each func(user, version string) error) error {
	d.mu.Lock()
	list := maps.Clone(d.now.rejected)
	d.mu.Unlock()
	for user, version := range list {
		if err := each(user, version); err != nil {
			return err
		}
	}
	return nil
}

func (d *disk) PutSweep(domain string, s store.Sweep) {
	d.change(false, func(t *tables) { t.sweeps[domain] = s })
}

func (d *disk) DeleteSweep(domain string) {
	d.change(false, func(t *tables) { delete(t.sweeps, domain) })
}

func (d *disk) Sweeps(each func(domain string, s store.Sweep) error) error {
	d.mu.Lock()
	list := maps.Clone(d.now.sweeps)
	d.mu.Unlock()
	for domain, s := range list {
		if err := each(domain, s); err != nil {
			return err
		}
	}
	return nil
}

func (d *disk) UsersWithRoster(after string, limit int) (users []string, next string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.away != nil {
		return nil, "", d.away
	}
	for _, name := range slices.Sorted(maps.Keys(d.kept.users)) {
		switch {
		case name <= after:
			continue
		case limit == 0:
			return users, next, nil
		}
		if limit, next = limit-1, name; d.kept.users[name].Version != "" {
			users = append(users, name)
		}
	}
	return users, "", nil
}

// set says that the disk is full, or slow. One that is not full any more is written.
func (d *disk) set(full bool, slow time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full, d.slow = full, slow
	if !full && !d.killed {
		d.write(len(d.behind))
	}
}

func (d *disk) isSlow() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.slow > 0
}
