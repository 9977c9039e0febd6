package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

func TestCheckCommandLine(t *testing.T) {
	t.Chdir(t.TempDir()) // no config.yaml
	for _, tt := range []struct {
		args           []string
		code           int
		stdout, stderr string // regular expressions for the beginning
	}{
		{[]string{"check", "--config", "missing.yaml"}, 1, `^FAIL configuration: .*missing\.yaml`, `^$`},
		{[]string{"--config", "missing.yaml", "check", "--user", "juliet"}, 1, `^FAIL configuration: .*missing\.yaml`, `^$`},
		{[]string{"check"}, 1, `^FAIL configuration: xmpp\.domain`, `^$`},
		{[]string{"check", "-user", "juliet", "-config=missing.yaml"}, 1, `^FAIL configuration: .*missing\.yaml`, `^$`},
		{[]string{"check", "--help"}, 0, `^check goes through the whole installation`, `^$`},
		{[]string{"check", "juliet"}, 2, `^$`, `^unknown command "juliet" for "rosterd check"`},
		{[]string{"check", "--nonsense"}, 2, `^$`, `unknown flag: --nonsense`},
		{[]string{"user"}, 2, `^$`, `^accepts 1 arg\(s\), received 0`},
		{[]string{"user", "juliet"}, 1, `^$`, `^rosterd: xmpp\.domain`},
		{[]string{"approve"}, 2, `^$`, `^requires at least 1 arg`},
		{[]string{"refresh"}, 2, `^$`, `^name users, or --all`},
		{[]string{"refresh", "--all", "juliet"}, 2, `^$`, `^name users or --all, not both`},
		{[]string{"refresh", "juliet", "--host", "example.org"}, 2, `^$`, `^--host is for --all`},
		{[]string{"refresh", "juliet", "--cert", "x"}, 2, `^$`, `^--cert and --key`},
		{[]string{"health"}, 1, `^$`, `^rosterd: xmpp\.domain`},
		{[]string{"completion", "bash"}, 0, `^# bash completion V2 for rosterd`, `^$`},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			wantRun(t, tt.args, tt.code, tt.stdout, tt.stderr)
		})
	}
}

// What stands behind -- is no flag, whatever it begins with.
func TestNamesThatBeginWithADash(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("config.yaml", []byte(`
xmpp: {domain: contacts.example.org, secret: x, hosts: [example.org]}
contacts: {url: "http://127.0.0.1:1/contacts/%s"}
state: {path: rosterd.db}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("rosterd.db", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), nil, []string{"user", "-config", "config.yaml", "--", "-juliet"}, &stdout, &stderr); code != 0 {
		t.Fatalf("exit code %d: %s", code, &stderr)
	}
	if !bytes.Contains(stdout.Bytes(), []byte(" -juliet@example.org, says the state file")) {
		t.Errorf("said %s", &stdout)
	}
}
