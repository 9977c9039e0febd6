package xmlstream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"unicode/utf8"
)

// Why a stream ends: what came cannot be XML, or is XML that XMPP does not allow.
var (
	ErrNotWellFormed = errors.New("not well-formed XML (RFC 6120, section 11.3)")
	ErrRestrictedXML = errors.New("a document type declaration, or a comment or processing instruction between stanzas (RFC 6120, section 11.1)")
)

// Reader cuts an XML stream into its children, the stanzas. Each stanza is decoded on its
// own afterwards, so that one that cannot be decoded does not end the stream.
//
// The stream ends as soon as its characters, its tags or their nesting cannot be XML's:
// nobody knows then where a stanza ends. No server lets its users send that. Some let
// them send references to entities that do not exist, "]]>" in a text, or an attribute
// twice (COMPAT Tigase), and comments (COMPAT Openfire). The decoder refuses or
// overlooks these.
//
// It is for one goroutine.
type Reader struct {
	from io.Reader
	max  int   // bytes of a stanza that are kept
	err  error // why there is nothing more to read

	buf   []byte // what was read; at start the stanza, of which max bytes are kept
	start int
	i     int  // of the next byte
	cut   bool // bytes of the stanza were dropped

	open   []byte // the names of the elements that are open, each behind a '<'
	deeper int    // open elements inside those, whose names had no room
	depth  int    // elements of the stanza that are open

	// What is known of a stanza that is plain, see [Reader.Element].
	odd   bool // it is not
	tags  []tag
	attrs []attribute
}

const (
	window = 16 << 10 // bytes that are read at once
	// maxBuffer is how large a buffer is kept for the next stanza.
	maxBuffer = 64 << 10
	// maxOpen bounds Reader.open, in bytes. The closing tags of what is open beyond
	// that may have any name.
	maxOpen = 64 << 10
)

// NewReader makes a Reader that keeps max bytes of a stanza.
func NewReader(from io.Reader, max int) *Reader {
	return &Reader{from: from, max: max, buf: make([]byte, 0, 2*window)}
}

// Header reads up to and with the opening tag of the stream.
func (r *Reader) Header() ([]byte, error) {
	r.reset()
	if r.peek() == 0xEF {
		r.expect("\uFEFF") // a byte order mark
	}
	blank := r.space()
	r.expect("<")
	if !blank && r.peek() == '?' {
		r.expect("?xml")
		r.until('?', 1)
		r.space()
		r.expect("<")
	}
	if r.tag(); r.depth == 0 {
		r.fail(io.ErrUnexpectedEOF) // the stream has no content
	}
	header, _ := r.kept()
	return header, r.err
}

// Next reads the next stanza. What it returns is valid until the next call; unless whole,
// it is the beginning of a stanza that was longer than the limit. The error is io.EOF
// after the closing tag of the stream.
func (r *Reader) Next() (stanza []byte, whole bool, err error) {
	r.reset()
	for isSpace(r.peek()) {
		r.i++
		r.start = r.i
	}
	r.expect("<")
	switch r.peek() {
	case '/':
		r.closing()
		r.fail(io.EOF)
	case '!', '?':
		r.fail(ErrRestrictedXML)
	default:
		for r.tag(); r.depth > 0 && r.err == nil; {
			r.content()
		}
	}
	stanza, whole = r.kept()
	return stanza, whole, r.err
}

// content reads text, and the markup behind it.
func (r *Reader) content() {
	for r.skip(textByte); r.peek() != '<' && r.err == nil; r.skip(textByte) {
		r.odd = true
		r.char()
	}
	r.expect("<")
	switch r.peek() {
	case '/':
		r.closing()
	case '!':
		r.odd = true
		r.declaration()
	case '?':
		r.odd = true
		r.expect("?")
		r.until('?', 1)
	default:
		r.tag()
	}
}

// tag reads an opening tag behind its '<'.
func (r *Reader) tag() {
	before := len(r.open)
	r.open = append(r.open, '<')
	t := tag{depth: r.depth, name: r.at()}
	if r.name(true) > 0 {
		r.odd = true
	}
	t.nameEnd = r.at()
	if r.deeper > 0 || len(r.open) > maxOpen {
		r.open = r.open[:before]
		r.deeper++
	}
	for r.err == nil {
		blank := r.space()
		switch r.peek() {
		case '>':
			r.i++
			r.depth++
			r.note(t)
			return
		case '/':
			r.expect("/>")
			r.pop()
			r.note(t)
			return
		}
		if !blank {
			r.refuse("white space or the end of a tag")
		}
		r.attribute()
	}
}

func (r *Reader) attribute() {
	a := attribute{name: r.at()}
	a.colons = r.name(false)
	a.nameEnd = r.at()
	r.space()
	r.expect("=")
	r.space()
	quote := r.peek()
	if quote != '\'' && quote != '"' {
		r.refuse("the value of an attribute")
		return
	}
	r.i++
	a.value = r.at()
	for r.skip(plainByte); r.peek() != quote && r.err == nil; r.skip(plainByte) {
		switch r.peek() {
		case '<':
			r.refuse("a character of a value")
			return
		case '\'', '"':
		default:
			r.odd = true
		}
		r.char()
	}
	if r.err == nil {
		a.valueEnd = r.at()
		r.i++
		if !r.odd && len(r.attrs) <= MaxElements {
			r.attrs = append(r.attrs, a)
		}
	}
}

// closing reads a closing tag behind its '<'.
func (r *Reader) closing() {
	r.expect("/")
	if name := r.open[r.last()+1:]; r.deeper > 0 {
		r.name(false)
	} else if bytes.HasPrefix(r.buf[r.i:], name) {
		r.i += len(name)
	} else {
		r.expect(string(name))
	}
	r.pop()
	r.depth--
	r.space()
	r.expect(">")
}

// last is where the last of the open names begins, with its '<'.
func (r *Reader) last() int { return bytes.LastIndexByte(r.open, '<') }

// pop closes the element that was opened last, if any is open.
func (r *Reader) pop() {
	if r.deeper > 0 {
		r.deeper--
	} else {
		r.open = r.open[:max(0, r.last())]
	}
}

// declaration reads a comment or a CDATA section behind its '<'.
func (r *Reader) declaration() {
	r.expect("!")
	switch r.peek() {
	case '-':
		r.expect("--")
		r.until('-', 2)
	case '[':
		r.expect("[CDATA[")
		r.until(']', 2)
	default:
		r.fail(ErrRestrictedXML)
	}
}

// until reads up to and with n bytes c and a '>'.
func (r *Reader) until(c byte, n int) {
	for run := 0; r.err == nil; {
		switch b := r.peek(); {
		case b == '>' && run >= n:
			r.i++
			return
		case b == c:
			r.i++
			run++
		default:
			r.char()
			run = 0
		}
	}
}

// name reads a name (XML 1.0, section 2.3), and appends it to r.open if it is kept and
// there is room. It returns the number of colons. Any character beyond ASCII may be in it.
func (r *Reader) name(kept bool) (colons int) {
	for of := byte(firstByte); ; of = nameByte {
		switch b := r.peek(); {
		case b >= utf8.RuneSelf:
			r.odd = true
			if c := r.rune(); kept && len(r.open) <= maxOpen {
				r.open = utf8.AppendRune(r.open, c)
			}
			continue
		case b != ':' && class[b]&of == 0:
			if of == firstByte {
				r.refuse("a name")
			}
			return colons
		case b == ':':
			colons++
		}
		from := r.i
		r.i++
		r.skip(nameByte)
		if kept && len(r.open) <= maxOpen {
			r.open = append(r.open, r.buf[from:r.i]...)
		}
	}
}

// space reads white space, and reports whether there was any.
func (r *Reader) space() (was bool) {
	for ; isSpace(r.peek()); r.i++ {
		was = true
	}
	return was
}

func isSpace(b byte) bool { return b == ' ' || b == '\n' || b == '\t' || b == '\r' }

// expect reads what must come.
func (r *Reader) expect(s string) {
	for i := range len(s) {
		if r.peek() != s[i] {
			r.refuse(strconv.Quote(s[i:]))
			return
		}
		r.i++
	}
}

// skip passes the bytes of a class that are in the buffer.
func (r *Reader) skip(of byte) {
	i := r.i
	for i < len(r.buf) && class[r.buf[i]]&of != 0 {
		i++
	}
	r.i = i
}

// char reads a character (XML 1.0, section 2.2).
func (r *Reader) char() {
	switch b := r.peek(); {
	case b >= utf8.RuneSelf:
		r.rune()
	case b >= ' ' || isSpace(b):
		r.i++
	default:
		r.refuse("a character")
	}
}

// rune reads a character of more than one byte.
func (r *Reader) rune() rune {
	if c, n := utf8.DecodeRune(r.buf[r.i:]); n > 1 {
		r.i += n
		return c
	}
	var b [utf8.UTFMax]byte // its bytes come in two pieces, or it is none
	n := 0
	for ; r.err == nil && !utf8.FullRune(b[:n]); n++ {
		if b[n] = r.peek(); r.err == nil {
			r.i++
		}
	}
	c, size := utf8.DecodeRune(b[:n])
	if size == 1 {
		r.fail(fmt.Errorf("%w: %+q is not UTF-8", ErrNotWellFormed, b[:n]))
	}
	return c
}

// peek returns the next byte without passing it; 0, which is no character of XML, if
// there is none.
func (r *Reader) peek() byte {
	if r.i < len(r.buf) {
		return r.buf[r.i]
	}
	return r.more()
}

// more is peek when all that is in the buffer is read.
func (r *Reader) more() byte {
	for r.err == nil {
		r.buf = r.buf[:copy(r.buf, r.buf[r.start:])]
		if len(r.buf) > r.max {
			r.buf, r.cut = r.buf[:r.max], true
		}
		r.start, r.i = 0, len(r.buf)
		r.buf = slices.Grow(r.buf, window)
		n, err := r.from.Read(r.buf[r.i : r.i+window])
		if r.buf = r.buf[:r.i+n]; n > 0 {
			return r.buf[r.i] // an error comes again
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			r.fail(err)
		}
	}
	return 0
}

// reset forgets what was kept.
func (r *Reader) reset() {
	if cap(r.buf) > maxBuffer && len(r.buf)-r.i <= window { // one long stanza is no reason to keep its memory
		r.buf, r.i = append(make([]byte, 0, 2*window), r.buf[r.i:]...), 0
	}
	r.start, r.cut = r.i, false
	r.depth, r.odd, r.tags, r.attrs = 0, false, r.tags[:0], r.attrs[:0]
}

// kept returns what was read since the last reset, or its beginning.
func (r *Reader) kept() (data []byte, whole bool) {
	if r.cut || r.i-r.start > r.max {
		return r.buf[r.start:][:r.max:r.max], false
	}
	return r.buf[r.start:r.i:r.i], true
}

// refuse ends the stream where something else should come than what does.
func (r *Reader) refuse(want string) {
	got := r.buf[r.i:min(r.i+1, len(r.buf))] // no more: that may not have come
	r.fail(fmt.Errorf("%w: %+q instead of %s", ErrNotWellFormed, got, want))
}

// fail ends the stream: nothing comes any more.
func (r *Reader) fail(err error) {
	if r.err == nil {
		r.err = err
		r.buf, r.start, r.i, r.cut = nil, 0, 0, false
	}
}
