// Package docs has no code: its tests hold the documents to what they promise.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"rosterd/config"
)

// files are the texts of all files of the project that end in one of the names, by
// their path from the root of it.
func files(t *testing.T, ends ...string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == ".git" || entry.Name() == "testdata" || entry.Name() == "node_modules"):
			return filepath.SkipDir
		case entry.IsDir():
			return nil
		}
		for _, end := range ends {
			if strings.HasSuffix(path, end) {
				text, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				found[filepath.ToSlash(strings.TrimPrefix(path, ".."+string(filepath.Separator)))] = string(text)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

var (
	code     = regexp.MustCompile("(?ms)^ *```.*?^ *```$|`[^`\n]*`|<!--.*?-->")
	comments = regexp.MustCompile(`(?s)<!--.*?-->`)
	headings = regexp.MustCompile(`(?m)^#+ (.*)$`)
	links    = regexp.MustCompile(`\]\(([^)\s]*)\)`)
)

// anchors are those of a document, as the common hosts of repositories make them of
// its headings.
func anchors(text string) map[string]bool {
	found := map[string]bool{"": true}
	text = regexp.MustCompile("(?ms)^ *```.*?^ *```$").ReplaceAllString(text, "")
	for _, heading := range headings.FindAllStringSubmatch(text, -1) {
		found[strings.Map(func(c rune) rune {
			switch {
			case c == ' ':
				return '-'
			case c == '-', c == '_', unicode.IsLetter(c), unicode.IsDigit(c):
				return unicode.ToLower(c)
			}
			return -1
		}, heading[1])] = true
	}
	return found
}

// Each link leads somewhere: to a file that is there, to a heading that it has.
func TestLinks(t *testing.T) {
	t.Parallel()
	documents := files(t, ".md")
	for name, text := range documents {
		for _, link := range links.FindAllStringSubmatch(code.ReplaceAllString(text, ""), -1) {
			target, anchor, _ := strings.Cut(link[1], "#")
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			path := name
			if target != "" {
				path = filepath.ToSlash(filepath.Join(filepath.Dir(name), target))
			}
			if _, err := os.Stat(filepath.Join("..", path)); err != nil {
				t.Errorf("%s links to %s, which is not there", name, link[1])
			} else if anchor != "" && !anchors(documents[path])[anchor] {
				t.Errorf("%s links to %s, which has no such heading", name, link[1])
			}
		}
	}
	if len(documents) < 10 {
		t.Errorf("%d documents", len(documents))
	}
}

// A document that code, a configuration or a message of the program names is there.
func TestNamedDocuments(t *testing.T) {
	t.Parallel()
	named := regexp.MustCompile(`\b(?:docs/[a-z/-]+|[A-Z]{6,})\.md\b`)
	for name, text := range files(t, ".go", ".yaml", ".yml", ".lua", ".service", ".py", ".sh", ".md", "Makefile", "Dockerfile") {
		if name == "CHANGELOG.md" { // what was, is no more
			continue
		}
		for _, document := range named.FindAllString(comments.ReplaceAllString(text, ""), -1) {
			_, here := os.Stat(filepath.Join("..", filepath.Dir(name), document)) // as links of a document are written
			if _, err := os.Stat(filepath.Join("..", document)); err != nil && here != nil {
				t.Errorf("%s names %s, which is not there", name, document)
			}
		}
	}
}

// pasted says which test runs a block of commands, by the document and how the block
// begins.
var pasted = map[string]string{
	"README.md: make demo":                 "", // .ci/run
	"docs/install.md: make build":          "", // .ci/run
	"docs/install.md: install -m 755":      "TestInstalled",
	"docs/install.md: docker build":        "", // where there is a Docker
	"docs/prosody.md: apt install":         "", // e2e/install-debian.sh
	"docs/prosody.md: install -m 640":      "TestPasted",
	"docs/prosody.md: prosodyctl check":    "TestPasted", // which has Prosody load the files
	"docs/prosody.md: echo change-me":      "TestInstalled",
	"docs/prosody.md: DOMAIN=":             "TestPasted",
	"docs/prosody.md: systemctl enable":    "TestInstalled",
	"docs/prosody.md: curl":                "TestPasted",
	"docs/ejabberd.md: install -m 640":     "TestDeployedFiles",
	"docs/ejabberd.md: echo change-me":     "TestInstalled",
	"docs/ejabberd.md: ejabberdctl oauth":  "TestEjabberdAPIRefused",
	"docs/backend.md: curl http":           "TestPasted",
	"docs/backend.md: curl -X POST -d":     "TestPasted",
	"docs/backend.md: curl -X POST -H":     "TestPastedTLS",
	"docs/backend.md: curl -d":             "TestPasted",
	"docs/operations.md: systemctl status": "TestInstalled",
	"docs/operations.md: rosterd user":     "TestCommands",
	"docs/operations.md: rosterd held":     "TestCommands",
	"docs/install.md: make deb":            "TestPackage",
	"docs/operations.md: rosterd check":    "TestCheck",
	"docs/high-availability.md: sudo -u":   "", // internal/pgserver makes its own
	"docs/high-availability.md: curl -s":   "TestPair",
	"docs/clients.md: npm pack":            "TestConverse",
	"docs/reliability.md: sqlite3":         "TestPasted",
	"docs/performance.md: make bench":      "", // it measures
	"docs/performance.md: go test -run":    "",
}

// Every block of commands is run by a test, or it is said why not.
func TestBlocks(t *testing.T) {
	t.Parallel()
	known := tests(t)
	found := map[string]bool{}
	for document, text := range files(t, ".md") {
		if document != "README.md" && filepath.Dir(document) != "docs" {
			continue
		}
	blocks:
		for _, block := range regexp.MustCompile("(?m)^ *```sh\n *(.*)$").FindAllStringSubmatch(text, -1) {
			for begins := range pasted {
				if strings.HasPrefix(document+": "+block[1], begins) {
					found[begins] = true
					continue blocks
				}
			}
			t.Errorf("%s: no test runs %q", document, block[1])
		}
	}
	for begins, test := range pasted {
		if !found[begins] || test != "" && !known[test] {
			t.Errorf("%s: %v, %s", begins, found[begins], test)
		}
	}
}

// The configurations that a document shows are such.
func TestSettings(t *testing.T) {
	t.Setenv("ROSTERD_XMPP_SECRET", "change-me") // in place of a file, which is not there
	shown := 0
	for document, text := range files(t, ".md") {
		for _, block := range regexp.MustCompile("(?ms)^( *)```yaml\n( *xmpp:.*?)^ *```$").FindAllStringSubmatch(text, -1) {
			shown++
			file := filepath.Join(t.TempDir(), "config.yaml")
			if err := os.WriteFile(file, []byte(strings.ReplaceAll("\n"+block[2], "\n"+block[1], "\n")), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, _, err := config.Load(file); err != nil {
				t.Errorf("%s: %v", document, err)
			}
		}
	}
	if shown < 3 {
		t.Errorf("%d configurations", shown)
	}
}

// What is to be read first is short.
func TestSizes(t *testing.T) {
	t.Parallel()
	for name, most := range map[string]int{"README.md": 7 << 10, "docs/development/architecture.md": 8 << 10} {
		text, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > most {
			t.Errorf("%s has %d bytes, %d are too many", name, len(text), len(text)-most)
		}
	}
}

// tests are the names of all tests and fuzz targets.
func tests(t *testing.T) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for _, text := range files(t, "_test.go") {
		for _, name := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllStringSubmatch(text, -1) {
			all[name[1]] = true
		}
	}
	return all
}

// Every metric is in the table of operations.md, and none that is not there.
func TestMetrics(t *testing.T) {
	t.Parallel()
	metric := regexp.MustCompile("`(rosterd_[a-z_]+)")
	has := map[string]bool{}
	for name, text := range files(t, ".go") {
		if filepath.Dir(name) == "metrics" && !strings.HasSuffix(name, "_test.go") {
			for _, quoted := range regexp.MustCompile(`"rosterd_[a-z_]+"`).FindAllString(text, -1) {
				has[strings.Trim(quoted, `"`)] = true
			}
		}
	}
	documents := files(t, ".md")
	_, table, _ := strings.Cut(documents["docs/operations.md"], "## Metrics")
	for name := range has {
		if !strings.Contains(table, "`"+name+"`") && !strings.Contains(table, "`"+name+"{") {
			t.Errorf("docs/operations.md does not have %s", name)
		}
	}
	for document, text := range documents {
		for _, m := range metric.FindAllStringSubmatch(text, -1) {
			if name := m[1]; document != "CHANGELOG.md" && !has[name] {
				t.Errorf("%s names %s, which is not there", document, name)
			}
		}
	}
}

// What operations.md says stands in the log, the program writes. What has values in it, or
// comes from the system, is left out.
func TestSymptoms(t *testing.T) {
	t.Parallel()
	var program strings.Builder
	for name, text := range files(t, ".go") {
		if !strings.HasSuffix(name, "_test.go") {
			program.WriteString(text)
		}
	}
	operations, err := os.ReadFile("operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rows, _ := strings.Cut(string(operations), "## Symptoms")
	rows, _, _ = strings.Cut(rows, "## Health")
	others := regexp.MustCompile(`[0-9<]|^connect: |unexpected EOF|^tls: `)
	looked := 0
	for _, row := range regexp.MustCompile(`(?m)^\| (.*?) \| `).FindAllStringSubmatch(rows, -1) {
		for _, quoted := range regexp.MustCompile("`([^`]*)`").FindAllStringSubmatch(row[1], -1) {
			for _, piece := range strings.Split(quoted[1], "…") {
				if piece = strings.TrimSpace(piece); len(piece) < 8 || others.MatchString(piece) {
					continue
				}
				if looked++; !strings.Contains(program.String(), piece) {
					t.Errorf("no message of the program has %q", piece)
				}
			}
		}
	}
	if looked < 20 {
		t.Errorf("%d messages", looked)
	}
}

// A test that a document names as a proof is there.
func TestNamedTests(t *testing.T) {
	t.Parallel()
	all := tests(t)
	for document, text := range files(t, ".md") {
		if document == "CHANGELOG.md" {
			continue
		}
		for _, name := range regexp.MustCompile("`((?:Test|Fuzz)\\w+)`").FindAllStringSubmatch(text, -1) {
			if !all[name[1]] {
				t.Errorf("%s names %s, which is not there", document, name[1])
			}
		}
	}
}
