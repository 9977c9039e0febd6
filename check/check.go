// Package check goes through a whole installation of rosterd, from its
// configuration to its listeners, and says of each step whether it works and, if
// it does not, what mends it. It is `rosterd check`.
//
// It disturbs nothing. If a rosterd of the same configuration runs, it is asked
// what it has learnt: a second connection of the component would end it, or would
// share the users' queries with it on some servers. No line that is written
// contains a secret, or the query of a URL.
package check

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"unicode"

	"rosterd/component"
	"rosterd/config"
	"rosterd/fetcher"
)

// Options of a check.
type Options struct {
	File    string // the configuration, as for [config.Load]
	User    string // whose contacts are asked for: a localpart or a bare JID; "": nobody's
	Version string // told to the server
	Out     io.Writer

	// Fetcher makes the fetcher that rosterd would use. It must not log to where
	// people look.
	Fetcher func(config.Config, *slog.Logger) (*fetcher.Fetcher, error)
	Timing  component.Timing
}

// Run checks, writes to o.Out, and reports whether rosterd could do its job. It
// ends soon after ctx does.
func Run(ctx context.Context, o Options) bool {
	c := &checker{Options: o}
	if c.Timing.Announce == 0 {
		c.Timing.Announce = announce
	}
	if c.report(c.configuration()...) {
		c.report(c.pair(ctx))
		c.report(c.ejabberd(ctx)...)
		c.server(ctx)
		c.contacts(ctx)
		c.report(c.metricsListener())
		c.report(c.refreshListener(ctx)...)
		if ctx.Err() != nil {
			c.report(fail("the check was interrupted"))
		}
	}
	verdict := "rosterd can do its job"
	if c.failures > 0 {
		verdict = "rosterd cannot do its job"
	}
	fmt.Fprintf(c.Out, "%s: %d failed, %d to look at\n", verdict, c.failures, c.warnings)
	return c.failures == 0
}

// checker is one run. Its steps return what they find; those that take long report
// it meanwhile.
type checker struct {
	Options
	cfg     config.Config
	tls     *tls.Config   // to the server; nil: none
	running running       // what answers on metrics.listen
	api     component.API // nil: none is configured

	saidAPI  bool     // the lines that ejabberd's API needs were said of a host
	byItself []string // the hosts that answer roster queries and edits from their own rosters

	here      bool   // the active instance of the pair has the refresh.advertise of this one
	elsewhere string // who is, or may be, connected to the server as the active instance of the pair; "": nobody else

	failures, warnings int // reported so far
}

func (c *checker) configuration() (found []finding) {
	var warnings []string
	var err error
	if c.cfg, warnings, err = config.Load(c.File); err != nil {
		return []finding{fail("configuration: %s", err).mend("mend that; config.example.yaml has all keys and says what they mean")}
	}
	if c.tls, err = c.cfg.XMPP.TLS.Client(); err != nil {
		return []finding{fail("configuration: %s", err).mend(
			"the file has to have the certificate that signed the server's, in PEM, and rosterd must be able to read it")}
	}
	if file := config.File(c.File); file != "" {
		found = append(found, pass("configuration: %s", file))
	} else {
		found = append(found, pass("configuration: from the environment, there is no file"))
	}
	for _, warning := range warnings {
		found = append(found, warn("configuration: %s", warning))
	}
	return found
}

// finding is what one step found: a line and, below it, what mends that. The zero
// value is none.
type finding struct {
	level, text string
	mends       []string
}

const (
	passed = "ok"
	warned = "warn"
	failed = "FAIL"
)

func pass(format string, args ...any) finding {
	return finding{level: passed, text: fmt.Sprintf(format, args...)}
}
func warn(format string, args ...any) finding {
	return finding{level: warned, text: fmt.Sprintf(format, args...)}
}
func fail(format string, args ...any) finding {
	return finding{level: failed, text: fmt.Sprintf(format, args...)}
}

func (f finding) mend(lines ...string) finding {
	f.mends = append(f.mends, lines...)
	return f
}

// report writes findings, and reports whether none is a failure. They repeat what
// other programs say: each line is cleaned and cut.
func (c *checker) report(found ...finding) (ok bool) {
	ok = true
	for _, f := range found {
		switch f.level {
		case "":
			continue
		case warned:
			c.warnings++
		case failed:
			c.failures++
			ok = false
		}
		fmt.Fprintf(c.Out, "%-4s %s\n", f.level, clean(f.text))
		for _, line := range f.mends {
			fmt.Fprintf(c.Out, "     %s\n", clean(line))
		}
	}
	return ok
}

// maxLine is how many bytes of a line are written.
const maxLine = 1000

// clean makes one line of s.
func clean(s string) string {
	if len(s) > maxLine {
		s = s[:maxLine] + "…"
	}
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return unicode.ReplacementChar
		}
		return c
	}, strings.ToValidUTF8(s, "\uFFFD"))
}
