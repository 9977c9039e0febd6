package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// columns are what is asked of each server, with the tests that answer it. Where
// queries do not reach rosterd, nothing else does.
var columns = []struct {
	name  string
	tests []string
}{
	{"query", []string{"TestSmoke", "TestDeployedFiles", "TestRosterAtLogin", "TestJabberd/query"}},
	{"push", []string{"TestPushes", "TestInterestedResources", "TestJabberd/query"}},
	{"presence", []string{"TestPresence", "TestPresenceAsymmetric", "TestJabberd/query"}},
	{"restart", []string{"TestRestart", "TestServerRestarted", "TestJabberd/query"}},
	{"refused set", []string{"TestSetIsRefused", "TestJabberd/query"}},
	{"versioning", []string{"TestVersions", "TestJabberd/query"}},
	{"check", []string{"TestCheck", "TestJabberd/check"}},
}

// named are the tests of all columns.
func named() []string {
	var names []string
	for _, column := range columns {
		for _, test := range column.tests {
			name, _, _ := strings.Cut(test, "/")
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// row is what works on a server.
type row struct {
	server, version string
	cells           []string
	meanings        []string // of the cells that are neither ok nor FAIL
}

func newRow(server, version string, all results) row {
	r := row{server: server, version: version}
	for _, column := range columns {
		cell := "FAIL" // where no test has run, too
		for _, result := range of(server, column.tests, all) {
			if result.outcome != "pass" {
				cell = "FAIL"
				break
			}
			cell = "ok"
			if result.cell != "" {
				cell, _, _ = strings.Cut(result.cell, ":")
				r.meanings = append(r.meanings, fmt.Sprintf("%s %s, %s", server, version, result.cell))
				break
			}
		}
		r.cells = append(r.cells, cell)
	}
	r.meanings = slices.Compact(r.meanings)
	return r
}

// of are the results of tests on a server, which subtests have in their names:
// those below one of them that has failed are in it.
func of(server string, tests []string, all results) []result {
	var found []result
	for name, result := range all {
		for _, test := range tests {
			on, below := strings.CutPrefix(name, test+"/")
			whole := name == test && strings.HasPrefix(test, "TestJabberd/") // whose server is in the test's name
			if whole && server == "jabberd2" || below && !strings.Contains(on, "/") && strings.Contains(on, server) {
				found = append(found, result)
			}
		}
	}
	return found
}

// printTable prints the table, and says whether nothing in it has failed.
func printTable(w io.Writer, rows []row) (ok bool) {
	ok = true
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, "server\tversion")
	for _, column := range columns {
		fmt.Fprint(table, "\t"+column.name)
	}
	fmt.Fprintln(table)
	for _, row := range rows {
		fmt.Fprintln(table, strings.Join(append([]string{row.server, row.version}, row.cells...), "\t"))
		ok = ok && !slices.Contains(row.cells, "FAIL")
	}
	_ = table.Flush()
	for _, row := range rows {
		for _, meaning := range row.meanings {
			fmt.Fprintln(w, meaning)
		}
	}
	return ok
}
