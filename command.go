package main

import (
	"context"
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
  rosterd version                               prints version, commit and Go version
`

// runCheck is `rosterd check`. The exit code is 0 if rosterd could do its job,
// 1 if not, 2 for a wrong command line.
func runCheck(ctx context.Context, file string, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("rosterd check", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage) }
	flags.StringVar(&file, "config", file, "")
	user := flags.String("user", "", "")
	switch err := flags.Parse(args); {
	case err == flag.ErrHelp:
		return 0
	case err != nil:
		return 2
	case flags.NArg() > 0:
		flags.Usage()
		return 2
	}
	if !check.Run(ctx, check.Options{File: file, User: *user, Version: version, Out: stdout,
		Fetcher: func(cfg config.Config, log *slog.Logger) (*fetcher.Fetcher, error) {
			return newFetcher(cfg.Contacts, cfg.XMPP.Hosts, log, newMetrics(prometheus.NewRegistry()))
		}}) {
		return 1
	}
	return 0
}
