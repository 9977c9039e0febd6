package config

import (
	"encoding/json"
	"slices"
	"strings"

	"rosterd/jid"
)

// key is one setting: its name as a dotted path, and how a value that is not
// nil is set. Values come as YAML makes them, or as strings from the
// environment; both spell everything in the same ways.
type key struct {
	name  string
	field any // a pointer to the field of a [Config]
	set   func(name string, v any) error
}

func bind[T any](name string, field *T, parse func(field *T) func(name string, v any) error) key {
	return key{name, field, parse(field)}
}

// headersKey is the key whose value is a mapping of free names to texts.
const headersKey = "contacts.headers"

// keys are all settings, bound to the fields of c.
func (c *Config) keys() []key {
	return []key{
		bind("xmpp.address", &c.XMPP.Address, hostPort),
		bind("xmpp.domain", &c.XMPP.Domain, domain),
		bind("xmpp.secret", &c.XMPP.Secret, secret),
		bind("xmpp.secret_file", &c.XMPP.SecretFile, text),
		bind("xmpp.hosts", &c.XMPP.Hosts, domains),
		bind("xmpp.unrestricted", &c.XMPP.Unrestricted, boolean),
		bind("xmpp.presence", &c.XMPP.Presence, text),
		bind("xmpp.tls.server_name", &c.XMPP.TLS.ServerName, serverName),
		bind("xmpp.tls.ca", &c.XMPP.TLS.CA, text),
		bind("xmpp.max_stanza_bytes", &c.XMPP.MaxStanzaBytes, number),
		bind("contacts.url", &c.Contacts.URL, address),
		bind("contacts.timeout", &c.Contacts.Timeout, duration),
		bind("contacts.max_in_flight", &c.Contacts.MaxInFlight, number),
		bind("contacts.max_bytes", &c.Contacts.MaxBytes, number),
		bind(headersKey, &c.Contacts.Headers, headers),
		bind("contacts.token", &c.Contacts.Token, secret),
		bind("contacts.token_file", &c.Contacts.TokenFile, text),
		bind("contacts.tls.ca", &c.Contacts.TLS.CA, text),
		bind("contacts.max_stale", &c.Contacts.MaxStale, duration),
		bind("contacts.not_found", &c.Contacts.NotFound, text),
		bind("contacts.max_removed", &c.Contacts.MaxRemoved, fraction),
		bind("contacts.confirm_after", &c.Contacts.ConfirmAfter, duration),
		bind("contacts.resync_rate", &c.Contacts.ResyncRate, number),
		bind("contacts.max_age", &c.Contacts.MaxAge, duration),
		bind("contacts.bulk_url", &c.Contacts.BulkURL, address),
		bind("contacts.bulk_size", &c.Contacts.BulkSize, number),
		bind(hostsKey, &c.Contacts.Hosts, hosts),
		bind("refresh.listen", &c.Refresh.Listen, hostPort),
		bind("refresh.token", &c.Refresh.Token, secret),
		bind("refresh.token_file", &c.Refresh.TokenFile, text),
		bind("refresh.tokens", &c.Refresh.Tokens, secrets),
		bind("refresh.max_bytes", &c.Refresh.MaxBytes, number),
		bind("refresh.tls.cert", &c.Refresh.TLS.Cert, text),
		bind("refresh.tls.key", &c.Refresh.TLS.Key, text),
		bind("refresh.tls.client_ca", &c.Refresh.TLS.ClientCA, text),
		bind("metrics.listen", &c.Metrics.Listen, hostPort),
		bind("state.path", &c.State.Path, text),
		bind("limits.queries_burst", &c.Limits.QueriesBurst, number),
		bind("limits.queries_per_second", &c.Limits.QueriesPerSecond, fraction),
		bind("log.level", &c.Log.Level, text),
		bind("log.format", &c.Log.Format, text),
	}
}

func text(field *string) func(string, any) error {
	return func(name string, v any) error {
		s, ok := v.(string)
		if !ok {
			return problem(name, "a text", showAny(v))
		}
		*field = s
		return nil
	}
}

// address is text for a URL, of whose wrong kinds it shows nothing.
func address(field *string) func(string, any) error {
	return func(name string, v any) error {
		s, ok := v.(string)
		if !ok {
			return problem(name, "a URL", "")
		}
		*field = s
		return nil
	}
}

// secret accepts strings alone: YAML would make another number of 0123.
func secret(field *Secret) func(string, any) error {
	return func(name string, v any) error {
		s, ok := v.(string)
		if !ok {
			return problem(name, "a text, in quotes if it looks like something else", "")
		}
		*field = Secret(s)
		return nil
	}
}

// secrets accepts a list, or the same with commas in one text.
func secrets(field *[]Secret) func(string, any) error {
	return func(name string, v any) error {
		list, ok := v.([]any)
		if s, isText := v.(string); isText {
			ok = true
			list = split(s)
		}
		if !ok {
			return problem(name, "a list of texts", "")
		}
		*field = make([]Secret, len(list))
		for i, s := range list {
			if err := secret(&(*field)[i])(name, s); err != nil {
				return err
			}
		}
		return nil
	}
}

// boolean accepts what YAML 1.2 does: no yes and no on.
func boolean(field *bool) func(string, any) error {
	return func(name string, v any) error {
		switch v {
		case true, "true", "True", "TRUE":
			*field = true
		case false, "false", "False", "FALSE":
			*field = false
		default:
			return problem(name, "true or false", showAny(v))
		}
		return nil
	}
}

func domain(field *string) func(string, any) error {
	return func(name string, v any) error {
		if err := text(field)(name, v); err != nil || *field == "" {
			return err
		}
		d, err := jid.PrepareDomain(*field)
		if err != nil {
			return problem(name, wantsDomain, show(*field))
		}
		*field = d
		return nil
	}
}

// domains accepts a list, or the same with commas in one text.
func domains(field *[]string) func(string, any) error {
	return func(name string, v any) error {
		list, ok := v.([]any)
		if s, isText := v.(string); isText {
			ok = true
			list = split(s)
		}
		if !ok {
			return problem(name, "a list of domains", showAny(v))
		}
		*field = make([]string, len(list))
		for i, d := range list {
			if err := domain(&(*field)[i])(name, d); err != nil {
				return err
			}
		}
		return nil
	}
}

// split makes a list of a text with commas, and none of one that is empty.
func split(s string) (list []any) {
	if strings.TrimSpace(s) == "" {
		return nil
	}
	for part := range strings.SplitSeq(s, ",") {
		list = append(list, strings.TrimSpace(part))
	}
	return list
}

// headers accepts a mapping, or the same as a JSON object in one text. viper
// makes the names of a mapping lower case, and so does headers of the other.
func headers(field *map[string]Secret) func(string, any) error {
	const wants = "a mapping (in the environment: a JSON object) of header names to texts"
	return func(name string, v any) error {
		got := make(map[string]any)
		switch v := v.(type) {
		case map[string]any:
			got = v
		case string:
			var object map[string]any
			if json.Unmarshal([]byte(v), &object) != nil {
				return problem(name, wants, "")
			}
			for n, v := range object {
				lower := strings.ToLower(n)
				if _, double := got[lower]; double {
					return problem(name, "each header once", "")
				}
				got[lower] = v
			}
		default:
			return problem(name, wants, "")
		}
		*field = make(map[string]Secret, len(got))
		for _, n := range sortedKeys(got) {
			s, ok := got[n].(string)
			if got[n] == nil {
				// The name is not shown: {X} instead of X may be a whole secret.
				return problem(name, "a text behind each name", "")
			}
			if !ok {
				return problem(name+"."+showName(n), "a text, in quotes if it looks like something else", "")
			}
			(*field)[n] = Secret(s)
		}
		return nil
	}
}

func sortedKeys[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
