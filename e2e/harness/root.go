package harness

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Suite is the Debian release whose servers are run, as E2E_SUITE says.
// Empty, it is those of the machine itself.
func Suite() string { return os.Getenv("E2E_SUITE") }

// root is the folder where servers find themselves installed: "" on the machine
// itself, else the root of a release, which e2e/install-debian.sh has made. Servers
// run there by chroot.
type root string

// suiteRoot is the root of [Suite].
func suiteRoot() root {
	if Suite() == "" {
		return ""
	}
	return root(filepath.Join(cmp.Or(os.Getenv("E2E_ROOTS"), "/var/cache/rosterd-e2e"), Suite()))
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
