package config

import (
	"slices"
	"strings"
	"testing"
)

// What YAML cuts off, and what nobody sees, is warned of, and not told.
func TestWarnings(t *testing.T) {
	const (
		behind = ": what stands behind the '#' in line "
		quotes = " is no part of it: put the secret in quotes if it is meant to be"
		space  = ": begins or ends in white space, which counts"
	)
	withSecret := func(value string) string { return strings.Replace(minimal, `"s"`, value, 1) }
	withContacts := func(lines string) string {
		return strings.Replace(minimal, `contacts: {url: "http://127.0.0.1:8000/contacts/%s"}`, "contacts:\n  url: http://127.0.0.1:8000/contacts/%s # a comment\n"+lines, 1)
	}
	for _, tt := range []struct {
		name, yaml string
		want       []string
		env        []string // name and value
	}{
		{"nothing", minimal, nil, nil},
		{"a comment behind quotes", withSecret("'planted' # of prosody.cfg.lua\n  "), nil, nil},
		{"a '#' inside", withSecret("planted#1"), nil, nil},
		{"a '#' in quotes", withSecret(`"planted #1"`), nil, nil},
		{"a secret", withSecret("x #planted\n  "), []string{"xmpp.secret" + behind + "2" + quotes}, nil},
		{"a secret on two lines", withSecret("x\n  y #planted\n  "), []string{"xmpp.secret" + behind + "2" + quotes}, nil},
		{"a secret that the environment replaces", withSecret("x #planted\n  "), nil, []string{"ROSTERD_XMPP_SECRET", "y"}},
		{"a whole token", minimal + "refresh:\n  token: #planted\n", []string{"refresh.token" + behind + "5" + quotes}, nil},
		{"tokens", minimal + "refresh:\n  tokens: # of two callers\n    - a # planted\n    - 'b' # planted\n    - c #planted\n",
			[]string{"refresh.tokens" + behind + "6" + quotes, "refresh.tokens" + behind + "8" + quotes}, nil},
		{"tokens in one text", minimal + "refresh: \n  tokens: a, b #planted\n", []string{"refresh.tokens" + behind + "5" + quotes}, nil},
		{"a backend's token, headers", withContacts("  token: x #planted\n  headers:\n    X-Key: y # planted\n    X-Two: z #planted\n"),
			[]string{"contacts.token" + behind + "5" + quotes, "contacts.headers.X-Key" + behind + "7" + quotes, "contacts.headers.X-Two" + behind + "8" + quotes}, nil},
		{"white space", withSecret(`" planted"`), []string{"xmpp.secret" + space}, nil},
		{"white space in the environment", minimal, []string{"xmpp.secret" + space}, []string{"ROSTERD_XMPP_SECRET", "planted "}},
		{"white space in a file", minimal, []string{"xmpp.secret" + space}, []string{"ROSTERD_XMPP_SECRET_FILE", write(t, "planted  \r\n")}},
		{"the mark of an editor in a file", minimal, []string{"contacts.token" + space}, []string{"ROSTERD_CONTACTS_TOKEN_FILE", write(t, "\uFEFFplanted\n")}},
		{"a space that does not look like one", minimal + "refresh: {tokens: [\"planted\\u00A0\", x]}", []string{"refresh.tokens" + space}, nil},
		{"headers", strings.Replace(minimal, "%s\"", "%s\", headers: {X-A: 'planted ', X-B: x}", 1), []string{"contacts.headers.x-a" + space}, nil},
		{"white space without quotes, which YAML leaves off", withSecret("planted   "), nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			clearEnv(t)
			if tt.env != nil {
				t.Setenv(tt.env[0], tt.env[1])
			}
			_, warnings, err := Load(write(t, tt.yaml))
			if err != nil || !slices.Equal(warnings, tt.want) || strings.Contains(strings.Join(warnings, ""), "planted") {
				t.Errorf("%q, %v, want %q", warnings, err, tt.want)
			}
		})
	}
}
