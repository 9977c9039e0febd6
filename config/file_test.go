package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Where the state is if nobody says it.
func TestStateFile(t *testing.T) {
	for directory, want := range map[string]string{
		"":                              "rosterd.db",
		"/var/lib/rosterd":              "/var/lib/rosterd/rosterd.db",
		"/var/lib/rosterd/":             "/var/lib/rosterd/rosterd.db",
		"/var/lib/rosterd:/var/lib/two": "/var/lib/rosterd/rosterd.db", // systemd, of StateDirectory=rosterd two
	} {
		clearEnv(t)
		t.Setenv("STATE_DIRECTORY", directory)
		if c, err := load(write(t, minimal)); err != nil || c.State.Path != want {
			t.Errorf("in %q: %q, %v, want %q", directory, c.State.Path, err, want)
		}
		if c, err := load(write(t, minimal+"state: {path: a/b}")); err != nil || c.State.Path != "a/b" {
			t.Errorf("in %q, but set: %q, %v", directory, c.State.Path, err)
		}
		if c, err := load(write(t, minimal+"state: {path: ''}")); err != nil || c.State.Path != "" {
			t.Errorf("in %q, but off: %q, %v", directory, c.State.Path, err)
		}
	}
}

func TestLoadWhichFile(t *testing.T) {
	t.Run("the local one", func(t *testing.T) {
		clearEnv(t)
		t.Chdir(filepath.Dir(write(t, minimal)))
		if c, err := load(""); err != nil || c.XMPP.Domain != "contacts.example.org" {
			t.Errorf("Load = %+v, %v", c, err)
		}
	})
	t.Run("none", func(t *testing.T) {
		clearEnv(t)
		t.Chdir(t.TempDir())
		if _, err := os.Stat(systemFile); err == nil {
			t.Skipf("this machine has a %s", systemFile)
		}
		const want = "xmpp.domain: wants this component's own domain, got nothing (there is no configuration file: neither ./config.yaml nor /etc/rosterd/config.yaml exists)"
		if _, err := load(""); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	})
	t.Run("one that is not there", func(t *testing.T) {
		clearEnv(t)
		t.Chdir(filepath.Dir(write(t, minimal)))
		const want = `configuration file "none.yaml": no such file or directory`
		if _, err := load("none.yaml"); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	})
	t.Run("a local one that cannot be read", func(t *testing.T) {
		clearEnv(t)
		t.Chdir(t.TempDir())
		if err := os.Mkdir("config.yaml", 0o700); err != nil {
			t.Fatal(err)
		}
		const want = `configuration file "./config.yaml": is a directory`
		if _, err := load(""); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	})
	t.Run("one that is too long", func(t *testing.T) {
		clearEnv(t)
		if _, err := load(write(t, minimal+"#"+strings.Repeat("x", maxConfigFile))); err == nil || !strings.HasSuffix(err.Error(), ": too long") {
			t.Errorf("error %v", err)
		}
	})
}

func TestSecretFile(t *testing.T) {
	long := strings.Repeat("x", maxSecretFile)
	tests := []struct{ name, content, want, err string }{
		{"text", "a b", "a b", ""},
		{"line", "a\n", "a", ""},
		{"line of Windows", "a\r\n", "a", ""},
		{"longest", long, long, ""},
		{"too long", long + "x", "", `xmpp.secret_file: wants a readable file of at most 64 KiB, got "FILE": too long`},
		{"empty", "", "", `xmpp.secret_file: wants a file with a text in it, got "FILE", which is empty`},
		{"empty line", "\n", "", `xmpp.secret_file: wants a file with a text in it, got "FILE", which is empty`},
		{"two lines", "a\nb\n", "", "xmpp.secret: wants a text without control characters"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			clearEnv(t)
			t.Chdir(t.TempDir())
			if err := os.WriteFile("s", []byte(tc.content), 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := load(write(t, strings.Replace(minimal, `secret: "s"`, `secret_file: s`, 1)))
			if got := fmt.Sprint(err); err != nil && got != strings.Replace(tc.err, "FILE", "s", 1) || (err == nil) != (tc.err == "") {
				t.Fatalf("error %v, want %s", err, tc.err)
			}
			if c.XMPP.Secret.Reveal() != tc.want {
				t.Errorf("secret %q, want %q", c.XMPP.Secret.Reveal(), tc.want)
			}
		})
	}
}
