package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// The file of records is a bbolt database with these buckets:
//
//	meta          program "rosterd", format "1"; alive: when it was last written,
//	              Unix time in nanoseconds; sequence: of the last note then
//	record K      for each kind K: key to value (codec.go)
//	gone          kind and key of a deleted record to its sequence, as long as the
//	              journal may have notes of before
const (
	format     = 1
	program    = "rosterd"
	boltMagic  = 0xED0CDAED // of bbolt, in each of the two meta pages
	magicAt    = 16         // in the page
	lockWithin = time.Second
)

var (
	bucketMeta = []byte("meta")
	bucketGone = []byte("gone")

	keyProgram  = []byte("program")
	keyFormat   = []byte("format")
	keyAlive    = []byte("alive")
	keySequence = []byte("sequence")
)

func bucketOf(kind Kind) []byte { return append([]byte("record "), byte(kind)) }

func goneKey(i id) []byte { return append([]byte{byte(i.kind)}, i.key...) }

// file is the file of records. Everything that reads it is guarded: damage that
// bbolt does not expect makes it panic, or fault.
type file struct {
	path   string
	db     *bbolt.DB
	handle *os.File
	// broken says that damage ended a transaction that writes in its middle: bbolt
	// may still hold its locks.
	broken atomic.Bool
}

// openFile opens the file at path, and makes it if there is none.
func openFile(path string) (*file, error) {
	if err := recognise(path); errors.Is(err, fs.ErrNotExist) {
		if err := create(path); err != nil {
			return nil, inFile(path, err)
		}
	} else if err != nil {
		return nil, inFile(path, err)
	}
	f := &file{path: path}
	err := guard(func() (err error) {
		f.db, err = f.open(path)
		return err
	})
	if err != nil {
		f.abandon()
		return nil, inFile(path, classify(err))
	}
	if err := f.check(); err != nil {
		f.close()
		return nil, inFile(path, err)
	}
	return f, nil
}

func (f *file) open(path string) (*bbolt.DB, error) {
	return bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: lockWithin,
		// The list of free pages is written with each commit. Without, bbolt would
		// walk through the whole file at each start, in a goroutine of its own in
		// which damage cannot be caught.
		NoFreelistSync: false,
		FreelistType:   bbolt.FreelistMapType,
		NoStatistics:   true,
		OpenFile: func(path string, flag int, mode os.FileMode) (handle *os.File, err error) {
			f.handle, err = os.OpenFile(path, flag&^os.O_CREATE, mode)
			return f.handle, err
		},
	})
}

// recognise looks whether there is a bbolt database at path, or an empty file,
// which becomes one.
func recognise(path string) error {
	handle, err := os.Open(path)
	if err != nil {
		return err
	}
	defer handle.Close()
	info, err := handle.Stat()
	if err != nil {
		return err
	}
	switch {
	case !info.Mode().IsRegular():
		return errNotOurs
	case info.Size() == 0:
		return nil
	}
	// The second meta page is behind the first, which is as long as a page of the
	// machine that made it.
	pages := []int64{0}
	for size := int64(1024); size <= 64<<10; size *= 2 {
		pages = append(pages, size)
	}
	for _, page := range pages {
		var magic [4]byte
		if _, err := handle.ReadAt(magic[:], page+magicAt); err == io.EOF {
			break
		} else if err != nil {
			return err
		}
		if binary.NativeEndian.Uint32(magic[:]) == boltMagic {
			return nil
		}
	}
	return errNotOurs
}

// create makes a new file at path. It appears there when it is complete, so that
// neither a full disk nor a kill leaves half a file.
func create(path string) error {
	dir, base := filepath.Split(path)
	dir = filepath.Clean(dir)
	draft, err := os.CreateTemp(dir, base+".new*") // mode 0600
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no directory %s", dir)
	}
	if err != nil {
		return err
	}
	draft.Close()
	defer os.Remove(draft.Name())
	f := &file{path: draft.Name()}
	if f.db, err = f.open(draft.Name()); err != nil {
		return err
	}
	if err = errors.Join(f.db.Update(initialise), f.db.Close()); err != nil {
		return err
	}
	err = os.Link(draft.Name(), path)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		// COMPAT: file systems without hard links.
		if _, missing := os.Lstat(path); errors.Is(missing, fs.ErrNotExist) {
			err = os.Rename(draft.Name(), path)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrExist) { // another rosterd may have been quicker
		return err
	}
	if parent, err := os.Open(dir); err == nil {
		parent.Sync() // not every file system can
		parent.Close()
	}
	return nil
}

func initialise(tx *bbolt.Tx) error {
	for _, name := range [][]byte{bucketGone, bucketOf(Users), bucketOf(Sessions)} {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	meta, err := tx.CreateBucket(bucketMeta)
	if err != nil {
		return err
	}
	return errors.Join(meta.Put(keyProgram, []byte(program)), meta.Put(keyFormat, []byte(strconv.Itoa(format))))
}

// check looks whether the database is one that this program knows.
func (f *file) check() error {
	empty := false
	err := f.view(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if meta == nil {
			first, _ := tx.Cursor().First()
			empty = first == nil
		}
		if empty {
			return nil
		}
		if meta == nil || string(meta.Get(keyProgram)) != program {
			return errNotOurs
		}
		version, err := strconv.ParseUint(string(meta.Get(keyFormat)), 10, 64)
		switch {
		case err != nil || version == 0:
			return damaged("the format is no number")
		case version > format:
			return newer(version, format)
		case tx.Bucket(bucketGone) == nil:
			return damaged("a bucket is missing")
		}
		return nil
	})
	if err == nil && empty {
		err = f.update(initialise)
	}
	return err
}

// view reads. fn must not call it again: bbolt might wait for itself.
func (f *file) view(fn func(*bbolt.Tx) error) error {
	return guard(func() error { return f.db.View(fn) })
}

// update writes. It is for one goroutine at a time.
func (f *file) update(fn func(*bbolt.Tx) error) error {
	if f.broken.Load() {
		return damaged("writing to it failed before")
	}
	return guard(func() error {
		f.broken.Store(true) // unless it returns
		err := f.db.Update(fn)
		f.broken.Store(false)
		return err
	})
}

// close closes the file. Nothing may use it any more, but who reads gets an
// error.
func (f *file) close() error {
	if f.broken.Load() {
		return f.abandon()
	}
	return f.db.Close()
}

// abandon closes the file without bbolt, which keeps its mapping: and that would
// keep the lock, were it not freed.
func (f *file) abandon() error {
	if f.handle == nil {
		return nil
	}
	if connection, err := f.handle.SyscallConn(); err == nil { // else it is closed
		connection.Control(func(fd uintptr) { syscall.Flock(int(fd), syscall.LOCK_UN) })
	}
	if err := f.handle.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// last returns the sequence of the last note that the file knows, and when it
// was written.
func (f *file) last() (sequence uint64, alive time.Time, err error) {
	err = f.view(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if b := meta.Get(keySequence); len(b) == 8 {
			sequence = binary.BigEndian.Uint64(b)
		}
		if b := meta.Get(keyAlive); len(b) == 8 {
			alive = time.Unix(0, int64(binary.BigEndian.Uint64(b)))
		}
		return nil
	})
	return sequence, alive, err
}

// guard calls f, and makes errors of the panics and faults of a damaged
// database.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = damaged(fmt.Sprintf("%.100v", p))
		}
	}()
	return f()
}

// classify says what an error of bbolt's Open means.
func classify(err error) error {
	var ofSystem syscall.Errno
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return errLocked
	case errors.As(err, &ofSystem), errors.Is(err, errDamaged):
		return err
	}
	return damaged(err.Error())
}
