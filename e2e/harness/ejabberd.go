package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"rosterd/internal/freeport"
)

// ejabberdUser is whom Debian's package has made for ejabberd, which is not to
// be run by root.
const ejabberdUser = "ejabberd"

// ejabberdCode is the folder where Debian puts the code of ejabberd, or "" if
// there is none. It depends on the machine's architecture.
func ejabberdCode() string {
	found, _ := filepath.Glob("/usr/lib/*/ejabberd-*/ebin/ejabberd.app")
	if len(found) == 0 {
		return ""
	}
	return filepath.Dir(found[0])
}

// Ejabberd is a throw-away ejabberd without TLS. Its methods are not for
// concurrent use, except for the addresses and the log.
type Ejabberd struct {
	opts          EjabberdOptions
	dir           string
	c2s           int
	componentPort int
	process       *process
}

// StartEjabberd starts an ejabberd and waits until it takes connections. ctx
// bounds the start alone; the caller has to Close what is returned.
func StartEjabberd(ctx context.Context, opts EjabberdOptions) (*Ejabberd, error) {
	opts.setDefaults()
	for attempt := 1; ; attempt++ {
		e, err := newEjabberd(opts)
		if err != nil {
			return nil, err
		}
		if err = e.Start(ctx); err == nil {
			return e, nil
		}
		e.Close()
		if attempt == 5 || !errors.Is(err, errPortTaken) {
			return nil, err
		}
	}
}

// newEjabberd picks ports and writes the configuration.
func newEjabberd(opts EjabberdOptions) (*Ejabberd, error) {
	dir, err := os.MkdirTemp("", "ejabberd-")
	if err != nil {
		return nil, err
	}
	e := &Ejabberd{opts: opts, dir: dir}
	if err := e.setUp(); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

func (e *Ejabberd) setUp() error {
	ports, err := freeport.Find(2)
	if err != nil {
		return err
	}
	e.c2s, e.componentPort = ports[0], ports[1]
	for _, name := range []string{"spool", "logs"} {
		if err := os.Mkdir(filepath.Join(e.dir, name), 0o700); err != nil {
			return err
		}
	}
	included := filepath.Join(e.dir, "included.yml")
	for file, content := range map[string]string{
		e.configFile(): e.opts.config(included, e.c2s, e.componentPort), included: e.opts.IncludedYAML,
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			return err
		}
	}
	return giveTo(ejabberdUser, e.dir)
}

func (e *Ejabberd) configFile() string { return filepath.Join(e.dir, "ejabberd.yml") }

// Start implements [Server].
//
// It starts the Erlang machine itself, as a node without a name: that needs no
// epmd and no cookie, several do not meet, and the process is the server, not
// something that has started it. ejabberdctl is not needed.
func (e *Ejabberd) Start(ctx context.Context) error {
	if e.process != nil && e.process.running() {
		return errors.New("ejabberd is running already")
	}
	cmd := exec.Command("erl", "-noinput",
		// Few threads and no busy waiting: the tests need the processor.
		"+S", "2:2", "+SDcpu", "1:1", "+SDio", "2", "+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none",
		"-pa", ejabberdCode(), // ERL_LIBS would have it look in a thousand folders
		"-mnesia", "dir", erlangString(filepath.Join(e.dir, "spool")), "-s", "ejabberd", "-eval", e.opts.prologue())
	cmd.Dir = e.dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "HOME=" + filepath.Join(e.dir, "spool"),
		"EJABBERD_CONFIG_PATH=" + e.configFile(), "EJABBERD_LOG_PATH=" + filepath.Join(e.dir, "logs", "ejabberd.log"),
		"EJABBERD_MSGS_PATH=" + filepath.Join(e.dir, "logs"), // no translations, which take their time to load
		"ERL_CRASH_DUMP_BYTES=0",
	}
	if err := runAs(ejabberdUser, cmd); err != nil {
		return err
	}
	var err error
	if e.process, err = startProcess(cmd); err != nil {
		return err
	}
	line, _, err := e.process.log.wait(ctx, 0, containsAny(ejabberdReady, "eaddrinuse"))
	if err == nil && !strings.Contains(line, ejabberdReady) {
		err = errPortTaken
	}
	if err != nil {
		err = fmt.Errorf("starting ejabberd: %w\n%s", err, e.Log())
		e.Kill()
	}
	return err
}

// Stop implements [Server].
func (e *Ejabberd) Stop(ctx context.Context) error { return e.process.stop(ctx) }

// Kill implements [Server].
func (e *Ejabberd) Kill() {
	if e.process != nil {
		e.process.kill()
	}
}

// Restart implements [Server].
func (e *Ejabberd) Restart(ctx context.Context) error {
	if err := e.Stop(ctx); err != nil {
		return err
	}
	return e.Start(ctx)
}

// Close implements [Server].
func (e *Ejabberd) Close() {
	e.Kill()
	_ = os.RemoveAll(e.dir)
}

// ClientAddress implements [Server].
func (e *Ejabberd) ClientAddress() string { return freeport.Address(e.c2s) }

// ComponentAddress implements [Server].
func (e *Ejabberd) ComponentAddress() string { return freeport.Address(e.componentPort) }

// Options implements [Server].
func (e *Ejabberd) Options() ServerOptions { return e.opts.ServerOptions }

// Log implements [Server], at level info.
func (e *Ejabberd) Log() string { return e.process.text() }

// WaitLog waits until ejabberd has logged a line that contains text.
func (e *Ejabberd) WaitLog(ctx context.Context, text string) error {
	if _, _, err := e.process.log.wait(ctx, 0, containsAny(text)); err != nil {
		return fmt.Errorf("ejabberd did not log %q: %w", text, err)
	}
	return nil
}
