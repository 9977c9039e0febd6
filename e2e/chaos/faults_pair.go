package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// pairFaults adds what happens to the instances of a pair, and to their database.
func (p *plan) pairFaults(o Options, rng *rand.Rand) {
	for i, name := range []string{"rosterd A", "rosterd B"} {
		if rng.IntN(2) == 0 {
			p.faults(chance(o.Seed, name), name, o.Kind, func(_ *plan, rng *rand.Rand, at time.Duration, _ Kind) (step, time.Duration) {
				return instanceFault(rng, at, i)
			})
		}
		if link := "link of " + name + " to the database"; rng.IntN(3) == 0 {
			p.faults(chance(o.Seed, link), link, o.Kind, func(_ *plan, rng *rand.Rand, at time.Duration, _ Kind) (step, time.Duration) {
				return databaseLinkFault(rng, at, i)
			})
		}
	}
	if rng.IntN(3) == 0 {
		p.faults(chance(o.Seed, "database"), "database", o.Kind, databaseFault)
	}
}

// instanceFault is the next fault of the process of an instance.
func instanceFault(rng *rand.Rand, at time.Duration, i int) (step, time.Duration) {
	down := time.Duration(0)
	if rng.IntN(2) == 0 {
		down = between(rng, 0, 2*time.Second)
	}
	switch n := rng.IntN(10); {
	case n < 6:
		return step{at: at, fault: "an instance is killed", do: func(ctx context.Context, w *world) {
			w.daemons[i].kill()
			w.startAgain(ctx, w.daemons[i], down)
		}}, down
	case n < 8:
		return step{at: at, fault: "an instance is stopped and started", do: func(ctx context.Context, w *world) {
			w.daemons[i].stop(ctx)
			w.startAgain(ctx, w.daemons[i], down)
		}}, down
	}
	long := between(rng, 200*time.Millisecond, 16*time.Second)
	return step{at: at, fault: fmt.Sprintf("an instance is paused for %s the lock lives", map[bool]string{true: "longer than", false: "less than"}[long > 10*time.Second]),
		do: func(ctx context.Context, w *world) { w.daemons[i].pause(ctx, long) }}, long
}

// databaseFault restarts the database.
func databaseFault(_ *plan, rng *rand.Rand, at time.Duration, _ Kind) (step, time.Duration) {
	down := between(rng, 0, 2*time.Second)
	kill := rng.IntN(2) == 0
	return step{at: at, fault: "the database is restarted", do: func(ctx context.Context, w *world) {
		end := w.database.Stop
		if kill {
			end = w.database.Kill
		}
		err := end()
		sleep(ctx, down)
		if err == nil {
			err = w.database.Resume()
		}
		w.journal.note("database: is up again")
		if err != nil {
			w.journal.violation("the database cannot be restarted: %v", err)
		}
	}}, down + time.Second
}

// databaseLinkFault is the next fault of the connections between an instance and the
// database.
func databaseLinkFault(rng *rand.Rand, at time.Duration, i int) (step, time.Duration) {
	long := between(rng, 100*time.Millisecond, 2*time.Second)
	if rng.IntN(4) == 0 {
		long = between(rng, 2*time.Second, 15*time.Second)
	}
	switch rng.IntN(3) {
	case 0:
		return step{at: at, fault: "connections to the database are cut", do: func(_ context.Context, w *world) { w.toDatabase[i].Cut() }}, 0
	case 1:
		return step{at: at, fault: "connections to the database stall", do: func(ctx context.Context, w *world) {
			stall(ctx, w.toDatabase[i], long)
		}}, long
	}
	return step{at: at, fault: "connections to the database are refused", do: func(ctx context.Context, w *world) {
		w.refuse(ctx, w.toDatabase[i], long)
	}}, long
}
