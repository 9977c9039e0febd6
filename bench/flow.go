package main

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"time"
)

// flow is a number of queries, some at a time: with each answer that comes the
// next query is sent. All its fields but the first group are guarded by the
// link's mu.
type flow struct {
	users    []user
	passes   int           // over all users; 0: one
	window   int           // queries at a time
	versions []string      // what each user's client names; nil: it knows no versions
	learn    bool          // take the versions that the answers have into versions
	presence bool          // each user's presence is reported first
	laps     bool          // note how long each answer took; window is 1
	finished chan struct{} // closed with the last answer

	id           int
	sent, done   int
	failed       int   // answers that are errors
	bytes        int64 // of all answers
	began, ended time.Time
	took         []time.Duration
}

func (f *flow) total() int { return len(f.users) * max(f.passes, 1) }

// begin sends the first queries of a flow.
func (l *link) begin(f *flow) {
	f.finished = make(chan struct{})
	if f.learn && f.versions == nil {
		f.versions = make([]string, len(f.users))
	}
	l.mu.Lock()
	l.flows++
	f.id = l.flows
	l.flow = f
	var b []byte
	for range min(f.window, f.total()) {
		b = f.next(b)
	}
	f.began = time.Now()
	l.mu.Unlock()
	go l.write(b) // its error ends the reading, too
}

// run runs a flow to its end.
func (l *link) run(ctx context.Context, f *flow) error {
	l.begin(f)
	return l.wait(ctx, f)
}

func (l *link) wait(ctx context.Context, f *flow) error {
	select {
	case <-f.finished:
	case <-l.closed:
		return l.failure()
	case <-ctx.Done():
		l.mu.Lock()
		defer l.mu.Unlock()
		return fmt.Errorf("%d of %d answers came: %w", f.done, f.total(), ctx.Err())
	}
	if f.failed > 0 {
		return fmt.Errorf("%d of %d answers are errors", f.failed, f.total())
	}
	return nil
}

func (f *flow) seconds() float64 { return f.ended.Sub(f.began).Seconds() }

// rate is how many answers came per second.
func (f *flow) rate() float64 { return float64(f.total()) / f.seconds() }

// next appends the next query.
func (f *flow) next(b []byte) []byte {
	i := f.sent % len(f.users)
	u := f.users[i]
	if f.presence {
		b = append(appendFull(append(b, "<presence from='"...), u), "' to='"+domain+"'/>"...)
	}
	b = append(b, "<iq type='set' from='"+host+"' to='"+domain+"' id='"...)
	b = append(strconv.AppendInt(b, int64(f.id), 10), '-')
	b = strconv.AppendInt(b, int64(f.sent), 10)
	b = append(b, "'><delegation xmlns='urn:xmpp:delegation:2'><forwarded xmlns='urn:xmpp:forward:0'><iq xmlns='jabber:client' type='get' id='r' from='"...)
	b = append(appendFull(b, u), "'><query xmlns='jabber:iq:roster'"...)
	if f.versions != nil {
		b = append(append(append(b, " ver='"...), f.versions[i]...), '\'')
	}
	f.sent++
	return append(b, "/></iq></forwarded></delegation></iq>"...)
}

func appendFull(b []byte, u user) []byte {
	b = strconv.AppendInt(append(b, u.kind), int64(u.contacts), 10)
	b = strconv.AppendInt(append(b, '-'), int64(u.index), 10)
	return append(b, "@"+host+"/bench"...)
}

// answered notes an answer, and appends the next query.
func (f *flow) answered(b, id, s []byte, now time.Time) []byte {
	flow, query, _ := bytes.Cut(id, []byte("-"))
	if n, err := strconv.Atoi(string(flow)); err != nil || n != f.id || f.done == f.total() {
		return b
	}
	f.done++
	f.bytes += int64(len(s))
	head := s[:min(len(s), 512)]
	if i := bytes.Index(head, []byte("<forwarded")); i >= 0 {
		iq := inner(s[i:], "iq")
		if string(attr(iq, "type")) == "error" {
			f.failed++
		}
		if n, err := strconv.Atoi(string(query)); err == nil && f.learn {
			if q := inner(head[i:], "query"); q != nil {
				f.versions[n%len(f.users)] = string(attr(q, "ver"))
			}
		}
	}
	if f.laps {
		now := time.Now()
		f.took = append(f.took, now.Sub(f.began))
		f.began = now
	}
	if f.sent < f.total() {
		return f.next(b)
	}
	if f.done == f.total() {
		f.ended = now
		close(f.finished)
	}
	return b
}
