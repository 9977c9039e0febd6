package component

import (
	"bufio"
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

// read returns the next byte, and keeps it while there is room.
func (f *framer) read() (byte, error) {
	b, err := f.r.ReadByte()
	if err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, err
	}
	f.keep(b)
	return b, nil
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
	b, err := f.read()
	if err != nil {
		return 0, err
	}
	switch b {
	case '/':
		return markupClose, f.until(">")
	case '?':
		return markupOther, f.until("?>")
	case '!':
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
	return f.tag(b)
}

// tag reads to the end of a tag whose first byte is b. A '>' in the value of an
// attribute is not the end.
func (f *framer) tag(b byte) (markup, error) {
	var quote, last byte
	kind := markupOpen
	end := func(b byte) bool {
		switch {
		case quote != 0:
			if b == quote {
				quote = 0
			}
		case b == '\'' || b == '"':
			quote = b
		case b == '>':
			if last == '/' {
				kind = markupEmpty
			}
			return true
		}
		last = b
		return false
	}
	var err error
	if !end(b) {
		err = f.scan(end)
	}
	return kind, err
}

// until reads up to and with end, which has at most three bytes.
func (f *framer) until(end string) error {
	var tail [3]byte
	return f.scan(func(b byte) bool {
		tail[0], tail[1], tail[2] = tail[1], tail[2], b
		return string(tail[3-len(end):]) == end
	})
}

// scan reads up to and with the byte at which end says so.
func (f *framer) scan(end func(b byte) bool) error {
	for {
		if _, err := f.r.Peek(1); err == io.EOF {
			return io.ErrUnexpectedEOF
		} else if err != nil {
			return err
		}
		piece, _ := f.r.Peek(f.r.Buffered())
		n, found := 0, false
		for n < len(piece) && !found {
			found = end(piece[n])
			n++
		}
		f.keepAll(piece[:n])
		_, _ = f.r.Discard(n) // it is there
		if found {
			return nil
		}
	}
}
