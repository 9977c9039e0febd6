package store

import (
	"encoding/binary"
	"time"

	"go.etcd.io/bbolt"
)

const (
	// flushAfter is how long a record waits for others. What it lacks to the
	// second that is promised is for the writing.
	flushAfter = 700 * time.Millisecond
	retryAfter = time.Second
	beatAfter  = 5 * time.Second
	// maxBatch and maxBatchBytes bound a transaction.
	maxBatch      = 1000
	maxBatchBytes = 4 << 20
	// maxRaw is how many bytes of records wait before who puts more has to pack
	// them himself: so nobody puts faster than is packed, even if the disk stands
	// still.
	maxRaw = 16 << 20
)

// run writes what waits, until stop.
func (d *Disk) run() {
	defer close(d.stopped)
	beat := time.NewTicker(beatAfter)
	defer beat.Stop()
	var due <-chan time.Time
	for {
		select {
		case <-d.stop:
			return
		case now := <-beat.C:
			d.journal.beat(now)
		case <-d.kick:
			if due == nil {
				due = time.After(flushAfter)
			}
		case <-due:
			due = nil
			if d.flush() != nil {
				due = time.After(retryAfter)
			}
		}
	}
}

// flush writes all records that wait, and sees to the journal. It is for one
// goroutine.
func (d *Disk) flush() error {
	recordsErr := d.writeRecords(d.overlay.jobs())
	d.trouble.set(whatRecords, recordsErr)
	notesErr := d.tendJournal()
	d.trouble.set(whatNotes, notesErr)
	if recordsErr != nil {
		return recordsErr
	}
	return notesErr
}

// writeRecords writes records in batches. If it fails, those that are not
// written are packed.
func (d *Disk) writeRecords(jobs []job) error {
	var failed error
	for len(jobs) > 0 {
		n, size := 0, 0
		for n < len(jobs) && n < maxBatch && size < maxBatchBytes {
			j := jobs[n]
			if j.value == nil && !j.deleted {
				value := d.codec.pack(j.kind, j.record)
				seal(j.id, value, j.sequence)
				d.overlay.packed(j, value)
			}
			size += len(j.value)
			n++
		}
		if failed == nil {
			failed = d.commit(jobs[:n])
		}
		jobs = jobs[n:]
	}
	return failed
}

// commit writes a batch in one transaction. It may be empty: then it writes that
// the process is alive.
func (d *Disk) commit(jobs []job) error {
	sequence := d.overlay.lastNoted()
	err := d.file.update(func(tx *bbolt.Tx) error {
		if d.clearGone {
			if err := tx.DeleteBucket(bucketGone); err != nil {
				return err
			}
		}
		gone, err := tx.CreateBucketIfNotExists(bucketGone)
		if err != nil {
			return err
		}
		for _, j := range jobs {
			if err := writeJob(tx, gone, j); err != nil {
				return err
			}
		}
		meta := tx.Bucket(bucketMeta)
		if err := meta.Put(keySequence, binary.BigEndian.AppendUint64(nil, sequence)); err != nil {
			return err
		}
		return meta.Put(keyAlive, appendAlive(nil, time.Now()))
	})
	if err != nil {
		return inFile(d.file.path, err)
	}
	d.clearGone = false
	d.overlay.committed(jobs)
	return nil
}

func writeJob(tx *bbolt.Tx, gone *bbolt.Bucket, j job) error {
	records, err := tx.CreateBucketIfNotExists(bucketOf(j.kind))
	if err != nil {
		return err
	}
	if !j.deleted {
		return records.Put([]byte(j.key), j.value)
	}
	if j.gravestone {
		if err := gone.Put(goneKey(j.id), binary.BigEndian.AppendUint64(nil, j.sequence)); err != nil {
			return err
		}
	}
	return records.Delete([]byte(j.key))
}

// tendJournal rewrites the journal if that is due.
func (d *Disk) tendJournal() error {
	if d.journal.due(d.overlay) {
		if err := d.journal.rewrite(d.overlay, time.Now()); err != nil {
			return err
		}
		d.clearGone = true // the journal has no note of before any more
	}
	return d.journal.room(d.overlay)
}
