//go:build unix

package examples

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rosterd/fetcher"
	"rosterd/internal/freeport"
	"rosterd/roster"
)

// framework is how a snippet of docs/backend.md is run: put into an application of its own,
// which adds a contact to juliet's when GET /add comes.
type framework struct {
	title, language string
	around          string // in testdata; it is SNIPPET in it, or in the file snippet
	snippet         string
	installed       []string // a command that succeeds where the framework is
	run             []string // LISTEN stands for the address
}

var frameworks = map[string]framework{
	"django": {title: "**Django.**", language: "python", around: "application.py", snippet: "app/models.py",
		installed: []string{"/usr/bin/python3", "-c", "import django"}, run: []string{"/usr/bin/python3", "application.py"}},
	"rails": {title: "**Rails.**", language: "ruby", around: "rails.rb",
		installed: []string{"ruby", "-e", `require "rails"; require "sqlite3"; require "webrick"`}, run: []string{"ruby", "rails.rb"}},
	"laravel": {title: "**Laravel.**", language: "php", around: "laravel.php",
		installed: []string{"php", "-r", `exit(stream_resolve_include_path("Illuminate/Foundation/Application.php") && stream_resolve_include_path("GuzzleHttp/autoload.php") ? 0 : 1);`},
		run:       []string{"php", "-S", "LISTEN", "laravel.php"}},
	"express": {title: "**Express.**", language: "js", around: "express.js",
		installed: []string{"npm", "--version"}, run: []string{"node", "express.js"}},
	"go": {title: "**Go.**", language: "go", around: "main.go.txt", run: []string{"./main"}},
}

// Each snippet says who a user's contacts are, and reports a change when it can be fetched, and
// again if it is told to.
func TestFrameworks(t *testing.T) {
	document, err := os.ReadFile("../../docs/backend.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range frameworks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if f.installed != nil {
				if out, err := exec.Command(f.installed[0], f.installed[1:]...).CombinedOutput(); err != nil {
					if os.Getenv("E2E") == "required" {
						t.Fatalf("%v: %s", err, out)
					}
					t.Skipf("%s is not installed", name)
				}
			}
			_, rest, _ := strings.Cut(string(document), f.title)
			_, rest, _ = strings.Cut(rest, "```"+f.language+"\n")
			snippet, _, found := strings.Cut(rest, "\n```")
			if !found {
				t.Fatalf("docs/backend.md has no %s", f.title)
			}
			f.test(t, snippet)
		})
	}
}

func (f framework) test(t *testing.T, snippet string) {
	listen := freeport.Of(t)
	rosterd, reported := takesReports(t, listen)
	defer rosterd.Close()
	snippet = strings.ReplaceAll(snippet, "http://127.0.0.1:5290", rosterd.URL)
	dir := t.TempDir()
	around, err := os.ReadFile(filepath.Join("testdata", f.around))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{f.around: strings.Replace(string(around), "SNIPPET", snippet, 1)}
	if f.snippet != "" {
		files[f.snippet] = snippet
	}
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, strings.TrimSuffix(name, ".txt")), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if f.language == "go" {
		if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "main"), filepath.Join(dir, "main.go")).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	run := make([]string, len(f.run))
	for i, word := range f.run {
		run[i] = strings.Replace(word, "LISTEN", listen, 1)
	}
	c := exec.Command(run[0], run[1:]...)
	c.Dir = dir
	c.Env = append(os.Environ(), "LISTEN="+listen, "PHP_CLI_SERVER_WORKERS=4")
	if f.language == "js" {
		c.Env = append(c.Env, "NODE_PATH="+express(t))
	}
	c.SysProcAttr, c.WaitDelay = &syscall.SysProcAttr{Setpgid: true}, time.Second
	start(t, listen, c)
	t.Cleanup(func() { _ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }) // its workers, too

	client := newFetcher(t, "http://"+listen, fetcher.Options{Timeout: 2 * time.Minute})
	contacts := func(user string) (*roster.Roster, error) {
		answer, err := client.Fetch(t.Context(), roster.Request{User: mustParse(user + "@example.org"), Hurry: true})
		return answer.Roster, err
	}
	if r, err := contacts("juliet"); err != nil || r.Len() != 0 {
		t.Fatalf("juliet: %v, %v", r, err)
	}
	var failure *fetcher.Error
	if _, err := contacts("nobody"); !errors.As(err, &failure) || failure.Status != http.StatusNotFound {
		t.Errorf("nobody: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	add, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+listen+"/add", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(add)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	select {
	case got := <-reported:
		const want = `POST /roster_admin/refresh  ["juliet"] {"romeo@example.org":{"name":"Romeo"}}` // without a token
		if strings.ReplaceAll(strings.ReplaceAll(got, `": `, `":`), "\n", "") != want {
			t.Errorf("reported %s, want %s", got, want)
		}
	case <-ctx.Done():
		t.Errorf("nothing was reported; /add answered %s", answer.Status)
	}
	if r, err := contacts("juliet"); err != nil || r.Len() != 1 {
		t.Errorf("juliet: %v, %v", r, err)
	}
}

// express is the folder that has Express, from the user's cache or from npm's registry.
func express(t *testing.T) string {
	t.Helper()
	const version = "4.22.3"
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	folder := filepath.Join(cache, "rosterd", "express-"+version)
	if _, err := os.Stat(folder); err != nil {
		if err := os.MkdirAll(filepath.Dir(folder), 0o755); err != nil {
			t.Fatal(err)
		}
		fresh, err := os.MkdirTemp(filepath.Dir(folder), "new-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(fresh)
		if out, err := exec.Command("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", fresh, "express@"+version).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if err := os.Rename(fresh, folder); err != nil && !errors.Is(err, fs.ErrExist) { // another process may have been faster
			t.Fatal(err)
		}
	}
	return filepath.Join(folder, "node_modules")
}
