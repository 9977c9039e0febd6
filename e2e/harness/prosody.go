package harness

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// StartProsody starts a Prosody and waits until it takes connections. ctx
// bounds the start alone; the caller has to Close what is returned.
func StartProsody(ctx context.Context, opts ProsodyOptions) (*Server, error) {
	opts.setDefaults()
	return startServer(ctx, opts, opts.ServerOptions)
}

func (o ProsodyOptions) name() string { return "prosody" }

func (o ProsodyOptions) setUp(s *Server) error {
	if err := o.writeAccounts(s.dir + "/data"); err != nil {
		return err
	}
	if err := s.write("mod_harness_rosters.lua", rostersModule); err != nil {
		return err
	}
	for name, text := range o.Files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(s.dir, name)), 0o700); err != nil {
			return err
		}
		if err := s.write(name, text); err != nil {
			return err
		}
	}
	return s.write("prosody.cfg.lua", o.config(s))
}

// command runs it as who runs the tests, root included. It logs at level debug.
func (o ProsodyOptions) command(s *Server) (*exec.Cmd, error) {
	return s.root.command("root", s.dir, "prosody", "--config", s.path("prosody.cfg.lua"), "-F")
}

// ready waits for the two lines that say that a port is listened on. All hosts
// and modules are loaded before Prosody, a single thread, looks at what arrives
// there.
func (o ProsodyOptions) ready(ctx context.Context, log *feed[string]) error {
	next := 0
	for range []string{"c2s", "component"} {
		line, after, err := log.wait(ctx, next, containsAny("Activated service 'c2s' on [127.0.0.1]",
			"Activated service 'component' on [127.0.0.1]", "Failed to open server port"))
		if err != nil {
			return err
		}
		if strings.Contains(line, "Failed to open") {
			return errPortTaken
		}
		next = after
	}
	return nil
}
