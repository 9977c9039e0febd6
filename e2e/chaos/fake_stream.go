package chaos

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// fakeStream is the component's stream.
type fakeStream struct {
	conn      net.Conn
	delegated bool            // roster queries are forwarded; guarded by fake.mu, as all below
	asked     map[string]bool // ids of what it was asked, see habit.asksFirst

	mu    sync.Mutex
	out   bytes.Buffer // guarded by mu
	ended bool         // guarded by mu
	more  chan struct{}
}

// close ends the stream; what waits to be written is lost.
func (s *fakeStream) close() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	_ = s.conn.Close()
	s.signal()
}

func (s *fakeStream) signal() {
	select {
	case s.more <- struct{}{}:
	default:
	}
}

func (s *fakeStream) write(xml string) {
	s.mu.Lock()
	s.out.WriteString(xml)
	s.mu.Unlock()
	s.signal()
}

// writeAll writes until the stream ends.
func (s *fakeStream) writeAll() {
	for range s.more {
		s.mu.Lock()
		data, ended := bytes.Clone(s.out.Bytes()), s.ended
		s.out.Reset()
		s.mu.Unlock()
		if ended {
			return
		}
		if _, err := s.conn.Write(data); err != nil {
			return
		}
	}
}

// send sends a stanza to the component, if it is there. f.mu is held.
func (f *fake) send(format string, args ...any) {
	s := f.stream
	if len(f.beside) > 0 && f.rng.IntN(2) == 0 {
		s = f.beside[0]
	}
	if s != nil {
		s.write(fmt.Sprintf(format, args...))
	}
}

// isHere says whether a stream is one of the component's. f.mu is held.
func (f *fake) isHere(s *fakeStream) bool { return s == f.stream || slices.Contains(f.beside, s) }

// serve is the life of a component's connection.
func (f *fake) serve(conn net.Conn) {
	defer conn.Close()
	f.mu.Lock()
	isUp := f.isUp
	f.mu.Unlock()
	if !isUp {
		return
	}
	dec := xml.NewDecoder(conn)
	if !f.handshake(conn, dec) {
		return
	}
	s := &fakeStream{conn: conn, more: make(chan struct{}, 1), asked: map[string]bool{}}
	f.mu.Lock()
	if !f.isUp {
		f.mu.Unlock()
		return
	}
	switch {
	case f.stream == nil:
	case f.pair && f.habit.asksFirst: // COMPAT ejabberd, which takes both
		f.beside = append(f.beside, f.stream)
	case f.pair: // COMPAT Prosody
		f.mu.Unlock()
		fmt.Fprintf(conn, "<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>")
		return
	default: // nobody has noticed that it has ended
		f.stream.close()
	}
	f.stream = s
	f.journal.note("server: the component is here")
	f.welcome(s)
	f.mu.Unlock()

	var writing sync.WaitGroup
	writing.Go(s.writeAll)
	err := f.readAll(s, dec)
	f.mu.Lock()
	if f.isHere(s) {
		f.beside = slices.DeleteFunc(f.beside, func(other *fakeStream) bool { return other == s })
		if f.stream == s {
			f.stream = nil
			if len(f.beside) > 0 {
				f.stream, f.beside = f.beside[0], f.beside[1:]
			}
		}
		if f.stream != nil { // COMPAT ejabberd, which takes the delegation from all
			f.stream.delegated = false
			for _, other := range f.beside {
				other.delegated = false
			}
		}
		f.journal.note("server: the component is gone: %v", err)
	}
	f.mu.Unlock()
	s.close()
	writing.Wait()
}

// handshake opens the stream (XEP-0114, section 3).
func (f *fake) handshake(conn net.Conn, dec *xml.Decoder) bool {
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	defer conn.SetDeadline(time.Time{})
	if _, err := nextStart(dec); err != nil {
		return false
	}
	const id = "stream-1"
	fmt.Fprintf(conn, "<?xml version='1.0'?><stream:stream xmlns='%s' xmlns:stream='%s' from='%s' id='%s'>", nsAccept, nsStream, component, id)
	start, err := nextStart(dec)
	if err != nil {
		return false
	}
	e, err := readElement(dec, start)
	sum := sha1.Sum([]byte(id + secret))
	if err != nil || e.text != hex.EncodeToString(sum[:]) {
		f.journal.violation("the handshake is wrong")
		return false
	}
	_, err = io.WriteString(conn, "<handshake/>")
	return err == nil
}

// nextStart reads on to the next tag that opens an element.
func nextStart(dec *xml.Decoder) (xml.StartElement, error) {
	for {
		token, err := dec.Token()
		if err != nil {
			return xml.StartElement{}, err
		}
		if start, ok := token.(xml.StartElement); ok {
			return start, nil
		}
	}
}

// welcome sends what a component gets after the handshake. f.mu is held.
func (f *fake) welcome(s *fakeStream) {
	if f.habit.asksFirst {
		for _, node := range []string{"::", ":bare:"} {
			f.nextID++
			id := fmt.Sprint("q", f.nextID)
			s.asked[id] = true
			f.send("<iq to='%s' from='%s' type='get' id='%s'><query node='%s' xmlns='%s'/></iq>",
				component, host, id, f.habit.delegation+node+nsRoster, nsDisco)
		}
		f.announcePrivileges()
		return
	}
	delegations := func() { f.announceDelegation(s) }
	parts := []func(){delegations, f.announcePrivileges}
	f.rng.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
	parts[0]()
	if f.habit.replays {
		for full, session := range f.sessions {
			if session.available {
				f.send("<presence from='%s' to='%s'><delay xmlns='urn:xmpp:delay' stamp='2026-01-01T00:00:00Z'/></presence>", full, component)
			}
		}
	}
	parts[1]()
}

func (f *fake) announceDelegation(s *fakeStream) {
	s.delegated = true
	f.send("<message from='%s' to='%s'><delegation xmlns='%s'><delegated namespace='%s'/></delegation></message>",
		host, component, f.habit.delegation, nsRoster)
}

func (f *fake) announcePrivileges() {
	iq := ""
	if f.habit.privileged {
		iq = "<perm access='iq'><namespace ns='" + nsRoster + "' type='set'/></perm>"
	}
	f.send("<message from='%s' to='%s'><privilege xmlns='%s'><perm access='roster' type='both'/>"+
		"<perm access='presence' type='managed_entity'/>%s</privilege></message>", host, component, f.habit.privilege, iq)
}

// readAll handles what the component sends until the stream ends.
func (f *fake) readAll(s *fakeStream, dec *xml.Decoder) error {
	detour := newMailbox(&f.tasks, nil)
	defer detour.end(false)
	for {
		token, err := dec.Token()
		if err != nil {
			return err
		}
		switch token := token.(type) {
		case xml.EndElement:
			return io.EOF // </stream:stream>
		case xml.StartElement:
			e, err := readElement(dec, token)
			if err != nil {
				return err
			}
			f.mu.Lock()
			if f.isHere(s) {
				f.handle(s, e, detour)
			}
			f.mu.Unlock()
		}
	}
}

// handle does what the component's stanza asks for. f.mu is held.
func (f *fake) handle(s *fakeStream, e *element, detour *mailbox) {
	id, to, kind := e.get("id"), e.get("to"), e.get("type")
	switch {
	case e.name.Local == "error":
		f.journal.violation("the component sends a stream error")
	case e.name.Local != "iq": // presence among contacts is another test's
	case s.asked[id] && kind == "result":
		delete(s.asked, id)
		if len(s.asked) == 0 {
			f.announceDelegation(s)
		}
	case (kind == "result" || kind == "error") && f.queries[id] != nil:
		f.answer(e, detour)
	case kind == "set" && e.payload(f.habit.privilege) != nil && f.habit.privileged:
		f.pushPrivileged(e)
	case f.habit.setsRosters && e.get("from") == component && e.payload(nsRoster) != nil && kind == "get":
		f.getOwn(to, id)
	case f.habit.setsRosters && e.get("from") == component && e.payload(nsRoster) != nil && kind == "set":
		f.setOwn(e)
	case kind == "set" && e.payload(nsRoster) != nil && f.habit.pushesAlone:
		f.journal.violation("a push from %s, which the server does not let pass", e.get("from"))
	case kind == "set" && e.payload(nsRoster) != nil && !f.habit.privileged:
		if bare, _, _ := strings.Cut(to, "/"); bare != e.get("from") {
			f.journal.violation("a push from %s to %s", e.get("from"), to)
			return
		}
		f.push(to, e.rosterItems()) // whatever becomes of it, nobody hears of it
	case kind == "get" && e.payload(nsRoster) != nil && !f.stream.delegated: // it answers by itself, as it does to users
		f.reply(&fakeQuery{full: e.get("from"), id: id, to: to}, nil, "")
	case kind == "get" && e.payload(nsRoster) != nil:
		f.delegate(e.get("from"), to, id)
	case kind == "get" && e.payload(nsPing) != nil:
		f.pinged(to, id)
	}
}

// pinged answers a ping for a resource or for the server itself.
func (f *fake) pinged(to, id string) {
	switch {
	case to == host:
		f.send("<iq type='result' from='%s' to='%s' id='%s'/>", host, component, id)
	case f.sessions[to] != nil:
		f.send("<iq type='result' xml:lang='en' from='%s' to='%s' id='%s'/>", to, component, id)
	default:
		f.send("<iq type='error' from='%s' to='%s' id='%s'><error type='cancel'><service-unavailable xmlns='%s'/>%s</error></iq>",
			escape(to), component, id, nsStanzas, f.habit.overtext)
	}
}

// answer takes the component's answer to a delegated query.
func (f *fake) answer(e *element, detour *mailbox) {
	q := f.queries[e.get("id")]
	inner := e.down("delegation", "forwarded", "iq")
	switch {
	case e.get("type") == "error":
		f.journal.violation("an outer error to the query of %s: on one server the client never hears of it", q.full)
		return
	case inner == nil || inner.name.Space != nsClient || inner.get("to") != q.full || inner.get("id") != q.id:
		f.journal.violation("a wrong answer to the query of %s", q.full)
		return
	case f.habit.addressed && !q.own() && inner.get("from") != strings.Split(q.full, "/")[0]:
		f.journal.violation("the answer for %s comes from %q", q.full, inner.get("from"))
		return
	}
	var list []Item
	condition := ""
	switch inner.get("type") {
	case "error":
		condition = inner.condition()
	case "result":
		list = inner.rosterItems()
	}
	f.forget(e.get("id"))
	if !f.habit.detour {
		f.reply(q, list, condition)
		return
	}
	pause := time.Duration(f.rng.IntN(2_000)) * time.Microsecond
	detour.put(func() {
		time.Sleep(pause)
		f.mu.Lock()
		defer f.mu.Unlock()
		f.reply(q, list, condition)
	})
}

// pushPrivileged takes a push in a privileged IQ (XEP-0356, section 6).
func (f *fake) pushPrivileged(e *element) {
	bare, inner := e.get("to"), e.down("privileged_iq", "iq")
	if inner == nil || inner.name.Space != nsClient || inner.get("type") != "set" || !strings.HasPrefix(inner.get("to"), bare+"/") {
		f.journal.violation("a wrong privileged IQ for %s", bare)
		return
	}
	full := inner.get("to")
	answer := fmt.Sprintf("<iq id='%s' xml:lang='en' xmlns='%s' from='%s' type='result'/>", inner.get("id"), nsClient, full)
	if !f.push(full, inner.rosterItems()) {
		answer = fmt.Sprintf("<iq id='%s' xmlns='%s' to='%s' type='error' from='%s'><error type='cancel'><service-unavailable xmlns='%s'/></error></iq>",
			inner.get("id"), nsClient, bare, full, nsStanzas)
	}
	f.send("<iq to='%s' id='%s' type='result' from='%s'><privilege xmlns='%s'><forwarded xmlns='%s'>%s</forwarded></privilege></iq>",
		component, e.get("id"), bare, f.habit.privilege, nsForward, answer)
}
