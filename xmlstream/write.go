package xmlstream

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strings"
	"unicode/utf8"

	"gosrc.io/xmpp/stanza"
)

// AppendEscaped appends text that may stand in an attribute or between tags (XML 1.0,
// section 2.4), without the characters that XML forbids (section 2.2).
func AppendEscaped(b []byte, s string) []byte {
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if literal[c] {
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

// literal are the bytes that stand for themselves, in ASCII.
var literal = func() (t [256]bool) {
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
	if bytes.IndexByte(escaped, '&') < 0 {
		return string(escaped)
	}
	return unescapes.Replace(string(escaped))
}

var unescapes = func() *strings.Replacer {
	var pairs []string
	for c, escape := range escapes {
		if escape != "" {
			pairs = append(pairs, escape, string(rune(c)))
		}
	}
	return strings.NewReplacer(pairs...)
}()

// AppendChildren appends the children of an element that want accepts, written anew.
// COMPAT Prosody, which declares a prefix for the XML namespace, and ends the stream of a
// component that does. It fails if they take more than max bytes, a tag takes more than
// maxTag, or they lie too deep.
func AppendChildren(b, data []byte, max, maxTag int, want func(xml.Name) bool) ([]byte, error) {
	limit := len(b) + max
	d := newDecoder(data)
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	var open []string // the names of open elements, as they were written
	space := []string{stanza.NSComponent}
	for {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		switch t := t.(type) {
		case xml.StartElement:
			if len(open) == 0 && !want(t.Name) {
				if err := d.Skip(); err != nil {
					return nil, err
				}
				continue
			}
			if len(open) > maxDepth {
				return nil, ErrTooLong
			}
			var name, inner string
			before := len(b)
			b, name, inner = appendStart(b, t, space[len(space)-1])
			if len(b)-before > maxTag {
				return nil, ErrTooLong
			}
			open, space = append(open, name), append(space, inner)
		case xml.EndElement:
			if len(open) == 0 {
				return b, nil
			}
			b = append(append(append(b, "</"...), open[len(open)-1]...), '>')
			open, space = open[:len(open)-1], space[:len(space)-1]
		case xml.CharData:
			if len(open) > 0 {
				b = AppendEscaped(b, string(t))
			}
		}
		if len(b) > limit {
			return nil, ErrTooLong
		}
	}
}

// appendStart appends a start tag, where outer is the default namespace, and
// returns the name as it was written and the default namespace inside.
func appendStart(b []byte, t xml.StartElement, outer string) (_ []byte, name, inner string) {
	name, inner = t.Name.Local, outer
	if t.Name.Space == nsXML {
		name = "xml:" + name
	}
	b = append(append(b, '<'), name...)
	if t.Name.Space != nsXML && t.Name.Space != outer {
		inner = t.Name.Space
		b = AppendAttr(b, "xmlns", inner)
	}
	prefixes := 0
	for _, a := range t.Attr {
		switch {
		case a.Name.Space == "xmlns" || a.Name.Space == "" && a.Name.Local == "xmlns":
		case a.Name.Space == "":
			b = AppendAttr(b, a.Name.Local, a.Value)
		case a.Name.Space == nsXML:
			b = AppendAttr(b, "xml:"+a.Name.Local, a.Value)
		default:
			prefix := fmt.Sprintf("ns%d", prefixes)
			prefixes++
			b = AppendAttr(AppendAttr(b, "xmlns:"+prefix, a.Name.Space), prefix+":"+a.Name.Local, a.Value)
		}
	}
	return append(b, '>'), name, inner
}
