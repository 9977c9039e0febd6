package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"rosterd/check"
	"rosterd/config"
	"rosterd/fetcher"
)

const usage = `rosterd serves XMPP rosters from an HTTP URL.

  rosterd [--config FILE]                       runs; without --config it reads ./config.yaml, else /etc/rosterd/config.yaml
  rosterd check [--config FILE] [--user NAME]   goes through the installation, with the contacts of a user, and says what to mend
  rosterd version, --version                    prints version, commit and Go version
  rosterd help, --help                          prints this

SIGTERM and SIGINT stop it in order. SIGHUP has it read secrets, certificates and log.level again.
`

// newFlags are for one command; [misused] says what is wrong with a command line.
func newFlags(name string) *flag.FlagSet {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	return flags
}

// misused prints how rosterd is used, and why that is necessary unless somebody
// asked for it. It returns the exit code.
func misused(err error, stdout, stderr io.Writer) int {
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, usage)
		return 0
	}
	fmt.Fprintf(stderr, "%s\n\n%s", err, usage)
	return 2
}

// runCheck is `rosterd check`. The exit code is 0 if rosterd could do its job,
// 1 if not, 2 for a wrong command line.
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
