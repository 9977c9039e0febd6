package xmlstream

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"slices"

	"gosrc.io/xmpp/stanza"
)

// What of a stanza is decoded; what lies deeper or behind is left out. No stanza that
// rosterd understands comes near these bounds.
const (
	maxDepth    = 32
	MaxElements = 1024
)

const nsXML = "http://www.w3.org/XML/1998/namespace"

// Element is an XML element without its text.
type Element struct {
	Name     xml.Name
	Attrs    []xml.Attr
	Children []*Element
	Raw      []byte // of a stanza: as it came, or its beginning; see [Reader.Next]
}

// Attr returns the value of an attribute without namespace; has tells an empty
// value from none.
func (e *Element) Attr(name string) (value string, has bool) {
	for _, a := range e.Attrs {
		if a.Name.Space == "" && a.Name.Local == name {
			return a.Value, true
		}
	}
	return "", false
}

// Get is Attr for an attribute that may as well be empty.
func (e *Element) Get(name string) string {
	value, _ := e.Attr(name)
	return value
}

// HasLang reports whether there is an attribute xml:lang.
func (e *Element) HasLang() bool {
	for _, a := range e.Attrs {
		if a.Name.Space == nsXML && a.Name.Local == "lang" || a.Name.Space == "xml" {
			return true
		}
	}
	return false
}

// Child returns the first child of that name, or nil. A nil element has none.
func (e *Element) Child(space, local string) *Element {
	if e == nil {
		return nil
	}
	for _, c := range e.Children {
		if c.Is(space, local) {
			return c
		}
	}
	return nil
}

// Is reports whether the element has that name.
func (e *Element) Is(space, local string) bool {
	return e.Name.Local == local && e.Name.Space == space
}

// Only returns the only child, or nil if there is another number of them.
func (e *Element) Only() *Element {
	if len(e.Children) != 1 {
		return nil
	}
	return e.Children[0]
}

// ErrTooLong is for XML that is longer, or lies deeper, than a limit.
var ErrTooLong = errors.New("the XML is too long or too deep")

// Decode decodes a stanza by encoding/xml. [Reader.Element] is faster.
func Decode(data []byte) (*Element, error) {
	d := newDecoder(data)
	budget := MaxElements
	root := &Element{}
	open := []*Element{root}
	for {
		t, err := d.Token()
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
		switch t := t.(type) {
		case xml.StartElement:
			if duplicate(t.Attr) {
				return nil, errDuplicate
			}
			if len(open) > maxDepth || budget == 0 {
				if err := d.Skip(); err != nil {
					return nil, err
				}
				continue
			}
			budget--
			e := &Element{Name: t.Name, Attrs: t.Attr}
			parent := open[len(open)-1]
			parent.Children = append(parent.Children, e)
			open = append(open, e)
		case xml.EndElement:
			if open = open[:len(open)-1]; len(open) == 1 {
				root.Children[0].Raw = data
				return root.Children[0], nil
			}
		}
	}
}

// decodeStart decodes the opening tag alone, or returns nil.
func decodeStart(data []byte) *Element {
	t, err := newDecoder(data).Token()
	start, ok := t.(xml.StartElement)
	if err != nil || !ok || duplicate(start.Attr) {
		return nil
	}
	return &Element{Name: start.Name, Attrs: start.Attr, Raw: data}
}

var errDuplicate = errors.New("an attribute is there twice")

var decisive = []string{"from", "to", "type", "id"}

// duplicate reports whether one of the attributes that say whose a stanza is, and
// what it is, is there twice. encoding/xml does not mind that.
func duplicate(attrs []xml.Attr) bool {
	for i, a := range attrs {
		same := func(other xml.Attr) bool { return other.Name == a.Name }
		if a.Name.Space == "" && slices.Contains(decisive, a.Name.Local) && slices.ContainsFunc(attrs[:i], same) {
			return true
		}
	}
	return false
}

// decoder is an xml.Decoder that knows what the header of the stream declared.
type decoder struct{ *xml.Decoder }

func newDecoder(data []byte) decoder {
	d := xml.NewDecoder(bytes.NewReader(data))
	d.DefaultSpace = stanza.NSComponent
	return decoder{d}
}

// Token is that of xml.Decoder, with the prefix "stream" (RFC 6120, section 4.8.5).
func (d decoder) Token() (xml.Token, error) {
	t, err := d.Decoder.Token()
	if start, ok := t.(xml.StartElement); ok && start.Name.Space == "stream" {
		start.Name.Space = stanza.NSStream
		return start, err
	}
	return t, err
}

// Texts are the texts of all elements of a name in a stanza, without those of elements inside
// them, in the order of their tags. It fails if the stanza cannot be decoded.
func Texts(data []byte, space, local string) ([]string, error) {
	var texts [][]byte
	var open []int // of texts, that of each open element; -1: of none
	d := newDecoder(data)
	for {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		switch t := t.(type) {
		case xml.StartElement:
			text := -1
			if t.Name.Space == space && t.Name.Local == local {
				text, texts = len(texts), append(texts, nil)
			}
			open = append(open, text)
		case xml.CharData:
			if len(open) > 0 && open[len(open)-1] >= 0 {
				text := open[len(open)-1]
				texts[text] = append(texts[text], t...)
			}
		case xml.EndElement:
			if open = open[:len(open)-1]; len(open) > 0 {
				continue
			}
			all := make([]string, len(texts))
			for i, text := range texts {
				all[i] = string(text)
			}
			return all, nil
		}
	}
}
