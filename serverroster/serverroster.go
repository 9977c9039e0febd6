// Package serverroster keeps the server's own rosters in step with the last known ones, so
// that the server does between contacts what servers do by their rosters: presence, PEP
// events, access to what is published, message archives.
//
// A [Way] reads and writes the rosters of one host's users: by privilege (XEP-0356,
// section 5; package component) or by ejabberd's HTTP API. Only differences are written, in
// small portions, and the time that they take is measured: see [Keeper].
package serverroster

import (
	"context"
	"errors"

	"rosterd/jid"
	"rosterd/roster"
)

// Way is how the server's own rosters of a host's users are read and written. It is safe
// for concurrent use. Its methods block until the server has answered, or ctx has ended.
type Way interface {
	// Get asks the server for its own roster of a user (a bare JID). Of an item, JID,
	// Name, Subscription and Groups count.
	Get(ctx context.Context, user jid.JID) (*roster.Roster, error)
	// Set writes changes, in order, until one fails otherwise than with a
	// [*RefusedError], which it returns at the end. A removed item is as the server has
	// it, as far as is known. written is called for each change
	// that the server has confirmed, from any goroutine but one at a time, and in order
	// with what the server reports of presence; it does not block.
	Set(ctx context.Context, user jid.JID, changes []roster.Change, written func(roster.Change)) error
}

// exchanger is a [Way] to a server that may exchange presence by itself.
type exchanger interface {
	// Exchanges reports whether the server sends the presences that follow from what is
	// written, see [Watcher].Written. It does not block.
	Exchanges() bool
}

// ErrNoAccount is returned by a [Way] if the server has no account of that name.
var ErrNoAccount = errors.New("the server has no such account")

// RefusedError is returned by [Way].Set: the server does not take these contacts' items as
// they are. What it would say to them again is the same, unless it has a fault.
type RefusedError struct {
	Contacts []jid.JID
	Faulty   bool   // the server has a fault with one of them, which may pass
	Why      string // the first one's condition or message, bounded and without secrets
}

func (e *RefusedError) Error() string { return "refused: " + e.Why }

// Watcher is told what the server's own rosters have. Its methods do not block. They are
// safe for concurrent use.
type Watcher interface {
	// Written says that the server's own roster of a user has a contact otherwise from now
	// on, and how it had them before: it is called as [Way].Set's written is. exchanges says
	// that the server has sent the user's presence to the contact, if that follows; else it
	// does so with the next presence alone. The contact's presence for the user it may have
	// fetched, or not.
	Written(user jid.JID, c roster.SubscriptionChange, exchanges bool)
	// InStep says that the server's own roster of a user is this one: it is in step, or
	// about to be written.
	InStep(user jid.JID, now *roster.Roster)
	// Lost says that nothing is known any more of the rosters of a host's users.
	Lost(host string)
}
