// Package xmlstream is XML as bytes, for the stream between a server and a
// component. It knows the syntax alone: not what a stanza means, and no roster.
//
//   - [Reader] cuts the stream into stanzas. It ends the stream where the bytes
//     cannot be XML, and nowhere else: a stanza that cannot be decoded is the fault
//     of that stanza.
//   - [Decode] makes an [Element] of a stanza, within bounds of depth and number.
//   - [AppendAttr] and [AppendEscaped] write what every parser reads as it was
//     meant; what XML forbids is left out.
//   - [AppendChildren] writes foreign XML anew, without its prefixes.
//   - [Padding] says how many blanks keep a server from waiting at a long tag.
//
// encoding/xml decides about every stanza that is not plain (prefixes, references,
// characters beyond ASCII). The others, nearly all, do not pass through it: its
// decoder takes 10 µs for a roster query, [Decode] takes 1 µs. And a xml.Decoder that
// reads the stream itself ends with the first stanza that it refuses; users can send
// such stanzas.
package xmlstream
