package component

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"slices"

	"gosrc.io/xmpp/stanza"
)

// What of a stanza is looked at. Nothing rosterd understands comes near; what
// lies deeper or behind is as if it were not there.
const (
	maxDepth    = 32
	maxElements = 1024
)

// element is an XML element, decoded without knowing what it means.
type element struct {
	name     xml.Name
	attrs    []xml.Attr
	children []*element
	raw      []byte // of a stanza: as it came, valid while it is handled
}

// attr is the value of an attribute without namespace; has tells an empty
// value from none.
func (e *element) attr(name string) (value string, has bool) {
	for _, a := range e.attrs {
		if a.Name.Space == "" && a.Name.Local == name {
			return a.Value, true
		}
	}
	return "", false
}

func (e *element) get(name string) string {
	value, _ := e.attr(name)
	return value
}

// lang reports whether there is an attribute xml:lang.
func (e *element) lang() bool {
	for _, a := range e.attrs {
		if a.Name.Space == nsXML && a.Name.Local == "lang" || a.Name.Space == "xml" {
			return true
		}
	}
	return false
}

// child is the first child of that name.
func (e *element) child(space, local string) *element {
	for _, c := range e.children {
		if c.is(space, local) {
			return c
		}
	}
	return nil
}

func (e *element) is(space, local string) bool {
	return e.name.Local == local && e.name.Space == space
}

// only is the only child, nil if there is another number of them.
func (e *element) only() *element {
	if len(e.children) != 1 {
		return nil
	}
	return e.children[0]
}

// decodeElement decodes one child of the stream. Its error says nothing about
// the stream: only this child cannot be understood.
func decodeElement(data []byte) (*element, error) {
	if e, ok := decodePlain(data); ok {
		return e, nil
	}
	return decodeXML(data)
}

// decodeXML is decodeElement for every stanza.
func decodeXML(data []byte) (*element, error) {
	d := newDecoder(data)
	budget := maxElements
	root := &element{}
	open := []*element{root}
	for {
		t, err := d.Token()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		switch t := t.(type) {
		case xml.StartElement:
			if twice(t.Attr) {
				return nil, errTwice
			}
			if len(open) > maxDepth || budget == 0 {
				if err := d.Skip(); err != nil {
					return nil, err
				}
				continue
			}
			budget--
			e := newElement(t)
			parent := open[len(open)-1]
			parent.children = append(parent.children, e)
			open = append(open, e)
		case xml.EndElement:
			if open = open[:len(open)-1]; len(open) == 1 {
				return root.children[0], nil
			}
		}
	}
}

// decodeStart decodes only the opening tag: all that is there for sure of a
// stanza longer than the limit.
func decodeStart(data []byte) (*element, error) {
	t, err := newDecoder(data).Token()
	if err != nil {
		return nil, err
	}
	start, ok := t.(xml.StartElement)
	if !ok {
		return nil, errors.New("no element")
	}
	if twice(start.Attr) {
		return nil, errTwice
	}
	return newElement(start), nil
}

var errTwice = errors.New("an attribute is there twice")

// twice reports whether one of the attributes that say whose a stanza is, and
// what it is, is there twice, which encoding/xml does not mind. With a prefix
// that stands for nothing, which it does not mind either, an attribute could be
// taken for one of them.
func twice(attrs []xml.Attr) bool {
	var seen [4]bool
	for _, a := range attrs {
		i := slices.Index(decisive[:], a.Name.Local)
		if a.Name.Space != "" || i < 0 {
			continue
		}
		if seen[i] {
			return true
		}
		seen[i] = true
	}
	return false
}

var decisive = [...]string{"from", "to", "type", "id"}

func newElement(t xml.StartElement) *element {
	return &element{name: t.Name, attrs: t.Attr}
}

// decoder is an xml.Decoder for a piece of the stream: it knows what the
// header of the stream declared.
type decoder struct{ *xml.Decoder }

func newDecoder(data []byte) decoder {
	d := xml.NewDecoder(bytes.NewReader(data))
	d.DefaultSpace = stanza.NSComponent
	return decoder{d}
}

// Token is that of xml.Decoder, with the prefix "stream", which is declared in the
// header of the stream (RFC 6120, section 4.8.5).
func (d decoder) Token() (xml.Token, error) {
	t, err := d.Decoder.Token()
	if start, ok := t.(xml.StartElement); ok && start.Name.Space == "stream" {
		start.Name.Space = stanza.NSStream
		return start, err
	}
	return t, err
}
