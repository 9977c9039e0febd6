// Command rosterd is an XMPP component that makes the rosters of a server's
// users what an application's database says: see README.md.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
)

// Set by the build: -ldflags "-X main.version=… -X main.commit=…".
var (
	version = "dev"
	commit  = ""
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)   // a second signal ends the program at once
	signal.Ignore(syscall.SIGPIPE) // of a standard output or error that nobody reads any more
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	stderr := newOutput(os.Stderr)
	code := run(ctx, hangups, os.Args[1:], os.Stdout, stderr)
	stderr.Close()
	os.Exit(code)
}

// run is main without its signals. It returns the exit code: 0 after an
// orderly stop, 1 if rosterd could not start, 2 for a wrong command line.
func run(ctx context.Context, hangups <-chan os.Signal, args []string, stdout, stderr io.Writer) int {
	flags := newFlags("rosterd")
	file := flags.String("config", "", "")
	showVersion := flags.Bool("version", false, "")
	switch err := flags.Parse(args); {
	case err != nil:
		return misused(err, stdout, stderr)
	case *showVersion && flags.NArg() == 0, flags.NArg() == 1 && flags.Arg(0) == "version":
		fmt.Fprintf(stdout, "rosterd %s, commit %s, %s\n", version, buildCommit(), runtime.Version())
		return 0
	case flags.Arg(0) == "help":
		fmt.Fprint(stdout, usage)
		return 0
	case flags.Arg(0) == "check":
		return runCheck(ctx, *file, flags.Args()[1:], stdout, stderr)
	case flags.NArg() > 0:
		return misused(fmt.Errorf("unknown command: %q", strings.Join(flags.Args(), " ")), stdout, stderr)
	}
	if err := serve(ctx, hangups, *file, stderr); err != nil {
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
