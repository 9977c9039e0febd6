// Command demo shows rosterd at work, with nothing faked: a private Prosody, a
// small contacts backend, rosterd, and a client that logs in. It then stays up,
// to be played with, until Ctrl-C; with -exit or DEMO_EXIT=1 it ends after the
// show, with exit code 1 if anything did not arrive.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"rosterd/e2e/harness"
)

func main() {
	binary := flag.String("rosterd", "./rosterd", "the rosterd `binary` to run")
	exit := flag.Bool("exit", os.Getenv("DEMO_EXIT") == "1", "end after the show; also by DEMO_EXIT=1")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *binary, *exit); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		stop()
		os.Exit(1)
	}
}

// run ends when ctx does, or after the show if exit is set.
func run(ctx context.Context, binary string, exit bool) error {
	if missing := harness.Missing(ctx); missing != "" {
		return errors.New(missing)
	}
	stage, err := setUp(ctx, binary)
	if err != nil {
		return err
	}
	defer stage.close()
	client, err := stage.show(ctx)
	if err != nil {
		return fmt.Errorf("%w\n\nrosterd's log:\n%s", err, stage.rosterd.Log())
	}
	defer client.Close()
	if exit {
		fmt.Println("\nThat was all. Without DEMO_EXIT=1 everything would stay up now.")
		return nil
	}
	stage.explain()
	err = watch(ctx, client)
	if ctx.Err() != nil {
		fmt.Println("\nStopping.")
		return nil
	}
	return err
}
