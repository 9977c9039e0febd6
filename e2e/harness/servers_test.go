package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// libraries are the client libraries under test.
var libraries = []struct {
	name string
	open func(ClientOptions) (Client, error)
}{
	{"gosrc.io/xmpp", NewGosrcClient},
	{"slixmpp", NewSlixmppClient},
}

func startProsody(t *testing.T, opts ProsodyOptions) *Server {
	t.Helper()
	return started(t, func(ctx context.Context) (*Server, error) { return StartProsody(ctx, opts) })
}

func startEjabberd(t *testing.T, opts EjabberdOptions) *Server {
	t.Helper()
	return started(t, func(ctx context.Context) (*Server, error) { return StartEjabberd(ctx, opts) })
}

// started is a server that runs until the end of the test.
func started(t *testing.T, start func(context.Context) (*Server, error)) *Server {
	t.Helper()
	Require(t.Context(), t)
	s, err := start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.Log())
		}
		s.Close()
	})
	return s
}

// login logs a client in, until the end of the test.
func login(ctx context.Context, t *testing.T, open func(ClientOptions) (Client, error), opts ClientOptions) Client {
	t.Helper()
	client, err := open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if err := client.Login(ctx); err != nil {
		t.Fatal(err)
	}
	return client
}

// juliet is a server of one user.
func juliet(password string) ServerOptions {
	return ServerOptions{Users: map[string]string{"juliet": password}}
}

// deadline bounds all waiting of a test.
func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestBothClients(t *testing.T) {
	p := startProsody(t, ProsodyOptions{ServerOptions: juliet(`a "pass\word"`)})
	component := dialComponent(t, p)
	component.wait("the delegation", "<delegated ")
	component.wait("the privilege", "<perm ")
	want := []Item{{JID: "romeo@example.org", Name: "Romeo", Subscription: "both", Groups: []string{"Friends"}}}

	for _, library := range libraries {
		t.Run(library.name, func(t *testing.T) {
			ctx := deadline(t)
			jid := "juliet@example.org/" + strings.ReplaceAll(library.name, "/", ".")
			client := login(ctx, t, library.open, ClientOptions{Address: p.ClientAddress(), JID: jid, Password: `a "pass\word"`})
			items, err := client.Roster(ctx)
			if err != nil || !equalItems(items, want) {
				t.Fatalf("roster %+v, %v", items, err)
			}

			// Two pushes, in their order; and the library answers them.
			component.push(jid, "one-"+library.name, `<item jid='romeo@example.org' name='R' subscription='to'/>`)
			component.push(jid, "two-"+library.name, `<item jid='romeo@example.org' subscription='remove'/>`)
			item, err := client.WaitPush(ctx)
			if err != nil || !equalItems([]Item{item}, []Item{{JID: "romeo@example.org", Name: "R", Subscription: "to"}}) {
				t.Fatalf("push %+v, %v", item, err)
			}
			if item, err = client.WaitPush(ctx); err != nil || item.Subscription != "remove" {
				t.Fatalf("push %+v, %v", item, err)
			}
			answer := component.wait("the answer to a push", "id='two-"+library.name)
			if !strings.Contains(answer.Inner, "type='result'") {
				t.Errorf("the push was answered %s", answer.Inner)
			}

			// Nothing is pending, until a push comes that nobody waits for.
			if pending := client.PendingPushes(); pending != nil {
				t.Errorf("pending: %v", pending)
			}
			component.push(jid, "three-"+library.name, rawItem)
			component.wait("the answer to a push", "id='three-"+library.name)
			if err := client.Ping(ctx, p.Options().Host); err != nil {
				t.Fatal(err)
			}
			if pending := client.PendingPushes(); len(pending) != 1 {
				t.Errorf("pending: %v", pending)
			}

			// Presence reaches the component, and its end when the client is cut.
			if err := client.Presence("away"); err != nil {
				t.Fatal(err)
			}
			component.wait("presence", "<show>away</show>")
			client.Cut()
			_, _, err = component.arrived.wait(ctx, 0, func(s rawStanza) bool {
				return s.XMLName.Local == "presence" && s.From == jid && s.Type == "unavailable"
			})
			if err != nil {
				t.Errorf("no unavailable presence after the cut: %v", err)
			}
		})
	}
}

// equalItems takes no groups and an empty list of groups for the same.
func equalItems(a, b []Item) bool { return fmt.Sprintf("%+v", a) == fmt.Sprintf("%+v", b) }

// An error is seen as one, never as an empty roster: nobody answers here.
func TestRosterError(t *testing.T) {
	p := startProsody(t, ProsodyOptions{ServerOptions: juliet("secret")})
	for _, library := range libraries {
		t.Run(library.name, func(t *testing.T) {
			ctx := deadline(t)
			client := login(ctx, t, library.open, ClientOptions{Address: p.ClientAddress(), JID: "juliet@example.org/a", Password: "secret"})
			var stanzaError *StanzaError
			if items, err := client.Roster(ctx); !errors.As(err, &stanzaError) || stanzaError.Condition != "service-unavailable" {
				t.Errorf("roster %v, error %v", items, err)
			}
		})
	}
}

func TestLoginRefused(t *testing.T) {
	p := startProsody(t, ProsodyOptions{})
	for _, library := range libraries {
		t.Run(library.name, func(t *testing.T) {
			client, err := library.open(ClientOptions{Address: p.ClientAddress(), JID: "nobody@example.org/a", Password: "x"})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			if err := client.Login(deadline(t)); err == nil {
				t.Error("a user who does not exist has logged in")
			}
		})
	}
}

func TestProsodyWithoutGrants(t *testing.T) {
	p := startProsody(t, ProsodyOptions{ServerOptions: ServerOptions{
		Host: "a.example", ExtraHosts: []string{"b.example"}, Users: map[string]string{"juliet@b.example": "secret"},
		Grants: Grants{NoDelegation: true, NoPrivilegeIQ: true, NoPresence: true}, AnyFromAddress: true,
	}})
	component := dialComponent(t, p)
	for _, host := range p.Options().Hosts() {
		component.waitFor("the privilege of "+host, func(s rawStanza) bool {
			return s.From == host && strings.Contains(s.Inner, "<privilege")
		})
	}
	stanzas, _ := component.arrived.since(0)
	for _, s := range stanzas {
		if strings.Contains(s.Inner, "access='presence'") || strings.Contains(s.Inner, "access='iq'") || strings.Contains(s.Inner, "<delegated") {
			t.Errorf("announced all the same: %s", s.Inner)
		}
	}

	// The component may use any address: a push from the user herself.
	ctx := deadline(t)
	client := login(ctx, t, NewGosrcClient, ClientOptions{Address: p.ClientAddress(), JID: "juliet@b.example/a", Password: "secret", RefusePushes: true})
	component.send("<iq type='set' id='p' from='juliet@b.example' to='juliet@b.example/a'><query xmlns='jabber:iq:roster'>" + rawItem + "</query></iq>")
	if item, err := client.WaitPush(ctx); err != nil || item.Name != "Romeo" {
		t.Errorf("push %+v, %v", item, err)
	}
}

// A host that is plain announces nothing, the one beside it what it grants; an
// account of any name can log in, and is pushed to from its own address.
func TestEjabberdGrants(t *testing.T) {
	const name, password = `d\27artagnan羅`, `a "pass\word" ☎`
	e := startEjabberd(t, EjabberdOptions{ServerOptions: ServerOptions{
		Host: "a.example", ExtraHosts: []string{"b.example", "c.example"}, Users: map[string]string{name + "@b.example": password},
		HostGrants: map[string]Grants{"a.example": {Plain: true}, "c.example": {NoDelegation: true, NoPresence: true}}, AnyFromAddress: true,
	}})
	component := dialComponent(t, e)
	component.wait("the delegation", "<delegated ")
	for _, host := range []string{"b.example", "c.example"} {
		component.waitFor("the privilege of "+host, func(s rawStanza) bool {
			return s.From == host && strings.Contains(s.Inner, "<privilege")
		})
	}
	stanzas, _ := component.arrived.since(0)
	for _, s := range stanzas {
		// What is not granted is announced with the type none.
		if s.From == "a.example" || s.From == "c.example" && (strings.Contains(s.Inner, "<delegated") || strings.Contains(s.Inner, "managed_entity")) {
			t.Errorf("%s announced all the same: %s", s.From, s.Inner)
		}
	}
	for _, library := range libraries {
		t.Run(library.name, func(t *testing.T) {
			ctx := deadline(t)
			jid := name + "@b.example/" + strings.ReplaceAll(library.name, "/", ".")
			client := login(ctx, t, library.open, ClientOptions{Address: e.ClientAddress(), JID: jid, Password: password})
			if items, err := client.Roster(ctx); err != nil || len(items) != 1 || items[0].Name != "Romeo" {
				t.Fatalf("roster %+v, %v", items, err)
			}
			component.send("<iq type='set' id='p' from='" + name + "@b.example' to='" + jid + "'><query xmlns='jabber:iq:roster'>" + rawItem + "</query></iq>")
			if item, err := client.WaitPush(ctx); err != nil || item.Name != "Romeo" {
				t.Errorf("push %+v, %v", item, err)
			}
			if err := client.Presence("away"); err != nil {
				t.Fatal(err)
			}
			component.wait("presence", "<show>away</show>")
		})
	}
}

// By default a component has no address but its own.
func TestEjabberdChecksFrom(t *testing.T) {
	e := startEjabberd(t, EjabberdOptions{})
	component := dialComponent(t, e)
	component.wait("the delegation", "<delegated ")
	component.send("<message from='juliet@example.org/a' to='romeo@example.org'/>")
	if _, _, err := component.arrived.wait(deadline(t), 0, func(s rawStanza) bool { return false }); !errors.Is(err, errEnded) {
		t.Errorf("the stream has not ended: %v", err)
	}
}

// After a restart ports and accounts are the same, after Close nothing is left.
func TestRestart(t *testing.T) {
	for name, start := range map[string]func(*testing.T) (s *Server, dir string, pid func() int){
		"prosody": func(t *testing.T) (*Server, string, func() int) {
			p := startProsody(t, ProsodyOptions{ServerOptions: juliet("secret")})
			return p, p.dir, func() int { return p.process.cmd.Process.Pid }
		},
		"ejabberd": func(t *testing.T) (*Server, string, func() int) {
			e := startEjabberd(t, EjabberdOptions{ServerOptions: juliet("secret")})
			return e, e.dir, func() int { return e.process.cmd.Process.Pid }
		},
	} {
		t.Run(name, func(t *testing.T) {
			server, dir, pid := start(t)
			testRestart(t, server, dir, pid)
		})
	}
}

func testRestart(t *testing.T, server *Server, dir string, pid func() int) {
	ctx := deadline(t)
	component := dialComponent(t, server)
	component.wait("the delegation", "<delegated ")
	pids := []int{pid()}
	if err := server.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	pids = append(pids, pid())
	dialComponent(t, server).wait("the delegation after a restart", "<delegated ")
	if err := server.Start(ctx); err == nil {
		t.Error("started twice")
	}
	server.Kill()
	if err := server.Start(ctx); err != nil {
		t.Fatal(err)
	}
	pids = append(pids, pid())

	client, err := NewSlixmppClient(ClientOptions{Address: server.ClientAddress(), JID: "juliet@example.org/a", Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Login(ctx); err != nil {
		t.Error(err)
	}
	pids = append(pids, client.(*slixmppClient).process.cmd.Process.Pid)
	client.Close()
	server.Close()
	for _, pid := range pids {
		if process, err := os.FindProcess(pid); err == nil && process.Signal(syscall.Signal(0)) == nil {
			t.Errorf("process %d is left", pid)
		}
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", dir, err)
	}
}
