package xmlstream

import (
	"encoding/xml"
	"strings"

	"gosrc.io/xmpp/stanza"
)

// decodePlain decodes what nearly every stanza is: elements and attributes
// without prefixes, in ASCII that stands for itself. It reports false for every
// other stanza, valid or not: encoding/xml decides about that. FuzzPlain holds the
// two against each other.
//
// The texts of the element are parts of one copy of data: clone them to keep them.
func decodePlain(data []byte) (*Element, bool) {
	first := new(struct { // enough for most stanzas, allocated at once
		elements
		attrs [16]xml.Attr
	})
	p := plain{s: string(data), free: &first.elements, attrs: first.attrs[:0]}
	root := p.element("", 0)
	return root, !p.failed && p.i == len(p.s)
}

// plain is a parser of plain stanzas.
type plain struct {
	s      string
	i      int  // of the next byte
	failed bool // the stanza is not plain
	n      int  // elements so far
	free   *elements
	attrs  []xml.Attr // of all elements so far
}

// elements is memory for some elements, each with room for one child.
type elements struct {
	elements [8]Element
	children [8]*Element
}

// element reads an element. space is the default namespace around it, "" if none
// was declared; depth is how many elements are around it.
func (p *plain) element(space string, depth int) *Element {
	if p.n == MaxElements || depth == maxDepth {
		p.failed = true
		return nil
	}
	e := p.new()
	p.expect('<')
	e.Name.Local = p.name()
	e.Attrs = p.attributes()
	for _, a := range e.Attrs {
		if a.Name.Space == "" && a.Name.Local == "xmlns" {
			space = a.Value
			if space == "" || space == "stream" { // decoder takes that for the prefix
				p.failed = true
			}
		}
	}
	if e.Name.Space = space; space == "" {
		e.Name.Space = stanza.NSComponent
	}
	if p.take('/') {
		p.expect('>')
		return e
	}
	p.expect('>')
	for p.skip(textByte); !p.failed && !strings.HasPrefix(p.s[p.i:], "</"); p.skip(textByte) {
		e.Children = append(e.Children, p.element(space, depth+1))
	}
	p.expect('<')
	p.expect('/')
	if p.name() != e.Name.Local {
		p.failed = true
	}
	p.expect('>')
	return e
}

// new allocates an element.
func (p *plain) new() *Element {
	i := p.n % len(p.free.elements)
	if i == 0 && p.n > 0 {
		p.free = new(elements)
	}
	p.n++
	e := &p.free.elements[i]
	e.Children = p.free.children[i : i : i+1]
	return e
}

// attributes reads up to the end of a tag.
func (p *plain) attributes() []xml.Attr {
	from := len(p.attrs)
	for !p.failed {
		blank := p.skip(spaceByte) > 0
		if p.i == len(p.s) || p.s[p.i] == '>' || p.s[p.i] == '/' {
			break
		}
		p.failed = !blank
		p.attrs = append(p.attrs, p.attribute())
	}
	attrs := p.attrs[from:len(p.attrs):len(p.attrs)]
	if duplicate(attrs) {
		p.failed = true
	}
	return attrs
}

func (p *plain) attribute() (a xml.Attr) {
	a.Name.Local = p.name()
	if p.take(':') { // "xml" is always declared (XML Namespaces 1.0, section 3)
		if a.Name.Local != "xml" {
			p.failed = true
		}
		a.Name = xml.Name{Space: nsXML, Local: p.name()}
	}
	p.expect('=')
	quote := byte('\'')
	if p.take('"') {
		quote = '"'
	} else {
		p.expect(quote)
	}
	i := p.i
	for i < len(p.s) && p.s[i] != quote && class[p.s[i]]&valueByte != 0 {
		i++
	}
	a.Value = p.s[p.i:i]
	p.i = i
	p.expect(quote)
	return a
}

func (p *plain) name() string {
	from := p.i
	if p.i == len(p.s) || class[p.s[p.i]]&firstByte == 0 {
		p.failed = true
	}
	p.skip(nameByte)
	return p.s[from:p.i]
}

// skip passes the bytes of a class, and returns how many they were.
func (p *plain) skip(of byte) int {
	i := p.i
	for i < len(p.s) && class[p.s[i]]&of != 0 {
		i++
	}
	n := i - p.i
	p.i = i
	return n
}

// take passes a byte, if it comes next.
func (p *plain) take(c byte) bool {
	if p.i < len(p.s) && p.s[p.i] == c {
		p.i++
		return true
	}
	return false
}

// expect passes a byte that must come next.
func (p *plain) expect(c byte) {
	if !p.take(c) {
		p.failed = true
	}
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
		case c == '>' || c == ']': // encoding/xml looks for "]]>" in texts
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
