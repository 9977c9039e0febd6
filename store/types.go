package store

import "time"

// User is what is kept of a user's roster and of what their clients were told of
// it. Times are kept to the millisecond.
type User struct {
	JID       string    // bare, not empty
	Roster    []byte    // the last known roster, as its owner compresses it; nil: none is known
	Items     int       // in Roster
	Version   string    // of Roster
	Fetched   time.Time // when the backend was asked for it
	Validator string    // what the backend gave with it, for the next request
	NotFound  bool      // the backend knows no such user
	Outdated  bool      // the backend said that the roster has changed since
	Epoch     uint64    // grows whenever a push may have been lost
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
	Interested bool
	Available  bool
	Stamped    string    // the user's address as the server stamps it; "": as in JID
	Left       time.Time // it left then; zero: it is connected
}

