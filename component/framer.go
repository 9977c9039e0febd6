package component

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

var errRestrictedXML = errors.New("the server sent a document type declaration (RFC 6120, section 11.1)")

// framer cuts an XML stream into its children, the stanzas, without
// understanding them. Each stanza is decoded on its own afterwards, so that one
// that cannot be decoded, however odd it is, ends itself and not the stream.
//
// It trusts the server to send well-formed XML. It is for one goroutine.
type framer struct {
	r   *bufio.Reader
	max int // bytes of a stanza that are kept
	buf []byte
	cut bool // buf lacks bytes of the stanza
}

func newFramer(r io.Reader, max int) *framer {
	return &framer{r: bufio.NewReaderSize(r, 16<<10), max: max}
}

// markup is a kind of XML markup.
type markup int

const (
	markupOpen  markup = iota // <a>
	markupEmpty               // <a/>
	markupClose               // </a>
	markupOther               // comment, processing instruction, CDATA section
)

// header reads up to and with the opening tag of the stream.
func (f *framer) header() ([]byte, error) {
	f.reset()
	for {
		if err := f.text(false); err != nil {
			return nil, err
		}
		kind, err := f.markup()
		if err != nil {
			return nil, err
		}
		if kind != markupOther {
			return f.buf, nil
		}
	}
}

// next reads the next stanza. What it returns is valid until the next call;
// if whole is false, it is only the beginning of a stanza that was longer than
// the limit. The error is io.EOF after the closing tag of the stream.
func (f *framer) next() (stanza []byte, whole bool, err error) {
	f.reset()
	for depth := 0; ; {
		if err := f.text(depth > 0); err != nil {
			return nil, false, err
		}
		kind, err := f.markup()
		if err != nil {
			return nil, false, err
		}
		switch {
		case kind == markupOpen:
			depth++
		case kind == markupClose && depth == 0:
			return nil, false, io.EOF
		case kind == markupClose:
			depth--
		case depth == 0 && kind == markupOther:
			f.reset()
			continue
		}
		if depth == 0 {
			return f.buf, !f.cut, nil
		}
	}
}

func (f *framer) reset() {
	if cap(f.buf) > 64<<10 {
		f.buf = nil // one long stanza is no reason to keep its memory
	}
	f.buf, f.cut = f.buf[:0], false
}

// peek returns the next byte, which is yet to be read.
func (f *framer) peek() (byte, error) {
	next, err := f.r.Peek(1)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return 0, err
	}
	return next[0], nil
}

// read reads the next byte, and keeps it while there is room.
func (f *framer) read() (byte, error) {
	b, err := f.peek()
	if err == nil {
		_, _ = f.r.Discard(1) // it is there
		f.keep(b)
	}
	return b, err
}

func (f *framer) keep(b byte) {
	if len(f.buf) < f.max {
		f.buf = append(f.buf, b)
	} else {
		f.cut = true
	}
}

func (f *framer) keepAll(piece []byte) {
	n := min(len(piece), f.max-len(f.buf))
	f.buf, f.cut = append(f.buf, piece[:n]...), f.cut || n < len(piece)
}

// text reads up to the next '<', which only markup keeps.
func (f *framer) text(keep bool) error {
	for {
		piece, err := f.r.ReadSlice('<')
		if err == nil {
			piece = piece[:len(piece)-1]
		}
		if keep {
			f.keepAll(piece)
		}
		switch err {
		case bufio.ErrBufferFull:
		case io.EOF:
			return io.ErrUnexpectedEOF
		default:
			return err
		}
	}
}

// markup reads what follows a '<'.
func (f *framer) markup() (markup, error) {
	f.keep('<')
	b, err := f.peek()
	if err != nil {
		return 0, err
	}
	switch b {
	case '/':
		return markupClose, f.scan(closed)
	case '?', '!':
		_, _ = f.read()
	default:
		return f.tag()
	}
	if b == '?' {
		return markupOther, f.until("?>")
	}
	if b, err = f.read(); err != nil {
		return 0, err
	}
	switch b {
	case '-':
		return markupOther, f.until("-->")
	case '[':
		return markupOther, f.until("]]>")
	}
	return 0, errRestrictedXML
}

// closed finds the end of a closing tag.
func closed(piece []byte) int { return bytes.IndexByte(piece, '>') + 1 }

// tag reads the rest of an opening tag. A '>' in the value of an attribute is not
// its end.
func (f *framer) tag() (markup, error) {
	var quote, last byte
	err := f.scan(func(piece []byte) int {
		for i := 0; i < len(piece); i++ {
			if quote != 0 {
				n := bytes.IndexByte(piece[i:], quote)
				if n < 0 {
					return 0
				}
				i += n
				last, quote = quote, 0
				continue
			}
			switch b := piece[i]; b {
			case '>':
				return i + 1
			case '\'', '"':
				quote = b
			default:
				last = b
			}
		}
		return 0
	})
	if last == '/' {
		return markupEmpty, err
	}
	return markupOpen, err
}

// until reads up to and with end, which has at most three bytes.
func (f *framer) until(end string) error {
	var tail [3]byte
	return f.scan(func(piece []byte) int {
		for i, b := range piece {
			tail[0], tail[1], tail[2] = tail[1], tail[2], b
			if string(tail[3-len(end):]) == end {
				return i + 1
			}
		}
		return 0
	})
}

// scan reads as far as find says: it is given piece after piece, and returns how
// much of one is to be read, or 0 if the end is not in it.
func (f *framer) scan(find func(piece []byte) int) error {
	for {
		if _, err := f.peek(); err != nil {
			return err
		}
		piece, _ := f.r.Peek(f.r.Buffered())
		n := find(piece)
		found := n > 0
		if !found {
			n = len(piece)
		}
		f.keepAll(piece[:n])
		_, _ = f.r.Discard(n) // it is there
		if found {
			return nil
		}
	}
}
