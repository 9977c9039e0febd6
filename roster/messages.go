package roster

import (
	"errors"
	"strconv"

	"rosterd/jid"
)

// The reasons why a roster is not given, or a refresh not done, that are not the
// backend's.
var (
	ErrNotConnected = errors.New("not connected to the server")
	ErrOverdue      = errors.New("the backend did not answer in time")
	ErrBusy         = errors.New("too many queries are waiting")
	ErrStopping     = errors.New("rosterd is stopping")
	ErrNotKept      = errors.New("the state cannot be written at present")
	ErrManyOffline  = errors.New("too many users who are offline wait to be fetched")
)

// ErrUnknownUser is what the error of a fetch is if the backend knows no such user.
var ErrUnknownUser = errors.New("the backend knows no such user")

// Request asks the backend for a user's roster.
type Request struct {
	User  jid.JID // bare
	Hurry bool    // a query waits for it
	// Validator came with the roster that is known, or is "": a roster that is still
	// the same need not be sent.
	Validator string
	// Reported says that the backend may have said that the roster changed.
	Reported bool
}

// Fetched is what the backend answered.
type Fetched struct {
	Roster    *Roster // nil: the one that is known is still the same
	Validator string  // of the roster, for the next [Request]; whoever made it knows what it says
	Missing   bool    // the backend knows no such user, and their roster is empty for that
}

// Edit is a change of their own contacts that a user asks for (RFC 6121, sections 2.3 to 2.5).
type Edit struct {
	Contact Item // JID, Name and Groups count
	Remove  bool
	// Confirm says that the contact is pushed when the backend has taken the edit, also if
	// it is as before.
	Confirm bool
}

// NotAllowedError says that the backend does not permit an edit.
type NotAllowedError struct {
	Message string // for the user to read, in their language, fit for XML; "": the backend has said nothing
}

func (*NotAllowedError) Error() string { return "the backend does not permit it" }

// Answer is the answer to a roster query.
type Answer struct {
	Roster *Roster // nil: there is none, the answer is an error
	Err    error   // why there is none, or why it is an old one
	// Named says that the client uses roster versioning (RFC 6121, section 2.6).
	Named bool
	// Version names Roster for a client that uses versions, else it is "".
	Version string
	// Same says that the client has the roster, or one whose differences are pushed
	// next: then the answer is empty.
	Same bool
}

// Reply answers a query. It returns the items that the answer could not hold:
// they are pushed next.
type Reply func(Answer) (rest []Item)

// Outcome is what became of pushes that were sent.
type Outcome struct {
	// Owed are the contacts whose items some resource did not get, though it is
	// still there.
	Owed []jid.JID
	// Lost says that the stream broke: a new one may deliver.
	Lost bool
	// Refused says that they were refused, and most likely will be again.
	Refused bool
	// Err is why, nil if nothing is owed.
	Err error
}

// Partial is the version of a roster that lacks changes of the one whose version is
// given, and which follow as pushes. Nobody knows it: a client that names it is given
// the whole roster.
func Partial(version string, lacking int) string { return version + "~" + strconv.Itoa(lacking) }
