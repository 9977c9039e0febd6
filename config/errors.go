package config

import (
	"fmt"
	"strconv"
	"strings"
)

// maxShown is how many bytes of a wrong value an error repeats.
const maxShown = 80

// nothing is how an error shows a value that is not there.
const nothing = "nothing"

// problem is the one line about a key with a wrong value. The value got is
// shown as it is; it is empty for a secret, which is not shown.
func problem(key, wants, got string) error {
	if got == "" {
		return fmt.Errorf("%s: wants %s", key, wants)
	}
	return fmt.Errorf("%s: wants %s, got %s", key, wants, got)
}

// show quotes a value that is no secret, within one line and cut to maxShown.
func show(s string) string {
	switch {
	case s == "":
		return nothing
	case len(s) > maxShown:
		return strconv.Quote(s[:maxShown]) + "…"
	}
	return strconv.Quote(s)
}

// showAny shows a value of the file, or at least its kind.
func showAny(v any) string {
	switch v := v.(type) {
	case string:
		return show(v)
	case bool, int, int64, uint64, float64:
		return fmt.Sprint(v)
	case []any:
		return "a list"
	case map[string]any, map[any]any:
		return "a mapping"
	}
	return "a value of another kind"
}

// showURL is show for a URL, of which it leaves out what may be a secret: the
// query, and all of it if there is user info in it.
func showURL(s string) string {
	if strings.Contains(s, "@") {
		return "one that is not shown, as it may contain a password"
	}
	if i := strings.IndexAny(s, "?#"); i >= 0 {
		return show(s[:i]) + " and a query that is not shown"
	}
	return show(s)
}

// showName shows a name that the file should not have, up to the first
// character that no key has: behind it may stand a secret ("secret=x" instead
// of "secret: x" makes all of that the name).
func showName(s string) string {
	i := strings.IndexFunc(s, func(r rune) bool {
		return r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
	switch {
	case i < 0 && len(s) <= maxShown:
		return s
	case i < 0 || i > maxShown:
		i = maxShown
	}
	return s[:i] + "…"
}
