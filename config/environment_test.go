package config

import (
	"strings"
	"testing"
)

// A variable that names no key stops the start, but for those of Kubernetes.
func TestUnknownVariable(t *testing.T) {
	for variable, want := range map[string]string{
		"ROSTERD_XMPP_DOMIAN=planted":            "environment variable ROSTERD_XMPP_DOMIAN: unknown key, config.example.yaml has all",
		"ROSTERD_XMPP_secret=planted":            "environment variable ROSTERD_XMPP_secret: unknown key, config.example.yaml has all",
		"ROSTERD_SECRET=planted":                 "environment variable ROSTERD_SECRET: unknown key, config.example.yaml has all",
		"ROSTERD_xmpp.secret planted=planted":    "environment variable ROSTERD_xmpp…: unknown key, config.example.yaml has all",
		"ROSTERD_=planted":                       "environment variable ROSTERD_: unknown key, config.example.yaml has all",
		"ROSTERD_METRICS_PORT=9591":              "environment variable ROSTERD_METRICS_PORT: unknown key, config.example.yaml has all",
		"ROSTERD_PORT=5290":                      "environment variable ROSTERD_PORT: unknown key, config.example.yaml has all",
		"ROSTERD_PORT_TCP=5290":                  "environment variable ROSTERD_PORT_TCP: unknown key, config.example.yaml has all",
		"ROSTERD_XMPP_DOMIAN=":                   "", // counts as not set
		"ROSTERDS=x":                             "",
		"ROSTERD_SERVICE_HOST=10.0.0.7":          "",
		"ROSTERD_SERVICE_PORT=5290":              "",
		"ROSTERD_SERVICE_PORT_REFRESH_TLS=5290":  "",
		"ROSTERD_PORT=tcp://10.0.0.7:5290":       "",
		"ROSTERD_PORT_53_UDP=udp://10.0.0.7:53":  "",
		"ROSTERD_PORT_5290_TCP_PROTO=tcp":        "",
		"ROSTERD_PORT_5290_TCP_PORT=5290":        "",
		"ROSTERD_PORT_9590_TCP_ADDR=10.0.0.7":    "",
		"ROSTERD_METRICS_PORT=tcp://[fd00::1]:1": "", // of a service rosterd-metrics
		"ROSTERD_METRICS_SERVICE_PORT_HTTP=9590": "",
		"ROSTERD_2_PORT_1_SCTP_ADDR=10.0.0.7":    "",
	} {
		t.Run(variable, func(t *testing.T) {
			clearEnv(t)
			name, value, _ := strings.Cut(variable, "=")
			t.Setenv(name, value)
			_, err := load(write(t, minimal))
			if want == "" && err != nil || want != "" && (err == nil || err.Error() != want) {
				t.Errorf("error %v, want %s", err, want)
			}
		})
	}
}

// A secret in the environment goes before one in the file, whichever of the two keys
// each of them has.
func TestSecretFromEnvironment(t *testing.T) {
	clearEnv(t)
	content := write(t, "of the credential\n")
	inFile := strings.Replace(minimal, `secret: "s"`, `secret: "change-me"`, 1)
	byFile := strings.Replace(minimal, `secret: "s"`, `secret_file: /nowhere`, 1)
	for _, tt := range []struct{ yaml, variable, value, secret, file, err string }{
		{inFile, "ROSTERD_XMPP_SECRET_FILE", content, "of the credential", content, ""},
		{byFile, "ROSTERD_XMPP_SECRET_FILE", content, "of the credential", content, ""},
		{byFile, "ROSTERD_XMPP_SECRET", "of the variable", "of the variable", "", ""},
		{inFile, "ROSTERD_XMPP_SECRET", "of the variable", "of the variable", "", ""},
		{inFile, "ROSTERD_XMPP_SECRET_FILE", "/nowhere", "", "", `xmpp.secret_file: wants a readable file of at most 64 KiB, got "/nowhere": no such file or directory`},
	} {
		t.Setenv("ROSTERD_XMPP_SECRET", "")
		t.Setenv("ROSTERD_XMPP_SECRET_FILE", "")
		t.Setenv(tt.variable, tt.value)
		c, err := load(write(t, tt.yaml))
		if err != nil && err.Error() != tt.err || err == nil && tt.err != "" || c.XMPP.Secret.Reveal() != tt.secret || c.XMPP.SecretFile != tt.file {
			t.Errorf("%s=%s: secret %q of %q, %v", tt.variable, tt.value, c.XMPP.Secret.Reveal(), c.XMPP.SecretFile, err)
		}
	}
	t.Setenv("ROSTERD_XMPP_SECRET", "one")
	t.Setenv("ROSTERD_XMPP_SECRET_FILE", content)
	if _, err := load(write(t, minimal)); err == nil || err.Error() != "xmpp.secret_file: wants to stand alone, got xmpp.secret beside it" {
		t.Errorf("both in the environment: %v", err)
	}
}
