package harness

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Machine is the name of the release that this machine is.
const Machine = "machine"

// Cell is the key of the attribute by which a test tells the table of `make
// matrix` what is not well on its server, as "no: what that means".
const Cell = "cell"

// root is the folder where servers find themselves installed: "" on the machine
// itself, else the root of a Debian release, which e2e/install-debian.sh has made.
// Servers run there by chroot.
type root string

// suiteRoot is the root of the release whose servers are run, which
// E2E_SUITE names.
func suiteRoot() root { return rootOf(os.Getenv("E2E_SUITE")) }

func rootOf(suite string) root {
	if suite == "" || suite == Machine {
		return ""
	}
	return root(filepath.Join(cmp.Or(os.Getenv("E2E_ROOTS"), "/var/cache/rosterd-e2e"), suite))
}

// Versions are those of the servers of a release, by the names of the packages.
func Versions(suite string) map[string]string {
	versions := map[string]string{}
	for _, server := range []string{"prosody", "ejabberd", "jabberd2"} {
		query := exec.Command("dpkg-query", "--admindir="+string(rootOf(suite))+"/var/lib/dpkg",
			"--show", "--showformat=${source:Upstream-Version}", server)
		if out, err := query.Output(); err == nil && len(out) > 0 {
			versions[server] = string(out)
		}
	}
	return versions
}

// tempDir makes a folder that the servers see, too.
func (r root) tempDir(pattern string) (string, error) {
	if r == "" {
		return os.MkdirTemp("", pattern)
	}
	return os.MkdirTemp(filepath.Join(string(r), "tmp"), pattern)
}

// inside is a path as the servers see it.
func (r root) inside(path string) string { return strings.TrimPrefix(path, string(r)) }

// glob finds files by a pattern of the servers' paths, and returns these.
func (r root) glob(pattern string) []string {
	found, _ := filepath.Glob(string(r) + pattern) // an error is one of the pattern
	for i, path := range found {
		found[i] = r.inside(path)
	}
	return found
}

// lookPath finds a program for command.
func (r root) lookPath(name string) (string, error) {
	if r == "" {
		return exec.LookPath(name)
	}
	for _, dir := range []string{"/usr/sbin/", "/usr/bin/"} {
		// A link may lead to what exists inside alone.
		if _, err := os.Lstat(string(r) + dir + name); err == nil {
			return dir + name, nil
		}
	}
	return "", fmt.Errorf("%s is not installed in %s", name, r)
}

// command is a program of the root that is to run there, in the folder dir, which
// is of tempDir, as a user of the root if root runs it. Of the environment it gets
// the path alone.
func (r root) command(user, dir, name string, args ...string) (*exec.Cmd, error) {
	path, err := r.lookPath(name)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = r.inside(dir)
	search := os.Getenv("PATH")
	if r != "" {
		search = "/usr/sbin:/usr/bin"
	}
	cmd.Env = []string{"PATH=" + search, "LANG=C.UTF-8"}
	return cmd, r.runAs(user, cmd)
}
