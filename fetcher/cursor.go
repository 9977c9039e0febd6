package fetcher

import (
	"encoding/json"
	"strings"
	"unicode/utf8"

	"rosterd/roster"
)

// cursor walks over valid JSON (RFC 8259), as [valid] has found it to be: so it
// knows no errors, and need not look for the end of its text where the grammar
// promises that something comes. What it returns are parts of that text: nothing
// is copied.
//
// It is here because encoding/json takes five times as long for a roster of 200
// contacts, much of that for the fields that may have one of two types.
type cursor struct {
	s string
	i int // of the next byte
}

// kind is the first byte of the value that comes: one of { [ " t f n, or of a
// number.
func (c *cursor) kind() byte {
	for isSpace(c.s[c.i]) {
		c.i++
	}
	return c.s[c.i]
}

// isObject reports whether the value that comes is an object. PHP knows no
// difference between an empty object and an empty array, which is one too.
func (c *cursor) isObject() bool {
	switch c.kind() {
	case '{':
		return true
	case '[':
		inner := cursor{s: c.s, i: c.i + 1}
		return inner.kind() == ']'
	}
	return false
}

// open enters the object or array that comes.
func (c *cursor) open() {
	c.kind()
	c.i++
}

// more reports whether an object or array that was entered has another member or
// element; then it stands before it, else behind the end.
func (c *cursor) more() bool {
	switch c.kind() {
	case '}', ']':
		c.i++
		return false
	case ',':
		c.i++
	}
	return true
}

// key is the key of the next member, with its quotes.
func (c *cursor) key() string {
	key := c.value()
	c.kind() // the colon
	c.i++
	return key
}

// value is the next value as it stands, without the space around it.
func (c *cursor) value() string {
	first := c.kind()
	start := c.i
	switch first {
	case '"':
		c.skipString()
	case '{', '[':
		for depth := 0; ; {
			switch c.s[c.i] {
			case '"':
				c.skipString()
				continue
			case '{', '[':
				depth++
			case '}', ']':
				depth--
			}
			c.i++
			if depth == 0 {
				return c.s[start:c.i]
			}
		}
	default:
		for c.i < len(c.s) && !isSpace(c.s[c.i]) && c.s[c.i] != ',' && c.s[c.i] != '}' && c.s[c.i] != ']' {
			c.i++
		}
	}
	return c.s[start:c.i]
}

// skipString goes from a string's first quote to behind its last.
func (c *cursor) skipString() {
	i := c.i + 1
	for c.s[i] != '"' {
		if c.s[i] == '\\' {
			i++
		}
		i++
	}
	c.i = i + 1
}

// text is the content of a JSON string. What is no UTF-8 or no character becomes
// U+FFFD.
func text(quoted string) string {
	inner, plain := content(quoted)
	if plain || strings.IndexByte(inner, '\\') < 0 && utf8.ValidString(inner) {
		return inner
	}
	var s string
	if err := json.Unmarshal([]byte(quoted), &s); err != nil {
		return "" // no string of valid JSON does this
	}
	return s
}

// cleanText is what XML allows of the content of a JSON string.
func cleanText(quoted string) string {
	inner, plain := content(quoted)
	if plain {
		return inner
	}
	s := text(quoted)
	if strings.Contains(s, "\xef\xbf") || strings.IndexByte(inner, '\\') >= 0 { // U+FFFE, U+FFFF; control characters are always escaped
		return roster.CleanText(s)
	}
	return s
}

// content is what stands between the quotes of a JSON string, and whether all of
// it is ASCII that stands for itself.
func content(quoted string) (inner string, plain bool) {
	inner = quoted[1 : len(quoted)-1]
	for i := range len(inner) {
		if c := inner[i]; c >= utf8.RuneSelf || c == '\\' {
			return inner, false
		}
	}
	return inner, true
}
