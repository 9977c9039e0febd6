package store

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// Options of [Open].
type Options struct {
	Logger *slog.Logger // nil: nothing is logged
	Errors Counter      // counts each time that something could not be written; nil: nobody does
}

// Disk is a store in a file, and in a journal of notes beside it, whose files
// are named after it. Both grow to what they must hold; the journal to 128 MiB
// at most.
//
// What cannot be written, because the disk is full for instance, is kept in
// memory, compressed, and tried again each second. That is logged and counted,
// and [Disk.Err] says it.
type Disk struct {
	file    *file
	codec   *codec
	overlay *overlay
	journal *journal
	trouble *trouble
	ended   time.Time

	kick      chan struct{} // capacity 1: something waits
	stop      chan struct{} // closed: run is to return
	stopped   chan struct{} // closed: it has
	clearGone bool          // belongs to run, then to Close

	closing  sync.Once
	closeErr error // guarded by closing
}

// Open opens the store in the file at path, and makes it if there is none. Its
// errors name the file, and leave what is there as it is: if the file is in use
// by another process, which it finds out within a second, is damaged, was
// written by a newer rosterd, is no store, or cannot be made or written. Damage
// that it does not find is found when what is damaged is read.
//
// The store is to be closed.
func Open(path string, o Options) (*Disk, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	d := &Disk{
		file: f, codec: newCodec(), overlay: newOverlay(), journal: &journal{path: path},
		trouble: &trouble{logger: o.Logger, errors: o.Errors, causes: make(map[string]error)},
		kick:    make(chan struct{}, 1), stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	if err := d.load(); err != nil {
		d.journal.close(false)
		f.close()
		return nil, err
	}
	go d.run()
	return d, nil
}

// load takes the notes that count over into the overlay and into a new segment.
func (d *Disk) load() error {
	sequence, alive, err := d.file.last()
	if err != nil {
		return inFile(d.file.path, err)
	}
	notes, then, err := d.journal.read()
	if err != nil {
		return err
	}
	if d.ended = alive; then.After(alive) {
		d.ended = then
	}
	d.journal.sequence = max(sequence, d.journal.sequence)
	if err := d.replay(notes); err != nil {
		return inFile(d.file.path, err)
	}
	d.overlay.noted = d.journal.sequence
	err = d.tendJournal() // is due, for there is no segment to write
	if isFull(err) {
		d.trouble.set(whatNotes, err)
		d.wake()
		return nil
	}
	return err
}

// replay gives the overlay the notes that are later than their records.
func (d *Disk) replay(notes []journalNote) error {
	replaced := make(map[id]uint64)
	return d.file.view(func(tx *bbolt.Tx) error {
		for _, n := range notes {
			sequence, known := replaced[n.id]
			if !known {
				sequence = replacedIn(tx, n.id)
				replaced[n.id] = sequence
			}
			if n.sequence > sequence {
				d.overlay.note(n.id, n.note)
			}
		}
		return nil
	})
}

// Get returns what is known of a key: an empty entry, if nothing is.
func (d *Disk) Get(kind Kind, key string) (Entry, error) {
	i := id{kind, key}
	for {
		s := d.overlay.look(i)
		if s.closed {
			return Entry{}, ErrClosed
		}
		if s.waits {
			return d.entry(i, s.record, s.value, s.notes)
		}
		value, err := d.read(i)
		if err != nil {
			return Entry{}, err
		}
		// Between the two looks the notes may have been replaced by a record, which
		// may be the one that was read, or not.
		if after := d.overlay.look(i); after.commits == s.commits && !after.waits {
			return d.entry(i, nil, value, after.notes)
		}
	}
}

// entry makes an entry of a record, or else of its value, or else of none.
func (d *Disk) entry(i id, record, value []byte, notes [][]byte) (Entry, error) {
	if record == nil && value != nil {
		var err error
		if record, err = d.codec.decode(i, value); err != nil {
			return Entry{}, inFile(d.file.path, damaged(err.Error()))
		}
	}
	return Entry{record, notes}, nil
}

// read returns a value from the file, nil if there is none.
func (d *Disk) read(i id) (value []byte, err error) {
	err = d.file.view(func(tx *bbolt.Tx) error {
		if records := tx.Bucket(bucketOf(i.kind)); records != nil {
			if v := records.Get([]byte(i.key)); v != nil {
				value = append([]byte{}, v...)
			}
		}
		return nil
	})
	return value, d.readErr(err)
}

func (d *Disk) readErr(err error) error {
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return ErrClosed
	}
	return inFile(d.file.path, err)
}

// Put replaces the record of a key, or deletes it if record is nil, and drops
// the key's notes. The record then belongs to the store. Readers see it at once,
// a second later it is on the disk.
func (d *Disk) Put(kind Kind, key string, record []byte) {
	i := id{kind, key}
	if !i.valid() {
		d.trouble.refused(len(key))
		return
	}
	p := &pending{record: record, deleted: record == nil}
	if raw, _ := d.overlay.sizes(); raw > maxRaw && !p.deleted {
		p.record, p.value = nil, d.codec.pack(kind, record)
	}
	if d.overlay.put(i, p) {
		d.wake()
	}
}

// Note adds a note to what is known of a key. It then belongs to the store. When
// Note returns, a kill of the process does not lose the note, unless [Disk.Err]
// says that notes cannot be written. If more than 64 MiB of notes wait for their
// records to be written, the note is not kept.
func (d *Disk) Note(kind Kind, key string, note []byte) {
	i := id{kind, key}
	if !i.valid() {
		d.trouble.refused(len(key))
		return
	}
	err := d.journal.append(d.overlay, i, note)
	if err == nil {
		return
	}
	if !errors.Is(err, errMissing) {
		d.trouble.set(whatNotes, err)
	}
	d.wake()
}

// wake lets run write soon.
func (d *Disk) wake() {
	select {
	case d.kick <- struct{}{}:
	default: // it will
	}
}

// Forgettable does nothing: memory has only what is not on the disk yet, and the
// disk keeps all.
func (d *Disk) Forgettable(Kind, string, bool) {}

// Ended is when the process that wrote the store before is last known to have
// been alive, to some 5 s: zero, if the store is new.
func (d *Disk) Ended() time.Time { return d.ended }

// Err is nil, or why what was put or noted is not being written at present.
func (d *Disk) Err() error { return d.trouble.err() }

// Close writes all that waits, and frees the file. What is put or noted
// meanwhile may be lost. It returns an error if not all could be written, the
// same if it is called again.
func (d *Disk) Close() error {
	d.closing.Do(func() { d.closeErr = d.close() })
	return d.closeErr
}

func (d *Disk) close() error {
	close(d.stop)
	<-d.stopped
	d.overlay.close()
	d.journal.stop()
	err := d.flush()
	if err == nil {
		err = d.commit(nil) // that it was alive
	}
	_, notes := d.overlay.sizes()
	err = errors.Join(err, d.journal.close(err == nil && notes == 0))
	return errors.Join(err, inFile(d.file.path, d.file.close()))
}
