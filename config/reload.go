package config

import (
	"reflect"
	"slices"
)

// live are the keys whose values a running rosterd can take over: those of secrets
// and certificates, and log.level.
var live = []string{
	"xmpp.secret", "xmpp.secret_file", "xmpp.tls.server_name", "xmpp.tls.ca",
	"contacts.token", "contacts.token_file", headersKey, "contacts.tls.ca",
	"refresh.token", "refresh.token_file", "refresh.tokens",
	"refresh.tls.cert", "refresh.tls.key", "refresh.tls.client_ca",
	"log.level",
}

// liveWithTLS are those of them that are only if TLS is not turned on or off by them.
var liveWithTLS = []string{"refresh.tls.cert", "refresh.tls.key", "refresh.tls.client_ca"}

// Reload is c, of a running rosterd, with what it can take over from next: the keys
// in took. It cannot take over those in left, which differ, too. The error is of
// the whole, which is not what next alone would be.
func (c Config) Reload(next Config) (now Config, took, left []string, err error) {
	now = c
	from := next.keys()
	for i, k := range now.keys() {
		switch {
		case reflect.DeepEqual(k.field, from[i].field):
		case !slices.Contains(live, k.name),
			slices.Contains(liveWithTLS, k.name) && c.Refresh.TLS.Enabled() != next.Refresh.TLS.Enabled():
			left = append(left, k.name)
		default:
			reflect.ValueOf(k.field).Elem().Set(reflect.ValueOf(from[i].field).Elem())
			took = append(took, k.name)
		}
	}
	return now, took, left, now.Validate()
}
