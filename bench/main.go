// Command bench measures rosterd against its limits: what a bare loop of GETs
// (the program get) and a component that checks nothing (the program echo) do
// on the same machine, in the same minute, with the same backend and the same
// fake server. With -server it measures logins and refreshes on a real Prosody
// or ejabberd, with -peer beside a module that does the work inside Prosody.
//
// The programs are processes of their own, so that each one's processor time
// and memory can be read. A figure that misses its mark does not fail; only what
// cannot be measured does.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "backend":
			return runBackend(args[1:])
		case "get":
			return runGet(args[1:])
		case "echo":
			return runEcho(args[1:])
		}
	}
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	o := options{}
	flags.StringVar(&o.binary, "rosterd", "./rosterd", "the program to measure")
	flags.StringVar(&o.server, "server", "", "prosody or ejabberd: measure on this server")
	flags.StringVar(&o.peer, "peer", "", "a folder with mod_http_roster_admin, to measure on Prosody as well")
	flags.BoolVar(&o.quick, "quick", false, "small numbers: for a look, not for a result")
	flags.IntVar(&o.runs, "runs", 0, "interleaved runs (default 5, on a real server 3, quick 1)")
	flags.IntVar(&o.imported, "import", 0, "users of 200 contacts who are imported into the server's own rosters (default 100, quick 10)")
	only := flags.String("only", "", "the parts to measure, with commas: queries, refreshes, growth, relays, pair; on a server tags, takeover, its variants by number from 1, and rosters, with that number behind it from 2 on")
	_ = flags.Parse(args)
	if flags.NArg() > 0 {
		return fmt.Errorf("what is %q?", flags.Arg(0))
	}
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return measure(ctx, o)
}
