package chaos

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"

	"rosterd/e2e/harness"
)

// daemon is rosterd over its several lives. Its methods may be called by several
// goroutines; those that end a life and begin one, by one at a time.
type daemon struct {
	name    string
	pair    bool                   // one of two instances
	options harness.RosterdOptions // of each life
	journal *journal
	forgot  func() // is called when a life has ended that had not written what it told

	starting sync.Mutex // one life at a time

	mu      sync.Mutex
	rosterd *harness.Rosterd // guarded by mu, as all below; nil while none runs
	lives   int
	over    bool // no more lives
	logs    sync.WaitGroup
}

// start begins a life, unless there is one, or are to be no more.
func (d *daemon) start() error {
	d.starting.Lock()
	defer d.starting.Unlock()
	if d.current() != nil {
		return nil // who has given way was started again meanwhile
	}
	r, err := harness.StartRosterd(d.options)
	if err != nil {
		return err
	}
	d.mu.Lock()
	if d.over { // meanwhile
		d.mu.Unlock()
		r.Kill()
		r.Close()
		return nil
	}
	d.lives++
	life := d.lives
	d.rosterd = r
	d.mu.Unlock()
	d.journal.note("%s: life %d begins", d.name, life)
	d.logs.Go(func() { d.watch(r, life) })
	return nil
}

// watch notes what rosterd did, once it has ended.
func (d *daemon) watch(r *harness.Rosterd, life int) {
	<-r.Done()
	log := r.Log()
	d.journal.addLog(fmt.Sprint(d.name, " ", life), log)
	d.mu.Lock()
	unexpected := d.rosterd == r
	if unexpected {
		d.rosterd = nil
	}
	d.mu.Unlock()
	switch {
	case strings.Contains(log, "WARNING: DATA RACE"):
		d.journal.violation("rosterd has a data race")
	case strings.Contains(log, "panic: ") || strings.Contains(log, "fatal error: "):
		d.journal.violation("rosterd has panicked")
	case unexpected && strings.Contains(log, "address already in use"):
		d.journal.note("rosterd: somebody else was faster to take its port: again")
		if err := d.start(); err != nil {
			d.journal.violation("rosterd cannot be started: %v", err)
		}
	case unexpected && d.pair && strings.Contains(log, "another instance has become the active one"):
		d.journal.note("%s: has given way: again", d.name)
		time.Sleep(100 * time.Millisecond) // as systemd
		if err := d.start(); err != nil {
			d.journal.violation("rosterd cannot be started: %v", err)
		}
	case unexpected && d.pair && strings.Contains(log, "rosterd: state.url: database"):
		d.journal.note("%s: has ended, as the database is away when it was to take over: again", d.name)
		time.Sleep(100 * time.Millisecond)
		if err := d.start(); err != nil {
			d.journal.violation("rosterd cannot be started: %v", err)
		}
	case unexpected:
		d.journal.violation("%s has ended by itself", d.name)
	}
	r.Close()
}

// current is the running one, or nil.
func (d *daemon) current() *harness.Rosterd {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rosterd
}

// take is current, whose end is no surprise from now on.
func (d *daemon) take() *harness.Rosterd {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.rosterd
	d.rosterd = nil
	return r
}

// kill ends the life at once.
func (d *daemon) kill() {
	if r := d.take(); r != nil {
		d.journal.note("%s: killed", d.name)
		r.Kill()
		d.forgets(r)
	}
}

// forgets notes whether a life that has ended had not written what it told, as it could not
// reach the database.
func (d *daemon) forgets(r *harness.Rosterd) {
	log := r.Log()
	if !d.pair || strings.LastIndex(log, "state cannot be written") <= strings.LastIndex(log, "state is written again") {
		return
	}
	d.journal.note("%s: has not written what it told", d.name)
	d.forgot()
}

// stop ends the life in order.
func (d *daemon) stop(ctx context.Context) {
	r := d.take()
	if r == nil {
		return
	}
	d.journal.note("%s: is to stop", d.name)
	began := time.Now()
	r.Signal(syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	code, err := r.WaitExit(ctx)
	if !strings.Contains(r.Log(), "rosterd starts") && code == -1 {
		d.journal.note("rosterd: has ended before it took signals")
		return
	}
	if d.pair && code == 1 {
		code = 0 // it could not write its state, or it was not its to be written
	}
	if took := time.Since(began); err != nil || code != 0 || took > 10*time.Second {
		d.journal.violation("rosterd has ended with code %d after %v, %v", code, took.Round(time.Millisecond), err)
		r.Signal(syscall.SIGQUIT) // if it hangs, it says where
	}
	d.journal.note("rosterd: has stopped")
	d.forgets(r)
}

// fillDisk lets nothing be written to a file for a time. It begins once rosterd has
// a state: without one it does not start on a full disk. It ends when all is
// written that could not be: that is lost if the process ends before.
func (d *daemon) fillDisk(ctx context.Context, long time.Duration) {
	r := d.current()
	if r == nil || r.WaitStarted(ctx) != nil {
		return
	}
	d.journal.note("rosterd: the disk is full")
	if err := r.FullDisk(true); err != nil {
		d.journal.violation("%v", err)
	}
	sleep(ctx, long)
	d.journal.note("rosterd: there is room on the disk")
	if err := r.FullDisk(false); err != nil {
		d.journal.violation("%v", err)
	}
	written, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err := r.WaitWritten(written); err != nil && ctx.Err() == nil {
		d.journal.violation("%v", err)
	}
}

// pause stops the process for a time, and has it go on.
func (d *daemon) pause(ctx context.Context, long time.Duration) {
	r := d.current()
	if r == nil {
		return
	}
	d.journal.note("%s: is paused", d.name)
	r.Signal(syscall.SIGSTOP)
	sleep(ctx, long)
	d.journal.note("%s: goes on", d.name)
	r.Signal(syscall.SIGCONT)
}

// close ends the last life.
func (d *daemon) close() {
	d.mu.Lock()
	d.over = true
	d.mu.Unlock()
	d.kill()
	d.logs.Wait()
}
