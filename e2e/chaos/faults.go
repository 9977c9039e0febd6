package chaos

import (
	"context"
	"maps"
	"math/rand/v2"
	"rosterd/e2e/harness"
	"slices"
	"time"
)

// rosterdFault is the next fault of rosterd's process, and how long it takes.
func (p *plan) rosterdFault(rng *rand.Rand, at time.Duration, _ Kind) (step, time.Duration) {
	down := time.Duration(0)
	if rng.IntN(2) == 0 {
		down = between(rng, 0, 600*time.Millisecond)
	}
	switch n := rng.IntN(10); {
	case n < 6:
		return step{at: at, fault: "rosterd is killed", do: func(ctx context.Context, w *world) {
			w.daemon.kill()
			w.toServer.Cut() // its connections end with it, whatever the relay holds back
			w.startAgain(ctx, w.daemon, down)
		}}, down
	case n < 8:
		return step{at: at, fault: "rosterd is stopped and started", do: func(ctx context.Context, w *world) {
			w.daemon.stop(ctx)
			w.toServer.Cut()
			w.startAgain(ctx, w.daemon, down)
		}}, down
	}
	full := between(rng, 200*time.Millisecond, 1500*time.Millisecond)
	return step{at: at, fault: "rosterd's disk is full", do: func(ctx context.Context, w *world) {
		w.daemon.fillDisk(ctx, full)
	}}, full + 1500*time.Millisecond
}

// startAgain starts a rosterd that has been down for a time.
func (w *world) startAgain(ctx context.Context, d *daemon, down time.Duration) {
	sleep(ctx, down)
	if err := d.start(); err != nil {
		w.journal.violation("rosterd cannot be started: %v", err)
	}
}

// losing is the fault of a server that keeps its rosters nowhere but in memory.
const losing = "the server is restarted and has lost its rosters"

// apiFault is the next fault of the server's HTTP API, where there is one. The calls that
// fail are counted, each.
func (p *plan) apiFault(rng *rand.Rand, at time.Duration, _ Kind) (step, time.Duration) {
	fault, share := apiFaults[rng.IntN(len(apiFaults))], []float64{1, 0.5, 0.1}[rng.IntN(3)]
	long := between(rng, 50*time.Millisecond, 1500*time.Millisecond)
	return step{at: at, what: "the API: " + fault, do: func(ctx context.Context, w *world) {
		if w.api != nil {
			w.api.setFault(fault, share)
			sleep(ctx, long)
			w.api.setFault("", 0)
		}
	}}, long
}

// serverFault restarts the server.
func (p *plan) serverFault(rng *rand.Rand, at time.Duration, kind Kind) (step, time.Duration) {
	down := between(rng, 0, 800*time.Millisecond)
	fault := "the server is restarted"
	if _, real := kind.habit(); !real && rng.IntN(3) == 0 {
		fault = losing
	}
	return step{at: at, fault: fault, do: func(ctx context.Context, w *world) {
		w.journal.note("server: goes down")
		if f, isFake := w.server.(*fake); isFake && fault == losing {
			f.loseRosters()
		}
		err := w.server.restart(ctx, down)
		w.journal.note("server: is up again")
		if err != nil && ctx.Err() == nil {
			w.journal.violation("the server cannot be started: %v", err)
		}
	}}, down + time.Second
}

// linkFault is the next fault of the connection between rosterd and the server.
func (p *plan) linkFault(rng *rand.Rand, at time.Duration, kind Kind) (step, time.Duration) {
	long := between(rng, 50*time.Millisecond, 1200*time.Millisecond)
	switch n := rng.IntN(40); {
	case n < 14:
		return step{at: at, fault: "the stream is cut", do: func(_ context.Context, w *world) { w.toServer.Cut() }}, 0
	case n < 22:
		return step{at: at, fault: "the stream stalls", do: func(ctx context.Context, w *world) {
			stall(ctx, w.toServer, long)
		}}, long
	case n < 32:
		return step{at: at, fault: "the stream stalls and is cut", do: func(ctx context.Context, w *world) {
			w.toServer.Stall()
			sleep(ctx, long)
			w.toServer.Cut()
			w.toServer.Resume()
		}}, long
	case n < 39 || kind == Ejabberd || p.pair: // which takes two connections for two components
		return step{at: at, fault: "the server refuses connections", do: func(ctx context.Context, w *world) {
			w.refuse(ctx, w.toServer, long)
		}}, long
	}
	return step{at: at, fault: "the stream is half-open", do: func(_ context.Context, w *world) {
		w.stranded = true
		w.toServer.Strand()
	}}, 0
}

// backendFault is the next fault of the backend's answers. Those that are spoiled
// are counted, each.
func (p *plan) backendFault(rng *rand.Rand, at time.Duration, _ Kind) (step, time.Duration) {
	kinds := append(slices.Sorted(maps.Keys(backendFaults)), suddenlyEmpty, suddenlyEmpty, suddenlyEmpty, "slow", "slow")
	f := backendFault{kind: kinds[rng.IntN(len(kinds))], share: []float64{1, 1, 0.5}[rng.IntN(3)]}
	if rng.IntN(3) == 0 {
		f.user = p.users[rng.IntN(len(p.users))]
	}
	long := between(rng, 100*time.Millisecond, 1500*time.Millisecond)
	return step{at: at, what: "the backend: " + f.kind, do: func(ctx context.Context, w *world) {
		w.backend.setFault(&f)
		sleep(ctx, long)
		w.backend.setFault(nil)
	}}, long
}

// backendLinkFault is the next fault of the connections to the backend.
func (p *plan) backendLinkFault(rng *rand.Rand, at time.Duration, _ Kind) (step, time.Duration) {
	long := between(rng, 100*time.Millisecond, 1500*time.Millisecond)
	switch rng.IntN(3) {
	case 0:
		return step{at: at, fault: "connections to the backend are refused", do: func(ctx context.Context, w *world) {
			w.refuse(ctx, w.toBackend, long)
		}}, long
	case 1:
		return step{at: at, fault: "connections to the backend stall", do: func(ctx context.Context, w *world) {
			stall(ctx, w.toBackend, long)
		}}, long
	}
	return step{at: at, fault: "connections to the backend are cut", do: func(ctx context.Context, w *world) {
		for until := time.Now().Add(long); time.Now().Before(until) && ctx.Err() == nil; {
			w.toBackend.Cut()
			sleep(ctx, 10*time.Millisecond)
		}
	}}, long
}

// stall has the connections of a relay stall for a time.
func stall(ctx context.Context, r *harness.Relay, long time.Duration) {
	r.Stall()
	sleep(ctx, long)
	r.Resume()
}

// refuse cuts the connections of a relay, and refuses new ones for a time.
func (w *world) refuse(ctx context.Context, r *harness.Relay, long time.Duration) {
	r.Refuse()
	r.Cut()
	sleep(ctx, long)
	if err := r.Accept(); err != nil {
		w.journal.violation("%v", err)
	}
}

// sleep waits, but not longer than ctx.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
