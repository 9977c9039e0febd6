package harness

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stopTimeout is how long a process may take to end after SIGTERM before it is
// killed. rosterd promises 10 s.
const stopTimeout = time.Minute

// maxLine bounds a line of a process's output; what is beyond is cut off.
const maxLine = 16 << 20

// process is a child process and its output. Its methods may be called by
// several goroutines.
type process struct {
	cmd  *exec.Cmd
	log  *feed[string]
	done chan struct{} // closed when the process has ended and its output is read
	err  error         // of Wait; to be read after done
}

// startProcess starts cmd, whose error output, and output too unless cmd.Stdout
// is set, becomes the log.
func startProcess(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, log: newFeed[string](), done: make(chan struct{})}
	lines := &lineWriter{emit: p.log.add}
	cmd.Stderr = lines
	if cmd.Stdout == nil {
		cmd.Stdout = lines
	}
	cmd.WaitDelay = stopTimeout // a grandchild could keep the output open
	isolate(cmd)

	started := make(chan error)
	go func() {
		// The death signal is sent when the thread that started the child ends,
		// not the process (prctl(2), PR_SET_PDEATHSIG): keep the thread.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		lines.flush()
		p.log.end()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// stop asks the process to end, waits for it until ctx or stopTimeout ends,
// then kills it. It says whether the process ended of its own accord.
func (p *process) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		p.kill()
		return fmt.Errorf("%s did not end after SIGTERM: %w", p.cmd.Path, ctx.Err())
	}
}

// kill ends the process at once and waits for its end.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// signal ignores that the process may have ended.
func (p *process) signal(sig syscall.Signal) {
	_ = p.cmd.Process.Signal(sig)
}

// running says whether the process has not ended.
func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// text is the log as far as it is kept.
func (p *process) text() string {
	lines, _ := p.log.since(0)
	return strings.Join(lines, "\n")
}

// lineWriter hands complete lines on.
type lineWriter struct {
	emit func(string)

	mu   sync.Mutex
	rest []byte // guarded by mu
}

// Write implements io.Writer and never fails.
func (w *lineWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for rest := b; len(rest) > 0; {
		line, after, complete := bytes.Cut(rest, []byte("\n"))
		w.rest = append(w.rest, line[:min(len(line), maxLine-len(w.rest))]...)
		if complete {
			w.emit(string(w.rest))
			w.rest = w.rest[:0]
		}
		rest = after
	}
	return len(b), nil
}

// flush hands on a last line without an end.
func (w *lineWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.rest) > 0 {
		w.emit(string(w.rest))
		w.rest = nil
	}
}
