// Command rosterd is an XMPP component that makes the rosters of a server's
// users what an application's database says: see README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"

	"rosterd/check"
	"rosterd/config"
	"rosterd/fetcher"
)

// Set by the build: -ldflags "-X main.version=… -X main.commit=…".
var (
	version = "dev"
	commit  = ""
)

const usage = `rosterd serves XMPP rosters from an HTTP URL.

  rosterd [--config FILE]                       runs; without --config it reads ./config.yaml, else /etc/rosterd/config.yaml
  rosterd check [--config FILE] [--user NAME]   goes through the installation, with the contacts of a user, and says what to mend
  rosterd version, --version                    prints version, commit and Go version
  rosterd help, --help                          prints this

SIGTERM and SIGINT stop it in order. SIGHUP has it read secrets, certificates and log.level again.
`

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

// run is main without its signals. It returns the exit code: 0 after an orderly
// stop, 1 if rosterd could not start or a check failed, 2 for a wrong command line.
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

// runCheck is `rosterd check`.
func runCheck(ctx context.Context, file string, args []string, stdout, stderr io.Writer) int {
	flags := newFlags("rosterd check")
	flags.StringVar(&file, "config", file, "")
	user := flags.String("user", "", "")
	err := flags.Parse(args)
	if err == nil && flags.NArg() > 0 {
		err = fmt.Errorf("rosterd check: unknown argument: %q", flags.Arg(0))
	}
	if err != nil {
		return misused(err, stdout, stderr)
	}
	if !check.Run(ctx, check.Options{File: file, User: *user, Version: version, Out: stdout,
		Fetcher: func(cfg config.Config, log *slog.Logger) (*fetcher.Fetcher, error) {
			return newFetcher(cfg.Contacts, cfg.XMPP.Hosts, log, newMetrics(prometheus.NewRegistry()))
		}}) {
		return 1
	}
	return 0
}

// newFlags are the flags of one command. [misused] prints what is wrong with them.
func newFlags(name string) *flag.FlagSet {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	return flags
}

// misused prints how rosterd is used and, unless somebody asked for that, what is
// wrong with the command line. It returns the exit code.
func misused(err error, stdout, stderr io.Writer) int {
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, usage)
		return 0
	}
	fmt.Fprintf(stderr, "%s\n\n%s", err, usage)
	return 2
}

// buildCommit is the commit that was built, as the linker or Go knows it.
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
