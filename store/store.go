// Package store keeps bytes by kind and key: what rosterd must know after a
// restart. It knows nothing of rosters; who owns a kind encodes its records.
//
// There are two stores with one contract: [Memory], which ends with the
// process, and [Disk], a file. Both are safe for concurrent use.
//
// A key has a record, which is replaced as a whole, and notes, which are added
// to it and are dropped with the next record. A record is written behind: on
// disk it is at most a second late. A note is written ahead: when Note returns,
// a kill of the process does not lose it, though a power failure may. So an
// owner notes at once what must not be forgotten, and puts what it can learn
// again. Notes of before a record can come back after a kill in the moment in
// which the record was deleted, and only then: to apply one twice has to be
// harmless.
//
// What is done with one key happens in the order of the calls. Concurrent calls
// with the same key are in some order. Of records that are put one after the
// other, those of a kind that is a smaller byte are on disk first, or together.
package store

import "errors"

// Kind is what a record is of: it keeps the keys of different owners apart.
type Kind byte

// The kinds, each with its owner.
const (
	Rosters  Kind = 'r' // roster: the last known roster of a user, which it has compressed
	Users    Kind = 'u' // roster: what a user's resources were told
	Sessions Kind = 's' // session: the resources of a user
	Marks    Kind = 'm' // roster: the users that are to be refreshed once more
)

// MaxKey is the length of the longest key, in bytes. What is put or noted with
// a longer key, or the empty one, is not kept.
const MaxKey = 4096

const (
	// maxForgettable bounds the records of [Memory] that are forgettable, in
	// bytes as they are kept: compressed.
	maxForgettable = 64 << 20
	// maxNotes bounds all notes that are kept, in bytes. Notes beyond it are not
	// kept until there is room again.
	maxNotes = 64 << 20
	// overhead is what a key, or a note, costs in memory or in the journal beyond
	// its bytes, roughly.
	overhead = 64
)

// ErrClosed is what a store returns that has been closed.
var ErrClosed = errors.New("the store is closed")

// Entry is what is known of a key. Its bytes belong to the store and must not
// be modified.
type Entry struct {
	Record []byte   // nil: none
	Notes  [][]byte // written since the record, the oldest first; nil: none
}

// Empty reports whether nothing is known.
func (e Entry) Empty() bool { return e.Record == nil && len(e.Notes) == 0 }

// id names an entry.
type id struct {
	kind Kind
	key  string
}

func (i id) valid() bool { return 0 < len(i.key) && len(i.key) <= MaxKey }
