package config

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// prefix begins the name of each environment variable that is a key.
const prefix = "ROSTERD_"

// env is the name of the environment variable of k.
func (k key) env() string { return envName(k.name) }

func envName(key string) string {
	return prefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// isSet reports whether the environment has a key. An empty variable counts as not
// set.
func isSet(key string) bool { return os.Getenv(envName(key)) != "" }

// Kubernetes puts variables of each service into the environment of the service's
// neighbours: of one named rosterd, or rosterd-metrics, they begin as ours do. The
// value of …_PORT is a URL, by which it is told from a key that somebody made up.
var (
	ofService = regexp.MustCompile(`^ROSTERD_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)
	portOf    = regexp.MustCompile(`^ROSTERD_([A-Z0-9_]+_)?PORT=(tcp|udp|sctp)://`)
)

// checkEnvironment reports a variable that looks like a key and is none, as a typing
// error would.
func checkEnvironment(keys []key, environment []string) error {
	for _, variable := range environment {
		name, value, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(name, prefix) || value == "" || ofService.MatchString(name) || portOf.MatchString(variable) ||
			slices.ContainsFunc(keys, func(k key) bool { return k.env() == name }) {
			continue
		}
		return fmt.Errorf("environment variable %s: unknown key, there are %s", showName(name), strings.Join(like(name, keys), ", "))
	}
	return nil
}

// like are the variables of the section that a name begins with, or all sections.
func like(name string, keys []key) []string {
	var variables, sections []string
	for _, k := range keys {
		section, _, _ := strings.Cut(k.name, ".")
		if section = envName(section) + "_"; strings.HasPrefix(strings.ToUpper(name), section) {
			variables = append(variables, k.env())
		}
		if section += "…"; !slices.Contains(sections, section) {
			sections = append(sections, section)
		}
	}
	if variables != nil {
		return variables
	}
	return sections
}
