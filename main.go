// Command rosterd is an XMPP component that makes the rosters of a server's
// users what an application's database says: see README.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
)

// Set by the build: -ldflags "-X main.version=… -X main.commit=…".
var (
	version = "dev"
	commit  = ""
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is main without its signals. It returns the exit code: 0 after an
// orderly stop, 1 if rosterd could not start, 2 for a wrong command line.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("rosterd", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage) }
	file := flags.String("config", "", "")
	switch err := flags.Parse(args); {
	case err == flag.ErrHelp:
		return 0
	case err != nil:
		return 2
	case flags.NArg() == 1 && flags.Arg(0) == "version":
		fmt.Fprintf(stdout, "rosterd %s, commit %s, %s\n", version, buildCommit(), runtime.Version())
		return 0
	case flags.Arg(0) == "check":
		return runCheck(ctx, *file, flags.Args()[1:], stdout, stderr)
	case flags.NArg() > 0:
		flags.Usage()
		return 2
	}
	if err := serve(ctx, *file, stderr); err != nil {
		fmt.Fprintln(stderr, "rosterd:", err)
		return 1
	}
	return 0
}

// buildCommit is the commit that was built, from the linker or from what Go
// knows of the checkout.
func buildCommit() string {
	if commit != "" {
		return commit
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "unknown"
}
