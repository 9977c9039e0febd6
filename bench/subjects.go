package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"rosterd/e2e/harness"
	"rosterd/internal/freeport"
)

// subject is what serves the rosters on a real server, which it has for itself.
type subject struct {
	server  *harness.Server
	refresh *http.Request // its users are the body
	metrics string        // host:port of rosterd's; "": it is another
	stop    func()
}

func (s *subject) close() {
	if s.stop != nil {
		s.stop()
	}
	s.server.Close()
}

// variant is a way to set up a real server.
type variant struct {
	name string // in the rows
	lua  string // of Prosody
	// What rosterd is to reach beside the module: of its time, of its chat's
	// 99th percentile.
	refresh, chat float64
	// keeps has rosterd keep the server's own rosters.
	keeps bool
}

const generational = `gc = { mode = "generational" }` + "\n"

var variants = map[string][]variant{
	"prosody": {
		{refresh: 1. / 4, chat: 1. / 30},
		{name: ", generational gc", lua: generational, refresh: 1. / 2, chat: 1. / 10},
		{name: ", generational gc, network_settings", lua: generational + "network_settings = { min_wait = 1e-6; read_size = 65536; nagle = false }\n"},
	},
	"ejabberd": {{}},
}

// startServer starts the server of a variant with accounts for all.
func (b *bench) startServer(ctx context.Context, v variant, accounts []user, change func(*harness.ProsodyOptions)) (*harness.Server, error) {
	options := harness.ServerOptions{Host: host, Component: domain, Secret: secret, Users: map[string]string{}}
	if b.server == "ejabberd" {
		options.AnyFromAddress = true // the way to pushes there
		options.OwnRosters = v.keeps
		e, err := harness.StartEjabberd(ctx, harness.EjabberdOptions{
			ServerOptions: options,
			ModulesYAML:   "  mod_register: {ip_access: all, access: all, password_strength: 0}",
			ExtraYAML:     "registration_timeout: infinity",
		})
		if err != nil {
			return nil, err
		}
		if err := register(ctx, e.ClientAddress(), accounts); err != nil {
			e.Close()
			return nil, err
		}
		return e, nil
	}
	for _, u := range accounts {
		options.Users[u.String()] = password
	}
	// The harness logs at level debug: too much for what is measured.
	p := harness.ProsodyOptions{ServerOptions: options, GlobalLua: "log = { { levels = { min = \"info\" }, to = \"console\" } }\n" + v.lua}
	if change != nil {
		change(&p)
	}
	server, err := harness.StartProsody(ctx, p)
	if err != nil {
		return nil, err // a nil pointer is no nil server
	}
	return server, nil
}

// register makes accounts as clients do (XEP-0077): for ejabberd, to which the
// harness gives them on a command line that would become too long.
func register(ctx context.Context, address string, accounts []user) error {
	c, err := connect(ctx, address)
	if err != nil {
		return err
	}
	defer c.close()
	for _, u := range accounts {
		if _, err := c.ask("set", fmt.Sprintf("<query xmlns='jabber:iq:register'><username>%s</username><password>%s</password></query>", u, password)); err != nil {
			return fmt.Errorf("registering %s: %w", u, err)
		}
	}
	return nil
}

// startBare starts a server with echo.
func (b *bench) startBare(ctx context.Context, v variant, accounts []user) (*subject, error) {
	server, err := b.startServer(ctx, v, accounts, nil)
	if err != nil {
		return nil, err
	}
	args := []string{"-refresh", "-address", server.ComponentAddress()}
	if b.server == "ejabberd" {
		args = append(args, "-direct")
	}
	c, err := self("echo", args...)
	if err != nil {
		server.Close()
		return nil, err
	}
	s := &subject{server: server, stop: c.stop}
	address, err := c.line()
	if err == nil {
		s.refresh, err = http.NewRequest(http.MethodPost, "http://"+address+"/roster_admin/refresh", nil)
	}
	return b.ready(ctx, s, err)
}

// startReal starts a server with rosterd.
func (b *bench) startReal(ctx context.Context, v variant, accounts []user) (*subject, error) {
	server, err := b.startServer(ctx, v, accounts, nil)
	if err != nil {
		return nil, err
	}
	s := &subject{server: server}
	more := settings{"xmpp.address": server.ComponentAddress(), "xmpp.unrestricted": b.server == "ejabberd"}
	if v.keeps {
		more["xmpp.server_roster"] = "auto"
		if b.server == "ejabberd" {
			more["ejabberd.api"] = map[string]any{"url": server.APIURL()}
		}
	}
	r, err := b.prepare(more)
	if err == nil {
		s.stop, s.metrics = r.close, r.metrics
		err = r.launch(ctx)
	}
	if err == nil {
		s.refresh, err = http.NewRequest(http.MethodPost, "http://"+r.refresh+"/roster_admin/refresh", nil)
	}
	return b.ready(ctx, s, err)
}

// startPeer starts a Prosody with mod_http_roster_admin, as its documentation
// says.
func (b *bench) startPeer(ctx context.Context, v variant, accounts []user) (*subject, error) {
	folder, err := filepath.Abs(b.peer)
	if err != nil {
		return nil, err
	}
	ports, err := freeport.Find(1)
	if err != nil {
		return nil, err
	}
	server, err := b.startServer(ctx, v, accounts, func(o *harness.ProsodyOptions) {
		o.Grants.Plain = true
		o.GlobalLua += fmt.Sprintf("plugin_paths = { %q, \"/usr/lib/prosody/modules\" }\nhttp_ports = { %d }\nhttp_interfaces = { \"127.0.0.1\" }\n", folder, ports[0])
		o.HostLua = fmt.Sprintf("  modules_enabled = { \"http_roster_admin\" }\n  modules_disabled = { \"roster\" }\n  storage = { roster = \"memory\" }\n"+
			"  http_host = \"127.0.0.1\"\n  http_roster_url = %q\n", b.contactsURL())
	})
	if err != nil {
		return nil, err
	}
	s := &subject{server: server}
	s.refresh, err = http.NewRequest(http.MethodPost, "http://"+freeport.Address(ports[0])+"/roster_admin/refresh", nil)
	return b.ready(ctx, s, err)
}

// ready waits until a user can log in and gets their roster.
func (b *bench) ready(ctx context.Context, s *subject, err error) (*subject, error) {
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		err = retry(ctx, func() error {
			c, err := login(ctx, s.server.ClientAddress(), user{'e', 0, 2}, nil)
			if err == nil {
				c.close()
			}
			return err
		})
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// tell reports users to a subject, which answers when they are refreshed.
func (b *bench) tell(ctx context.Context, s *subject, some []user) error {
	request := s.refresh.Clone(ctx)
	body := namesOf(some)
	request.Body, request.ContentLength = io.NopCloser(strings.NewReader(string(body))), int64(len(body))
	return refreshed(b.do(request))
}
