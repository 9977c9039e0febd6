package harness

import (
	"bytes"
	"io"
	"strings"
)

// padder passes a stream on, and blanks behind each stanza with a long tag, as
// many as its longest tag has bytes. A current libexpat, which servers and
// slixmpp read with, parses a tag that one read did not complete only when about
// as many bytes more have come (XML_SetReparseDeferralEnabled): without them, what
// is under test would wait, and only with some libexpats. Blanks between stanzas
// mean nothing (RFC 6120, section 4.4).
//
// It takes the XML to be that of a stream: without comments and CDATA.
type padder struct {
	w io.Writer

	depth   int    // of elements, the stream's included
	tag     []byte // the beginning of the tag that is being read, nil outside
	length  int    // of this tag so far
	quote   byte   // of the attribute value that is being read, or 0
	last    byte   // read in this tag
	longest int    // tag of this stanza
}

// longTag is the length from which a tag is followed by blanks: shorter ones are
// always read at once, or in two pieces, which does not defer them.
const longTag = 1024

// Write implements io.Writer.
func (p *padder) Write(b []byte) (int, error) {
	var out []byte
	from := 0
	for i, c := range b {
		if p.read(c) && p.longest >= longTag {
			out = append(append(out, b[from:i+1]...), strings.Repeat(" ", p.longest)...)
			from = i + 1
		}
		if p.depth <= 1 && p.tag == nil {
			p.longest = 0
		}
	}
	if _, err := p.w.Write(append(out, b[from:]...)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// read looks at the next byte, and says whether a stanza ends with it.
func (p *padder) read(c byte) (ends bool) {
	if p.tag == nil {
		if c == '<' {
			p.tag, p.length, p.quote = []byte{c}, 1, 0
		}
		return false
	}
	p.length++
	if len(p.tag) < len("<stream:stream") {
		p.tag = append(p.tag, c)
	}
	switch {
	case p.quote != 0:
		if c == p.quote {
			p.quote = 0
		}
	case c == '\'' || c == '"':
		p.quote = c
	case c == '>':
		ends = p.end(p.last == '/')
		p.tag = nil
	}
	p.last = c
	return ends
}

// end says whether the tag that has been read ends a stanza.
func (p *padder) end(empty bool) bool {
	p.longest = max(p.longest, p.length)
	switch {
	case p.tag[1] == '?':
		return false
	case bytes.Equal(p.tag, []byte("<stream:stream")): // again after the login (RFC 6120, section 4.3.3)
		p.depth, p.longest = 1, 0
		return false
	case p.tag[1] == '/':
		p.depth--
	case !empty:
		p.depth++
	}
	return p.depth == 1
}
