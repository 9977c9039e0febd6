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

// errPortTaken means that somebody else was faster to listen on a port.
var errPortTaken = errors.New("port is taken")

// Prosody is a throw-away Prosody without TLS. Its methods are not for
// concurrent use, except for the addresses and the log.
type Prosody struct {
	opts          ProsodyOptions
	dir           string
	c2s           int
	componentPort int
	process       *process
}

// StartProsody starts a Prosody and waits until it takes connections. ctx
// bounds the start alone; the caller has to Close what is returned.
func StartProsody(ctx context.Context, opts ProsodyOptions) (*Prosody, error) {
	opts.setDefaults()
	for attempt := 1; ; attempt++ {
		p, err := newProsody(opts)
		if err != nil {
			return nil, err
		}
		if err = p.Start(ctx); err == nil {
			return p, nil
		}
		p.Close()
		if attempt == 5 || !errors.Is(err, errPortTaken) {
			return nil, err
		}
	}
}

// newProsody picks ports and writes configuration and accounts.
func newProsody(opts ProsodyOptions) (*Prosody, error) {
	dir, err := os.MkdirTemp("", "prosody-")
	if err != nil {
		return nil, err
	}
	p := &Prosody{opts: opts, dir: dir}
	if err := p.setUp(); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func (p *Prosody) setUp() error {
	ports, err := freeport.Find(2)
	if err != nil {
		return err
	}
	p.c2s, p.componentPort = ports[0], ports[1]
	if err := p.opts.writeAccounts(filepath.Join(p.dir, "data")); err != nil {
		return err
	}
	conf := p.opts.config(p.dir, p.c2s, p.componentPort)
	return os.WriteFile(p.configFile(), []byte(conf), 0o600)
}

func (p *Prosody) configFile() string { return filepath.Join(p.dir, "prosody.cfg.lua") }

// Start implements [Server].
func (p *Prosody) Start(ctx context.Context) error {
	if p.process != nil && p.process.running() {
		return errors.New("prosody is running already")
	}
	cmd := exec.Command("prosody", "--config", p.configFile(), "-F")
	cmd.Dir = p.dir
	var err error
	if p.process, err = startProcess(cmd); err != nil {
		return err
	}
	next := 0
	for range []string{"c2s", "component"} {
		if next, err = p.waitActivated(ctx, next); err != nil {
			err = fmt.Errorf("starting prosody: %w\n%s", err, p.Log())
			p.Kill()
			return err
		}
	}
	return nil
}

// waitActivated waits for the line that says that a port is listened on. All
// hosts and modules are loaded before Prosody, a single thread, looks at what
// arrives there.
func (p *Prosody) waitActivated(ctx context.Context, from int) (next int, err error) {
	line, next, err := p.process.log.wait(ctx, from, containsAny("Activated service 'c2s' on [127.0.0.1]",
		"Activated service 'component' on [127.0.0.1]", "Failed to open server port"))
	if err == nil && strings.Contains(line, "Failed to open") {
		err = errPortTaken
	}
	return next, err
}

// Stop implements [Server].
func (p *Prosody) Stop(ctx context.Context) error {
	return p.process.stop(ctx)
}

// Kill implements [Server].
func (p *Prosody) Kill() {
	if p.process != nil {
		p.process.kill()
	}
}

// Restart implements [Server].
func (p *Prosody) Restart(ctx context.Context) error {
	if err := p.Stop(ctx); err != nil {
		return err
	}
	return p.Start(ctx)
}

// Close implements [Server].
func (p *Prosody) Close() {
	p.Kill()
	_ = os.RemoveAll(p.dir)
}

// ClientAddress implements [Server].
func (p *Prosody) ClientAddress() string { return freeport.Address(p.c2s) }

// ComponentAddress implements [Server].
func (p *Prosody) ComponentAddress() string { return freeport.Address(p.componentPort) }

// Options implements [Server].
func (p *Prosody) Options() ServerOptions { return p.opts.ServerOptions }

// Log implements [Server], at level debug.
func (p *Prosody) Log() string { return p.process.text() }

// WaitLog waits until Prosody has logged a line that contains text.
func (p *Prosody) WaitLog(ctx context.Context, text string) error {
	if _, _, err := p.process.log.wait(ctx, 0, containsAny(text)); err != nil {
		return fmt.Errorf("prosody did not log %q: %w", text, err)
	}
	return nil
}
