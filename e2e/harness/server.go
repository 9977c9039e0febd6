package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"rosterd/internal/freeport"
)

// errPortTaken means that somebody else was faster to listen on a port.
var errPortTaken = errors.New("port is taken")

// Server is a throw-away XMPP server without TLS, started already. Its methods
// are not for concurrent use, except for the addresses and the log.
type Server struct {
	software software
	opts     ServerOptions
	root     root
	dir      string // of all its files
	c2s      int    // port
	service  int    // port, for components
	api      int    // port, of ejabberd's HTTP API, or of Prosody's HTTP server
	process  *process
}

// software is what a kind of server has of its own.
type software interface {
	name() string

	// setUp writes the configuration into the server's folder.
	setUp(s *Server) error

	// command is what runs the server, until it is asked to end.
	command(s *Server) (*exec.Cmd, error)

	// ready waits for the log to say that connections are taken.
	ready(ctx context.Context, log *feed[string]) error
}

// startServer starts a server with free ports. ctx bounds the start alone.
func startServer(ctx context.Context, kind software, opts ServerOptions) (*Server, error) {
	for attempt := 1; ; attempt++ {
		s := &Server{software: kind, opts: opts, root: suiteRoot()}
		err := s.setUp()
		if err == nil {
			err = s.Start(ctx)
		}
		if err == nil {
			return s, nil
		}
		s.Close()
		if attempt == 5 || !errors.Is(err, errPortTaken) {
			return nil, err
		}
	}
}

func (s *Server) setUp() error {
	var err error
	if s.dir, err = s.root.tempDir(s.software.name() + "-"); err != nil {
		return err
	}
	ports, err := freeport.Find(3)
	if err != nil {
		return err
	}
	s.c2s, s.service, s.api = ports[0], ports[1], ports[2]
	return s.software.setUp(s)
}

// path is where a file of the server's folder is, as the server sees it.
func (s *Server) path(name string) string { return filepath.Join(s.root.inside(s.dir), name) }

// write writes a file of the server's folder.
func (s *Server) write(name, content string) error {
	return os.WriteFile(filepath.Join(s.dir, name), []byte(content), 0o600)
}

// Start starts a server that was stopped or killed, with the ports and the data
// it had, and waits until it takes connections.
func (s *Server) Start(ctx context.Context) error {
	if s.process != nil && s.process.running() {
		return fmt.Errorf("%s is running already", s.software.name())
	}
	cmd, err := s.software.command(s)
	if err != nil {
		return err
	}
	if s.process, err = startProcess(cmd); err != nil {
		return err
	}
	if err := s.software.ready(ctx, s.process.log); err != nil {
		s.Kill()
		return fmt.Errorf("starting %s: %w\n%s", s.software.name(), err, s.Log())
	}
	return nil
}

// Stop ends the server in order; it is killed when ctx ends.
func (s *Server) Stop(ctx context.Context) error { return s.process.stop(ctx) }

// Kill ends the server at once, without closing a stream.
func (s *Server) Kill() {
	if s.process != nil {
		s.process.kill()
	}
}

// Restart is Stop and Start.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Stop(ctx); err != nil {
		return err
	}
	return s.Start(ctx)
}

// Close ends the server if it runs, and deletes its files.
func (s *Server) Close() {
	s.Kill()
	_ = os.RemoveAll(s.dir)
}

// ClientAddress is host:port where clients log in.
func (s *Server) ClientAddress() string { return freeport.Address(s.c2s) }

// ComponentAddress is host:port where the component connects.
func (s *Server) ComponentAddress() string { return freeport.Address(s.service) }

// WebSocketURL is where clients in browsers log in, of a Prosody with that option.
func (s *Server) WebSocketURL() string { return "ws://" + freeport.Address(s.api) + "/xmpp-websocket" }

// APIURL is ejabberd's HTTP API, to which "/" and a command's name are added.
func (s *Server) APIURL() string { return "http://" + freeport.Address(s.api) + "/api" }

// Options are the server's, with their defaults.
func (s *Server) Options() ServerOptions { return s.opts }

// Log is what the server has logged since its last start.
func (s *Server) Log() string { return s.process.text() }

// WaitLog waits until the server has logged a line that contains text.
func (s *Server) WaitLog(ctx context.Context, text string) error {
	if _, _, err := s.process.log.wait(ctx, 0, containsAny(text)); err != nil {
		return fmt.Errorf("%s did not log %q: %w", s.software.name(), text, err)
	}
	return nil
}

// ServerOptions are what the servers have in common. The zero value serves
// example.org without users, and grants the component contacts.example.org all
// that rosterd asks for.
type ServerOptions struct {
	Host       string   // default example.org
	ExtraHosts []string // further hosts
	Component  string   // default contacts.HOST
	Secret     string   // of the component, default "component secret"

	// Users maps localparts of Host, or bare JIDs of any host, to passwords.
	Users map[string]string

	Grants         Grants            // of every host
	HostGrants     map[string]Grants // of the hosts that differ
	AnyFromAddress bool              // the component may send in the name of any address

	// OwnRosters has the server's own rosters be read and written past the
	// component, see [Server.OwnRoster]. ejabberd gets its HTTP API for it, and
	// refuses what users change of their rosters, unless Edits is set, as it is meant
	// to be on Prosody, too.
	OwnRosters, Edits bool
	// PEP has users publish (XEP-0163).
	PEP bool
	// BlockStrangers has users get no messages but of their contacts.
	BlockStrangers bool
}

// Grants are what a host does not let the component do. The zero value lets it
// do everything.
type Grants struct {
	NoDelegation  bool // do not delegate jabber:iq:roster (XEP-0355)
	NoPrivilegeIQ bool // do not allow privileged IQs (XEP-0356, section 6)
	NoPresence    bool // do not forward presence (XEP-0356, section 7)
	NoBlocking    bool // do not let block lists be asked for by privileged IQ (XEP-0191)
	NoRoster      bool // do not let the server's own rosters be read or written (XEP-0356, section 5)

	// Plain is a host that knows neither XEP: it announces nothing at all.
	Plain bool
}

func (o *ServerOptions) setDefaults() {
	if o.Host == "" {
		o.Host = "example.org"
	}
	if o.Component == "" {
		o.Component = "contacts." + o.Host
	}
	if o.Secret == "" {
		o.Secret = "component secret"
	}
}

// Hosts are the domains whose users the component serves.
func (o ServerOptions) Hosts() []string {
	return append([]string{o.Host}, o.ExtraHosts...)
}

// grants are those of a host.
func (o ServerOptions) grants(host string) Grants {
	if g, differs := o.HostGrants[host]; differs {
		return g
	}
	return o.Grants
}

// account is a user who can log in.
type account struct{ local, host, password string }

// accounts are Users, in a fixed order.
func (o ServerOptions) accounts() []account {
	var accounts []account
	for user, password := range o.Users {
		local, host, isJID := strings.Cut(user, "@")
		if !isJID {
			host = o.Host
		}
		accounts = append(accounts, account{local, host, password})
	}
	slices.SortFunc(accounts, func(a, b account) int {
		return strings.Compare(a.local+"@"+a.host, b.local+"@"+b.host)
	})
	return accounts
}

// containsAny says whether a line contains one of the texts.
func containsAny(texts ...string) func(string) bool {
	return func(line string) bool {
		return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(line, text) })
	}
}
