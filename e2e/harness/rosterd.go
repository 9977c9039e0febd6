package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"rosterd/internal/freeport"
)

// RosterdOptions say how rosterd is started.
type RosterdOptions struct {
	Binary      string
	Server      *Server // where it connects, unless Settings say otherwise
	ContactsURL string

	// Settings are further settings, or other ones, by their dotted keys, e.g.
	// "contacts.timeout": "300ms". Their values are written as JSON.
	Settings map[string]any
	Env      []string // added to the environment, as KEY=value
}

// Rosterd is a running rosterd. Its methods may be called by several
// goroutines.
type Rosterd struct {
	binary, dir      string
	process          *process
	set              map[string]any // all settings
	refresh, metrics string         // host:port of the HTTP listeners
	client           *http.Client
}

// StartRosterd starts rosterd, and does not wait for anything: see WaitReady.
// The caller has to Close it.
func StartRosterd(opts RosterdOptions) (*Rosterd, error) {
	dir, err := os.MkdirTemp("", "rosterd-")
	if err != nil {
		return nil, err
	}
	r := &Rosterd{binary: opts.Binary, dir: dir, client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	if err := r.start(opts); err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	return r, nil
}

func (r *Rosterd) start(opts RosterdOptions) error {
	var err error
	if r.set, err = r.settings(opts); err != nil {
		return err
	}
	if err := r.Configure(nil); err != nil {
		return err
	}
	cmd := exec.Command(opts.Binary, "--config", filepath.Join(r.dir, "config.yaml"))
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), opts.Env...)
	r.process, err = startProcess(cmd)
	return err
}

// File is its configuration.
func (r *Rosterd) File() string { return filepath.Join(r.dir, "config.yaml") }

// Command runs a command of rosterd's with the configuration of this one, beside it, and
// returns its exit code and what it wrote.
func (r *Rosterd) Command(ctx context.Context, args ...string) (code int, stdout, stderr string) {
	cmd := exec.CommandContext(ctx, r.binary, args...)
	var out, errs strings.Builder
	cmd.Dir, cmd.Stdout, cmd.Stderr = r.dir, &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		return -1, "", err.Error()
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// Configure changes settings in the file of a running rosterd, which does not know
// of it. One that is nil is taken out.
func (r *Rosterd) Configure(settings map[string]any) error {
	for key, value := range settings {
		r.set[key] = value
		if value == nil {
			delete(r.set, key)
		}
	}
	return os.WriteFile(filepath.Join(r.dir, "config.yaml"), []byte(configYAML(r.set)), 0o600)
}

// settings are all settings by their dotted keys.
func (r *Rosterd) settings(opts RosterdOptions) (map[string]any, error) {
	settings := map[string]any{"contacts.url": opts.ContactsURL, "log.level": "debug"}
	ports, err := freeport.Find(2)
	if err != nil {
		return nil, err
	}
	settings["refresh.listen"], settings["metrics.listen"] = freeport.Address(ports[0]), freeport.Address(ports[1])
	if s := opts.Server; s != nil {
		settings["xmpp.address"] = s.ComponentAddress()
		settings["xmpp.domain"] = s.Options().Component
		settings["xmpp.secret"] = s.Options().Secret
		settings["xmpp.hosts"] = s.Options().Hosts()
	}
	for key, value := range opts.Settings {
		settings[key] = value
	}
	r.refresh, _ = settings["refresh.listen"].(string)
	if settings["state.url"] != nil && settings["refresh.advertise"] == nil {
		settings["refresh.advertise"] = "http://" + r.refresh
	}
	r.metrics, _ = settings["metrics.listen"].(string)
	return settings, nil
}

// configYAML writes settings as YAML. JSON's values are YAML, too.
func configYAML(settings map[string]any) string {
	sections := map[string][]string{}
	for key, value := range settings {
		section, name, _ := strings.Cut(key, ".")
		data, err := json.Marshal(value)
		if err != nil {
			panic(err) // the tests' own values
		}
		sections[section] = append(sections[section], fmt.Sprintf("  %s: %s\n", name, data))
	}
	var b strings.Builder
	for section, lines := range sections {
		slices.Sort(lines)
		fmt.Fprintf(&b, "%s:\n%s", section, strings.Join(lines, ""))
	}
	return b.String()
}

// WaitReady waits until /readyz answers 200, and not that it stands by.
func (r *Rosterd) WaitReady(ctx context.Context) error {
	return r.waitReadyz(ctx, func(body string) bool { return !strings.HasPrefix(body, "standby") })
}

// WaitStandby waits until /readyz answers that it stands by.
func (r *Rosterd) WaitStandby(ctx context.Context) error {
	return r.waitReadyz(ctx, func(body string) bool { return strings.HasPrefix(body, "standby") })
}

// waitReadyz waits until /readyz answers 200 with a good body, or rosterd ends.
func (r *Rosterd) waitReadyz(ctx context.Context, good func(body string) bool) error {
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	last := "no answer"
	for {
		if answer, err := r.Metrics("/readyz").Get(ctx); err != nil {
			last = err.Error()
		} else if last = string(answer.Body); answer.Status == http.StatusOK && good(last) {
			return nil
		}
		select {
		case <-retry.C:
		case <-r.process.done:
			return fmt.Errorf("rosterd has ended\n%s", r.Log())
		case <-ctx.Done():
			return fmt.Errorf("waiting for /readyz to answer 200: %w; last: %s\n%s", ctx.Err(), last, r.Log())
		}
	}
}

// Log is what rosterd has written, on both outputs.
func (r *Rosterd) Log() string { return r.process.text() }

// WaitLog waits until rosterd has logged a line that contains text.
func (r *Rosterd) WaitLog(ctx context.Context, text string) error {
	if _, _, err := r.process.log.wait(ctx, 0, containsAny(text)); err != nil {
		return fmt.Errorf("rosterd did not log %q: %w\n%s", text, err, r.Log())
	}
	return nil
}

// WaitStarted waits until rosterd has opened its state and listens, or has ended.
func (r *Rosterd) WaitStarted(ctx context.Context) error {
	ctx, cancel := r.whileRunning(ctx)
	defer cancel()
	return r.WaitLog(ctx, "rosterd starts")
}

// WaitWritten waits until rosterd says that all of its state is written, or has
// ended.
func (r *Rosterd) WaitWritten(ctx context.Context) error {
	ctx, cancel := r.whileRunning(ctx)
	defer cancel()
	for {
		answer, err := r.Metrics("/status").Get(ctx)
		if err == nil && !bytes.Contains(answer.Body, []byte(`"state"`)) {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("rosterd has not written its state: %w", ctx.Err())
		}
	}
}

// whileRunning is a context that ends with rosterd, too.
func (r *Rosterd) whileRunning(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		select {
		case <-r.Done():
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// Done is closed when rosterd has ended.
func (r *Rosterd) Done() <-chan struct{} { return r.process.done }

// Signal sends a signal.
func (r *Rosterd) Signal(sig syscall.Signal) { r.process.signal(sig) }

// WaitExit waits for the end of the process and returns its exit code, which is
// -1 if a signal ended it.
func (r *Rosterd) WaitExit(ctx context.Context) (int, error) {
	select {
	case <-r.process.done:
	case <-ctx.Done():
		return 0, fmt.Errorf("rosterd has not ended: %w\n%s", ctx.Err(), r.Log())
	}
	var exit *exec.ExitError
	if r.process.err != nil && !errors.As(r.process.err, &exit) {
		return 0, r.process.err
	}
	return r.process.cmd.ProcessState.ExitCode(), nil
}

// Stop sends SIGTERM and returns the exit code. rosterd has 10 s to end.
func (r *Rosterd) Stop(ctx context.Context) (int, error) {
	r.Signal(syscall.SIGTERM)
	return r.WaitExit(ctx)
}

// Kill ends rosterd at once, without closing its stream.
func (r *Rosterd) Kill() { r.process.kill() }

// Close ends rosterd if it runs, and deletes its files.
func (r *Rosterd) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	_ = r.process.stop(ctx)
	_ = os.RemoveAll(r.dir)
}
