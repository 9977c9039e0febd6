package component

import (
	"encoding/xml"

	"gosrc.io/xmpp/stanza"
)

// decodePlain decodes what nearly every stanza is: elements and attributes
// without prefixes, in ASCII that stands for itself. It does what decodeElement
// does with such a stanza, in a tenth of the time, and reports false for every
// other one, be it valid or not: that is encoding/xml's to judge. FuzzPlain holds
// the two against each other.
//
// The texts of the element are parts of one copy of data: who keeps one for long
// clones it.
func decodePlain(data []byte) (*element, bool) {
	first := new(struct { // enough for most stanzas, taken at once
		room
		attrs [16]xml.Attr
	})
	p := plain{s: string(data), room: &first.room, attrs: first.attrs[:0]}
	root, ok := p.element("", 0)
	if !ok || p.i != len(p.s) {
		return nil, false
	}
	return root, true
}

// plain walks over a stanza. Its methods report false if it is not plain.
type plain struct {
	s     string
	i     int // of the next byte
	n     int // elements so far
	room  *room
	attrs []xml.Attr // of all elements so far
}

// room is memory for elements.
type room struct {
	elements [8]element
	children [8]*element // the first one of each
}

// Classes of bytes.
const (
	nameByte  = 1 << iota // may be in a name
	firstByte             // may begin one
	valueByte             // may be in the value of an attribute, if it is not its quote
	textByte              // may be between tags
	spaceByte             // between attributes
	plainByte             // may be in any value
)

var class = func() (t [256]byte) {
	for c := range t {
		switch {
		case c == '\t' || c == '\n':
			t[c] = textByte | spaceByte
		case c == ' ':
			t[c] = valueByte | textByte | spaceByte
		case c < ' ' || c >= 0x7F || c == '<' || c == '&':
		case c == '>' || c == ']': // which encoding/xml looks for in texts
			t[c] = valueByte
		default:
			t[c] = valueByte | textByte
		}
		if t[c]&valueByte != 0 && c != '\'' && c != '"' {
			t[c] |= plainByte
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

// skip goes behind the bytes of a class.
func (p *plain) skip(of byte) {
	for p.i < len(p.s) && class[p.s[p.i]]&of != 0 {
		p.i++
	}
}

// take goes behind a byte, if it comes.
func (p *plain) take(c byte) bool {
	if p.i < len(p.s) && p.s[p.i] == c {
		p.i++
		return true
	}
	return false
}

func (p *plain) name() (string, bool) {
	from := p.i
	if p.i == len(p.s) || class[p.s[p.i]]&firstByte == 0 {
		return "", false
	}
	p.skip(nameByte)
	return p.s[from:p.i], true
}

// element is the element that comes. space is the default namespace around it, if
// there is one, and depth how many elements are around it.
func (p *plain) element(space string, depth int) (*element, bool) {
	if p.n == maxElements || depth == maxDepth || !p.take('<') {
		return nil, false
	}
	e := p.new()
	var ok bool
	if e.name.Local, ok = p.name(); !ok {
		return nil, false
	}
	if e.attrs, ok = p.attributes(); !ok {
		return nil, false
	}
	for _, a := range e.attrs {
		if a.Name.Space == "" && a.Name.Local == "xmlns" {
			if a.Value == "" || a.Value == "stream" { // which decoder takes for the prefix
				return nil, false
			}
			space = a.Value
		}
	}
	if e.name.Space = space; space == "" {
		e.name.Space = stanza.NSComponent
	}
	if p.take('/') {
		return e, p.take('>')
	}
	if !p.take('>') {
		return nil, false
	}
	return e, p.content(e, space, depth)
}

// new is memory for an element.
func (p *plain) new() *element {
	i := p.n % len(p.room.elements)
	if i == 0 && p.n > 0 {
		p.room = new(room)
	}
	p.n++
	e := &p.room.elements[i]
	e.children = p.room.children[i : i : i+1]
	return e
}

// content goes behind the closing tag of an element.
func (p *plain) content(e *element, space string, depth int) bool {
	for {
		p.skip(textByte)
		if p.i+1 >= len(p.s) || p.s[p.i] != '<' {
			return false
		}
		if p.s[p.i+1] == '/' {
			p.i += 2
			name, ok := p.name()
			return ok && name == e.name.Local && p.take('>')
		}
		child, ok := p.element(space, depth+1)
		if !ok {
			return false
		}
		e.children = append(e.children, child)
	}
}

// attributes goes up to the end of a tag.
func (p *plain) attributes() ([]xml.Attr, bool) {
	from := len(p.attrs)
	for {
		before := p.i
		p.skip(spaceByte)
		if p.i == len(p.s) {
			return nil, false
		}
		if c := p.s[p.i]; c == '>' || c == '/' {
			break
		}
		if before == p.i {
			return nil, false
		}
		a, ok := p.attribute()
		if !ok {
			return nil, false
		}
		p.attrs = append(p.attrs, a)
	}
	attrs := p.attrs[from:len(p.attrs):len(p.attrs)]
	return attrs, !twice(attrs)
}

func (p *plain) attribute() (a xml.Attr, ok bool) {
	from := p.i
	if a.Name.Local, ok = p.name(); !ok {
		return a, false
	}
	if p.take(':') { // the one prefix that is always declared (XML Namespaces 1.0, section 3)
		if p.s[from:p.i] != "xml:" {
			return a, false
		}
		a.Name.Space = nsXML
		if a.Name.Local, ok = p.name(); !ok {
			return a, false
		}
	}
	if !p.take('=') || p.i == len(p.s) {
		return a, false
	}
	quote := p.s[p.i]
	if quote != '\'' && quote != '"' {
		return a, false
	}
	p.i++
	from = p.i
	for p.i < len(p.s) && p.s[p.i] != quote {
		if class[p.s[p.i]]&valueByte == 0 {
			return a, false
		}
		p.i++
	}
	a.Value = p.s[from:p.i]
	return a, p.take(quote)
}
