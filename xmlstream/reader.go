package xmlstream

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"
)

// Why a stream ends: what came cannot be XML, or is XML that XMPP does not allow.
var (
	ErrNotWellFormed = errors.New("not well-formed XML (RFC 6120, section 11.3)")
	ErrRestrictedXML = errors.New("a document type declaration, or a comment or processing instruction between stanzas (RFC 6120, section 11.1)")
)

// Reader cuts an XML stream into its children, the stanzas, without
// understanding them. Each stanza is decoded on its own afterwards, so that one
// that cannot be decoded, however odd it is, ends itself and not the stream.
//
// The stream ends as soon as its characters, its tags or their nesting cannot be
// XML's: nobody knows then where a stanza ends. No server lets its users send that.
// Some let them send references to entities that do not exist, "]]>" in a text, or
// an attribute twice (COMPAT Tigase), and comments (COMPAT Openfire). These hide no
// end of a stanza: the decoder refuses or overlooks them.
//
// It is for one goroutine.
type Reader struct {
	r      *bufio.Reader
	window []byte // what r has at hand
	i      int    // of the next byte in window
	from   int    // of the first byte in window that is to be kept, and is not in buf
	err    error  // why there is nothing more to read

	max int // bytes of a stanza that are kept
	buf []byte
	cut bool // buf lacks bytes of the stanza

	open   []byte // the names of the elements that are open, each behind a '<'
	deeper int    // elements inside those that are open, too, and whose names had no room
}

const (
	window = 16 << 10 // bytes that are read at once
	// maxOpen bounds Reader.open, in bytes. The closing tags of what is open beyond
	// that may have any name.
	maxOpen = 64 << 10
)

// NewReader makes a Reader that keeps max bytes of a stanza.
func NewReader(r io.Reader, max int) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, window), max: max}
}

// Header reads up to and with the opening tag of the stream.
func (f *Reader) Header() ([]byte, error) {
	f.reset()
	if f.peek() == 0xEF {
		f.expect("\uFEFF") // a byte order mark
	}
	blank := f.space()
	f.expect("<")
	if !blank && f.peek() == '?' {
		f.expect("?xml")
		f.until('?', 1)
		f.space()
		f.expect("<")
	}
	if f.tag() == 0 {
		f.fail(io.ErrUnexpectedEOF) // the stream has no content
	}
	return f.kept(), f.err
}

// Next reads the next stanza. What it returns is valid until the next call;
// if whole is false, it is only the beginning of a stanza that was longer than
// the limit. The error is io.EOF after the closing tag of the stream.
func (f *Reader) Next() (stanza []byte, whole bool, err error) {
	f.reset()
	for isSpace(f.peek()) {
		f.i++
		f.from = f.i
	}
	f.expect("<")
	switch f.peek() {
	case '/':
		f.closing()
		f.fail(io.EOF)
	case '!', '?':
		f.fail(ErrRestrictedXML)
	default:
		for depth := f.tag(); depth > 0 && f.err == nil; {
			depth += f.content()
		}
	}
	return f.kept(), !f.cut, f.err
}

// content reads text, and the markup behind it. It returns by how much that makes
// what comes next lie deeper.
func (f *Reader) content() int {
	for f.skip(textByte); f.peek() != '<' && f.err == nil; f.skip(textByte) {
		f.char()
	}
	f.expect("<")
	switch f.peek() {
	case '/':
		f.closing()
		return -1
	case '!':
		f.declaration()
	case '?':
		f.expect("?")
		f.until('?', 1)
	default:
		return f.tag()
	}
	return 0
}

// tag reads an opening tag behind its '<'. It returns 1, or 0 if the tag closes its
// element, too.
func (f *Reader) tag() int {
	before := len(f.open)
	f.open = append(f.open, '<')
	f.name(true)
	if f.deeper > 0 || len(f.open) > maxOpen {
		f.open = f.open[:before]
		f.deeper++
	}
	for f.err == nil {
		blank := f.space()
		switch f.peek() {
		case '>':
			f.i++
			return 1
		case '/':
			f.expect("/>")
			f.pop()
			return 0
		}
		if !blank {
			f.refuse("white space or the end of a tag")
		}
		f.attribute()
	}
	return 0
}

func (f *Reader) attribute() {
	f.name(false)
	f.space()
	f.expect("=")
	f.space()
	quote := f.peek()
	if quote != '\'' && quote != '"' {
		f.refuse("the value of an attribute")
		return
	}
	f.i++
	for f.skip(plainByte); f.peek() != quote && f.err == nil; f.skip(plainByte) {
		if f.peek() == '<' {
			f.refuse("a character of a value")
			return
		}
		f.char()
	}
	if f.err == nil {
		f.i++
	}
}

// closing reads a closing tag behind its '<'.
func (f *Reader) closing() {
	f.expect("/")
	if name := f.open[f.last()+1:]; f.deeper > 0 {
		f.name(false)
	} else if bytes.HasPrefix(f.window[f.i:], name) {
		f.i += len(name)
	} else {
		f.expect(string(name))
	}
	f.pop()
	f.space()
	f.expect(">")
}

// last is where the last of the open names begins, with its '<'.
func (f *Reader) last() int { return bytes.LastIndexByte(f.open, '<') }

// pop closes the element that was opened last, if any is open.
func (f *Reader) pop() {
	if f.deeper > 0 {
		f.deeper--
	} else {
		f.open = f.open[:max(0, f.last())]
	}
}

// declaration reads a comment or a CDATA section behind its '<'.
func (f *Reader) declaration() {
	f.expect("!")
	switch f.peek() {
	case '-':
		f.expect("--")
		f.until('-', 2)
	case '[':
		f.expect("[CDATA[")
		f.until(']', 2)
	default:
		f.fail(ErrRestrictedXML)
	}
}

// until reads up to and with n bytes c and a '>'.
func (f *Reader) until(c byte, n int) {
	for run := 0; f.err == nil; {
		switch b := f.peek(); {
		case b == '>' && run >= n:
			f.i++
			return
		case b == c:
			f.i++
			run++
		default:
			f.char()
			run = 0
		}
	}
}

// name reads a name (XML 1.0, section 2.3), and appends it to f.open, as far as that
// has room, if it is kept. Which characters beyond ASCII are letters is not looked at.
func (f *Reader) name(kept bool) {
	for of := byte(firstByte); ; of = nameByte {
		switch b := f.peek(); {
		case b >= utf8.RuneSelf:
			if r := f.rune(); kept && len(f.open) <= maxOpen {
				f.open = utf8.AppendRune(f.open, r)
			}
			continue
		case b != ':' && class[b]&of == 0:
			if of == firstByte {
				f.refuse("a name")
			}
			return
		}
		from := f.i
		f.i++
		f.skip(nameByte)
		if kept && len(f.open) <= maxOpen {
			f.open = append(f.open, f.window[from:f.i]...)
		}
	}
}

// space reads white space, and reports whether there was any.
func (f *Reader) space() (was bool) {
	for ; isSpace(f.peek()); f.i++ {
		was = true
	}
	return was
}

func isSpace(b byte) bool { return b == ' ' || b == '\n' || b == '\t' || b == '\r' }

// expect reads what must come.
func (f *Reader) expect(s string) {
	for i := range len(s) {
		if f.peek() != s[i] {
			f.refuse(strconv.Quote(s[i:]))
			return
		}
		f.i++
	}
}

// skip reads the bytes of a class that are at hand.
func (f *Reader) skip(of byte) {
	i := f.i
	for i < len(f.window) && class[f.window[i]]&of != 0 {
		i++
	}
	f.i = i
}

// char reads a character (XML 1.0, section 2.2).
func (f *Reader) char() {
	switch b := f.peek(); {
	case b >= utf8.RuneSelf:
		f.rune()
	case b >= ' ' || isSpace(b):
		f.i++
	default:
		f.refuse("a character")
	}
}

// rune reads a character of more than one byte.
func (f *Reader) rune() rune {
	if r, n := utf8.DecodeRune(f.window[f.i:]); n > 1 {
		f.i += n
		return r
	}
	var b [utf8.UTFMax]byte // its bytes come in two pieces, or it is none
	n := 0
	for ; f.err == nil && !utf8.FullRune(b[:n]); n++ {
		if b[n] = f.peek(); f.err == nil {
			f.i++
		}
	}
	r, size := utf8.DecodeRune(b[:n])
	if size == 1 {
		f.fail(fmt.Errorf("%w: %+q is not UTF-8", ErrNotWellFormed, b[:n]))
	}
	return r
}

// peek returns the next byte, which is yet to be read: 0, which is no character of
// XML, if there is none.
func (f *Reader) peek() byte {
	if f.i < len(f.window) {
		return f.window[f.i]
	}
	return f.more()
}

// more is peek when all that was at hand is read.
func (f *Reader) more() byte {
	if f.err != nil {
		return 0
	}
	f.keep()
	_, _ = f.r.Discard(len(f.window)) // it is there
	if _, err := f.r.Peek(1); err == io.EOF {
		f.fail(io.ErrUnexpectedEOF)
		return 0
	} else if err != nil {
		f.fail(err)
		return 0
	}
	f.window, _ = f.r.Peek(f.r.Buffered())
	f.i, f.from = 0, 0
	return f.window[0]
}

// reset forgets what was kept.
func (f *Reader) reset() {
	if cap(f.buf) > 64<<10 {
		f.buf = nil // one long stanza is no reason to keep its memory
	}
	f.buf, f.cut, f.from = f.buf[:0], false, f.i
}

// keep takes what was read of the window into buf.
func (f *Reader) keep() {
	piece := f.window[f.from:f.i]
	n := min(len(piece), f.max-len(f.buf))
	f.buf, f.cut, f.from = append(f.buf, piece[:n]...), f.cut || n < len(piece), f.i
}

// kept is what was read since the last reset, or its beginning.
func (f *Reader) kept() []byte {
	if len(f.buf) == 0 && f.i-f.from <= f.max {
		return f.window[f.from:f.i:f.i]
	}
	f.keep()
	return f.buf
}

// refuse ends the stream where something else should come than what does.
func (f *Reader) refuse(want string) {
	got := f.window[f.i:min(f.i+1, len(f.window))] // no more: that may not have come
	f.fail(fmt.Errorf("%w: %+q instead of %s", ErrNotWellFormed, got, want))
}

// fail ends the stream: nothing comes any more.
func (f *Reader) fail(err error) {
	if f.err == nil {
		f.err = err
		f.window, f.i, f.from = nil, 0, 0
	}
}
