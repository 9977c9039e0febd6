package config

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// wantsDatabase says how to write what would end a name or password in the URL.
const wantsDatabase = "the URL of a PostgreSQL database, as in postgres://rosterd@db.example.org/rosterd; in a user, password or name, write @ as %40, / as %2F, ? as %3F, # as %23, % as %25"

// isDatabaseURL reports whether a text is the URL of a PostgreSQL database, with one or several
// hosts, that can be read in one way only. A driver that ends a password at another character
// than its author takes the rest of it for the name of a host or a database, which is shown.
func isDatabaseURL(text string) bool {
	rest, ok := strings.CutPrefix(text, "postgres://")
	if !ok {
		rest, ok = strings.CutPrefix(text, "postgresql://")
	}
	rest, query, _ := strings.Cut(rest, "?")
	authority, name, _ := strings.Cut(rest, "/")
	user, hosts, hasUser := strings.Cut(authority, "@")
	if !hasUser {
		user, hosts = "", authority
	}
	if !ok || name == "" || strings.ContainsAny(text, "# ") || strings.Contains(hosts+name+query, "@") || !isText(text) {
		return false
	}
	for _, part := range []string{user, name, query} {
		if _, err := url.PathUnescape(part); err != nil {
			return false
		}
	}
	for host := range strings.SplitSeq(hosts, ",") {
		if !isDatabaseHost(host) {
			return false
		}
	}
	for setting := range strings.SplitSeq(query, "&") {
		if query != "" && strings.Count(setting, "=") != 1 {
			return false
		}
	}
	return true
}

// isDatabaseHost reports whether a text is a host of a URL, with or without a port.
func isDatabaseHost(text string) bool {
	host, port, hasPort := strings.Cut(text, ":")
	if literal, ok := strings.CutPrefix(text, "["); ok {
		literal, port, ok = strings.Cut(literal, "]")
		ip, err := netip.ParseAddr(strings.Replace(literal, "%25", "%", 1))
		if !ok || err != nil || !ip.Is6() {
			return false
		}
		host = literal
		if port, hasPort = strings.CutPrefix(port, ":"); !hasPort && port != "" {
			return false
		}
	} else if strings.ContainsAny(host, "[]%") {
		return false
	}
	if n, err := strconv.ParseUint(port, 10, 16); hasPort && (err != nil || n == 0) {
		return false
	}
	return host != ""
}
