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
	name string
	set  func(name string, v any) error
}

// env is the name of the environment variable of k.
func (k key) env() string {
	return "ROSTERD_" + strings.ToUpper(strings.ReplaceAll(k.name, ".", "_"))
}

// headersKey is the key whose value is a mapping of free names to texts.
const headersKey = "contacts.headers"

// keys are all settings, bound to the fields of c.
func (c *Config) keys() []key {
	return []key{
		{"xmpp.address", text(&c.XMPP.Address)},
		{"xmpp.domain", domain(&c.XMPP.Domain)},
		{"xmpp.secret", secret(&c.XMPP.Secret)},
		{"xmpp.secret_file", text(&c.XMPP.SecretFile)},
		{"xmpp.hosts", domains(&c.XMPP.Hosts)},
		{"xmpp.unrestricted", boolean(&c.XMPP.Unrestricted)},
		{"xmpp.presence", text(&c.XMPP.Presence)},
		{"xmpp.tls.server_name", serverName(&c.XMPP.TLS.ServerName)},
		{"xmpp.tls.ca", text(&c.XMPP.TLS.CA)},
		{"xmpp.max_stanza_bytes", number(&c.XMPP.MaxStanzaBytes)},
		{"contacts.url", address(&c.Contacts.URL)},
		{"contacts.timeout", duration(&c.Contacts.Timeout)},
		{"contacts.max_in_flight", number(&c.Contacts.MaxInFlight)},
		{"contacts.max_bytes", number(&c.Contacts.MaxBytes)},
		{headersKey, headers(&c.Contacts.Headers)},
		{"contacts.token", secret(&c.Contacts.Token)},
		{"contacts.token_file", text(&c.Contacts.TokenFile)},
		{"contacts.tls.ca", text(&c.Contacts.TLS.CA)},
		{"contacts.max_stale", duration(&c.Contacts.MaxStale)},
		{"contacts.not_found", text(&c.Contacts.NotFound)},
		{"contacts.max_removed", fraction(&c.Contacts.MaxRemoved)},
		{"contacts.confirm_after", duration(&c.Contacts.ConfirmAfter)},
		{"contacts.resync_rate", number(&c.Contacts.ResyncRate)},
		{"contacts.max_age", duration(&c.Contacts.MaxAge)},
		{"contacts.bulk_url", address(&c.Contacts.BulkURL)},
		{"contacts.bulk_size", number(&c.Contacts.BulkSize)},
		{hostsKey, hosts(&c.Contacts.Hosts)},
		{"refresh.listen", text(&c.Refresh.Listen)},
		{"refresh.token", secret(&c.Refresh.Token)},
		{"refresh.token_file", text(&c.Refresh.TokenFile)},
		{"refresh.tokens", secrets(&c.Refresh.Tokens)},
		{"refresh.max_bytes", number(&c.Refresh.MaxBytes)},
		{"refresh.tls.cert", text(&c.Refresh.TLS.Cert)},
		{"refresh.tls.key", text(&c.Refresh.TLS.Key)},
		{"refresh.tls.client_ca", text(&c.Refresh.TLS.ClientCA)},
		{"metrics.listen", text(&c.Metrics.Listen)},
		{"state.path", text(&c.State.Path)},
		{"limits.queries_burst", number(&c.Limits.QueriesBurst)},
		{"limits.queries_per_second", fraction(&c.Limits.QueriesPerSecond)},
		{"log.level", text(&c.Log.Level)},
		{"log.format", text(&c.Log.Format)},
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
