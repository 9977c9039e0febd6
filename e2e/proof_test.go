package e2e

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"rosterd/e2e/harness"
	"rosterd/internal/freeport"
)

// waitBest waits until /status says that the queries of example.org are delegated,
// which is proven there, and that changes are pushed in the best way.
func waitBest(ctx context.Context, t *testing.T, w *world) {
	t.Helper()
	var last string
	poll(ctx, t, func() bool {
		answer, err := w.rosterd.Metrics("/status").Get(ctx)
		var status struct {
			Connected bool `json:"connected"`
			Hosts     []struct{ Query, Push string }
		}
		last = fmt.Sprint(string(answer.Body), err)
		return err == nil && json.Unmarshal(answer.Body, &status) == nil && status.Connected && len(status.Hosts) == 1 &&
			status.Hosts[0].Query == "delegated" && status.Hosts[0].Push == w.kind.push()
	}, func() string { return "/status: " + last })
}

// Each connect of many leads to the best way: it does not depend on what comes
// first, announcements or questions.
func TestEachConnect(t *testing.T) { onServers(t, testEachConnect) }

func testEachConnect(t *testing.T, srv server) {
	ctx := bounded(t)
	w := start(t, setup{server: srv})
	w.backend.Set("juliet", contacts("Romeo"))
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	const connects = 30
	for n := 1; ; n++ {
		waitBest(ctx, t, w)
		wantRoster(ctx, t, juliet, item("Romeo"))
		w.backend.Set("juliet", contacts("Romeo", "Nurse"))
		w.refresh(ctx, t, "juliet")
		wantPushes(ctx, t, juliet, item("Nurse"))
		waitMetric(ctx, t, w.rosterd, fmt.Sprintf("rosterd_pushes_total{action=%q,result=%q}", "added", srv.pushed), 1)
		wantOneStream(ctx, t, w)
		if t.Failed() || n == connects {
			return
		}
		if code, err := w.rosterd.Stop(ctx); code != 0 || err != nil {
			t.Fatalf("exit code %d, %v", code, err)
		}
		w.backend.Set("juliet", contacts("Romeo"))
		w.connect(ctx, t)
	}
}

// servedBehindRelay is a world whose rosterd connects through a relay, and has told juliet
// of Romeo and the Nurse.
func servedBehindRelay(ctx context.Context, t *testing.T, s setup) (*world, *harness.Relay, harness.Client) {
	t.Helper()
	w, relay := behindRelay(t, s)
	w.connect(ctx, t)
	w.backend.Set("juliet", contacts("Romeo", "Nurse"))
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, juliet, item("Romeo"), item("Nurse"))
	waitBest(ctx, t, w)
	return w, relay, juliet
}

// behindRelay is a world whose rosterd, yet to be started, connects through a relay.
func behindRelay(t *testing.T, s setup) (*world, *harness.Relay) {
	t.Helper()
	s.later = true
	w := start(t, s)
	target := w.server.ComponentAddress()
	if w.link != nil {
		target = w.link.address()
	}
	relay, err := harness.StartRelay(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(relay.Close)
	w.opts.Settings["xmpp.address"] = relay.Address()
	return w, relay
}

// wantNotice wants that rosterd notices that example.org's queries do not arrive
// any more: /readyz says so, for as long as relay refuses a new connection, after
// which all is well again, and juliet is in line. Nobody reports a change.
func wantNotice(ctx context.Context, t *testing.T, w *world, relay *harness.Relay, login func() harness.Client) {
	t.Helper()
	const gone = "roster queries of example.org have ceased to be delegated"
	if strings.Contains(w.rosterd.Log(), gone) {
		t.Error("it was noticed before it was so")
	}
	w.waitLog(ctx, t, gone) // within 30 s
	waitReadyz(ctx, t, w.rosterd, http.StatusServiceUnavailable, "not connected to the XMPP server: ")
	if err := relay.Accept(); err != nil {
		t.Fatal(err)
	}
	waitBest(ctx, t, w)
	waitReadyz(ctx, t, w.rosterd, http.StatusOK, "")
	juliet := login()
	wantRoster(ctx, t, juliet, item("Nurse"), item("Tybalt"))
	w.backend.Set("juliet", contacts("Tybalt"))
	w.refresh(ctx, t, "juliet")
	waitBrought(ctx, t, juliet, removed("Nurse"))
	if got := metric(ctx, t, w.rosterd, "rosterd_reconnects_total"); got != 1 {
		t.Errorf("%v reconnects, want 1", got)
	}
}

// A Prosody forgets the delegation and does not say so when its module is loaded
// anew, or the host.
func TestDelegationForgotten(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		commands []string
		ends     bool // the clients' sessions
	}{
		{"module reloaded", []string{`module:reload("delegation", "example.org")`}, false},
		{"host activated anew", []string{`host:deactivate("example.org")`, `host:activate("example.org")`}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx := bounded(t)
			port, err := freeport.Find(1)
			if err != nil {
				t.Fatal(err)
			}
			srv := prosody
			srv.start = func(ctx context.Context, opts harness.ServerOptions) (*harness.Server, error) {
				return harness.StartProsody(ctx, harness.ProsodyOptions{ServerOptions: opts, GlobalLua: fmt.Sprintf(
					"modules_enabled = { \"roster\", \"saslauth\", \"disco\", \"ping\", \"admin_telnet\" }\nconsole_ports = { %d }\n", port[0])})
			}
			w, relay, juliet := servedBehindRelay(ctx, t, setup{server: srv, counts: true})

			relay.Refuse()
			for _, command := range c.commands {
				console(t, freeport.Address(port[0]), command)
			}
			w.backend.Set("juliet", contacts("Nurse", "Tybalt"))
			login := func() harness.Client { return juliet }
			if c.ends {
				login = func() harness.Client { return w.login(ctx, t, slixmpp, "juliet@example.org/balcony") }
			} else if items, err := juliet.Roster(ctx); err == nil {
				t.Errorf("roster %+v of nobody", items)
			}
			wantNotice(ctx, t, w, relay, login)
		})
	}
}

// console has a Prosody do something, which must succeed.
func console(t *testing.T, address, command string) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintln(conn, command); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		switch line := lines.Text(); {
		case strings.Contains(line, "| OK:"), strings.Contains(line, "| Result:"):
			return
		case strings.Contains(line, "| Error:"), strings.HasPrefix(line, "! "):
			t.Fatalf("%s: %s", command, line)
		}
	}
	t.Fatalf("%s: no answer: %v", command, lines.Err())
}

// An ejabberd takes the delegation away from a component when another connection of
// it ends.
func TestDelegationTaken(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	w, relay, juliet := servedBehindRelay(ctx, t, setup{server: ejabberd, own: true, counts: true})

	relay.Refuse()
	logged := func(text string) int { return strings.Count(w.server.Log(), text) }
	// It asks either connection what it shall delegate, and delegates it once more, or
	// says that it has done so already.
	delegated := func() int {
		return logged("is delegated to external component") + logged("because it's already delegated")
	}
	before := delegated()
	leave := visit(t, w.server)
	poll(ctx, t, func() bool { return delegated() > before }, func() string { return "nobody was asked what to delegate" })
	leave()
	poll(ctx, t, func() bool { return logged(ejabberd.componentGone) > 0 }, func() string { return "it was not taken away" })
	w.backend.Set("juliet", contacts("Nurse", "Tybalt"))
	wantNotice(ctx, t, w, relay, func() harness.Client { return juliet })
}

// visit connects to a server as its component, is let in, and answers what it is
// asked: that is what it can delegate. It stays until leave is called.
func visit(t *testing.T, s *harness.Server) (leave func()) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", s.ComponentAddress(), patience)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(2 * patience))
	write := func(xml string) {
		if _, err := io.WriteString(conn, xml); err != nil {
			t.Error(err)
		}
	}
	dec := xml.NewDecoder(conn)
	next := func(name string) (found xml.StartElement) { // none if the stream has ended
		for found.Name.Local != name {
			token, err := dec.Token()
			if err != nil {
				return xml.StartElement{}
			}
			found, _ = token.(xml.StartElement)
		}
		return found
	}
	attr := func(e xml.StartElement, name string) string {
		for _, a := range e.Attr {
			if a.Name.Local == name {
				return a.Value
			}
		}
		return ""
	}
	write("<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' to='" + domain + "'>")
	sum := sha1.Sum([]byte(attr(next("stream"), "id") + s.Options().Secret))
	write("<handshake>" + hex.EncodeToString(sum[:]) + "</handshake>")
	next("handshake")
	left := make(chan struct{})
	go func() {
		defer close(left)
		defer conn.Close()
		for iq := next("iq"); iq.Name.Local != ""; iq = next("iq") {
			if attr(iq, "type") == "get" {
				write("<iq type='result' id='" + attr(iq, "id") + "' from='" + domain + "' to='" + attr(iq, "from") +
					"/visitor'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>")
			}
		}
	}()
	leave = sync.OnceFunc(func() {
		write("</stream:stream>")
		<-left
	})
	t.Cleanup(leave)
	return leave
}
