package xmlstream

import "bytes"

// longTag is the length of a tag, in bytes, from which on it may need [Padding]. No server
// is known that reads the stream in shorter pieces.
const longTag = 1 << 10

// Padding returns how many blanks must follow a stanza. They mean nothing (RFC 6120,
// section 4.6.1).
//
// COMPAT libexpat since 2.6, and older ones with Debian's security updates: when a tag did
// not end with the bytes that were read, it and all behind it wait until there are twice
// as many ("reparse deferral"). As many blanks as the tag has bytes are always enough.
func Padding(stanza []byte) (blanks int) {
	for begin := 0; len(stanza)-begin > longTag; {
		if last := bytes.LastIndexByte(stanza[begin:begin+longTag], '>'); last >= 0 {
			begin += last + 1 // every tag before has ended, and was short
			continue
		}
		end := bytes.IndexByte(stanza[begin+longTag:], '>') // in attributes and text it is escaped
		if end < 0 {
			break
		}
		end += begin + longTag + 1
		tag := end - begin - bytes.LastIndexByte(stanza[begin:end], '<')
		if behind := len(stanza) - end; tag > longTag {
			blanks = max(blanks, tag-behind)
		}
		begin = end
	}
	return blanks
}

var blanks = bytes.Repeat([]byte{' '}, 16<<10)

// AppendBlanks appends n blanks to pieces that are written together.
func AppendBlanks(pieces [][]byte, n int) [][]byte {
	for ; n > 0; n -= len(blanks) {
		pieces = append(pieces, blanks[:min(n, len(blanks))])
	}
	return pieces
}
