package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// child is a program that is measured, or helps.
type child struct {
	cmd    *exec.Cmd
	out    *bufio.Reader // its output
	pipe   io.Closer     // that of out
	errors tail
	done   chan struct{} // closed when it has ended
	err    error         // to be read after done
}

// start starts a program that dies with this one.
func start(dir, name string, args ...string) (*child, error) {
	c := &child{cmd: exec.Command(name, args...), done: make(chan struct{})}
	c.cmd.Dir = dir
	c.cmd.Stderr = &c.errors
	dieWithParent(c.cmd)
	// Not StdoutPipe: what was written is to be read after the end, too.
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c.cmd.Stdout, c.out, c.pipe = w, bufio.NewReader(r), r
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // whose end would be that of the child
		defer runtime.UnlockOSThread()
		err := c.cmd.Start()
		w.Close()
		started <- err
		if err == nil {
			c.err = c.cmd.Wait()
			close(c.done)
		}
	}()
	if err := <-started; err != nil {
		r.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

// self starts this program with a subcommand.
func self(name string, args ...string) (*child, error) {
	file, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return start("", file, append([]string{name}, args...)...)
}

// line reads a line of the output.
func (c *child) line() (string, error) {
	line, err := c.out.ReadString('\n')
	if err != nil {
		<-c.done
		return "", fmt.Errorf("%s %s: %w", strings.Join(c.cmd.Args, " "), c.errors.text(), err)
	}
	return strings.TrimSpace(line), nil
}

// stop asks the program to end, and kills it when it does not.
func (c *child) stop() {
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.done:
	case <-time.After(20 * time.Second):
		_ = c.cmd.Process.Kill()
		<-c.done
	}
	c.pipe.Close()
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// ended is the error for a program that was not to end.
func (c *child) ended() error {
	return fmt.Errorf("%s has ended: %v\n%s", c.cmd.Path, c.err, c.errors.text())
}

// get runs the program get.
func get(ctx context.Context, url string, args ...string) (r getResult, err error) {
	c, err := self("get", append([]string{"-url", url}, args...)...)
	if err != nil {
		return r, err
	}
	defer context.AfterFunc(ctx, c.stop)()
	data, err := io.ReadAll(c.out)
	<-c.done
	c.pipe.Close()
	if err = errors.Join(err, c.err, ctx.Err()); err != nil {
		return r, fmt.Errorf("get: %w: %s", err, c.errors.text())
	}
	return r, json.Unmarshal(data, &r)
}

// ownCPU is what this process has used, user and system.
func ownCPU() time.Duration {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// tail keeps the end of what is written.
type tail struct {
	mu   sync.Mutex
	data []byte // guarded by mu
}

// Write implements io.Writer and never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p...)
	const kept = 16 << 10
	if len(t.data) > 2*kept {
		t.data = append(t.data[:0], t.data[len(t.data)-kept:]...)
	}
	return len(p), nil
}

func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.data))
}
