package component

import (
	"bytes"
	"context"
	"crypto/sha1" // #nosec: XEP-0114 knows nothing better
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"gosrc.io/xmpp/stanza"

	"rosterd/jid"
	"rosterd/xmlstream"
)

// maxStanza is how many bytes a stanza has that is decoded; of a longer one only the
// opening tag is, and a request is answered policy-violation. The servers' own limits for
// what users send are below. maxKept is how many bytes are read of any: a server's own
// roster of 5,000 contacts may be longer, see privilegeWay.
const (
	maxStanza = 1 << 20
	maxKept   = 4 << 20
)

const nsStreams = "urn:ietf:params:xml:ns:xmpp-streams" // RFC 6120, section 4.9

// StreamError is a stream error the server sent (RFC 6120, section 4.9).
type StreamError struct {
	Condition string // "not-authorized", "conflict", …; "undefined-condition" if none
	Handshake bool   // it is the answer to the handshake
}

func (e *StreamError) Error() string {
	if e.Handshake {
		return "the server refused the handshake: " + e.Condition
	}
	return "the server ended the stream: " + e.Condition
}

// conditionOf returns the condition of a stream error, "" if err is none.
func conditionOf(err error) string {
	if ended, ok := errors.AsType[*StreamError](err); ok {
		return ended.Condition
	} else if isRival(err) {
		return errConflict.condition
	}
	return ""
}

// isRefused reports whether the server refused the handshake, with one of these
// conditions.
func isRefused(err error, conditions ...string) bool {
	refused, ok := errors.AsType[*StreamError](err)
	return ok && refused.Handshake && slices.Contains(conditions, refused.Condition)
}

var errClosed = errors.New("the server closed the stream")

// stream is one connection to the server, after the handshake (XEP-0114, section 3).
// The goroutine that reads owns the reader; the rest is safe for concurrent use.
type stream struct {
	domain string // the component's, as the server spells it
	conn   net.Conn
	reader *xmlstream.Reader
	out    *writer
	iqs    *tracker
	began  time.Time

	grants         *grants
	barrier        barrier
	unacknowledged unacknowledged
	unasked        unasked
	takesAny       atomic.Bool  // the server has read what [Component.tryAddress] sent, and goes on
	dropped        atomic.Bool  // the server has dropped privileged pushes, and answered none since
	suspected      atomic.Int64 // until when (time.Duration since began) another rosterd is, see suspect

	heard atomic.Int64          // when the server was heard last: time.Duration since began
	whole atomic.Int64          // when a stanza ended last, the same way
	cause atomic.Pointer[error] // why we ended it, if we did
}

// connect connects, opens the stream and does the handshake, within Timing.Dial.
func (c *Component) connect(ctx context.Context) (*stream, error) {
	c.mu.Lock()
	o := c.opts
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, o.Timing.Dial)
	defer cancel()
	if err := o.Confirm(ctx); err != nil {
		return nil, err
	}
	conn, err := Dial(ctx, o.Address, o.TLS)
	if err != nil {
		return nil, err
	}
	// The handshake ends with ctx, whichever of its reads and writes it is in.
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })
	s := &stream{
		domain:  c.names.domain(),
		conn:    conn,
		out:     newWriter(o.Queue, o.Queue/4, 2*o.Timing.Write),
		iqs:     newTracker(o.Timing.Answer, c.idPrefix()),
		began:   time.Now(),
		unasked: unasked{met: make(map[jid.JID]bool)},
	}
	s.out.spare, s.out.confirm = &c.buffers, o.Confirm
	s.reader = xmlstream.NewReader(s, maxKept)
	if err := s.handshake(ctx, o.Secret); err != nil {
		conn.Close()
		if ctx.Err() != nil {
			err = fmt.Errorf("no handshake within %s: %w", o.Timing.Dial, ctx.Err())
		}
		return nil, err
	}
	if !stop() {
		conn.Close()
		return nil, ctx.Err()
	}
	return s, nil
}

// handshake opens the stream and proves that we know the secret.
func (s *stream) handshake(ctx context.Context, secret string) error {
	header := fmt.Appendf(nil, "<?xml version='1.0'?><stream:stream xmlns='%s' xmlns:stream='%s'", stanza.NSComponent, stanza.NSStream)
	header = append(xmlstream.AppendAttr(header, "to", s.domain), '>')
	if _, err := s.conn.Write(header); err != nil {
		return fmt.Errorf("opening the stream: %w", err)
	}
	reply, err := s.reader.Header()
	if err != nil {
		return fmt.Errorf("opening the stream: %w", noServer(err))
	}
	id, err := stanza.InitStream(xml.NewDecoder(bytes.NewReader(reply)))
	if err != nil {
		return errors.New("opening the stream: what answers is no XMPP server")
	}
	if err := s.out.confirm(ctx); err != nil {
		return err
	}
	sum := sha1.Sum([]byte(id + secret))
	if _, err := fmt.Fprintf(s.conn, "<handshake>%s</handshake>", hex.EncodeToString(sum[:])); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	_, _, err = s.reader.Next()
	if err == io.EOF {
		return errors.New("handshake: the server closed the stream")
	} else if err != nil {
		return fmt.Errorf("handshake: %w", noServer(err))
	}
	e, err := s.reader.Element(maxStanza)
	switch {
	case err != nil:
		return errors.New("handshake: what answers is no XMPP server")
	case e.Is(stanza.NSStream, "error"):
		return &StreamError{condition(e, nsStreams), true}
	case !e.Is(stanza.NSComponent, "handshake"):
		return errors.New("handshake: the server does not speak XEP-0114")
	}
	return nil
}

// noServer says what it most likely means that a stream which begins is no XML.
func noServer(err error) error {
	if errors.Is(err, xmlstream.ErrNotWellFormed) || errors.Is(err, xmlstream.ErrRestrictedXML) {
		return fmt.Errorf("what answers is no XMPP server: %w", err)
	}
	return err
}

// Read reads from the connection, for the reader, and notes that the server was heard.
// The answers to stanzas that come together are written together.
func (s *stream) Read(p []byte) (int, error) {
	s.out.uncork()
	n, err := s.conn.Read(p)
	if n > 0 {
		s.heard.Store(int64(time.Since(s.began)))
		s.out.cork()
	}
	return n, err
}

// end ends the stream from our side; the first cause counts.
func (s *stream) end(cause error) {
	s.cause.CompareAndSwap(nil, &cause)
	s.conn.Close() // ends the reading, and that the rest
}

// serve runs a stream until it has ended, and returns why.
func (c *Component) serve(ctx context.Context, s *stream) error {
	c.tryAddress(s)
	relay, err := c.hub.Start(presenceSender{c, s})
	if err != nil {
		s.conn.Close()
		return err
	}
	// The goroutines outlive ctx: what waits and the closing tag are still written.
	writing, stopWriting := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() {
		if err := s.out.run(writing, s.conn, c.opts.Timing.Write); err != nil && writing.Err() == nil {
			s.end(fmt.Errorf("writing: %w", err))
		}
	})
	work.Go(func() { c.tend(writing, s) })
	work.Go(func() { relay(writing) }) // its error is the stream's
	work.Go(func() { c.tendSessions(writing, s) })
	stop := context.AfterFunc(ctx, func() { c.closeStream(s, nil) })
	err = c.readAll(s)
	stop()
	s.out.close()
	stopWriting()
	s.conn.Close()
	work.Wait()
	s.iqs.close()
	for full := range s.unacknowledged.close() {
		if ctx.Err() == nil || err != errClosed { // else it has read all, up to the closing tag
			c.rosters.Undelivered(full)
		}
	}
	if cause := s.cause.Load(); cause != nil {
		return *cause
	}
	return err
}

// closeStream closes the stream in order (RFC 6120, section 4.4): what waits is
// written, then the closing tag; the reading ends with the server's closing tag, or
// after Timing.Close. cause may be nil; else the first one counts.
func (c *Component) closeStream(s *stream, cause error) {
	if cause != nil {
		s.cause.CompareAndSwap(nil, &cause)
	}
	_ = s.out.offer([]byte("</stream:stream>"))
	s.out.close()
	s.conn.SetReadDeadline(time.Now().Add(c.opts.Timing.Close))
}

// readAll reads until the stream ends, and says why it did.
func (c *Component) readAll(s *stream) error {
	for {
		_, _, err := s.reader.Next()
		if err == io.EOF {
			return errClosed
		} else if err != nil {
			return fmt.Errorf("reading: %w", err)
		}
		s.whole.Store(int64(time.Since(s.began)))
		e, err := s.reader.Element(maxStanza)
		if err := c.handle(s, e, err); err != nil {
			return err
		}
	}
}

// tend keeps a stream alive until ctx ends, and has each host probed: at first, when
// announcements are due, every Timing.Prove, and often while another rosterd is suspected.
func (c *Component) tend(ctx context.Context, s *stream) {
	t := c.opts.Timing
	alive, prove, often, announced := time.Tick(t.Ping/4), time.Tick(t.Prove), time.Tick(t.ProveSoon), time.After(t.Announce)
	proveAll := func() {
		for _, host := range c.opts.Hosts {
			c.proveDelegation(s, host)
			c.proveOwnRosters(s, host)
		}
	}
	var reach <-chan time.Time // nil: there is no other
	if c.opts.Pair {
		s.suspect()
		reach = time.After(t.Reach)
	}
	proveAll()
	for _, host := range c.opts.Hosts {
		c.identify(s, host)
	}
	var asked time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-announced:
			c.endAnnouncements(s)
			proveAll()
		case <-reach:
			c.reach(s)
		case <-prove:
			proveAll()
		case <-often:
			if int64(time.Since(s.began)) < s.suspected.Load() {
				proveAll()
			}
		case now := <-alive:
			c.requestAcknowledgement(s)
			asked = c.keepAlive(s, now, asked)
		}
	}
}

// keepAlive asks a server that is silent for a sign of life (XEP-0199), and ends the
// stream if none comes, or if one stanza never ends. asked and the result are when it was
// asked last.
func (c *Component) keepAlive(s *stream, now, asked time.Time) time.Time {
	t, up := c.opts.Timing, time.Since(s.began)
	silence, unended := up-time.Duration(s.heard.Load()), up-time.Duration(s.whole.Load())
	switch {
	case silence > t.Dead:
		s.end(fmt.Errorf("the server was silent for %s", silence.Round(time.Second)))
	case unended > t.Stanza:
		s.end(fmt.Errorf("no whole stanza came for %s", unended.Round(time.Second)))
	case unended > t.Ping && now.Sub(asked) > t.Ping/2:
		for _, spelling := range c.names.known(c.opts.Hosts) {
			s.ping(c.nobodyAt(spelling), s.out.offer, func(answer) {}) // being heard is enough
		}
		return now
	}
	return asked
}

// endAnnouncements acts on what was announced when nothing more is expected. It logs,
// once, what better routes need.
func (c *Component) endAnnouncements(s *stream) {
	for _, host := range c.opts.Hosts {
		g := s.grants.of(host)
		r := c.routes(s, host, g)
		c.opts.Logger.Info("ways", "host", host, "query", r.Query, "push", r.Push, "presence", r.Presence, "server_roster", r.ServerRoster)
		for _, what := range r.Missing {
			c.warn(c.lacking, what, "a better way is missing", "host", host, "missing", what)
		}
		c.testAbsence(s, host)
		if r.ServerRoster == ServerRosterNone && c.opts.API == nil && !g.roster && c.opts.ServerRosterNone != nil {
			c.opts.ServerRosterNone(host)
		}
		if g.privilege == "" || r.Query == QueryServer {
			c.rosters.Resume(host)
		}
	}
}

// backoff is the pause between attempts. It doubles from min to max, and is moved by up to
// a quarter within those bounds, so that many components do not come back at once.
type backoff struct {
	min, max time.Duration
	pause    time.Duration // before chance; 0: none yet
}

func (b *backoff) next() time.Duration {
	b.pause = min(max(2*b.pause, b.min), b.max)
	chance := rand.N(b.pause/2+1) - b.pause/4
	return min(max(b.pause+chance, b.min), b.max)
}

func (b *backoff) reset() { b.pause = 0 }

// newBackoff is that of the attempts to connect. They cost nothing on the same machine.
func (c *Component) newBackoff() *backoff {
	longest := c.opts.Timing.MaxRetry
	host, _, _ := net.SplitHostPort(c.opts.Address)
	if ip, err := netip.ParseAddr(host); host == "localhost" || err == nil && ip.IsLoopback() {
		longest = min(longest, 2*time.Second)
	}
	return &backoff{min: c.opts.Timing.MinRetry, max: longest}
}

// pauseAfter returns the pause after an attempt that failed, or a stream that ended.
func (c *Component) pauseAfter(err error, retry *backoff) time.Duration {
	if isRival(err) {
		return c.opts.Timing.MaxRetry // each of our attempts disturbs the other
	}
	if isRefused(err, "conflict") {
		return c.opts.Timing.MinRetry // the other may be gone at any time
	}
	return retry.next()
}

// listens reports whether the server's port takes connections. It is looked at as soon as a
// stream has ended: a server that starts within less than the pause before the next attempt
// would seem to have been there all the time, with the same sessions.
func (c *Component) listens(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timing.Dial)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", c.opts.Address)
	if err == nil {
		conn.Close()
	}
	return !isDown(err)
}

// isDown reports whether an attempt has failed as there is no server, or none behind a
// proxy.
func isDown(err error) bool {
	for _, down := range []error{syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, io.EOF, io.ErrUnexpectedEOF} {
		if errors.Is(err, down) {
			return true
		}
	}
	return false
}
