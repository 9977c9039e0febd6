package store

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// journal is the files that notes are appended to. It is safe for concurrent
// use, but for rewrite and close, which are for one goroutine.
//
// Its files are the segments path-journal.00000001 and so on. Only the last is
// written. When most of what they have is outdated, the rest is written to a new
// one, and they are deleted.
type journal struct {
	path string // of the store

	mu       sync.Mutex // guards all below, and orders notes
	closed   bool
	sequence uint64   // the number of the last note
	file     *os.File // the last segment; nil: none
	number   uint64   // of the last segment
	offset   int64    // where the next note goes in file
	older    []string // paths of the segments before, to be deleted
	size     int64    // of all segments, bytes
	// missing says that notes are not in the journal since something failed.
	missing bool
	full    bool // notes are refused, until a quarter is free again
	buffer  []byte
}

const journalInfix = "-journal."

func (j *journal) segmentPath(number uint64) string {
	return fmt.Sprintf("%s%s%08d", j.path, journalInfix, number)
}

// read returns the notes of all segments, without repetition, in the order of
// their numbers, and when the process that wrote them was last alive.
func (j *journal) read() (notes []journalNote, alive time.Time, err error) {
	paths, err := j.find()
	if err != nil {
		return nil, time.Time{}, err
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, time.Time{}, inFile(path, err)
		}
		its, then, err := parseSegment(data)
		if err != nil {
			return nil, time.Time{}, inFile(path, err)
		}
		notes = append(notes, its...)
		if then.After(alive) {
			alive = then
		}
		j.size += int64(len(data))
	}
	j.older = paths
	slices.SortStableFunc(notes, func(a, b journalNote) int {
		if a.sequence < b.sequence {
			return -1
		}
		return int(min(a.sequence-b.sequence, 1))
	})
	// A rewrite that was not finished leaves notes twice.
	notes = slices.CompactFunc(notes, func(a, b journalNote) bool { return a.sequence == b.sequence && a.id == b.id })
	if len(notes) > 0 {
		j.sequence = notes[len(notes)-1].sequence
	}
	return notes, alive, nil
}

// find returns the paths of the segments, the oldest first, and sets number.
func (j *journal) find() ([]string, error) {
	dir, base := filepath.Split(j.path)
	entries, err := os.ReadDir(filepath.Clean(dir))
	if err != nil {
		return nil, inFile(j.path, err)
	}
	var numbers []uint64
	for _, entry := range entries {
		suffix, ok := strings.CutPrefix(entry.Name(), base+journalInfix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(suffix, 10, 64)
		if err == nil && filepath.Base(j.segmentPath(n)) == entry.Name() {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	paths := make([]string, len(numbers))
	for k, n := range numbers {
		paths[k], j.number = j.segmentPath(n), n
	}
	return paths, nil
}

// append gives a note its number, appends it, and hands it to o. If it fails, o
// has the note nevertheless, unless the error is errNotesFull.
func (j *journal) append(o *overlay, i id, data []byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil
	}
	if _, notes := o.sizes(); j.full || notes+noteSize(i, data) > maxNotes {
		j.full = true
		return errNotesFull
	}
	j.sequence++
	n := journalNote{i, note{j.sequence, data}}
	err := j.write(n)
	if err != nil {
		j.missing = true
	}
	o.note(i, n.note)
	return err
}

// errMissing says nothing new: it has been said why notes are missing.
var errMissing = errors.New("notes are missing already")

func (j *journal) write(n journalNote) error {
	if j.missing || j.file == nil {
		return errMissing
	}
	j.buffer = appendNote(j.buffer[:0], n)
	defer func() {
		if cap(j.buffer) > 1<<20 {
			j.buffer = nil
		}
	}()
	if j.size+int64(len(j.buffer)) > 2*maxNotes {
		return errMissing // until it is rewritten
	}
	if _, err := j.file.WriteAt(j.buffer, j.offset); err != nil {
		j.file.Truncate(j.offset) // what was written of it; to fail is no worse than to be killed here
		return inFile(j.file.Name(), err)
	}
	j.offset += int64(len(j.buffer))
	j.size += int64(len(j.buffer))
	return nil
}

// beat notes that the process is alive.
func (j *journal) beat(now time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file != nil {
		j.file.WriteAt(appendAlive(nil, now), aliveOffset) // there is another beat soon
	}
}

// due reports whether the journal is to be rewritten, for notes are missing or
// most of it is outdated.
func (j *journal) due(o *overlay) bool {
	_, live := o.sizes()
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.missing || j.file == nil || j.size > 2*int64(live)+1<<20
}

// room returns errNotesFull, or nil as soon as there is room for notes.
func (j *journal) room(o *overlay) error {
	_, live := o.sizes()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.full = j.full && live > maxNotes/4*3; j.full {
		return errNotesFull
	}
	return nil
}

// rewrite begins a new segment with the notes that o needs, and deletes all
// others. If it fails, the journal is as good as before.
func (j *journal) rewrite(o *overlay, now time.Time) error {
	old, file, err := j.begin(o, now)
	if err != nil {
		return err
	}
	if old != nil {
		old.Close() // was written without a buffer: nothing is lost
	}
	// The older ones may be on the disk already, which a power failure does not
	// change: then this one has to be, before they go.
	if err := file.Sync(); err != nil {
		return inFile(file.Name(), err)
	}
	return j.deleteOlder()
}

// begin makes a new segment the one that is written.
func (j *journal) begin(o *overlay, now time.Time) (old, file *os.File, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	path := j.segmentPath(j.number + 1)
	file, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		if errors.Is(err, os.ErrExist) { // it could not be removed below
			j.number++
			j.older = append(j.older, path)
		}
		return nil, nil, inFile(path, err)
	}
	notes := o.live()
	offset, err := writeSegment(file, notes, now)
	if err != nil {
		file.Close()
		os.Remove(path) // nobody else knows it yet
		return nil, nil, inFile(path, err)
	}
	if j.file != nil {
		j.older = append(j.older, j.file.Name())
	}
	old, j.file, j.number, j.offset = j.file, file, j.number+1, offset
	j.size += offset
	j.missing = false
	o.rewritten(notes)
	return old, file, nil
}

func writeSegment(file *os.File, notes []journalNote, now time.Time) (size int64, err error) {
	w := bufio.NewWriterSize(file, 64<<10)
	buffer := appendSegmentHeader(nil, now)
	w.Write(buffer) // Flush has the error
	size = int64(len(buffer))
	for _, n := range notes {
		buffer = appendNote(buffer[:0], n)
		w.Write(buffer)
		size += int64(len(buffer))
	}
	return size, w.Flush()
}

// deleteOlder deletes all segments but the last. What it cannot delete it tries
// again the next time.
func (j *journal) deleteOlder() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for len(j.older) > 0 {
		if err := os.Remove(j.older[0]); err != nil && !errors.Is(err, os.ErrNotExist) {
			return inFile(j.older[0], err)
		}
		j.older = j.older[1:]
	}
	j.older = nil
	j.size = j.offset
	return nil
}

// stop ends append: from then on it does nothing.
func (j *journal) stop() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
}

// close closes the files, after stop. If tidy, all notes are outdated, and the
// files are deleted; else they are synced.
func (j *journal) close(tidy bool) error {
	j.mu.Lock()
	file := j.file
	j.file = nil
	if tidy && file != nil {
		j.older = append(j.older, file.Name())
		j.offset = 0
	}
	j.mu.Unlock()
	if file == nil {
		return nil
	}
	if tidy {
		return errors.Join(file.Close(), j.deleteOlder())
	}
	return errors.Join(file.Sync(), file.Close())
}
