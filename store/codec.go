package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/klauspost/compress/zstd"
)

// A value is how a record is kept:
//
//	form      1 byte: plain or packed
//	sequence  8 bytes: the number of the last note that the record replaced
//	checksum  4 bytes: CRC-32C of the rest, the kind and the key
//	body      the record, or the record compressed with Zstandard: not where its
//	          owner has done so
//
// Numbers are big-endian. The key is in the checksum, so that damage never makes
// one user's record another's.
const (
	plain      = 1
	packed     = 2
	headerSize = 1 + 8 + 4
	// worthPacking is the size of record from which on it is compressed: below,
	// little is gained.
	worthPacking = 256
	// maxUnpacked bounds what is decompressed, so that no file can take all
	// memory.
	maxUnpacked = 1 << 30
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)

	errValue = errors.New("damaged value")
)

// codec makes values of records and back. It is safe for concurrent use, and
// starts no goroutine.
type codec struct {
	zip   *zstd.Encoder
	unzip *zstd.Decoder
}

func newCodec() *codec {
	// A small window is enough, and keeps the tables small.
	zip, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2),
		zstd.WithWindowSize(256<<10), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic(err) // the options are constants
	}
	unzip, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(maxUnpacked))
	if err != nil {
		panic(err)
	}
	return &codec{zip, unzip}
}

// encode returns the value of a record, in new memory.
func (c *codec) encode(i id, record []byte, sequence uint64) []byte {
	value := c.pack(i.kind, record)
	seal(i, value, sequence)
	return value
}

// pack is the first part of encode, which takes time: the value still is to be
// sealed.
func (c *codec) pack(kind Kind, record []byte) []byte {
	value := make([]byte, headerSize, headerSize+min(len(record), worthPacking+len(record)/4))
	if len(record) >= worthPacking && kind != Rosters {
		value[0] = packed
		value = c.zip.EncodeAll(record, value)
		if len(value) < headerSize+len(record) {
			return value
		}
	}
	value[0] = plain
	return append(value[:headerSize], record...)
}

// seal completes a packed value.
func seal(i id, value []byte, sequence uint64) {
	binary.BigEndian.PutUint64(value[1:], sequence)
	binary.BigEndian.PutUint32(value[9:], valueSum(i, value))
}

// valueSequence is the sequence of a value that need not be whole: then it is 0,
// the sequence of no note.
func valueSequence(i id, value []byte) uint64 {
	if len(value) < headerSize || valueSum(i, value) != binary.BigEndian.Uint32(value[9:]) {
		return 0
	}
	return binary.BigEndian.Uint64(value[1:])
}

// decode returns the record of a value, in new memory and never nil.
func (c *codec) decode(i id, value []byte) ([]byte, error) {
	if len(value) < headerSize || valueSum(i, value) != binary.BigEndian.Uint32(value[9:]) {
		return nil, errValue
	}
	switch body := value[headerSize:]; value[0] {
	case plain:
		return append([]byte{}, body...), nil
	case packed:
		record, err := c.unzip.DecodeAll(body, []byte{})
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errValue, err)
		}
		return record, nil
	}
	return nil, fmt.Errorf("%w: unknown form %d", errValue, value[0])
}

func valueSum(i id, value []byte) uint32 {
	sum := crc32.Checksum(value[:9], castagnoli)
	sum = crc32.Update(sum, castagnoli, value[headerSize:])
	return crc32.Update(sum, castagnoli, append([]byte{byte(i.kind)}, i.key...))
}
