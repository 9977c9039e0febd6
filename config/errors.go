package config

import (
	"fmt"
	"strconv"
	"strings"

	"rosterd/jid"
)

// keyError is the one line about a key.
type keyError struct {
	key  string // "" if decodeError adds it
	text string
}

func (e *keyError) Error() string { return e.key + ": " + e.text }

// problem is the error about a key with a wrong value. It shows got as it is; "" keeps
// a secret out of it.
func problem(key, wants, got string) error {
	if got != "" {
		got = ", got " + got
	}
	return &keyError{key, "wants " + wants + got}
}

const (
	maxShown = 80        // how many bytes of a wrong value an error repeats
	nothing  = "nothing" // how an error shows a value that is not there
)

func clip(s string) string {
	if len(s) <= maxShown {
		return s
	}
	return strings.ToValidUTF8(s[:maxShown], "") + "…"
}

// show quotes a value that is no secret, within one line.
func show(s string) string {
	if s == "" {
		return nothing
	}
	return strconv.Quote(clip(s))
}

// showAny shows a value of the file that is no secret, or its kind.
func showAny(v any) string {
	switch v := v.(type) {
	case string:
		return show(v)
	case []any:
		return "a list"
	case map[string]any, map[any]any:
		return "a mapping"
	}
	return fmt.Sprint(v)
}

// showURL is show for a URL without its query, which may be a secret, and without
// all of it if it has user info.
func showURL(s string) string {
	if strings.Contains(s, "@") {
		return "one that is not shown, as it may contain a password"
	}
	if i := strings.IndexAny(s, "?#"); i >= 0 {
		return show(s[:i]) + " and a query that is not shown"
	}
	return show(s)
}

// showName shows a name up to the first character that no key has: a secret may
// follow ("secret=x" in place of "secret: x" makes all of that the name).
func showName(s string) string {
	rest := strings.TrimLeft(s, "_-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	name := clip(strings.TrimSuffix(s, rest))
	if rest != "" {
		name = strings.TrimSuffix(name, "…") + "…"
	}
	return name
}

// showDomain shows a name that should be a domain, as showName if it is none.
func showDomain(s string) string {
	d, err := jid.PrepareDomain(s)
	if err != nil {
		return showName(s)
	}
	return clip(d)
}
