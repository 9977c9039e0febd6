package webdemo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

// version is that of Converse.js on npm.
const version = "14.0.0"

// ErrNoNPM is returned by [Converse] where there is no npm to fetch it with.
var ErrNoNPM = errors.New("no npm: Converse.js cannot be fetched, so there is no page")

// Converse is the folder with the files of Converse.js, from the cache of the user or from
// npm's registry. It is safe for concurrent use, by several processes, too.
func Converse(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	folder := filepath.Join(cache, "rosterd", "converse.js-"+version)
	dist := filepath.Join(folder, "package", "dist")
	if _, err := os.Stat(dist); err == nil {
		return dist, nil
	}
	if _, err := exec.LookPath("npm"); err != nil {
		return "", ErrNoNPM
	}
	if err := os.MkdirAll(filepath.Dir(folder), 0o755); err != nil {
		return "", err
	}
	unpacked, err := os.MkdirTemp(filepath.Dir(folder), "new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(unpacked)
	for _, command := range [][]string{
		{"npm", "pack", "--silent", "converse.js@" + version}, // npm compares the checksum
		{"tar", "-xzf", "converse.js-" + version + ".tgz", "package/dist", "package/LICENSE"},
	} {
		cmd := exec.CommandContext(ctx, command[0], command[1:]...)
		cmd.Dir = unpacked
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("fetching Converse.js: %s: %w: %.300s", command[0], err, out)
		}
	}
	// Another process may have been faster, with the same files.
	if err := os.Rename(unpacked, folder); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return dist, nil
}
