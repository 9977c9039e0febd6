// Package harness runs what an end-to-end test of rosterd needs: a private
// Prosody, ejabberd or jabberd2, a contacts backend that can misbehave, the built
// rosterd, and two client libraries that nobody here wrote. It is plain library code without the
// testing package, so that the demo shows what the tests prove.
//
// Every server listens on 127.0.0.1 and keeps its files in a folder of its own;
// every child process dies with this one. Whatever a Start function returns has
// to be closed by the caller, and every wait is bounded by a context.
package harness

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// python is Debian's interpreter: another python3 earlier in PATH would not
// see Debian's slixmpp.
const python = "/usr/bin/python3"

// prosodyModules is where Debian puts Prosody's modules, the community's too.
const prosodyModules = "/usr/lib/prosody/modules"

// slixmppThere is asked by every test, and takes a while to find out.
var slixmppThere = sync.OnceValue(func() bool {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return exec.CommandContext(ctx, python, "-c", "import slixmpp").Run() == nil
})

// Missing says in one line what the machine lacks to run the servers and the
// clients, and what to do about it; it is empty if nothing is missing.
func Missing(context.Context) string {
	var missing []string
	in := suiteRoot()
	if _, err := in.lookPath("prosody"); err != nil {
		missing = append(missing, "prosody")
	}
	for _, module := range []string{"mod_delegation", "mod_privilege"} {
		if in.glob(prosodyModules+"/"+module) == nil {
			missing = append(missing, "prosody-modules")
			break
		}
	}
	if _, err := in.lookPath("erl"); err != nil || in.ejabberdCode() == "" {
		missing = append(missing, "ejabberd")
	}
	if in.glob("/usr/lib/*/lib/p1_oauth2-*") == nil {
		missing = append(missing, "erlang-p1-oauth2") // without it ejabberd issues no token
	}
	if !slixmppThere() {
		missing = append(missing, "python3-slixmpp")
	}
	if missing == nil {
		return ""
	}
	if in != "" {
		return "not installed: " + strings.Join(missing, ", ") + " in " + string(in) + " (on Debian, as root: e2e/install-debian.sh matrix)"
	}
	return "not installed: " + strings.Join(missing, ", ") + " (on Debian, as root: e2e/install-debian.sh)"
}

// TB is the part of testing.TB that [Require] uses.
type TB interface {
	Helper()
	Skip(args ...any)
	Fatal(args ...any)
}

// Require skips a test on a machine that cannot run it, with the line of
// [Missing]. With E2E=required in the environment, as `make test` sets
// it where it could install everything, the test fails instead.
func Require(ctx context.Context, tb TB) {
	tb.Helper()
	switch missing := Missing(ctx); {
	case missing == "":
	case os.Getenv("E2E") == "required":
		tb.Fatal(missing)
	default:
		tb.Skip(missing)
	}
}
