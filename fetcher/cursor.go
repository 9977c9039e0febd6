package fetcher

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// cursor walks over valid JSON (RFC 8259), as [json.Valid] has found it to be:
// so it knows no errors, and need not look for the end of its bytes where the
// grammar promises that something comes.
//
// It is here because encoding/json takes three times as long for a roster of 200
// contacts, much of that for the fields that may have one of two types.
type cursor struct {
	b []byte
	i int // of the next byte
}

// kind is the first byte of the value that comes: one of { [ " t f n, or of a
// number.
func (c *cursor) kind() byte {
	for isSpace(c.b[c.i]) {
		c.i++
	}
	return c.b[c.i]
}

// isObject reports whether the value that comes is an object. PHP knows no
// difference between an empty object and an empty array, which is one too.
func (c *cursor) isObject() bool {
	switch c.kind() {
	case '{':
		return true
	case '[':
		inner := cursor{b: c.b, i: c.i + 1}
		if inner.kind() == ']' {
			*c = cursor{b: []byte("{}")}
			return true
		}
	}
	return false
}

// open enters the object or array that comes.
func (c *cursor) open() {
	c.kind()
	c.i++
}

// more reports whether an object or array that was entered, and that closes
// with end, has another member or element; then it stands before it.
func (c *cursor) more(end byte) bool {
	switch c.kind() {
	case end:
		c.i++
		return false
	case ',':
		c.i++
	}
	return true
}

// key is the key of the next member, with its quotes.
func (c *cursor) key() []byte {
	key := c.value()
	c.kind() // the colon
	c.i++
	return key
}

// value is the next value as it stands, without the space around it.
func (c *cursor) value() []byte {
	first := c.kind()
	start := c.i
	switch first {
	case '"':
		c.skipString()
	case '{', '[':
		for depth := 0; ; {
			switch c.b[c.i] {
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
				break
			}
		}
	default:
		for c.i < len(c.b) && !isSpace(c.b[c.i]) && c.b[c.i] != ',' && c.b[c.i] != '}' && c.b[c.i] != ']' {
			c.i++
		}
	}
	return c.b[start:c.i]
}

// skipString goes from a string's first quote to behind its last.
func (c *cursor) skipString() {
	for c.i++; c.b[c.i] != '"'; c.i++ {
		if c.b[c.i] == '\\' {
			c.i++
		}
	}
	c.i++
}

func isSpace(b byte) bool { return b == ' ' || b == '\n' || b == '\t' || b == '\r' }

// unquote is the content of a JSON string, often still in its place. What is no
// UTF-8 or no character becomes U+FFFD.
func unquote(quoted []byte) []byte {
	inner := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(inner, '\\') < 0 && utf8.Valid(inner) {
		return inner
	}
	var s string
	if err := json.Unmarshal(quoted, &s); err != nil {
		return nil // no string of valid JSON does this
	}
	return []byte(s)
}

// text is the content of a JSON string, a copy.
func text(quoted []byte) string { return string(unquote(quoted)) }
