// Package component is the XMPP side of rosterd: an external component
// (XEP-0114) that answers the roster queries a server delegates to it
// (XEP-0355) and sends roster pushes as a privileged entity (XEP-0356).
//
// One goroutine reads the stream. It decodes a stanza and either answers it at
// once or hands it over; it never waits for the server, the backend or a
// client. One goroutine writes, from a bounded queue. A third looks after
// keep-alive and IQs that nobody answers, a fourth asks resources that were not
// heard of whether they are there, a fifth proves that queries arrive, and a sixth
// relays presence, if that is to be done. They live as long as a stream; [Component.Run] starts them, waits for
// them, and connects again.
package component

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"rosterd/jid"
	"rosterd/metrics"
	"rosterd/presence"
	"rosterd/roster"
)

// Options of a [Component].
type Options struct {
	Address string      // host:port of the server's component port
	TLS     *tls.Config // how to connect with TLS; nil: without
	Domain  string      // the component's own domain, prepared
	Secret  string      // shared with the server; appears nowhere else
	Hosts   []string    // domains whose users are served, prepared; nothing else is trusted
	Version string      // told to who asks (XEP-0092)

	// Unrestricted says that the server takes stanzas from every address of
	// Hosts. Presence is "auto", "relay" or "off".
	Unrestricted bool
	Presence     string

	Queue     int // bytes that wait to be written at most; 0: 16 MiB
	MaxStanza int // bytes of the longest stanza that is sent; 0: 256 KiB

	// How many roster queries a user, or a stranger, may send at once, and from
	// then on each second. 0: as many as he likes.
	QueriesBurst     int
	QueriesPerSecond float64

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
	Arrive    time.Duration // how much later than the answer to what was sent behind it a probe may come; 5 s
	Ask       time.Duration // how often is looked for resources to ask whether they are there; 2 s
	Report    time.Duration // how long a server may take to report on a new stream who is there; 5 s
	Silent    time.Duration // silence of a resource after which it is asked; 90 s, and see askAll
}

func (t Timing) withDefaults() Timing {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.Dial, 15 * time.Second}, {&t.MinRetry, time.Second}, {&t.MaxRetry, 60 * time.Second},
		{&t.Ping, 20 * time.Second}, {&t.Dead, 50 * time.Second}, {&t.Stanza, 5 * time.Minute}, {&t.Write, 30 * time.Second},
		{&t.Answer, 60 * time.Second}, {&t.Announce, 10 * time.Second}, {&t.Blocks, 5 * time.Second}, {&t.Close, 3 * time.Second},
		{&t.Prove, 30 * time.Second}, {&t.ProveSoon, time.Second}, {&t.Arrive, 5 * time.Second}, {&t.Ask, askEvery}, {&t.Report, reported}, {&t.Silent, askAfter},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	return t
}

// Rosters is who knows the rosters. Its methods do not block.
type Rosters interface {
	// Get asks for the roster of a resource's user. Unless it returns an error,
	// reply is called once; it may block while the server reads slowly. Or same is
	// true: the resource has the roster, and is to be told just that. If Get returns
	// an error, or replies without a roster, the resource is told everything later.
	Get(full jid.JID, version *string, reply roster.Reply) (same bool, err error)
	// Refused says that a resource was refused to change these contacts' items.
	Refused(full jid.JID, contacts []jid.JID)
	// Undelivered says that a reply was lost with the stream.
	Undelivered(full jid.JID)
	// Unasked says that a resource is connected that has not asked here: it may have
	// been told anything by somebody else.
	Unasked(full jid.JID)
	// Gone says that a resource is no longer connected.
	Gone(full jid.JID)
	// Resume says that the users of a domain can be sent pushes again.
	Resume(domain string)
}

// Sessions is the table of sessions. Its methods do not block.
type Sessions interface {
	Connected(full jid.JID) (news bool)
	Gone(full jid.JID)
	Heard(full jid.JID)
	Spell(full jid.JID, bare string)
	Spelled(full jid.JID) string
	Unheard(since time.Time) iter.Seq[jid.JID]
	HeardSince(full jid.JID, since time.Time) bool
	Available(full jid.JID) bool
	IsInterested(full jid.JID) bool
}

// Component is the connection to one server. Its methods are safe for
// concurrent use.
type Component struct {
	opts         Options
	hosts        map[string]bool // prepared
	names        *names
	sessions     Sessions
	rosters      Rosters // set by Run before anything else happens
	hub          *presence.Hub
	presences    Presences   // the hub, or nobody
	unrestricted atomic.Bool // Options.Unrestricted, unless the server proves it wrong
	tells        sync.Map    // hosts (string) -> whether their error for a resource that is not there can be told from a client's
	nobody       string      // a localpart that is nobody's
	born         int64       // when New was called, in microseconds since 1970

	buffers     buffers // of answers
	limit       *limit  // of queries; of the goroutine that reads; nil: none
	undelivered *causes // of pushes, since the stream began
	unanswered  *causes // of roster queries
	unlisted    *causes // of block lists
	strangers   *causes // hosts that announce something and are not served
	lacking     *causes // what better ways need
	streamless  *causes // of attempts to connect, since the stream before

	mu     sync.Mutex // guards opts.Secret and opts.TLS, too
	stream *stream    // nil while there is none
	why    error      // why there is none
}

// New makes a component; [Component.Run] connects it.
func New(o Options, sessions Sessions) *Component {
	o.Timing = o.Timing.withDefaults()
	if o.Queue == 0 {
		o.Queue = 16 << 20
	}
	if o.MaxStanza == 0 {
		o.MaxStanza = maxSent
	}
	c := &Component{opts: o, hosts: make(map[string]bool), names: newNames(o.Domain, o.Hosts), sessions: sessions, presences: nobody{}, why: errors.New(ReasonConnecting),
		nobody: "nobody-" + strings.ToLower(rand.Text()), born: time.Now().UnixMicro(), limit: newLimit(o.QueriesBurst, o.QueriesPerSecond),
		undelivered: newCauses(0, 64), unanswered: newCauses(time.Minute, 64), unlisted: newCauses(time.Hour, 64), lacking: newCauses(0, 256), strangers: newCauses(0, 16), streamless: newCauses(time.Minute, 64)}
	for _, host := range o.Hosts {
		c.hosts[host] = true
	}
	c.unrestricted.Store(o.Unrestricted)
	return c
}

// Relay makes the component relay the presences that hub decides on. It is
// called before Run, or not at all.
func (c *Component) Relay(hub *presence.Hub) { c.hub, c.presences = hub, hub }

// Renew replaces the secret, and how to connect with TLS, for the next connection.
func (c *Component) Renew(secret string, secured *tls.Config) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opts.Secret, c.opts.TLS = secret, secured
}

// options are those for a new connection.
func (c *Component) options() Options {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.opts
}

// Run connects to the server, serves it, and connects again when the stream is
// lost, whatever the cause, until ctx ends; then it closes the stream in order
// and returns. It is called once.
func (c *Component) Run(ctx context.Context, rosters Rosters) {
	c.rosters = rosters
	retry := c.newBackoff()
	afresh := false // the server was seen to be down
	for established := 0; ctx.Err() == nil; {
		s, err := c.open(ctx)
		if err != nil {
			afresh = afresh || noServer(err)
		} else {
			s.newcomers.afresh, afresh = afresh, false
			if established++; established > 1 {
				c.opts.Metrics.Reconnects.Inc()
			}
			c.opts.Logger.Info("connected to the XMPP server", "address", c.opts.Address, "domain", c.opts.Domain)
			c.set(s, nil)
			c.streamless.reset()
			err = c.serve(ctx, s)
			afresh = shutDown(err)
			c.restrict(err)
			if time.Since(s.began) > retry.max {
				retry.reset()
			}
		}
		if ctx.Err() != nil {
			err = errors.New("stopped")
		}
		c.set(nil, err)
		if ctx.Err() != nil {
			return
		}
		pause := c.pauseAfter(err, retry)
		level := slog.LevelWarn
		silent, now := c.streamless.log(err.Error())
		if !now {
			level = slog.LevelDebug
		}
		c.opts.Logger.Log(ctx, level, "no stream to the XMPP server", "address", c.opts.Address, "err", err,
			"check", c.advice(err), "retry_in", pause.Round(time.Millisecond), "not_logged_before", silent)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// shutDown reports whether a stream has ended with the server itself.
func shutDown(err error) bool {
	var ended *StreamError
	return errors.As(err, &ended) && ended.Condition == "system-shutdown"
}

// noServer reports whether an attempt to connect has failed as there is no server,
// or none behind what takes the connections in its place.
func noServer(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// open connects to the server, which may have the component's domain in another
// spelling.
func (c *Component) open(ctx context.Context) (*stream, error) {
	s, err := open(ctx, c.options(), c.names.domain(), c.idPrefix(), &c.buffers)
	if noComponent(err) && c.names.other() {
		var again error
		if s, again = open(ctx, c.options(), c.names.domain(), c.idPrefix(), &c.buffers); !noComponent(again) {
			return s, again
		}
		c.names.other()
	}
	return s, err
}

// noComponent reports whether the server says that it has no such component: ejabberd
// says no more than that there is none with this secret.
func noComponent(err error) bool {
	var refused *StreamError
	return errors.As(err, &refused) && refused.Handshake && (refused.Condition == "host-unknown" || refused.Condition == "not-authorized")
}

// restrict makes the component send from its own domain alone if the server
// ended the stream because of another address: better that than no rosters. After
// the end of a later stream it is tried again: the server may have been mended.
func (c *Component) restrict(err error) {
	var ended *StreamError
	if !errors.As(err, &ended) || ended.Condition != "invalid-from" {
		c.unrestricted.Store(c.opts.Unrestricted)
	} else if c.unrestricted.CompareAndSwap(true, false) {
		c.opts.Logger.Error("the server does not take stanzas from its users' addresses: going on as if xmpp.unrestricted were false",
			"check", "Prosody: validate_from_addresses = false on the Component; ejabberd: check_from: false on the listener")
	}
}

// advice says what an administrator can check about err.
func (c *Component) advice(err error) string {
	var refused *StreamError
	if insecure := (*TLSError)(nil); errors.As(err, &insecure) {
		return insecure.Advice()
	}
	if errors.As(err, new(*Rival)) {
		return "one rosterd is enough for a component: stop one; this one tries again, in case the other has gone"
	}
	if errors.As(err, new(*Undelegated)) {
		return "was a module of the server reloaded, or another rosterd connected? A new stream brings the delegation back"
	}
	if !errors.As(err, &refused) {
		return "is the server running, and is xmpp.address its component port?"
	}
	switch refused.Condition {
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

// Ready returns no error while rosterd does its job: the stream is up, and the
// users of every served host can ask for their rosters. The notes say what a
// better way needs.
func (c *Component) Ready() (notes []string, err error) {
	s, why := c.current()
	if s == nil {
		return nil, fmt.Errorf("not connected to the XMPP server: %w", why)
	}
	for _, host := range c.opts.Hosts {
		w := c.ways(host, s.grants.of(host), c.late(s))
		switch w.Query {
		case QueryUnknown:
			return nil, fmt.Errorf("%s does not delegate %s to %s", host, nsRoster, c.opts.Domain)
		case QueryNone:
			return nil, errors.New(w.Missing[0])
		}
		notes = append(notes, w.Missing...)
	}
	return notes, nil
}
