package store

import (
	"encoding/binary"

	"go.etcd.io/bbolt"
)

// replacedIn returns the number of the last note that the record of a key in the
// file, or its deletion, replaced.
func replacedIn(tx *bbolt.Tx, i id) uint64 {
	sequence := uint64(0)
	if gone := tx.Bucket(bucketGone).Get(goneKey(i)); len(gone) == 8 {
		sequence = binary.BigEndian.Uint64(gone)
	}
	if records := tx.Bucket(bucketOf(i.kind)); records != nil {
		sequence = max(sequence, valueSequence(i, records.Get([]byte(i.key))))
	}
	return sequence
}

// stored is a record as the file has it.
type stored struct {
	key   string
	value []byte
}

// Each calls f with each entry of a kind, once, in no order, until f fails. f
// may call the store; what is put or noted meanwhile, it may get or not.
func (d *Disk) Each(kind Kind, f func(key string, e Entry) error) error {
	fresh, closed := d.overlay.keys(kind)
	if closed {
		return ErrClosed
	}
	for after := ""; ; {
		part, err := d.part(kind, after)
		if err != nil {
			return err
		}
		if len(part) == 0 {
			break
		}
		for _, s := range part {
			if fresh[s.key] {
				continue
			}
			e, err := d.entry(id{kind, s.key}, nil, s.value, nil)
			if err != nil {
				return err
			}
			if err := f(s.key, e); err != nil {
				return err
			}
		}
		after = part[len(part)-1].key
	}
	for key := range fresh {
		e, err := d.Get(kind, key)
		if err != nil {
			return err
		}
		if e.Empty() {
			continue
		}
		if err := f(key, e); err != nil {
			return err
		}
	}
	return nil
}

// part returns some records of a kind that follow a key in the order of the
// file, none at its end. Who reads in parts keeps no transaction open, for which
// a write might have to wait.
func (d *Disk) part(kind Kind, after string) (part []stored, err error) {
	err = d.file.view(func(tx *bbolt.Tx) error {
		records := tx.Bucket(bucketOf(kind))
		if records == nil {
			return nil
		}
		c := records.Cursor()
		k, v := c.Seek([]byte(after))
		if after != "" && string(k) == after {
			k, v = c.Next()
		}
		if k != nil && string(k) <= after && after != "" {
			return damaged("its keys are in no order") // or this would never end
		}
		for size := 0; k != nil && len(part) < maxBatch && size < maxBatchBytes; k, v = c.Next() {
			part = append(part, stored{string(k), append([]byte{}, v...)})
			size += len(v)
		}
		return nil
	})
	return part, d.readErr(err)
}

// Noted calls f with the notes of each key of a kind that has some, in no order,
// until f fails. f may call the store. No record is read.
func (d *Disk) Noted(kind Kind, f func(key string, notes [][]byte) error) error {
	keys, closed := d.overlay.keys(kind)
	if closed {
		return ErrClosed
	}
	for key := range keys {
		notes := d.overlay.look(id{kind, key}).notes
		if len(notes) == 0 {
			continue
		}
		if err := f(key, notes); err != nil {
			return err
		}
	}
	return nil
}
