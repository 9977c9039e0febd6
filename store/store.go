// Package store keeps what rosterd must know after a restart: what each user's
// clients were told of the roster, who is connected, and whom to refresh again.
//
// What is put is seen by readers at once, and is written behind, many changes in one
// transaction. A caller may ask to be called when a kill of the process cannot lose a
// change. A power failure may lose the last second, but never the file.
//
// The database is SQLite (sqlite.go), or, for a pair of which one instance is active at a
// time, PostgreSQL (postgres.go, active.go). SQLite's file can be looked into while rosterd runs:
//
//	sqlite3 -readonly rosterd.db 'select * from users'
package store

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// User is what is kept of a user's roster and of what their clients were told of
// it.
type User struct {
	JID       string    // bare, not empty
	Roster    []byte    // the last known roster, as its owner compresses it; nil: none is known
	Items     int       // in Roster
	Version   string    // of Roster
	Fetched   time.Time // when the backend was asked for it
	Validator string    // what the backend gave with it, for the next request
	NotFound  bool      // the backend knows no such user
	Outdated  bool      // the backend said that the roster has changed since
	Epoch     uint64    // grows whenever a client may show something else than its version names
	Answered  time.Time // when the last query of any client was answered
	Unsure    bool      // that answer may have been lost with the process that gave it: set by [Open]
	Told      []Told
	Missed    []string // contacts that some client may show otherwise than Roster says
	Former    []Former // contacts that are no more
}

// Told is what a resource was told last.
type Told struct {
	Resource  string    `json:"resource"`
	Versioned bool      `json:"versioned,omitzero"` // it uses roster versioning
	Doubt     bool      `json:"doubt,omitzero"`     // it may have missed anything
	Asked     time.Time `json:"asked,omitzero"`     // when its last query was answered; zero: none since
	Since     time.Time `json:"since,omitzero"`     // when the first of its answers that are not confirmed was given
}

// Former is a contact that was removed from a roster.
type Former struct {
	Contact string    `json:"contact"`
	Removed time.Time `json:"removed"`
}

// Resource is a session, see package session.
type Resource struct {
	JID        string // full
	Connected  bool
	Interested bool
	Available  bool
	Stamped    string    // the user's address as the server stamps it; "": as in JID
	Left       time.Time // when it was available and left, a short time ago; zero: it did not
}

// ServerRoster is the server's own roster of a user, as it was read and written.
type ServerRoster struct {
	JID     string    // bare, not empty
	Version string    // of the roster with which it is in step; "": of none
	Items   int       // in Roster
	Checked time.Time // when the server was asked for it last
	Writing bool      // something was on its way to the server, which alone knows its roster
	Residue string    // names the difference that the server makes by itself; "": none
	Roster  []byte    // as its owner compresses it
}

// mark says why a user is to be refreshed again.
type mark struct {
	why   string
	since time.Time // kept from an earlier mark
	anew  bool      // unless there was none, as it was to be deleted
}

// doubts are that answers since a time may have been lost with their process; or, if all,
// that it may have told anybody what it did not write.
type doubts struct {
	since time.Time
	all   bool
}

// epochsUnknown are more than a process reaches that cannot write.
const epochsUnknown = 1 << 20

// doubtfulID is the key of the change that makes users unsure, which is no user's.
var doubtfulID = id{users, ""}

// Unsent is how long an answer may wait to be written to the server: a stream that
// takes nothing for so long is given up. For as long, an answer to a resource that was
// put as answered need not be put again: it is unsure if it was put within twice that
// before the end of its process.
const Unsent = 30 * time.Second

// Options of [Open].
type Options struct {
	Logger *slog.Logger // nil: nothing is logged
	Errors Counter      // counts each time that something could not be written; nil: nobody does
	// ForgetAfter is how long a user is kept who has no resource and was not put; 0:
	// for ever.
	ForgetAfter time.Duration
}

// ErrClosed is what a store returns that has been closed.
var ErrClosed = errors.New("the store is closed")

// Store is safe for concurrent use. Its methods do not wait for the disk, but for User,
// ServerRoster, ServerRostersBehind, UsersWithRoster, Resources, Marks, Sweeps and Close, and for PutUser,
// PutServerRoster and Sync with done, which may write what waits themselves.
type Store struct {
	options Options
	db      *database
	inFile  bool // db is
	remote  bool // db is PostgreSQL: nobody waits for it but who has to
	ended   time.Time
	clock   *Clock
	queue   queue
	trouble trouble

	soon    chan struct{} // capacity 1: somebody waits to be called
	later   chan struct{} // capacity 1: something is to be written
	stop    context.CancelFunc
	work    sync.WaitGroup
	written atomic.Bool // something, since the last checkpoint

	writing sync.Mutex // held while something is written, guards all below
	failing bool       // the last try did
	fenced  bool       // another instance is active
	reached time.Time  // when something was written, or the store opened
	lived   time.Time  // when the process was alive, as the database has it
	flushed time.Time  // when that was

	unreadMu sync.Mutex      // guards unread
	unread   map[string]User // see PutUnread

	superseded func()      // is called when another instance is active; nil: none can be
	given      atomic.Bool // up, see Abandon

	closing  sync.Once
	closeErr error // guarded by closing
}

// Open opens the store in the file at path, and makes it if there is none. If path
// is "", it ends with the process, and what is kept of users who are not connected
// takes 64 MiB at most.
//
// Its errors name the file, and leave what is there as it is: if the file is in use
// by another process, which it finds out within a second, is damaged, was written
// by a newer rosterd, is no store, or cannot be made or written. Damage that it does
// not find is found when what is damaged is read.
func Open(path string, o Options) (*Store, error) {
	s := &Store{options: o, inFile: path != ""}
	var err error
	if s.db, s.ended, err = openDatabase(path); err != nil {
		return nil, err
	}
	newStore(s, false).warnOfClocks(0)
	return s, nil
}

// newStore begins to work with a database. doubtful says that users may have been told what
// it does not have.
func newStore(s *Store, doubtful bool) *Store {
	if s.options.Logger == nil {
		s.options.Logger = slog.New(slog.DiscardHandler)
	}
	s.clock = NewClock(time.Time{}, time.Now)
	if !s.ended.IsZero() {
		s.clock.goOnAfter(s.ended.Add(aliveWithin))
	}
	s.queue.changes, s.queue.clock = make(map[id]*change), s.clock
	s.trouble = trouble{logger: s.options.Logger, errors: s.options.Errors, causes: make(map[string]error)}
	s.reached = time.Now()
	s.soon, s.later = make(chan struct{}, 1), make(chan struct{}, 1)
	if !s.ended.IsZero() || doubtful {
		s.put(&change{id: doubtfulID, value: doubts{s.ended.Add(-2 * Unsent), doubtful}}, nil) // before all others
	}
	s.put(alive(), nil)
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.work.Go(func() { s.write(ctx) })
	s.work.Go(func() { s.tend(ctx) })
	return s
}

// User is what is kept of a user (a bare JID): a zero User, if nothing is.
func (s *Store) User(jid string) (User, error) {
	for {
		c, err := s.queue.look(id{users, jid})
		switch {
		case err != nil:
			return User{}, err
		case c != nil && c.value == nil:
			return User{}, nil
		case c != nil && c.roster:
			return c.value.(User).copied(), nil
		}
		waits, _ := s.queue.look(doubtfulID)
		kept, err := s.db.user(jid)
		if err != nil || c == nil {
			if waits != nil {
				kept.doubt(waits.value.(doubts))
			}
			return kept, err
		}
		// Its roster is in the database, unless it has been put meanwhile.
		if now, _ := s.queue.look(c.id); now == c {
			u := c.value.(User).copied()
			u.Roster = kept.Roster
			return u, nil
		}
	}
}

// doubt is as the statements doubt and doubtAll.
func (u *User) doubt(d doubts) {
	switch {
	case d.all && len(u.Told) > 0:
		u.Unsure, u.Answered, u.Epoch = true, time.Time{}, u.Epoch+epochsUnknown
	case !d.all && u.Answered.After(d.since):
		u.Unsure = true
	}
}

// copied is a copy that shares nothing with u but the bytes of the roster.
func (u User) copied() User {
	u.Told, u.Missed, u.Former = slices.Clone(u.Told), slices.Clone(u.Missed), slices.Clone(u.Former)
	return u
}

// PutUser replaces what is kept of a user. Without withRoster, u.Roster is not
// written, and what is kept of it stays; else its bytes belong to the store.
//
// If done is not nil, all is written at once, and done is called as soon as a kill
// cannot lose what was put by now, or when the first try to write it has failed: from a
// goroutine of the store, or before PutUser returns. It must not block.
func (s *Store) PutUser(u User, withRoster bool, done func()) {
	if !withRoster {
		u.Roster = nil
	}
	s.forgetUnread(u.JID)
	s.put(&change{id: id{users, u.JID}, value: u.copied(), roster: withRoster}, done)
}

// DeleteUser deletes what is kept of a user and of their rosters.
func (s *Store) DeleteUser(jid string) {
	s.put(&change{id: id{users, jid}}, nil)
	s.put(&change{id: id{serverRosters, jid}}, nil)
}

// ServerRoster is what is kept of the server's own roster of a user: a zero ServerRoster,
// if nothing is.
func (s *Store) ServerRoster(jid string) (ServerRoster, error) {
	switch c, err := s.queue.look(id{serverRosters, jid}); {
	case err != nil:
		return ServerRoster{}, err
	case c == nil:
		waits, _ := s.queue.look(doubtfulID)
		r, err := s.db.serverRoster(jid)
		if waits != nil && r.JID != "" && waits.value.(doubts).all {
			r.Writing = true
		}
		return r, err
	case c.value == nil:
		return ServerRoster{}, nil
	default:
		return c.value.(ServerRoster), nil
	}
}

// PutServerRoster replaces what is kept of the server's own roster of a user. The bytes of
// its roster belong to the store. done is as that of PutUser.
func (s *Store) PutServerRoster(r ServerRoster, done func()) {
	s.put(&change{id: id{serverRosters, r.JID}, value: r}, done)
}

// ServerRostersBehind looks at the first limit users whose names come after one. It returns
// those who have a roster that is of another version than the one with which the server's
// is in step, or whose server roster was being written, or was checked before a time; and
// the name to go on after, or "" at the end. What waits to be written it does not see: see
// Sync.
func (s *Store) ServerRostersBehind(checkedBefore time.Time, after string, limit int) (users []string, next string, err error) {
	return s.db.behind(checkedBefore, after, limit)
}

// PutResource replaces what is kept of a resource: at once if soon, so that a kill
// loses it only if it comes in the next moment.
func (s *Store) PutResource(r Resource, soon bool) {
	s.put(&change{id: id{resources, r.JID}, value: r}, nil)
	if soon {
		wake(s.soon)
	}
}

// DeleteResource deletes what is kept of a resource (a full JID).
func (s *Store) DeleteResource(full string) {
	s.put(&change{id: id{resources, full}}, nil)
}

// Mark keeps that a user is to be refreshed again, and why.
func (s *Store) Mark(user, why string) {
	s.put(&change{id: id{marks, user}, value: mark{why: why, since: time.Now()}}, nil)
}

// Unmark deletes the mark of a user.
func (s *Store) Unmark(user string) { s.put(&change{id: id{marks, user}}, nil) }

// Sync calls done when all that was put before is written, or could not be, as
// PutUser does.
func (s *Store) Sync(done func()) { s.put(nil, done) }

// Resources calls each with each resource, once, in no order, until it fails. each
// may put, but not read; what is put meanwhile, it may get or not.
func (s *Store) Resources(each func(Resource) error) error {
	return s.each(resources, func(_ string, value any) error { return each(value.(Resource)) })
}

// Marks calls each with each mark, and with when the user was marked first, in the
// same way.
func (s *Store) Marks(each func(user, why string, since time.Time) error) error {
	return s.each(marks, func(user string, value any) error {
		m := value.(mark)
		return each(user, m.why, m.since)
	})
}

// MarkOf is why a user is marked, and since when: "", if they are not.
func (s *Store) MarkOf(user string) (why string, since time.Time, err error) {
	switch c, err := s.queue.look(id{marks, user}); {
	case err != nil:
		return "", since, err
	case c == nil:
		return s.db.mark(user)
	case c.value == nil:
		return "", since, nil
	default:
		m := c.value.(mark)
		return m.why, m.since, nil
	}
}

// Reject keeps that a roster of a user was rejected, by its version.
func (s *Store) Reject(user, version string) {
	s.put(&change{id: id{meta, keyRejected + user}, value: version}, nil)
}

// Unreject deletes what Reject keeps of a user.
func (s *Store) Unreject(user string) { s.put(&change{id: id{meta, keyRejected + user}}, nil) }

// Rejections calls each with all that was rejected, as Resources does.
func (s *Store) Rejections(each func(user, version string) error) error {
	return s.each(meta, func(key string, value any) error {
		if user, is := strings.CutPrefix(key, keyRejected); is {
			return each(user, value.(string))
		}
		return nil
	})
}

// each calls f with each key of a table and its value.
func (s *Store) each(t *table, f func(key string, value any) error) error {
	fresh, err := s.queue.all(t)
	if err == nil {
		err = s.db.each(t, func(key string, value any) error {
			if _, is := fresh[key]; is {
				return nil
			}
			return f(key, value)
		})
	}
	if err != nil {
		return err
	}
	for key, value := range fresh {
		if value == nil {
			continue
		}
		if err := f(key, value); err != nil {
			return err
		}
	}
	return nil
}

// Sweep is how far it has come that all users of a domain are refreshed.
type Sweep struct {
	After string `json:"after"`          // those up to this name have been seen to
	Again bool   `json:"again,omitzero"` // they were reported once more since it began
}

// PutSweep keeps that all users of a domain are to be refreshed.
func (s *Store) PutSweep(domain string, sweep Sweep) {
	s.put(&change{id: id{meta, keySweep + domain}, value: asJSON([]Sweep{sweep})}, nil)
}

// DeleteSweep deletes what PutSweep keeps of a domain.
func (s *Store) DeleteSweep(domain string) { s.put(&change{id: id{meta, keySweep + domain}}, nil) }

// Sweeps calls each with all that PutSweep keeps, as Resources does.
func (s *Store) Sweeps(each func(domain string, sweep Sweep) error) error {
	return s.each(meta, func(key string, value any) error {
		domain, is := strings.CutPrefix(key, keySweep)
		if !is {
			return nil
		}
		var kept list[Sweep]
		if err := kept.Scan(value); err != nil || len(kept) != 1 {
			kept = list[Sweep]{{}} // from the beginning
		}
		return each(domain, kept[0])
	})
}

// UsersWithRoster looks at the first limit users whose names come after one. It returns those
// who have a roster, and the name to go on after, or "" at the end. What waits to be written it
// does not see: see Sync.
func (s *Store) UsersWithRoster(after string, limit int) (users []string, next string, err error) {
	return s.db.some(limit, s.db.sql.withRoster, after, limit)
}

// Ended is when the process that wrote the store before is last known to have been
// alive, to some 5 s, by [Store.Now] of its own: zero, if the store is new.
func (s *Store) Ended() time.Time { return s.ended }

// Now is the time by which all is stamped that is put, see [Clock].
func (s *Store) Now() time.Time { return s.clock.Now() }

// Err is nil, or why what was put is not being written at present.
func (s *Store) Err() error {
	if s.given.Load() {
		return ErrSuperseded
	}
	return s.trouble.err()
}

// Abandon says that nothing is to be written any more: who waits is called.
func (s *Store) Abandon() {
	s.given.Store(true)
	wake(s.soon)
}

// Close writes all that waits, and frees the file. What is put meanwhile may be
// lost. It returns an error if not all could be written, the same if it is called
// again.
func (s *Store) Close() error {
	s.closing.Do(func() {
		s.stop()
		s.work.Wait()
		var unread error
		if !s.given.Load() { // else it was handed over
			for _, u := range s.allUnread() {
				unread = cmp.Or(unread, s.join(u))
			}
		}
		s.put(alive(), nil)
		s.queue.close()
		s.closeErr = cmp.Or(unread, s.flush(), s.db.checkpoint(true), s.db.close(true))
		s.queue.release()
	})
	return s.closeErr
}
