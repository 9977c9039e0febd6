package component

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

var errClosed = errors.New("the server closed the stream")

// serve is the life of a stream. It returns why the stream ended.
func (c *Component) serve(ctx context.Context, s *stream) error {
	c.tryAddress(s)
	run := func(context.Context) error { return nil }
	if c.hub != nil {
		var err error
		if run, err = c.hub.Start(relay{c, s}); err != nil {
			s.conn.Close()
			return err
		}
	}
	// The writer outlives ctx: what waits and the closing tag are still written.
	writing, stopWriting := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() {
		if err := s.out.run(writing, s.conn, c.opts.Timing.Write); err != nil && writing.Err() == nil {
			s.end(fmt.Errorf("writing: %w", err))
		}
	})
	work.Go(func() { c.tend(writing, s) })
	if c.hub != nil {
		work.Go(func() { run(writing) }) // its error is the stream's
	}
	work.Go(func() { c.askAll(writing, s) })
	work.Go(func() { c.proveAll(writing, s) })
	stop := context.AfterFunc(ctx, func() { c.closeStream(s, nil) })
	err := c.readAll(s)
	stop()
	s.out.close()
	stopWriting()
	s.conn.Close()
	work.Wait()
	s.iqs.close()
	for full := range s.unread.close() {
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
// written, then the closing tag; the reading ends with the server's closing
// tag, or soon. cause may be nil; else the first one counts.
func (c *Component) closeStream(s *stream, cause error) {
	if cause != nil {
		s.cause.CompareAndSwap(nil, &cause)
	}
	s.out.offer([]byte("</stream:stream>"))
	s.out.close()
	s.conn.SetReadDeadline(time.Now().Add(c.opts.Timing.Close))
}

// readAll reads until the stream ends, and says why it did.
func (c *Component) readAll(s *stream) error {
	for {
		data, whole, err := s.framer.Next()
		if err == io.EOF {
			return errClosed
		} else if err != nil {
			return fmt.Errorf("reading: %w", err)
		}
		s.ended()
		if err := c.handle(s, data, whole); err != nil {
			return err
		}
	}
}

// tend gives up IQs that nobody answers, and the stream when the server is
// silent: first it is asked for a sign of life (XEP-0199), any will do, for a
// while. One that only ever sends more of the same stanza is as good as silent.
func (c *Component) tend(ctx context.Context, s *stream) {
	t := c.opts.Timing
	ticker := time.NewTicker(t.Ping / 4)
	defer ticker.Stop()
	var asked time.Time
	announced := time.NewTimer(t.Announce)
	defer announced.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-announced.C:
			c.missing(s)
		case now := <-ticker.C:
			s.iqs.expire(now)
			c.askForRead(s)
			switch silence, unended := s.silence(), s.unended(); {
			case silence > t.Dead:
				s.end(fmt.Errorf("the server was silent for %s", silence.Round(time.Second)))
				return
			case unended > t.Stanza:
				s.end(fmt.Errorf("no whole stanza came for %s", unended.Round(time.Second)))
				return
			case unended > t.Ping && now.Sub(asked) > t.Ping/2:
				asked = now
				for _, spelling := range c.names.known(c.opts.Hosts) {
					c.sendPing(s, c.nobodyAt(spelling), func(answer) {}) // being heard is enough
				}
			}
		}
	}
}

// missing says which ways the server leaves, and, once, what better ones need.
func (c *Component) missing(s *stream) {
	for _, host := range c.opts.Hosts {
		w := c.ways(host, s.grants.of(host), true)
		c.opts.Logger.Info("ways", "host", host, "query", w.Query, "push", w.Push, "presence", w.Presence)
		for _, what := range w.Missing {
			if _, now := c.lacking.log(what); now {
				c.opts.Logger.Warn("a better way is missing", "host", host, "missing", what)
			}
		}
		c.learn(s, host)
		if g := s.grants.of(host); g.privilege == "" {
			c.rosters.Resume(host) // nothing will be announced any more
		}
	}
}
