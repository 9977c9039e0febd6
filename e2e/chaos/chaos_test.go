package chaos

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"rosterd/e2e/harness"
	"rosterd/internal/leak"
)

// How many seeds TestChaos tries. Without flags these are few, as part of all
// tests; `make chaos` tries many.
var (
	seedsFake     = flag.Int("fake", 6, "seeds on the fake server, half of them with each server's habits, and some of ejabberd's where it pushes alone")
	seedsProsody  = flag.Int("prosody", 1, "seeds on Prosody")
	seedsEjabberd = flag.Int("ejabberd", 1, "seeds on ejabberd")
	seedsPair     = flag.Int("pair", 2, "seeds with two instances on the fake server")
	pairProsody   = flag.Int("pair-prosody", 0, "seeds with two instances on Prosody")
	pairEjabberd  = flag.Int("pair-ejabberd", 0, "seeds with two instances on ejabberd")
	asPair        = flag.Bool("two", false, "with -kind: with two instances")
	firstSeed     = flag.Uint64("seed", 1, "the first of the seeds")
	oneKind       = flag.String("kind", "", "try only the first seed, on this kind of server: like-prosody, like-ejabberd, pushes-alone, prosody, ejabberd")
	atOnce        = flag.Int("at-once", 8, "runs on the fake server at a time")
	program       = flag.String("rosterd", "", "the built rosterd; default: built from the sources")
	full          = flag.Bool("full", false, "the tests beside the seeds, too, with all users and at all moments")
	logs          = flag.String("logs", filepath.Join(os.TempDir(), "rosterd-chaos"), "folder for the logs of failed runs")
)

// binary is rosterd as it is tested, plain the same without the race detector: with it a
// program ends when it has 8,128 goroutines, and says little of memory.
var binary, plain, removeBuilds = harness.Builds("../..")

func TestMain(m *testing.M) {
	flag.Parse()
	// For rosterd: the race detector's runtime sleeps for a second at the end.
	_ = os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	code := leak.Main(m.Run)
	removeBuilds()
	os.Exit(code)
}

func built(t *testing.T) string {
	t.Helper()
	if *program != "" {
		return *program
	}
	file, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// Whatever fails and in whatever order: see the package's documentation.
func TestChaos(t *testing.T) {
	t.Parallel()
	built(t)
	if *oneKind != "" {
		one(t, Kind(*oneKind))
		return
	}
	for _, c := range []struct {
		name  string
		seeds int
		run   func(*testing.T, uint64, *Figures)
	}{
		{"fake", *seedsFake, func(t *testing.T, n uint64, total *Figures) { onFakes(t, n, total, false) }},
		{"prosody", *seedsProsody, func(t *testing.T, n uint64, total *Figures) { onReal(t, Prosody, n, total, false) }},
		{"ejabberd", *seedsEjabberd, func(t *testing.T, n uint64, total *Figures) { onReal(t, Ejabberd, n, total, false) }},
		{"pair", *seedsPair, func(t *testing.T, n uint64, total *Figures) { onFakes(t, n, total, true) }},
		{"pair on prosody", *pairProsody, func(t *testing.T, n uint64, total *Figures) { onReal(t, Prosody, n, total, true) }},
		{"pair on ejabberd", *pairEjabberd, func(t *testing.T, n uint64, total *Figures) { onReal(t, Ejabberd, n, total, true) }},
	} {
		if c.seeds == 0 {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			total, began := &Figures{}, time.Now()
			c.run(t, uint64(c.seeds), total)
			total.Print(os.Stdout, fmt.Sprintf("%s, seeds %d to %d, in %s", c.name, *firstSeed, *firstSeed+uint64(c.seeds)-1, time.Since(began).Round(time.Second)))
		})
	}
}

// one tries one seed on one kind of server.
func one(t *testing.T, kind Kind) {
	total := &Figures{}
	if _, real := kind.habit(); real {
		onReal(t, kind, 1, total, *asPair)
	} else {
		try(t, Options{Kind: kind, Seed: *firstSeed, Pair: *asPair}, total)
	}
	total.Print(os.Stdout, fmt.Sprintf("%s, seed %d", kind, *firstSeed))
}

// onFakes tries seeds on fake servers, some at a time: those that are even with
// the one server's habits, the others with the other's. Of the even ones, each third one is
// on a server that pushes alone.
func onFakes(t *testing.T, seeds uint64, total *Figures, pair bool) {
	at := max(1, *atOnce)
	if pair { // each has a PostgreSQL of its own
		at = min(at, 8)
	}
	places := make(chan struct{}, at)
	var runs sync.WaitGroup
	for i := range seeds {
		places <- struct{}{}
		runs.Go(func() {
			defer func() { <-places }()
			seed := *firstSeed + i
			try(t, Options{Kind: []Kind{LikeEjabberd, LikeProsody, LikeEjabberd, LikeProsody, PushesAlone, LikeProsody}[seed%6], Seed: seed, Pair: pair}, total)
		})
		if i%100 == 99 {
			fmt.Printf("fake: %d seeds begun\n", i+1)
		}
	}
	runs.Wait()
}

// onReal tries seeds on one real server, one after the other, each with users of
// its own.
func onReal(t *testing.T, kind Kind, seeds uint64, total *Figures, pair bool) {
	harness.Require(t.Context(), t)
	users := map[string]string{}
	prefix := func(seed uint64) string { return fmt.Sprint("s", seed) }
	for i := range seeds {
		for _, name := range Accounts(prefix(*firstSeed + i)) {
			users[name] = password
		}
	}
	h, _ := kind.habit()
	options := harness.ServerOptions{Host: host, Component: component, Secret: secret, Users: users, AnyFromAddress: !h.privileged, OwnRosters: true}
	var server *harness.Server
	var err error
	if kind == Prosody {
		server, err = harness.StartProsody(t.Context(), harness.ProsodyOptions{ServerOptions: options})
	} else {
		server, err = harness.StartEjabberd(t.Context(), harness.EjabberdOptions{ServerOptions: options})
	}
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	for i := range seeds {
		seed := *firstSeed + i
		try(t, Options{Kind: kind, Seed: seed, Server: server, Prefix: prefix(seed), Pair: pair}, total)
	}
}

// try carries out one run.
func try(t *testing.T, o Options, total *Figures) {
	t.Helper()
	o.Binary, o.Logs, o.KeepLog = built(t), *logs, *oneKind != ""
	report, err := Run(t.Context(), o)
	if err != nil {
		t.Error(err)
		return
	}
	total.Add(report.Figures)
	if o.KeepLog {
		t.Logf("log: %s", report.Log)
	}
	if len(report.Violations) == 0 {
		return
	}
	t.Errorf("%s, seed %d: %d violations, the first: %s\n  log: %s\n  again: go test ./e2e/chaos -count=1 -v -run TestChaos -kind %s -seed %d -two=%v",
		o.Kind, o.Seed, len(report.Violations), report.Violations[0], report.Log, o.Kind, o.Seed, o.Pair)
}
