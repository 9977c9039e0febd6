package xmlstream

import (
	"encoding/xml"
	"strings"

	"gosrc.io/xmpp/stanza"
)

// A stanza is plain if its elements and attributes have no prefixes, and its text and
// values stand for themselves, in ASCII. The [Reader] notes where its tags and attributes
// are while it looks for the end. FuzzPlain compares this with encoding/xml.

// tag is where in a stanza an element begins.
type tag struct {
	name, nameEnd int
	attrs         int // of the stanza up to the end of the tag
	depth         int // elements around it
}

// attribute is where in a stanza an attribute is.
type attribute struct {
	name, nameEnd, value, valueEnd int
	colons                         int // in its name
}

// at is how much of the stanza was read.
func (r *Reader) at() int { return r.i - r.start }

func (r *Reader) note(t tag) {
	r.odd = r.odd || len(r.tags) == MaxElements || len(r.attrs) > MaxElements || t.depth >= maxDepth
	if t.attrs = len(r.attrs); !r.odd {
		r.tags = append(r.tags, t)
	}
}

// Element decodes the stanza that Next returned last. An error is about this stanza
// alone, [ErrTooLong] if it was longer than max bytes, or than the limit. Then the element is the opening
// tag alone, or nil if not even that can be decoded.
//
// The texts of the element are parts of one copy of the stanza: clone them to keep them.
func (r *Reader) Element(max int) (*Element, error) {
	data, whole := r.kept()
	err := ErrTooLong
	if whole && len(data) <= max {
		if e := r.plain(data); e != nil {
			return e, nil
		}
		var e *Element
		if e, err = Decode(data); err == nil {
			return e, nil
		}
	}
	return decodeStart(data), err
}

// plain decodes a stanza that is plain, or returns nil.
func (r *Reader) plain(data []byte) *Element {
	if r.odd || r.err != nil {
		return nil
	}
	var ( // enough for most stanzas, allocated at once
		first = new(struct {
			elements [8]Element
			children [8]*Element
			attrs    [16]xml.Attr
		})
		elements, children, attrs = first.elements[:], first.children[:], first.attrs[:0]
		s                         = string(data)
		open                      [maxDepth]*Element
		spaces                    [maxDepth + 1]string // the default namespaces around them
		done                      int                  // attributes of the tags before
	)
	if len(r.tags) > len(elements) {
		elements, children = make([]Element, len(r.tags)), make([]*Element, len(r.tags))
	}
	if len(r.attrs) > cap(attrs) {
		attrs = make([]xml.Attr, 0, len(r.attrs))
	}
	spaces[0] = stanza.NSComponent
	for i, t := range r.tags {
		e, space := &elements[i], spaces[t.depth]
		for _, a := range r.attrs[done:t.attrs] {
			attr := xml.Attr{Name: xml.Name{Local: s[a.name:a.nameEnd]}, Value: s[a.value:a.valueEnd]}
			switch {
			case a.colons > 0: // "xml" is always declared (XML Namespaces 1.0, section 3)
				local, is := strings.CutPrefix(attr.Name.Local, "xml:")
				if a.colons > 1 || !is || local == "" {
					return nil
				}
				attr.Name = xml.Name{Space: nsXML, Local: local}
			case attr.Name.Local == "xmlns":
				if space = attr.Value; space == "" || space == "stream" { // decoder takes that for the prefix
					return nil
				}
			}
			attrs = append(attrs, attr)
		}
		e.Name = xml.Name{Space: space, Local: s[t.name:t.nameEnd]}
		e.Attrs = attrs[done:t.attrs:t.attrs]
		if duplicate(e.Attrs) {
			return nil
		}
		e.Children = children[i : i : i+1]
		if t.depth > 0 {
			parent := open[t.depth-1]
			parent.Children = append(parent.Children, e)
		}
		open[t.depth], spaces[t.depth+1], done = e, space, t.attrs
	}
	elements[0].Raw = data
	return &elements[0]
}

// Classes of bytes.
const (
	nameByte  = 1 << iota // may be in a name
	firstByte             // may begin one
	textByte              // may be between the tags of a plain stanza
	plainByte             // may be in any value of one
)

var class = func() (t [256]byte) {
	for c := range t {
		switch {
		case c == '\t' || c == '\n' || c == '\'' || c == '"':
			t[c] = textByte
		case c < ' ' || c >= 0x7F || c == '<' || c == '&':
		case c == '>' || c == ']': // encoding/xml looks for "]]>" in texts
			t[c] = plainByte
		default:
			t[c] = plainByte | textByte
		}
		switch {
		case 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_':
			t[c] |= nameByte | firstByte
		case '0' <= c && c <= '9' || c == '-' || c == '.':
			t[c] |= nameByte
		}
	}
	return t
}()
