package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"rosterd/check"
	"rosterd/config"
	"rosterd/fetcher"
)

// run is main without its signals. It returns the exit code: 0 after an orderly
// stop, 1 if rosterd could not start or a command failed, 2 for a wrong command line.
func run(ctx context.Context, hangups <-chan os.Signal, args []string, stdout, stderr io.Writer) int {
	root := newRoot(hangups, stdout, stderr)
	root.SetArgs(longFlags(args))
	command, err := root.ExecuteContextC(ctx)
	var failed *failedError
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &failed):
		fmt.Fprintf(stderr, "%s\n\n%s", err, command.UsageString())
		return 2
	case failed.err != errSaid:
		fmt.Fprintln(stderr, "rosterd:", failed.err)
	}
	return 1
}

// failedError is why a command failed that was understood.
type failedError struct{ err error }

// errSaid is for a command that has said itself what failed.
var errSaid = errors.New("failed")

func (e *failedError) Error() string { return fmt.Sprint(e.err) }

// runs makes what a command does a method of cobra's.
func runs(do func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		if err := do(c.Context(), args); err != nil {
			return &failedError{err}
		}
		return nil
	}
}

// longFlags gives flags of one dash, as -config, which rosterd took before it had commands,
// their second one. What stands behind -- is no flag.
func longFlags(args []string) []string {
	long := slices.Clone(args)
	for i, arg := range args {
		if arg == "--" {
			break
		}
		if len(arg) > 2 && arg[0] == '-' && arg[1] != '-' {
			arg = "-" + arg
		}
		long[i] = arg
	}
	return long
}

// command is what all commands share.
type command struct {
	file           string // the configuration, as for [config.Load]
	stdout, stderr io.Writer
}

// newRoot makes the commands and their flags.
func newRoot(hangups <-chan os.Signal, stdout, stderr io.Writer) *cobra.Command {
	c := &command{stdout: stdout, stderr: stderr}
	root := &cobra.Command{
		Use:   "rosterd",
		Short: "serve XMPP rosters from an HTTP URL",
		Long: `rosterd serves XMPP rosters from an HTTP URL.

Without a command it runs. SIGTERM and SIGINT stop it in order. SIGHUP has it read
secrets, certificates and log.level again.

It exits with 0 after an orderly stop, with 1 if it could not start or a command
failed, and with 2 if the command line is wrong.`,
		Version: fmt.Sprintf("%s, commit %s, %s", version, buildCommit(), runtime.Version()),
		Args:    cobra.NoArgs,
		RunE:    runs(func(ctx context.Context, _ []string) error { return serve(ctx, hangups, c.file, stderr) }),

		SilenceErrors: true, SilenceUsage: true,
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetVersionTemplate("rosterd {{.Version}}\n")
	root.PersistentFlags().StringVar(&c.file, "config", "", "the configuration `file`; without it ./config.yaml is read, or else /etc/rosterd/config.yaml")
	_ = root.MarkPersistentFlagFilename("config", "yaml", "yml") // there is such a flag

	root.AddCommand(c.check(), c.user(), c.refresh(), c.held(), c.approve(), c.reject(), c.health(), &cobra.Command{
		Use: "version", Short: "print version, commit and Go version", Args: cobra.NoArgs,
		Run: func(*cobra.Command, []string) { fmt.Fprintf(stdout, "rosterd %s\n", root.Version) },
	}, &cobra.Command{
		Use: "man DIR", Short: "write man pages into a folder", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: runs(func(_ context.Context, args []string) error { return writeMan(root, args[0]) }),
	})
	root.InitDefaultHelpCmd()
	return root
}

// writeMan writes a page for each command.
func writeMan(root *cobra.Command, dir string) error {
	root.DisableAutoGenTag = true
	return doc.GenManTree(root, &doc.GenManHeader{Section: "8", Source: "rosterd " + version, Manual: "System Manager's Manual"}, dir)
}

// check is `rosterd check`.
func (c *command) check() *cobra.Command {
	var user string
	check := &cobra.Command{
		Use: "check", Short: "go through the installation and say what to mend", Args: cobra.NoArgs,
		Long: `check goes through the whole installation, from the configuration to the listeners.
It says of each step whether it works and, if it does not, what mends it. It
disturbs nothing: if a rosterd of the same configuration runs, that is asked what
it has learnt.`,
		RunE: runs(func(ctx context.Context, _ []string) error {
			if !check.Run(ctx, check.Options{File: c.file, User: user, Version: version, Out: c.stdout, Fetcher: inspecting}) {
				return errSaid
			}
			return nil
		}),
	}
	check.Flags().StringVar(&user, "user", "", "also ask the backend for the contacts of a user, `name` or bare JID")
	return check
}

// inspecting makes the fetcher that rosterd would use, for a command.
func inspecting(cfg config.Config, log *slog.Logger) (*fetcher.Fetcher, error) {
	return newFetcher(cfg.Contacts, cfg.XMPP.Hosts, log, newMetrics(prometheus.NewRegistry()))
}

// health is `rosterd health`.
func (c *command) health() *cobra.Command {
	var ready bool
	health := &cobra.Command{
		Use: "health", Short: "ask the rosterd that runs whether it is well", Args: cobra.NoArgs,
		Long: `health asks the rosterd that runs with this configuration for /healthz on
metrics.listen, and fails unless it answers 200: for HEALTHCHECK of a container,
which has no other program.`,
		RunE: runs(func(ctx context.Context, _ []string) error {
			cfg, _, err := config.Load(c.file)
			if err != nil {
				return err
			}
			path := "/healthz"
			if ready {
				path = "/readyz"
			}
			text, err := askHealth(ctx, cfg.Metrics.Listen, path)
			if err == nil {
				fmt.Fprint(c.stdout, text)
			}
			return err
		}),
	}
	health.Flags().BoolVar(&ready, "ready", false, "ask for /readyz: whether clients get rosters")
	return health
}

// healthWait is how long a rosterd that is well may take to say so.
const healthWait = 5 * time.Second

func askHealth(ctx context.Context, listen, path string) (string, error) {
	address, ok := check.Reachable(listen)
	if !ok {
		return "", fmt.Errorf("metrics.listen: %s is a port that nobody knows", listen)
	}
	ctx, cancel := context.WithTimeout(ctx, healthWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return "", err
	}
	local := &http.Client{Transport: &http.Transport{DialContext: (&net.Dialer{}).DialContext, DisableKeepAlives: true}} // without a proxy
	resp, err := local.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", req.URL, resp.Status, strings.TrimSpace(string(body)))
	}
	return string(body), err
}
