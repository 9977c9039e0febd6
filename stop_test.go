package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"rosterd/internal/leak"
	"rosterd/internal/pgserver"
	"rosterd/xmlstream"
)

// hanging is an XMPP server that lets its own rosters be read, and reads nothing any more
// once one is to be written.
type hanging struct {
	net.Listener
	hangs chan struct{} // closed when it does
	end   chan struct{}
}

func (s *hanging) serve(t *testing.T) {
	conn, err := s.Accept()
	if err != nil {
		return // the test has ended
	}
	defer conn.Close()
	send := func(format string, args ...any) { fmt.Fprintf(conn, format, args...) }
	r := xmlstream.NewReader(conn, 1<<20)
	if _, err := r.Header(); err != nil {
		t.Errorf("reading: %v", err)
		return
	}
	send("<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' id='s1' from='contacts.example.org'>")
	for {
		data, _, err := r.Next()
		if err != nil {
			t.Errorf("reading: %v", err)
			return
		}
		text := string(data)
		if strings.HasPrefix(text, "<handshake") {
			send("<handshake/><message from='example.org' to='contacts.example.org'><privilege xmlns='urn:xmpp:privilege:2'><perm access='roster' type='both'/>" +
				"<perm access='presence' type='managed_entity'/></privilege></message><presence from='romeo@example.org/street' to='contacts.example.org'/>")
			continue
		}
		e, err := xmlstream.Decode(data)
		if err != nil || e.Name.Local != "iq" {
			continue
		}
		query := strings.Contains(text, "jabber:iq:roster")
		switch {
		case query && e.Get("type") == "set":
			close(s.hangs)
			<-s.end
			return
		case query && !strings.Contains(text, "from='contacts.example.org/"):
			send("<iq type='result' id='%s' from='%s' to='%s'><query xmlns='jabber:iq:roster'/></iq>", e.Get("id"), e.Get("to"), e.Get("from"))
		case e.Get("type") == "get":
			send("<iq type='error' id='%s' from='%s' to='%s'><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>", e.Get("id"), e.Get("to"), e.Get("from"))
		}
	}
}

// A stop takes less than 10 s, whatever is under way: the server takes nothing, in the middle
// of a write to its own roster, the backend does not answer, and a caller waits for a refresh.
func TestStopWhileTheServerHangs(t *testing.T) {
	leak.Check(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &hanging{l, make(chan struct{}), make(chan struct{})}
	served := make(chan struct{})
	go func() { defer close(served); server.serve(t) }()
	defer func() { close(server.end); l.Close(); <-served }()
	asked := make(chan struct{}, 100)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "romeo") {
			asked <- struct{}{}
			<-r.Context().Done()
			return
		}
		_, _ = io.WriteString(w, `{"nurse@example.org": {"name": "Nurse"}}`)
	}))
	defer backend.Close()
	file := configured(t, fmt.Sprintf(`
xmpp: {address: %q, domain: contacts.example.org, secret: x, hosts: [example.org]}
contacts: {url: "%s/%%s", timeout: 1m}
refresh: {listen: "127.0.0.1:0", token: y}
metrics: {listen: "127.0.0.1:0"}
state: {path: %q}
`, l.Addr(), backend.URL, filepath.Join(t.TempDir(), "rosterd.db")))
	log := &logs{lines: make(chan string, 100)}
	stop := begin(t, file, log)
	url := ""
	for line := range log.lines {
		if _, after, is := strings.Cut(line, "refresh="); is && url == "" {
			url = "http://" + strings.Fields(after)[0] + "/roster_admin/refresh"
		}
		if strings.Contains(line, "the server's own rosters can be kept") {
			break
		}
	}
	post := func(user string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(`["`+user+`"]`))
		if err != nil {
			t.Error(err)
			return
		}
		req.Header.Set("Authorization", "Bearer y")
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
		}
	}
	posted := make(chan struct{})
	go func() { defer close(posted); post("romeo") }()
	<-asked
	post("juliet") // who is offline
	<-server.hangs
	began := time.Now()
	if code := stop(); code != 0 {
		t.Errorf("exit code %d\n%s", code, log.text.String())
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the stop took %v\n%s", took, log.text.String())
	}
	<-posted
	http.DefaultClient.CloseIdleConnections()
}

// silencer relays connections to a database, until nothing comes or goes any more.
type silencer struct {
	net.Listener
	mu    sync.RWMutex // held while it is silent
	conns sync.WaitGroup
}

func (s *silencer) serve(database string) {
	for {
		client, err := s.Accept()
		if err != nil {
			return // the test has ended
		}
		s.conns.Go(func() {
			defer client.Close()
			s.mu.RLock()
			server, err := net.Dial("tcp", database)
			s.mu.RUnlock()
			if err != nil {
				return
			}
			defer server.Close()
			s.conns.Go(func() { defer client.Close(); s.relay(client, server) })
			s.relay(server, client)
		})
	}
}

func (s *silencer) relay(to, from net.Conn) {
	b := make([]byte, 1<<16)
	for {
		n, err := from.Read(b)
		s.mu.RLock()
		_, failed := to.Write(b[:n])
		s.mu.RUnlock()
		if err != nil || failed != nil {
			return
		}
	}
}

// An instance of a pair stops within 10 s while its database is silent: each of its parts waits
// for that.
func TestStopWhileTheDatabaseIsSilent(t *testing.T) {
	database, err := pgserver.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer database.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	relay := &silencer{Listener: l}
	relay.conns.Go(func() { relay.serve(database.Address()) })
	defer relay.conns.Wait()
	defer l.Close()
	t.Chdir(t.TempDir()) // for the socket
	t.Setenv("STATE_DIRECTORY", "")
	file := configured(t, fmt.Sprintf(`
xmpp: {address: "127.0.0.1:1", domain: contacts.example.org, secret: x, hosts: [example.org]}
contacts: {url: "http://127.0.0.1:1/%%s"}
refresh: {listen: "127.0.0.1:0", advertise: "http://127.0.0.1:1"}
metrics: {listen: "127.0.0.1:0"}
state: {url: %q}
`, database.At(l.Addr().String(), "postgres")))
	log := &logs{lines: make(chan string, 100)}
	stop := begin(t, file, log)
	for line := range log.lines {
		if strings.Contains(line, "this instance is the active one") {
			break
		}
	}
	relay.mu.Lock()
	began := time.Now()
	stop() // it could not write its state
	took := time.Since(began)
	relay.mu.Unlock()
	if took > 10*time.Second {
		t.Errorf("the stop took %v\n%s", took, log.text.String())
	}
}
