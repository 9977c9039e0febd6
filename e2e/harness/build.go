package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// Builds builds rosterd from its sources in root, once for all tests of a package: tested is
// with the race detector if the tests have it, plain without. They return the program's file,
// and are safe for concurrent use. remove removes the files, when all tests have ended.
func Builds(root string) (tested, plain func() (string, error), remove func()) {
	folder := sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "rosterd-build-") })
	once := func(name string, race bool) func() (string, error) {
		return sync.OnceValues(func() (string, error) {
			dir, err := folder()
			if err != nil {
				return "", err
			}
			file := filepath.Join(dir, name)
			return file, build(root, file, race)
		})
	}
	remove = func() {
		if dir, err := folder(); err == nil {
			_ = os.RemoveAll(dir)
		}
	}
	return once("rosterd", raceDetector), once("rosterd-plain", false), remove
}

// build needs a C compiler for the race detector.
func build(root, file string, race bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	args := []string{"build", "-buildvcs=false", "-o", file}
	if race {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, ".")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building rosterd: %w\n%s", err, out)
	}
	return nil
}
