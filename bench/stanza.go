package main

import (
	"bytes"
	"io"
)

// cutter cuts a stream into its stanzas, cheaply: what measures must cost less
// than what is measured. It trusts the other side to escape '>' in attributes,
// as rosterd and both servers do. The opening and closing tag of the stream
// count as stanzas.
type cutter struct {
	r          io.Reader
	buf        []byte
	start, end int  // what is not cut yet
	scan       int  // how far after start was looked
	depth      int  // there
	long       bool // a long delegated answer: only its end is looked for
}

func newCutter(r io.Reader, size int) *cutter { return &cutter{r: r, buf: make([]byte, size)} }

// fill reads once. It makes what next has returned invalid.
func (c *cutter) fill() error {
	if c.start > 0 && (c.start == c.end || len(c.buf)-c.end < len(c.buf)/4) {
		c.end = copy(c.buf, c.buf[c.start:c.end])
		c.start = 0
	}
	if c.end == len(c.buf) {
		c.buf = append(c.buf, make([]byte, len(c.buf))...)
	}
	n, err := c.r.Read(c.buf[c.end:])
	c.end += n
	if n > 0 {
		return nil
	}
	return err
}

// read returns the next stanza, which is valid until the next call.
func (c *cutter) read() ([]byte, error) {
	for {
		if s := c.next(); s != nil {
			return s, nil
		}
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
}

// longEnd ends a long delegated answer. It begins with a letter that is rare in
// rosters, which is found fast.
var longEnd = []byte("q></forwarded></delegation></iq>")

// next is the next stanza that is there as a whole, or nil.
func (c *cutter) next() []byte {
	for {
		data := c.buf[c.start:c.end]
		if c.long {
			i := bytes.Index(data[c.scan:], longEnd)
			if i < 0 {
				c.scan = max(c.scan, len(data)-len(longEnd))
				return nil
			}
			c.scan += i + len(longEnd)
			return c.cut()
		}
		open := bytes.IndexByte(data[c.scan:], '<')
		if open < 0 {
			c.scan = len(data)
			return nil
		}
		open += c.scan
		n := bytes.IndexByte(data[open:], '>')
		if n < 0 {
			c.scan = open
			return nil
		}
		t := data[open : open+n+1]
		c.scan = open + n + 1
		if c.depth == 0 { // text between the stanzas
			c.start, c.scan = c.start+open, len(t)
			data = data[open:]
		}
		switch {
		case t[1] == '?':
			if c.depth == 0 {
				c.cut()
			}
			continue
		case t[1] == '/':
			c.depth--
		case t[len(t)-2] == '/' || bytes.HasPrefix(t, []byte("<stream:stream")):
		default:
			if c.depth++; c.depth == 1 {
				c.long = isLong(data[c.scan:])
			}
		}
		if c.depth <= 0 {
			return c.cut()
		}
	}
}

// cut takes off what was looked at.
func (c *cutter) cut() []byte {
	s := c.buf[c.start : c.start+c.scan]
	c.start += c.scan
	c.scan, c.depth, c.long = 0, 0, false
	return s
}

// isLong reports whether what follows the opening tag of a stanza is a
// delegated answer that does not end soon.
func isLong(rest []byte) bool {
	const soon = 512
	return len(rest) > soon && bytes.HasPrefix(rest, []byte("<delegation")) && !bytes.Contains(rest[:soon], []byte("</delegation>"))
}

// tag is the first tag in s, which begins with it.
func tag(s []byte) []byte { return s[:bytes.IndexByte(s, '>')+1] }

// inner is the tag of the first element of that name within s, from its '<' on,
// or nil.
func inner(s []byte, name string) []byte {
	if len(s) < 2 {
		return nil
	}
	i := bytes.Index(s[1:], []byte("<"+name))
	if i < 0 {
		return nil
	}
	return tag(s[1+i:])
}

// attr is the value of an attribute in a tag, as it is written there.
func attr(tag []byte, name string) []byte {
	for rest := tag; ; {
		i := bytes.Index(rest, []byte(name))
		if i < 0 {
			return nil
		}
		after := rest[i+len(name):]
		if i > 0 && rest[i-1] == ' ' && len(after) > 2 && after[0] == '=' {
			if end := bytes.IndexByte(after[2:], after[1]); end >= 0 {
				return after[2 : 2+end]
			}
		}
		rest = after
	}
}
