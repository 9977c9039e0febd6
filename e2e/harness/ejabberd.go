package harness

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ejabberdUser is whom Debian's package has made for ejabberd, which is not to
// be run by root.
const ejabberdUser = "ejabberd"

// ejabberdCode is the folder where Debian puts the code of ejabberd, or "" if
// there is none. It depends on the machine's architecture.
func (r root) ejabberdCode() string {
	found := r.glob("/usr/lib/*/ejabberd-*/ebin/ejabberd.app")
	if len(found) == 0 {
		return ""
	}
	return filepath.Dir(found[0])
}

// ejabberdVersion is the release of ejabberd, as 23.01: they sort as text.
func (r root) ejabberdVersion() string {
	_, version, _ := strings.Cut(filepath.Base(filepath.Dir(r.ejabberdCode())), "-")
	version, _, _ = strings.Cut(version, "-") // what Debian adds
	return version
}

// StartEjabberd starts an ejabberd and waits until it takes connections. ctx
// bounds the start alone; the caller has to Close what is returned.
func StartEjabberd(ctx context.Context, opts EjabberdOptions) (*Server, error) {
	opts.setDefaults()
	return startServer(ctx, opts, opts.ServerOptions)
}

func (o EjabberdOptions) name() string { return "ejabberd" }

func (o EjabberdOptions) setUp(s *Server) error {
	for _, name := range []string{"spool", "logs"} {
		if err := os.Mkdir(filepath.Join(s.dir, name), 0o700); err != nil {
			return err
		}
	}
	if err := s.write("included.yml", o.IncludedYAML); err != nil {
		return err
	}
	if err := s.write("ejabberd.yml", o.config(s)); err != nil {
		return err
	}
	return s.root.giveTo(ejabberdUser, s.dir)
}

// command starts the Erlang machine itself, as a node without a name: that needs
// no epmd and no cookie, several do not meet, and the process is the server, not
// something that has started it. ejabberdctl is not needed. It logs at level info.
func (o EjabberdOptions) command(s *Server) (*exec.Cmd, error) {
	cmd, err := s.root.command(ejabberdUser, s.dir, "erl", "-noinput",
		// Few threads and no busy waiting: the tests need the processor.
		"+S", "2:2", "+SDcpu", "1:1", "+SDio", "2", "+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none",
		"-pa", s.root.ejabberdCode(), // ERL_LIBS would have it look in a thousand folders
		"-mnesia", "dir", erlangString(s.path("spool")), "-s", "ejabberd", "-eval", o.prologue())
	if err != nil {
		return nil, err
	}
	cmd.Env = append(cmd.Env, "HOME="+s.path("spool"),
		"EJABBERD_CONFIG_PATH="+s.path("ejabberd.yml"), "EJABBERD_LOG_PATH="+s.path("logs/ejabberd.log"),
		"EJABBERD_MSGS_PATH="+s.path("logs"), // no translations, which take their time to load
		"ERL_CRASH_DUMP_BYTES=0")
	return cmd, nil
}

func (o EjabberdOptions) ready(ctx context.Context, log *feed[string]) error {
	line, _, err := log.wait(ctx, 0, containsAny(ejabberdReady, "eaddrinuse"))
	if err == nil && !strings.Contains(line, ejabberdReady) {
		err = errPortTaken
	}
	return err
}
