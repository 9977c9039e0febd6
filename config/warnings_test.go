package config

import (
	"slices"
	"strings"
	"testing"
)

// What nobody sees is warned of, and not told.
func TestWarnings(t *testing.T) {
	const space = ": begins or ends in white space, which counts"
	const alone = "refresh.listen: \"127.0.0.1:5290\" takes connections of this machine alone: the other instance cannot reach refresh.advertise, unless a proxy stands in front"
	pairOf := func(refresh string) string {
		return minimal + "state: {url: \"postgres://u@h/d\"}\nrefresh: {token: t, " + refresh + "}\n"
	}
	withSecret := func(value string) string { return strings.Replace(minimal, `"s"`, value, 1) }
	for _, tt := range []struct {
		name, yaml string
		want       []string
		env        []string // name and value
	}{
		{"nothing", minimal, nil, nil},
		{"a comment behind quotes", withSecret("'planted' # of prosody.cfg.lua\n  "), nil, nil},
		{"a '#' inside", withSecret("planted#1"), nil, nil},
		{"a '#' in quotes", withSecret(`"planted #1"`), nil, nil},
		{"a secret without a value that the environment replaces", withSecret("#planted\n  "), nil, []string{"ROSTERD_XMPP_SECRET", "y"}},
		{"white space", withSecret(`" planted"`), []string{"xmpp.secret" + space}, nil},
		{"white space in the environment", minimal, []string{"xmpp.secret" + space}, []string{"ROSTERD_XMPP_SECRET", "planted "}},
		{"white space in a file", minimal, []string{"xmpp.secret" + space}, []string{"ROSTERD_XMPP_SECRET_FILE", write(t, "planted  \r\n")}},
		{"the mark of an editor in a file", minimal, []string{"contacts.token" + space}, []string{"ROSTERD_CONTACTS_TOKEN_FILE", write(t, "\uFEFFplanted\n")}},
		{"a space that does not look like one", minimal + "refresh: {tokens: [\"planted\\u00A0\", x]}", []string{"refresh.tokens" + space}, nil},
		{"headers", strings.Replace(minimal, "%s\"", "%s\", headers: {X-A: 'planted ', X-B: x}", 1), []string{"contacts.headers.x-a" + space}, nil},
		{"the other instance does not reach this one", pairOf(`advertise: "http://rosterd-1.internal:5290"`), []string{alone}, nil},
		{"nor by an address alone", pairOf(`advertise: "192.0.2.1"`), []string{alone}, nil},
		{"both on one machine", pairOf(`advertise: "http://127.0.0.2:5290"`), nil, nil},
		{"it does", pairOf(`listen: ":5290", advertise: "http://rosterd-1.internal:5290"`), nil, nil},
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
