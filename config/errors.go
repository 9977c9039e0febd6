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
	notShown = "one that is not shown, as it may contain a password"
)

func clip(s string) string {
	if len(s) <= maxShown {
		return s
	}
	return strings.ToValidUTF8(s[:maxShown], "") + "…"
}

// show shows a value that is no secret, or its kind, within one line.
func show(v any) string {
	switch v := v.(type) {
	case string:
		if v == "" {
			return nothing
		}
		return strconv.Quote(clip(v))
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
		return notShown
	}
	if i := strings.IndexAny(s, "?#"); i >= 0 {
		return show(s[:i]) + " and a query that is not shown"
	}
	return show(s)
}

// showAccount shows a JID of an account, or what stands there, unless a password may be behind it.
func showAccount(s string) string {
	if _, err := jid.Parse(s); err != nil && strings.Contains(s, ":") {
		return notShown
	}
	return show(s)
}

// showName shows a name that should be a key, a header or a domain. Of any other, it
// shows what is before the first character that no key has: a secret may follow, as
// "secret=x" in place of "secret: x" makes all of that the name.
func showName(s string) string {
	rest := strings.TrimLeft(s, "_-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	if rest == "" {
		return clip(s)
	} else if d, err := jid.PrepareDomain(s); err == nil {
		return clip(d)
	}
	return strings.TrimSuffix(clip(strings.TrimSuffix(s, rest)), "…") + "…"
}
