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

// A test that a document names as a proof is there.
func TestNamedTests(t *testing.T) {
	t.Parallel()
	all := map[string]bool{}
	for _, text := range files(t, "_test.go") {
		for _, name := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllStringSubmatch(text, -1) {
			all[name[1]] = true
		}
	}
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
