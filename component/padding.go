package component

import "bytes"

// longTag is the length of a tag, in bytes, from which on [padding] follows it.
// No server is known that reads the stream in shorter pieces.
const longTag = 1 << 10

// padding is how many blanks are to follow a stanza. Blanks between stanzas are
// nothing (RFC 6120, section 4.6.1).
//
// COMPAT libexpat since 2.6, and older ones with Debian's security updates: when
// a tag did not end with the bytes that were read, it waits until there are
// twice as many ("reparse deferral"), even if the tag has ended meanwhile. Until
// then everything behind the tag waits, too. As many bytes as the tag has are
// always enough.
func padding(stanza []byte) (blanks int) {
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

// appendBlanks appends n blanks to what is to be written.
func appendBlanks(b [][]byte, n int) [][]byte {
	for ; n > len(blanks); n -= len(blanks) {
		b = append(b, blanks)
	}
	if n > 0 {
		b = append(b, blanks[:n])
	}
	return b
}
