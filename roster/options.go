package roster

import (
	"context"
	"log/slog"
	"time"

	"rosterd/jid"
	"rosterd/store"
)

// Source is where rosters come from. Fetch asks for a user's roster as it is now;
// it is called from many goroutines, but never twice at a time for one user. The
// text of an error is shown to the backend's developers: short, and without
// secrets.
type Source interface {
	Fetch(ctx context.Context, r Request) (Fetched, error)
}

// Request is what a [Source] is asked.
type Request struct {
	User  jid.JID // bare
	Hurry bool    // a query waits for it
	// Validator is what came with the roster that is known, or "": one that is still
	// the same need not be sent.
	Validator string
	// Reported says that the backend may have said that the roster changed.
	Reported bool
}

// Fetched is what a [Source] answers.
type Fetched struct {
	Roster    *Roster // nil: the one that is known is still the same
	Validator string  // of the roster, for the next [Request]; the Source alone knows what it says
	Missing   bool    // the Source knows no such user, and his roster is empty for that
}

// Sessions is the table of the users' resources. Its methods are safe for
// concurrent use and do not block.
type Sessions interface {
	Interested(full jid.JID) (news bool)
	InterestedOf(user jid.JID) []jid.JID
	HasConnected(user jid.JID) bool
	Users(domain string) []jid.JID
}

// Pusher sends roster pushes (RFC 6121, section 2.1.6). Its methods are safe
// for concurrent use.
type Pusher interface {
	// Connected reports whether anything can be sent at present.
	Connected() bool
	// Push sends each change to each resource, all of one user, in order. It
	// may block while the server reads slowly, but not without bound. Unless it
	// returns an error, which means that nothing was sent, settled is called
	// once, from any goroutine, when every push was answered, refused or given
	// up; it does not block. An error that is ErrNotConnected will pass.
	Push(to []jid.JID, changes []Change, settled func(Outcome)) error
}

// Watcher is told each last known roster of a user (a bare JID), in order. Told
// does not block.
type Watcher interface {
	Told(user jid.JID, now *Roster)
}

// Outcome is what became of pushes that were sent.
type Outcome struct {
	// Owed are the contacts whose items some resource did not get, though it
	// is still there.
	Owed []jid.JID
	// Lost says that the stream broke: a new one may deliver.
	Lost bool
	// Refused says that nothing but a refusal, which will most likely be repeated,
	// has kept them from being delivered.
	Refused bool
	// Err is why, nil if nothing is owed.
	Err error
}

// Store keeps what must be known after a restart: a [store.Memory] or a
// [store.Disk].
type Store interface {
	Get(kind store.Kind, key string) (store.Entry, error)
	Put(kind store.Kind, key string, record []byte)
	Note(kind store.Kind, key string, note []byte)
	Forgettable(kind store.Kind, key string, yes bool)
	Each(kind store.Kind, f func(key string, e store.Entry) error) error
	Noted(kind store.Kind, f func(key string, notes [][]byte) error) error
	Ended() time.Time
}

// Limits of a [Manager]. The zero value of a field means its default.
type Limits struct {
	Answer     time.Duration // how long a query may wait for its answer; 24 s, to be answered within 25
	Settle     time.Duration // how long a refresh waits for its pushes to be answered; 2 s
	Background int           // fetches at a time that no query waits for; 48
	PerUser    int           // queries of one user waiting at a time; 64
	Queries    int           // queries of all users waiting at a time; 65,536
	Resync     int           // users brought in line in the background, per second; 100
	Cache      int           // bytes of states kept at hand that are in the store, too; 64 MiB, negative: none
}

func (l Limits) withDefaults() Limits {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&l.Background, 48)
	def(&l.PerUser, 64)
	def(&l.Queries, 65536)
	def(&l.Resync, 100)
	def(&l.Cache, 64<<20)
	if l.Answer == 0 {
		l.Answer = 24 * time.Second
	}
	if l.Settle == 0 {
		l.Settle = 2 * time.Second
	}
	return l
}

// Rules say what is believed and given when the backend fails, or seems to.
type Rules struct {
	// MaxStale is how old a last known roster may be that a query is answered
	// with when a fetch failed; 0 is any age.
	MaxStale time.Duration
	// MaxRemoved is the part of a roster of 10 items or more that a fetch may
	// remove without being confirmed by one that says the same, ConfirmAfter later.
	MaxRemoved   float64
	ConfirmAfter time.Duration
	// MaxAge is for how long a query is answered with the last known roster
	// without asking; 0: not at all.
	MaxAge time.Duration
}

// Options are what a [Manager] works with. All but Rules and Limits are required.
type Options struct {
	Source   Source
	Sessions Sessions
	Pusher   Pusher
	Store    Store
	Logger   *slog.Logger
	Rules    Rules
	Limits   Limits
}
