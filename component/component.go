// Package component is the XMPP side of rosterd: an external component (XEP-0114) that
// answers the roster queries a server delegates to it (XEP-0355), sends roster pushes
// as a privileged entity (XEP-0356), and relays presence.
//
// One goroutine reads a stream. It answers each stanza at once or hands it over, and
// never waits for the server, the backend or a client. Another one writes, from a bounded
// queue. Others keep the stream alive, ask resources whether they are there, and relay
// presence. [Component.Run] starts them, waits for them, and connects again.
package component

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"rosterd/jid"
	"rosterd/metrics"
	"rosterd/presence"
	"rosterd/roster"
	"rosterd/session"
)

// Options of a [Component].
type Options struct {
	Address string      // host:port of the server's component port
	TLS     *tls.Config // how to connect with TLS; nil: without
	Domain  string      // the component's own domain, prepared
	Secret  string      // shared with the server; appears nowhere else
	Hosts   []string    // domains whose users are served, prepared; nothing else is trusted
	Version string      // told to who asks (XEP-0092)

	Unrestricted bool   // the server takes stanzas from every address of Hosts
	Presence     string // "auto", "relay" or "off"

	// The server's own rosters.
	ServerRoster      string            // "off": they are not to be kept in step
	API               API               // nil: none is configured
	ServerRosterReady func(host string) // called when Component.OwnRosters has a way on a stream; it does not block
	ServerRosterNone  func(host string) // called when it is known that there is no way, also not by API; it does not block

	// ServerPush has the server push contacts' items itself, by writing them to its own
	// roster: see serverroster.Keeper.Push. nil: it cannot.
	ServerPush func(user jid.JID, contacts []jid.JID, settled func(missing []jid.JID, err error))

	Queue     int // bytes that wait to be written at most; 0: 16 MiB
	MaxStanza int // bytes of the longest stanza that is sent; 0: 256 KiB

	// Edits reports whether users of a host may change their contacts; nil: nobody may.
	Edits func(host string) bool

	// How many roster queries a user, or a stranger, may send at once, and from then
	// on each second. 0: as many as they like.
	QueriesBurst     int
	QueriesPerSecond float64

	// Pair says that another instance may have been connected a moment ago, or be still, and
	// is not to be any more: who is in its place is decided elsewhere.
	Pair bool

	// Confirm returns when something may be sent to the server, and fails if nothing may be any
	// more, as another instance is in its place. It is called before each connection and each
	// write; nil: nobody is asked.
	Confirm func(ctx context.Context) error

	Timing  Timing
	Logger  *slog.Logger
	Metrics *metrics.Metrics
}

// Timing is when a component acts. The zero value of a field means its default.
type Timing struct {
	Dial      time.Duration // connecting and handshake; 15 s
	MinRetry  time.Duration // first pause before connecting again; 1 s
	MaxRetry  time.Duration // longest pause; 60 s
	Ping      time.Duration // silence after which the server is asked for a sign of life; 20 s
	Dead      time.Duration // silence after which the stream is given up; 50 s
	Stanza    time.Duration // time without a whole stanza after which the stream is given up; 5 min
	Write     time.Duration // one write to the server; 30 s
	Answer    time.Duration // how long the answer to an IQ is waited for; 60 s
	Blocks    time.Duration // how long a host that never answered may take to say whom a user has blocked; 5 s
	Announce  time.Duration // how long announcements are waited for before they count as missing; 10 s
	Close     time.Duration // how long the server may take to close the stream; 3 s
	Prove     time.Duration // how often is proven that delegated queries arrive; 30 s
	ProveSoon time.Duration // how often while there is a doubt; 1 s
	Reach     time.Duration // within which queries have to reach the stream of an instance of a pair; 5 s
	Arrive    time.Duration // how much later than the answer to what was sent behind it a probe may come; 5 s
	Ask       time.Duration // how often is looked for resources to ask whether they are there; 2 s
	Report    time.Duration // how long a server may take to report on a new stream who is there; 5 s
	Silent    time.Duration // silence of a resource after which it is asked; 90 s, and see askPause
}

func (t Timing) withDefaults() Timing {
	return Timing{
		Dial:      cmp.Or(t.Dial, 15*time.Second),
		MinRetry:  cmp.Or(t.MinRetry, time.Second),
		MaxRetry:  cmp.Or(t.MaxRetry, 60*time.Second),
		Ping:      cmp.Or(t.Ping, 20*time.Second),
		Dead:      cmp.Or(t.Dead, 50*time.Second),
		Stanza:    cmp.Or(t.Stanza, 5*time.Minute),
		Write:     cmp.Or(t.Write, 30*time.Second),
		Answer:    cmp.Or(t.Answer, 60*time.Second),
		Blocks:    cmp.Or(t.Blocks, 5*time.Second),
		Announce:  cmp.Or(t.Announce, 10*time.Second),
		Close:     cmp.Or(t.Close, 3*time.Second),
		Prove:     cmp.Or(t.Prove, 30*time.Second),
		ProveSoon: cmp.Or(t.ProveSoon, time.Second),
		Reach:     cmp.Or(t.Reach, 5*time.Second),
		Arrive:    cmp.Or(t.Arrive, 5*time.Second),
		Ask:       cmp.Or(t.Ask, 2*time.Second),
		Report:    cmp.Or(t.Report, 5*time.Second),
		Silent:    cmp.Or(t.Silent, 90*time.Second),
	}
}

// API is ejabberd's HTTP API, by which its own rosters are read and written.
type API interface {
	// State reports whether it works for a host's users, as far as is known, and why not.
	// It does not block.
	State(host string) (works bool, why string)
}

// Rosters knows the rosters. Its methods do not block.
type Rosters interface {
	// Get asks for the roster of a resource's user. Unless it returns an error,
	// reply is called once; it may block while the server reads slowly. If Get returns
	// an error, or replies without a roster, the resource is told everything later.
	Get(full jid.JID, version *string, reply roster.Reply) error
	// Edit passes on what a resource's user wants to be changed. Unless it returns an error,
	// reply is called once; it does not block.
	Edit(full jid.JID, e roster.Edit, reply func(error)) error
	Refused(full jid.JID, contacts []jid.JID) // to change these contacts' items
	Undelivered(full jid.JID)                 // a reply was lost with the stream
	Unasked(full jid.JID)                     // it is connected, and somebody else may have told it anything
	Gone(full jid.JID)                        // it is no longer connected
	Resume(domain string)                     // its users can be sent pushes again, or their own rosters on the server be written
	Want(user jid.JID)                        // a resource of theirs has come, and asks the server, not us
}

// Component is the connection to one server. Its methods are safe for concurrent use.
type Component struct {
	opts         Options
	names        *names
	sessions     *session.Table
	rosters      Rosters       // set by Run before anything else happens
	hub          *presence.Hub // without Relay, one for no hosts, which does nothing
	unrestricted atomic.Bool   // Options.Unrestricted, unless the server proves it wrong
	nobody       string        // a localpart that is nobody's
	born         int64         // when New was called, in microseconds since 1970

	reached int          // streams that [Component.reach] ended; of the goroutine that tends
	dropped atomic.Int32 // streams in a row on which the server has dropped privileged pushes

	buffers         buffers  // of answers
	userBudgets     *budgets // of queries; nil: none
	strangerBudgets *budgets

	undelivered *logLimiter // pushes, since the stream began
	unanswered  *logLimiter // roster queries
	unlisted    *logLimiter // block lists
	strangers   *logLimiter // hosts that announce something and are not served
	lacking     *logLimiter // what better routes need
	streamless  *logLimiter // attempts to connect, since the stream before

	mu     sync.Mutex // guards opts.Secret and opts.TLS, too
	stream *stream    // nil while there is none
	why    error      // why there is none
}

// defaultMaxStanza is that of Options. COMPAT Prosody, which ends the stream at 512 KiB.
const defaultMaxStanza = 256 << 10

// New makes a component; [Component.Run] connects it.
func New(o Options, sessions *session.Table) *Component {
	o.Timing = o.Timing.withDefaults()
	o.Queue = cmp.Or(o.Queue, 16<<20)
	if o.Confirm == nil {
		o.Confirm = func(context.Context) error { return nil }
	}
	o.MaxStanza = cmp.Or(o.MaxStanza, defaultMaxStanza)
	c := &Component{
		opts:     o,
		names:    newNames(o.Domain, o.Hosts),
		sessions: sessions,
		hub:      presence.New(nil, nil, presence.Limits{}),
		nobody:   "nobody-" + strings.ToLower(rand.Text()),
		born:     time.Now().UnixMicro(),
		why:      errors.New(ReasonConnecting),

		undelivered: newLogLimiter(0, 64),
		unanswered:  newLogLimiter(time.Minute, 64),
		unlisted:    newLogLimiter(time.Hour, 64),
		strangers:   newLogLimiter(0, 16),
		lacking:     newLogLimiter(0, 256),
		streamless:  newLogLimiter(time.Minute, 64),
	}
	if o.QueriesBurst > 0 {
		c.userBudgets = newBudgets(o.QueriesBurst, o.QueriesPerSecond, maxUsers)
		c.strangerBudgets = newBudgets(o.QueriesBurst, o.QueriesPerSecond, maxStrangers)
	}
	c.unrestricted.Store(o.Unrestricted)
	return c
}

// Relay makes the component relay what hub decides. It is called before Run, if at all.
func (c *Component) Relay(hub *presence.Hub) { c.hub = hub }

// Renew replaces the secret, and how to connect with TLS, for the next connection.
func (c *Component) Renew(secret string, secured *tls.Config) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opts.Secret, c.opts.TLS = secret, secured
}

// Run connects to the server, and again whenever the stream is lost, until ctx ends; then
// it closes the stream in order. It is called once.
func (c *Component) Run(ctx context.Context, rosters Rosters) {
	c.rosters = rosters
	retry := c.newBackoff()
	var before *grants // of the stream before
	restarted := false // the server was seen to be down
	for ctx.Err() == nil {
		s, err := c.open(ctx)
		if err != nil {
			restarted = restarted || isDown(err)
		} else {
			if before != nil {
				c.opts.Metrics.Reconnects.Inc()
			}
			s.grants = newGrants(c.opts.Hosts, before)
			before = s.grants
			s.unasked.restarted = restarted
			c.opts.Logger.Info("connected to the XMPP server", "address", c.opts.Address, "domain", c.opts.Domain)
			c.set(s, nil)
			c.streamless.reset()
			err = c.serve(ctx, s)
			restarted = conditionOf(err) == "system-shutdown" || !c.listens(ctx)
			c.restrict(err)
			if time.Since(s.began) > retry.max {
				retry.reset()
			}
		}
		if ctx.Err() != nil {
			c.set(nil, errors.New("stopped"))
			return
		}
		c.set(nil, err)
		pause := c.pauseAfter(err, retry)
		level := slog.LevelWarn
		notLogged, now := c.streamless.allow(err.Error())
		if !now {
			level = slog.LevelDebug
		}
		c.opts.Logger.Log(ctx, level, "no stream to the XMPP server", "address", c.opts.Address, "err", err,
			"check", c.advice(err), "retry_in", pause.Round(time.Millisecond), "not_logged_before", notLogged)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// Cease closes the stream, if there is one, so that nothing is written to the server any more
// when it returns. The context of Run has ended before.
func (c *Component) Cease() {
	if s, _ := c.current(); s != nil {
		c.closeStream(s, nil)
	}
}

// open connects to the server, if need be by the other spelling of the component's
// domain. COMPAT ejabberd, which says not-authorized for an unknown domain, too.
func (c *Component) open(ctx context.Context) (*stream, error) {
	unknown := []string{"host-unknown", "not-authorized"}
	s, err := c.connect(ctx)
	if isRefused(err, unknown...) && c.names.tryOther() {
		other, again := c.connect(ctx)
		if !isRefused(again, unknown...) {
			return other, again
		}
		c.names.tryOther()
	}
	return s, err
}

// restrict makes the component send from its own domain alone if the server ended the
// stream because of another address. After a later stream it is tried again.
func (c *Component) restrict(err error) {
	if conditionOf(err) != "invalid-from" {
		c.unrestricted.Store(c.opts.Unrestricted)
	} else if c.unrestricted.CompareAndSwap(true, false) {
		c.opts.Logger.Error("the server does not take stanzas from its users' addresses: going on as if xmpp.unrestricted were false",
			"check", "Prosody: validate_from_addresses = false on the Component; ejabberd: check_from: false on the listener")
	}
}

// advice says what an administrator can check about err.
func (c *Component) advice(err error) string {
	if insecure, ok := errors.AsType[*TLSError](err); ok {
		return insecure.Advice()
	} else if _, ok := errors.AsType[*undelegated](err); ok {
		return "was a module of the server reloaded, or another rosterd connected? A new stream brings the delegation back"
	} else if isRival(err) {
		return "one rosterd is enough for a component: stop one; this one tries again, in case the other has gone"
	}
	switch conditionOf(err) {
	case "":
		return "is the server running, and is xmpp.address its component port?"
	case "not-authorized":
		return "is xmpp.secret the secret of " + c.opts.Domain + " in the server's configuration?"
	case "host-unknown":
		return "is a component " + c.opts.Domain + " (xmpp.domain) in the server's configuration, and is xmpp.address its component port?"
	case "conflict":
		return "is another rosterd connected as " + c.opts.Domain + "?"
	case "invalid-from":
		return "does the server take stanzas from its users' addresses, as xmpp.unrestricted says?"
	case "system-shutdown":
		return "is the server restarting?"
	}
	return "what does the server's log say?"
}

func (c *Component) set(s *stream, why error) {
	c.mu.Lock()
	c.stream, c.why = s, why
	c.mu.Unlock()
	c.undelivered.reset()
	if s != nil {
		c.opts.Metrics.Connected.Set(1)
	} else {
		c.opts.Metrics.Connected.Set(0)
	}
}

func (c *Component) current() (*stream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stream, c.why
}

// Connected reports whether the stream to the server is up.
func (c *Component) Connected() bool {
	s, _ := c.current()
	return s != nil
}

// Ready returns no error while the stream is up and the users of every served host can
// ask for their rosters. The notes say what a better route needs.
func (c *Component) Ready() (notes []string, err error) {
	s, why := c.current()
	if s == nil {
		return nil, fmt.Errorf("not connected to the XMPP server: %w", why)
	}
	for _, host := range c.opts.Hosts {
		r := c.routes(s, host, s.grants.of(host))
		switch r.Query {
		case QueryUnknown:
			return nil, fmt.Errorf("%s does not delegate %s to %s", host, nsRoster, c.opts.Domain)
		case QueryNone:
			return nil, errors.New(r.Missing[0])
		}
		notes = append(notes, r.Missing...)
	}
	return notes, nil
}

// ReasonConnecting is [Status].Reason until the first attempt has failed.
const ReasonConnecting = "connecting"

// Status is what a component has learnt of its server.
type Status struct {
	Connected bool     `json:"connected"`
	Reason    string   `json:"reason,omitempty"`    // why not
	Condition string   `json:"condition,omitempty"` // of the stream error that is the reason, or would be: see rival
	Domain    string   `json:"domain"`
	Address   string   `json:"address"`
	Any       string   `json:"any_address,omitempty"` // AnyTaken, …
	Hosts     []Routes `json:"hosts,omitempty"`
}

// Status is the present one.
func (c *Component) Status() Status {
	s, why := c.current()
	status := Status{Connected: s != nil, Domain: c.opts.Domain, Address: c.opts.Address, Any: c.takesAny(s)}
	if s == nil {
		status.Reason, status.Condition = why.Error(), conditionOf(why)
		return status
	}
	for _, host := range c.opts.Hosts {
		status.Hosts = append(status.Hosts, c.routes(s, host, s.grants.of(host)))
	}
	return status
}
