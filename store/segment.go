package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"
)

// A segment is a file of the journal:
//
//	magic     8 bytes: "rosterdj"
//	version   4 bytes
//	checksum  4 bytes: CRC-32C of magic and version
//	alive     8 bytes: when the process was last alive, Unix time in nanoseconds;
//	          overwritten in place
//	notes     each: the length of its body (4 bytes), CRC-32C of the length,
//	          CRC-32C of the body, and the body: number (8 bytes), kind (1),
//	          length of the key (2), key, note
//
// Numbers are big-endian. The length has its own checksum, so that damage to it
// is not taken for the end of the segment.
const (
	segmentMagic   = "rosterdj"
	segmentVersion = 1
	segmentHeader  = 8 + 4 + 4 + 8
	aliveOffset    = 8 + 4 + 4
	noteHeader     = 4 + 4 + 4
	noteBody       = 8 + 1 + 2
)

// journalNote is a note as the journal has it.
type journalNote struct {
	id
	note
}

func appendSegmentHeader(b []byte, alive time.Time) []byte {
	start := len(b)
	b = append(b, segmentMagic...)
	b = binary.BigEndian.AppendUint32(b, segmentVersion)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
	return appendAlive(b, alive)
}

func appendAlive(b []byte, alive time.Time) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(alive.UnixNano()))
}

func appendNote(b []byte, n journalNote) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint32(b, uint32(noteBody+len(n.key)+len(n.data)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, n.sequence)
	b = append(b, byte(n.kind))
	b = binary.BigEndian.AppendUint16(b, uint16(len(n.key)))
	b = append(b, n.key...)
	b = append(b, n.data...)
	binary.BigEndian.PutUint32(b[start+8:], crc32.Checksum(b[start+noteHeader:], castagnoli))
	return b
}

// parseSegment returns the notes of a segment. One that ends in the middle of a
// note, or goes on from there with nothing but zeros, was being written when the
// process or the machine ended; anything else that is no note is an error. The
// notes share the memory of data.
func parseSegment(data []byte) (notes []journalNote, alive time.Time, err error) {
	header := appendSegmentHeader(nil, time.Time{})[:aliveOffset]
	begun := bytes.TrimRight(data, "\x00")
	switch {
	case bytes.HasPrefix(header, begun), len(data) < segmentHeader && bytes.HasPrefix(begun, header):
		return nil, time.Time{}, nil
	case !bytes.HasPrefix(data, []byte(segmentMagic)):
		return nil, time.Time{}, errNotOurs
	case len(data) < segmentHeader, crc32.Checksum(data[:12], castagnoli) != binary.BigEndian.Uint32(data[12:]):
		return nil, time.Time{}, damaged("its header")
	}
	if version := binary.BigEndian.Uint32(data[8:]); version > segmentVersion {
		return nil, time.Time{}, newer(uint64(version), segmentVersion)
	}
	alive = time.Unix(0, int64(binary.BigEndian.Uint64(data[aliveOffset:])))
	for at := segmentHeader; at < len(data); {
		n, size, err := parseNote(data[at:])
		if err != nil {
			return nil, time.Time{}, damaged(fmt.Sprintf("byte %d: %v", at, err))
		}
		if size == 0 {
			break
		}
		notes = append(notes, n)
		at += size
	}
	return notes, alive, nil
}

// parseNote returns the note that data begins with, and its size: 0, if the
// segment ends here.
func parseNote(data []byte) (n journalNote, size int, err error) {
	if len(data) < noteHeader {
		return n, 0, nil
	}
	length := binary.BigEndian.Uint32(data)
	switch {
	case crc32.Checksum(data[:4], castagnoli) != binary.BigEndian.Uint32(data[4:]), length < noteBody:
		if zeros(data[noteHeader:]) { // a number is never 0
			return n, 0, nil
		}
		return n, 0, errNote
	case uint64(len(data)-noteHeader) < uint64(length):
		return n, 0, nil
	}
	size = noteHeader + int(length)
	body := data[noteHeader:size:size]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(data[8:]) {
		if zeros(data[size:]) { // only its beginning came to the disk
			return n, 0, nil
		}
		return n, 0, errNote
	}
	keyLength := int(binary.BigEndian.Uint16(body[9:]))
	if len(body) < noteBody+keyLength {
		return n, 0, errNote
	}
	n.sequence = binary.BigEndian.Uint64(body)
	n.kind = Kind(body[8])
	n.key = string(body[noteBody : noteBody+keyLength])
	n.data = body[noteBody+keyLength:]
	return n, size, nil
}

func zeros(data []byte) bool { return len(bytes.TrimRight(data, "\x00")) == 0 }
