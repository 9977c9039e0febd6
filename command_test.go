package main

import (
	"bytes"
	"regexp"
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
		{[]string{"check", "--help"}, 0, `^rosterd serves XMPP rosters`, `^$`},
		{[]string{"check", "juliet"}, 2, `^$`, `^rosterd check: unknown argument: "juliet"`},
		{[]string{"check", "--nonsense"}, 2, `^$`, `flag provided but not defined`},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if code := run(t.Context(), nil, tt.args, &stdout, &stderr); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			for got, want := range map[string]string{stdout.String(): tt.stdout, stderr.String(): tt.stderr} {
				if !regexp.MustCompile(want).MatchString(got) {
					t.Errorf("printed %q, want %s", got, want)
				}
			}
		})
	}
}
