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
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gosrc.io/xmpp/stanza"

	"rosterd/jid"
	"rosterd/xmlstream"
)

// maxStanza is how many bytes of a stanza are read; the servers' own limits
// for what users send are below.
const maxStanza = 1 << 20

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

// stream is one connection to the server, after the handshake (XEP-0114,
// section 3). The goroutine that reads owns the framer; the rest is safe for
// concurrent use.
type stream struct {
	conn   net.Conn
	framer *xmlstream.Reader
	out    *queue
	iqs    *tracker
	grants *grants
	fence  fence
	unread unread
	report sync.Map // hosts (string) -> when (time.Time) they had reported who is there, see [Component.learn]
	began  time.Time

	newcomers newcomers
	takesAny  atomic.Bool  // the server has read what [Component.tryAddress] sent, and goes on
	suspected atomic.Int64 // until when (time.Duration since began) another rosterd is, see suspect

	heard atomic.Int64          // when the server was heard last: time.Duration since began
	whole atomic.Int64          // when a stanza ended last, the same way
	cause atomic.Pointer[error] // why we ended it, if we did
}

// open connects, opens the stream and does the handshake, within o.Dial.
func open(ctx context.Context, o Options, domain, idPrefix string, spare *buffers) (*stream, error) {
	ctx, cancel := context.WithTimeout(ctx, o.Timing.Dial)
	defer cancel()
	conn, err := Dial(ctx, o.Address, o.TLS)
	if err != nil {
		return nil, err
	}
	// The handshake ends with ctx, whichever of its reads and writes it is in.
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })
	s := &stream{
		conn:   conn,
		out:    newQueue(o.Queue, o.Queue/4).giveUp(2 * o.Timing.Write),
		iqs:    newTracker(o.Timing.Answer, idPrefix),
		grants: newGrants(o.Hosts),
		began:  time.Now(),

		newcomers: newcomers{met: make(map[jid.JID]bool)}}
	s.out.spare = spare
	s.framer = xmlstream.NewReader(s, maxStanza)
	if err := s.handshake(domain, o.Secret); err != nil {
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
func (s *stream) handshake(domain, secret string) error {
	header := fmt.Appendf(nil, "<?xml version='1.0'?><stream:stream xmlns='%s' xmlns:stream='%s'", stanza.NSComponent, stanza.NSStream)
	header = append(xmlstream.AppendAttr(header, "to", domain), '>')
	if _, err := s.conn.Write(header); err != nil {
		return fmt.Errorf("opening the stream: %w", err)
	}
	reply, err := s.framer.Header()
	if err != nil {
		return fmt.Errorf("opening the stream: %w", foreign(err))
	}
	id, err := stanza.InitStream(xml.NewDecoder(bytes.NewReader(reply)))
	if err != nil {
		return errors.New("opening the stream: what answers is no XMPP server")
	}
	sum := sha1.Sum([]byte(id + secret))
	if _, err := fmt.Fprintf(s.conn, "<handshake>%s</handshake>", hex.EncodeToString(sum[:])); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	data, _, err := s.framer.Next()
	if err == io.EOF {
		return errors.New("handshake: the server closed the stream")
	} else if err != nil {
		return fmt.Errorf("handshake: %w", foreign(err))
	}
	e, err := xmlstream.Decode(data)
	switch {
	case err != nil:
		return errors.New("handshake: what answers is no XMPP server")
	case e.Is(stanza.NSStream, "error"):
		return &StreamError{condition(e, "urn:ietf:params:xml:ns:xmpp-streams"), true}
	case !e.Is(stanza.NSComponent, "handshake"):
		return errors.New("handshake: the server does not speak XEP-0114")
	}
	return nil
}

// foreign says what it most likely means that a stream which begins is no XML.
func foreign(err error) error {
	if errors.Is(err, xmlstream.ErrNotWellFormed) || errors.Is(err, xmlstream.ErrRestrictedXML) {
		return fmt.Errorf("what answers is no XMPP server: %w", err)
	}
	return err
}

// Read reads from the connection, for the framer, and notes that the server was
// heard: any byte is a sign of life. What the stanzas that come together are
// answered with is written together.
func (s *stream) Read(p []byte) (int, error) {
	s.out.release()
	n, err := s.conn.Read(p)
	if n > 0 {
		s.heard.Store(int64(time.Since(s.began)))
		s.out.hold()
	}
	return n, err
}

// silence is how long nothing was heard of the server.
func (s *stream) silence() time.Duration { return time.Since(s.began) - time.Duration(s.heard.Load()) }

// ended notes that a stanza has ended.
func (s *stream) ended() { s.whole.Store(int64(time.Since(s.began))) }

// unended is how long no stanza has ended.
func (s *stream) unended() time.Duration { return time.Since(s.began) - time.Duration(s.whole.Load()) }

// end ends the stream from our side; the first cause counts.
func (s *stream) end(cause error) {
	s.cause.CompareAndSwap(nil, &cause)
	s.conn.Close() // ends the reading, and that the rest
}

// condition is the defined condition in an error: the name of the first child
// in the namespace of conditions that is not <text/>.
func condition(e *xmlstream.Element, space string) string {
	for _, c := range e.Children {
		if c.Name.Space == space && c.Name.Local != "text" {
			return strings.Clone(strings.ToValidUTF8(c.Name.Local[:min(len(c.Name.Local), 64)], ""))
		}
	}
	return "undefined-condition"
}
