package config

import (
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Keys that are mappings with free names.
const (
	headersKey = "contacts.headers"
	hostsKey   = "contacts.hosts"
)

// key is one setting: a field of a [Config] that is no section.
type key struct {
	name   string        // "xmpp.tls.ca"
	value  reflect.Value // the field
	reload string        // its tag
}

// keys are all settings of c, in the order of its fields.
func (c *Config) keys() []key { return keysOf("", reflect.ValueOf(c).Elem()) }

func keysOf(section string, fields reflect.Value) (keys []key) {
	for field, value := range fields.Fields() {
		name := join(section, field.Tag.Get("mapstructure"))
		if value.Kind() == reflect.Struct {
			keys = append(keys, keysOf(name, value)...)
		} else {
			keys = append(keys, key{name, value, field.Tag.Get("reload")})
		}
	}
	return keys
}

// fieldIn is the type of a field of a section, nil if it is not there, and the names
// of all.
func fieldIn(section reflect.Type, name string) (t reflect.Type, names []string) {
	for field := range section.Fields() {
		names = append(names, field.Tag.Get("mapstructure"))
		if names[len(names)-1] == name {
			t = field.Type
		}
	}
	return t, names
}

func join(section, name string) string { return strings.TrimPrefix(section+"."+name, ".") }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// Reload is c, of a running rosterd, with what it can take over from next: the keys
// in took. It cannot take over those in left, which differ, too. The error is of
// the whole, which is not what next alone would be.
func (c Config) Reload(next Config) (now Config, took, left []string, err error) {
	now = c
	from := next.keys()
	for i, k := range now.keys() {
		switch {
		case reflect.DeepEqual(k.value.Interface(), from[i].value.Interface()):
		case k.reload == "", k.reload == "tls" && c.Refresh.TLS.Enabled() != next.Refresh.TLS.Enabled():
			left = append(left, k.name)
		default:
			k.value.Set(from[i].value)
			took = append(took, k.name)
		}
	}
	return now, took, left, now.Validate()
}

// warnInvisible warns of secrets that begin or end in white space, or in the mark with
// which some editors begin a file. Where that cannot be meant, Validate refuses it.
func warnInvisible(keys []key) (warnings []string) {
	warn := func(name string, secrets ...Secret) {
		for _, s := range secrets {
			if strings.TrimFunc(s.Reveal(), func(c rune) bool { return unicode.IsSpace(c) || c == '\uFEFF' }) != s.Reveal() {
				warnings = append(warnings, name+": begins or ends in white space, which counts")
			}
		}
	}
	for _, k := range keys {
		switch value := k.value.Interface().(type) {
		case Secret:
			warn(k.name, value)
		case []Secret:
			warn(k.name, value...)
		case map[string]Secret:
			for _, name := range sortedKeys(value) {
				warn(join(k.name, showName(name)), value[name])
			}
		}
	}
	return warnings
}

// prefix begins the name of each environment variable that is a key.
const prefix = "ROSTERD_"

// envName is the name of the environment variable of a key or section.
func envName(key string) string {
	return prefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// isSet reports whether the environment has a key. An empty variable counts as not set.
func isSet(key string) bool { return os.Getenv(envName(key)) != "" }

// Kubernetes puts variables of each service into the environment of the service's
// neighbours: those of a service rosterd, or rosterd-metrics, begin as ours do. The
// value of …_PORT is a URL, which tells it from a key that somebody made up.
var ofService = regexp.MustCompile(`^ROSTERD_([A-Z0-9_]+_)?(PORT=(tcp|udp|sctp)://|` +
	`(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)=)`)

// checkEnvironment reports a variable that begins as a key does and is none: somebody
// mistyped it.
func checkEnvironment(keys []key, environment []string) error {
	for _, variable := range environment {
		name, value, _ := strings.Cut(variable, "=")
		if strings.HasPrefix(name, prefix) && value != "" && !ofService.MatchString(variable) &&
			!slices.ContainsFunc(keys, func(k key) bool { return envName(k.name) == name }) {
			return fmt.Errorf("environment variable %s: unknown key, config.example.yaml has all", showName(name))
		}
	}
	return nil
}
