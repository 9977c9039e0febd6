// Package pgserver runs a PostgreSQL for tests, on a free port and in a temporary
// folder. PostgreSQL refuses to run as root: it is started as nobody then.
package pgserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"rosterd/internal/freeport"
)

// patience is how long it may take to start, or to stop.
const patience = 60 * time.Second

// Server is a running PostgreSQL, with one database. It is for one goroutine, but for Exec and Database.
type Server struct {
	dir, bin string
	port     int
	settings []string
	process  *exec.Cmd
	ended    chan struct{} // closed when process has ended
}

// Start makes a database of its own and serves it. Settings are "name=value" of
// postgresql.conf. What was committed survives a kill of the server, but unless a setting
// says fsync=on, no power failure.
func Start(settings ...string) (*Server, error) {
	bin, err := find()
	if err != nil {
		return nil, err
	}
	return start(bin, append([]string{"fsync=off"}, settings...), func(s *Server) *exec.Cmd {
		return s.command("initdb", "-D", s.data(), "-U", "rosterd", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
	})
}

// Replica starts another server, with a copy that follows this one, and can be read only
// until pg_promote makes it a primary.
func (s *Server) Replica() (*Server, error) {
	return start(s.bin, s.settings, func(replica *Server) *exec.Cmd {
		return replica.command("pg_basebackup", "-h", "127.0.0.1", "-p", strconv.Itoa(s.port), "-U", "rosterd", "-D", replica.data(), "-R", "-c", "fast", "--no-sync")
	})
}

// start starts a server with the files that a command makes.
func start(bin string, settings []string, files func(*Server) *exec.Cmd) (*Server, error) {
	ports, err := freeport.Find(1)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "rosterd-postgres-")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, bin: bin, port: ports[0], settings: settings}
	if as := credential(); as != nil {
		err = os.Chown(dir, int(as.Uid), int(as.Gid))
	}
	if err == nil {
		c := files(s)
		var said []byte
		if said, err = c.CombinedOutput(); err != nil {
			err = fmt.Errorf("%s: %w: %s", filepath.Base(c.Path), err, said)
		}
	}
	if err == nil {
		err = s.Resume()
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// find is the folder of PostgreSQL's programs. Debian keeps them out of the PATH.
func find() (string, error) {
	if path, err := exec.LookPath("postgres"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err != nil { // the others may have none beside it
			return "", err
		}
		return filepath.Dir(path), nil
	}
	all, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(all) == 0 {
		return "", errors.New("there is no PostgreSQL: e2e/install-debian.sh installs it")
	}
	return filepath.Dir(all[len(all)-1]), nil
}

// credential is who PostgreSQL runs as; nil: who the tests run as.
func credential() *syscall.Credential {
	nobody, err := user.Lookup("nobody")
	if os.Getuid() != 0 || err != nil {
		return nil
	}
	uid, _ := strconv.Atoi(nobody.Uid)
	gid, _ := strconv.Atoi(nobody.Gid)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(s.bin, name), args...)
	c.Dir = s.dir
	c.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "TZ=UTC")
	c.SysProcAttr = &syscall.SysProcAttr{Credential: credential()}
	return c
}

// Address is where it listens: host:port.
func (s *Server) Address() string { return freeport.Address(s.port) }

// URL is that of its database.
func (s *Server) URL() string { return s.At(s.Address(), "postgres") }

// At is the URL of a database by way of an address, of a relay for instance.
func (s *Server) At(address, database string) string {
	return "postgres://rosterd@" + address + "/" + database + "?sslmode=disable"
}

// databases counts those of all servers.
var databases atomic.Int64

// Database makes one more database, and returns its name. It may be called by several at
// once.
func (s *Server) Database(ctx context.Context) (name string, err error) {
	name = fmt.Sprintf("database%d", databases.Add(1))
	return name, s.Exec(ctx, "CREATE DATABASE "+name)
}

// Resume starts it again, and waits until it answers.
func (s *Server) Resume() error {
	args := []string{"-D", s.data(), "-p", strconv.Itoa(s.port), "-k", s.dir}
	for _, setting := range append([]string{"listen_addresses=127.0.0.1", "max_connections=300", "log_min_messages=fatal", "log_destination=stderr"}, s.settings...) {
		args = append(args, "-c", setting)
	}
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	s.process = s.command("postgres", args...)
	s.process.Stdout, s.process.Stderr = log, log
	if err := s.process.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	s.ended = ended
	go func(c *exec.Cmd) { c.Wait(); close(ended) }(s.process)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		c, err := pgx.Connect(ctx, s.URL())
		if err == nil {
			return c.Close(ctx)
		}
		select {
		case <-ended:
			said, _ := os.ReadFile(log.Name())
			return fmt.Errorf("postgres ended: %s", strings.TrimSpace(string(said)))
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stop stops it in order, for the moment: all connections are closed.
func (s *Server) Stop() error { return s.end(syscall.SIGINT) }

// Kill stops it without order, for the moment. Its processes end with the first one.
func (s *Server) Kill() error {
	if err := s.end(syscall.SIGQUIT); err != nil {
		return err
	}
	for begun := time.Now(); time.Since(begun) < patience; time.Sleep(10 * time.Millisecond) {
		if l, err := net.Listen("tcp", s.Address()); err == nil {
			return l.Close()
		}
	}
	return errors.New("something listens on the port still")
}

func (s *Server) end(how syscall.Signal) error {
	if s.process == nil || s.process.Process == nil {
		return nil
	}
	s.process.Process.Signal(how)
	select {
	case <-s.ended:
		return nil
	case <-time.After(patience):
		s.process.Process.Kill()
		return errors.New("postgres did not stop")
	}
}

// Exec executes statements.
func (s *Server) Exec(ctx context.Context, statements string) error {
	c, err := pgx.Connect(ctx, s.URL())
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	_, err = c.Exec(ctx, statements)
	return err
}

// Close stops it for good, and removes all that it had.
func (s *Server) Close() error {
	return errors.Join(s.end(syscall.SIGQUIT), os.RemoveAll(s.dir))
}
