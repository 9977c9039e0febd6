package chaos

import "time"

// habit is how a server behaves towards a component, as real ones were seen to.
type habit struct {
	name       string
	delegation string // the namespaces of its announcements
	privilege  string

	// privileged lets the component push by privileged IQ. Otherwise it takes
	// pushes from any address of its users.
	privileged bool

	// pushesAlone lets the component push nothing: the server pushes what is written to its
	// own rosters, without what it does not have (ask, approved).
	pushesAlone bool

	// setsRosters lets the component read and write the server's own rosters by IQ
	// (XEP-0356, section 5). Otherwise there is an HTTP API for it.
	setsRosters bool

	// replays sends the presences of those who are online to a component that
	// connects.
	replays bool

	// tellsEnds reports the end of a session whose client says nothing.
	tellsEnds bool

	// asksFirst delegates only once the component has answered what it was
	// asked (disco#info), with every stream.
	asksFirst bool

	// addressed puts the user's bare JID into a forwarded query, and wants the
	// answer to come from there.
	addressed bool

	// detour has answers to delegated queries pass through one more process, so
	// that what is sent after an answer overtakes it.
	detour bool

	// patience is how long a delegated query waits for the component until the
	// client gets an error; 0 is for good.
	patience time.Duration

	// overtext is what an error for a resource that is not there says in words.
	overtext string
}

var (
	likeProsody = habit{
		name: "like-prosody", delegation: "urn:xmpp:delegation:2", privilege: "urn:xmpp:privilege:2",
		privileged: true, setsRosters: true, replays: true, tellsEnds: true,
	}
	// 32 s for an answer are 4 s here.
	likeEjabberd = habit{
		name: "like-ejabberd", delegation: "urn:xmpp:delegation:1", privilege: "urn:xmpp:privilege:1",
		asksFirst: true, addressed: true, detour: true, patience: 4 * time.Second,
		overtext: "<text xml:lang='en' xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>User session not found</text>",
	}
	pushesAlone = func() habit { h := likeEjabberd; h.pushesAlone = true; return h }()
)
