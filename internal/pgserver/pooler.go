package pgserver

import (
	"io"
	"net"
	"sync"

	"github.com/jackc/pgx/v5/pgproto3"

	"rosterd/internal/freeport"
)

// Pooler is between clients and a server, and keeps the parameters of connections from it, but
// for who connects to what, as PgBouncer does with ignore_startup_parameters.
type Pooler struct {
	listener net.Listener
	server   string
	working  sync.WaitGroup
}

// Pooler makes one in front of the server.
func (s *Server) Pooler() (*Pooler, error) {
	ports, err := freeport.Find(1)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", freeport.Address(ports[0]))
	if err != nil {
		return nil, err
	}
	p := &Pooler{listener: l, server: s.Address()}
	p.working.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.working.Go(func() { p.relay(c) })
		}
	})
	return p, nil
}

// Address is where it listens: host:port.
func (p *Pooler) Address() string { return p.listener.Addr().String() }

func (p *Pooler) relay(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	defer server.Close()
	startup, err := pgproto3.NewBackend(client, client).ReceiveStartupMessage()
	if err != nil {
		return
	}
	begin, is := startup.(*pgproto3.StartupMessage)
	if !is {
		return // a request of TLS, for instance
	}
	begin.Parameters = map[string]string{"user": begin.Parameters["user"], "database": begin.Parameters["database"]}
	b, err := begin.Encode(nil)
	if err == nil {
		_, err = server.Write(b)
	}
	if err != nil {
		return
	}
	p.working.Go(func() {
		io.Copy(server, client)
		server.Close()
	})
	io.Copy(client, server)
}

// Close ends it, when its connections have ended.
func (p *Pooler) Close() error {
	err := p.listener.Close()
	p.working.Wait()
	return err
}
