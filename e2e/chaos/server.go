package chaos

import (
	"context"
	"time"
)

// The domain that is served, and the component.
const (
	host      = "example.org"
	component = "contacts.example.org"
	secret    = "component secret"
	password  = "secret" // every user's
)

// server is an XMPP server.
type server interface {
	// componentAddress is host:port of the component's port.
	componentAddress() string
	// login begins a session. What arrives goes to the receiver, in order, from
	// one goroutine, which ends with a call of ended.
	login(ctx context.Context, user, resource string, to receiver) (session, error)
	// restart ends the server and all sessions, and starts it again after a
	// pause at least.
	restart(ctx context.Context, pause time.Duration) error
	// ownRoster is the server's own roster of a user.
	ownRoster(ctx context.Context, user string) (items, error)
}

// session is what a client does in a session that has begun. None of its methods
// waits for an answer.
type session interface {
	// query asks for the roster.
	query(id string)
	// presence sends available presence.
	presence()
	// leave ends the session: in order, or as a connection breaks.
	leave(how leaving)
}

// leaving is how a session ends.
type leaving string

const (
	inOrder leaving = "in order"       // with unavailable presence
	closing leaving = "stream closed"  // without
	cutOff  leaving = "connection cut" // with nothing at all
)

// receiver is the client of a session.
type receiver interface {
	// receive is called with the answer to a roster query: a roster, or the condition of an error.
	receive(id string, list []Item, err string)
	// pushed is called with a roster push.
	pushed(item Item)
	// ended is called once, last.
	ended()
}
