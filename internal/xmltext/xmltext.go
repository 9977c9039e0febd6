// Package xmltext writes text into XML and reads back what it wrote: character
// data and attribute values of XML 1.0 (sections 2.2 and 2.4).
package xmltext

import (
	"bytes"
	"unicode/utf8"
)

// AppendEscaped appends text that may stand in an attribute or between tags.
// Characters that XML forbids are left out: a server would close the stream.
func AppendEscaped(b []byte, s string) []byte {
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 || r == 0xFFFE || r == 0xFFFF {
				b = append(b, s[start:i]...)
				start = i + size
			}
			i += size
			continue
		}
		b = append(append(b, s[start:i]...), escapes[c]...)
		i++
		start = i
	}
	return append(b, s[start:]...)
}

var escapes = [utf8.RuneSelf]string{'&': "&amp;", '<': "&lt;", '>': "&gt;", '\'': "&apos;", '"': "&quot;",
	'\t': "&#9;", '\n': "&#10;", '\r': "&#13;"}

// plain are the bytes that stand for themselves, in ASCII.
var plain = func() (t [256]bool) {
	for c := byte(' '); c < utf8.RuneSelf; c++ {
		t[c] = escapes[c] == ""
	}
	return t
}()

// AppendAttr appends an attribute, its name being a constant.
func AppendAttr(b []byte, name, value string) []byte {
	b = append(append(append(b, ' '), name...), "='"...)
	return append(AppendEscaped(b, value), '\'')
}

// Unescape is the text that [AppendEscaped] made escaped of. Of anything else it
// makes something.
func Unescape(escaped []byte) string {
	i := bytes.IndexByte(escaped, '&')
	if i < 0 {
		return string(escaped)
	}
	b := make([]byte, 0, len(escaped))
	for ; i >= 0; i = bytes.IndexByte(escaped, '&') {
		b = append(b, escaped[:i]...)
		escaped = escaped[i:]
		end := bytes.IndexByte(escaped, ';') + 1
		if end == 0 {
			break
		}
		if c, known := unescapes[string(escaped[:end])]; known {
			b = append(b, c)
		}
		escaped = escaped[end:]
	}
	return string(append(b, escaped...))
}

var unescapes = func() map[string]byte {
	m := make(map[string]byte)
	for c, escape := range escapes {
		if escape != "" {
			m[escape] = byte(c)
		}
	}
	return m
}()
