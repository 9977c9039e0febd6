// Command matrix runs the end-to-end tests on the servers of several Debian
// releases, and prints what works where: `make matrix`.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"rosterd/e2e/harness"
)

func main() {
	suites := flag.String("suites", "machine trixie sid", "the `releases`: machine is the one that this machine is")
	flag.Parse()
	ok, err := run(strings.Fields(*suites))
	if err != nil {
		fmt.Fprintln(os.Stderr, "matrix:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// run tests the releases, and says whether all is well there.
func run(suites []string) (ok bool, err error) {
	var rows []row
	ok = true
	for _, suite := range suites {
		versions := harness.Versions(suite)
		if len(versions) == 0 && suite == "sid" { // what is in it today may not be installable
			fmt.Println("matrix: sid is not there: its servers are not tested")
			continue
		} else if len(versions) == 0 {
			return false, fmt.Errorf("%s is not there (as root: e2e/install-debian.sh matrix)", suite)
		}
		results, passed, err := test(suite)
		if err != nil {
			return false, err
		}
		ok = ok && passed
		for _, server := range []string{"prosody", "ejabberd", "jabberd2"} {
			if version, there := versions[server]; there {
				rows = append(rows, newRow(server, version, results))
			}
		}
	}
	fmt.Println()
	return printTable(os.Stdout, rows) && ok, nil
}

// test runs the suite on the servers of a release. On this machine's, where `make
// test` runs all, it runs what the table needs.
func test(suite string) (results results, passed bool, err error) {
	args := []string{"test", "-buildvcs=false", "-count=1", "-timeout", "20m", "-json"}
	env := append(os.Environ(), "E2E=required", "E2E_SUITE="+suite)
	if suite == harness.Machine {
		args = append(args, "-run", "^("+strings.Join(named(), "|")+")$")
	}
	fmt.Printf("== the servers of %s\n", suite)
	cmd := exec.Command("go", append(args, "./e2e")...)
	cmd.Env, cmd.Stderr = env, os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, false, err
	}
	if err := cmd.Start(); err != nil {
		return nil, false, err
	}
	results, err = read(stdout, os.Stdout)
	if err != nil {
		return nil, false, err
	}
	return results, cmd.Wait() == nil, nil
}

// result is how a test ended.
type result struct {
	outcome string // pass, fail, skip
	cell    string // what the test says of its server, if not that all is well
}

// results are those of the tests, by their names.
type results map[string]result

// event is a line of `go test -json`, see `go doc test2json`.
type event struct{ Action, Test, Output, Key, Value string }

// read reads the results, and passes on what failed tests and the package have
// said.
func read(r io.Reader, out io.Writer) (results, error) {
	all := results{}
	said := map[string][]string{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Fprintln(out, lines.Text()) // of the go command
			continue
		}
		now := all[e.Test]
		switch e.Action {
		case "output", "build-output":
			if e.Test == "" {
				fmt.Fprint(out, e.Output)
			} else {
				said[e.Test] = append(said[e.Test], e.Output)
			}
			continue
		case "attr":
			if e.Key == harness.Cell {
				now.cell = e.Value
			}
		case "pass", "fail", "skip":
			now.outcome = e.Action
			if e.Action == "fail" {
				fmt.Fprint(out, strings.Join(said[e.Test], ""))
			}
			delete(said, e.Test)
		default:
			continue
		}
		all[e.Test] = now
	}
	return all, lines.Err()
}
