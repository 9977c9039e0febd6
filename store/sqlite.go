package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/driver"
	"github.com/ncruces/go-sqlite3/vfs"
)

// sqlite is what SQLite does in its own way: files, locks, errors, and when what was
// committed is on the disk.
//
// A commit is in the write-ahead log, in the memory of the system, and so survives a
// kill; a checkpoint takes it to the disk (synchronous = NORMAL).
type sqlite struct {
	path  string
	lock  *os.File // is the file, see claim
	hot   bool     // the process before did not close it: its log may have what the file has not
	files *files
	// alone says that there is one connection, which needs no index beside the file: for
	// that there is no room, or it is in memory. Nobody can look in, and who reads waits.
	alone bool
}

const (
	applicationID = 0x726f7374 // "rost", in the header
	boltMagic     = 0xED0CDAED // in the first page of the files that rosterd wrote once
	lockWithin    = time.Second
	// maxLog is how large the write-ahead log may grow, in pages of 4 KiB, before a
	// checkpoint keeps commits waiting until it can begin anew.
	maxLog = 32 << 20 / 4096
)

// unusable is why a file is not opened. What it says follows the file's name.
type unusable string

func (u unusable) Error() string { return string(u) }

const (
	errNotOurs unusable = "is not a file of rosterd's"
	errDamaged unusable = "is damaged"
	errNewer   unusable = "was written by a newer rosterd"
	errLocked  unusable = "is in use by another process, maybe another rosterd"
	errEarlier unusable = "was written by an earlier rosterd before its first release, in a format that is not read any more. " +
		"Move it away, with the files beside it whose names begin with its own: rosterd begins with an empty state then"
)

func damaged(how string) error { return fmt.Errorf("%w (%s)", errDamaged, how) }

// explain is an error as an administrator sees it.
func (s *sqlite) explain(err error) error {
	var ofSystem syscall.Errno
	var known unusable
	var code sqlite3.ErrorCode
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return fmt.Errorf("state file %s %w", s.path, err)
	case errors.Is(err, sqlite3.ERROR): // there is no such table
		return s.explain(damaged(err.Error()))
	case strings.HasPrefix(err.Error(), "sql: Scan error"): // which has the value
		return s.explain(damaged("a value is not of its column's type"))
	case errors.Is(err, sqlite3.CORRUPT), errors.Is(err, sqlite3.NOTADB), errors.Is(err, sqlite3.IOERR_SHORT_READ):
		errors.As(err, &code)
		return s.explain(damaged(code.Error()))
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("state file %s: there is no directory %s", s.path, filepath.Dir(s.path))
	case errors.Is(err, syscall.EISDIR):
		return s.explain(errNotOurs)
	case errors.As(err, &ofSystem):
		err = ofSystem // the path once is enough
	case errors.Is(err, sqlite3.IOERR):
		if why, known := s.files.why(); known {
			err = why
		}
	}
	return fmt.Errorf("state file %s: %w", s.path, err)
}

// openDatabase opens the database at path, and makes it if there is none; "" is one in
// memory. It says when the process that wrote it was last alive.
func openDatabase(path string) (d *database, ended time.Time, err error) {
	if target, err := os.Readlink(path); err == nil { // there SQLite has its other files
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return nil, ended, fmt.Errorf("state file %s: %w", target, err)
		}
	}
	d = &database{sqlite: sqlite{path: path, alone: path == "", files: &files{VFSFilename: vfs.Find("").(vfs.VFSFilename)}}}
	vfs.Register(d.files.name(), d.files)
	var made []string
	if path != "" {
		made, err = d.claimFiles()
	}
	if err == nil {
		ended, err = d.begin()
	}
	if noRoom(err) && !d.alone {
		d.disconnect() // nothing was written
		d.alone = true
		ended, err = d.begin()
	}
	if err != nil {
		err = d.explain(err)
		d.close()
		for _, path := range made {
			os.Remove(path)
		}
	}
	return d, ended, err
}

// claimFiles makes the files that are missing, takes the lock, and looks whether they
// are of rosterd's. It returns those that it has made.
func (s *sqlite) claimFiles() (made []string, err error) {
	for _, suffix := range []string{"", "-shm"} { // the driver would let others read it
		file, err := os.OpenFile(s.path+suffix, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		isNew := err == nil
		if errors.Is(err, fs.ErrExist) {
			file, err = os.OpenFile(s.path+suffix, os.O_RDWR, 0)
		}
		switch {
		case err == nil && suffix == "":
			s.lock = file
			err = s.claim()
		case err == nil:
			err = file.Close()
		case suffix != "" && noRoom(err):
			s.alone, err = true, nil
		}
		if err != nil {
			return made, err
		}
		if isNew {
			made = append(made, s.path+suffix, s.path+suffix+"-journal")
		}
	}
	info, err := os.Stat(s.path + "-wal")
	s.hot = err == nil && info.Size() > 0
	return made, nil
}

// noRoom reports whether err says that a file cannot be made larger.
func noRoom(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) ||
		errors.Is(err, sqlite3.IOERR_SHMSIZE)
}

// claim takes the lock of the file, and looks whether it is one of rosterd's that
// this one knows, or empty. The lock is not one of SQLite's: others may look in.
func (s *sqlite) claim() error {
	for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		err := syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		if time.Since(begun) > lockWithin {
			return errLocked
		}
	}
	var header [100]byte // https://sqlite.org/fileformat2.html, section 1.3
	n, err := s.lock.ReadAt(header[:], 0)
	v := binary.BigEndian.Uint32(header[60:])
	switch {
	case n == 0 && err == io.EOF:
		return nil
	case err != nil && err != io.EOF:
		return err
	case binary.NativeEndian.Uint32(header[16:]) == boltMagic:
		return errEarlier
	case n < len(header), string(header[:16]) != "SQLite format 3\x00", binary.BigEndian.Uint32(header[68:]) != applicationID:
		return errNotOurs
	case v > version:
		return fmt.Errorf("%w (format %d, this one knows %d)", errNewer, v, version)
	}
	return nil
}

// connect connects to the database, and makes it if it is empty.
func (d *database) connect() (err error) {
	if d.writer, err = d.open(1); err != nil {
		return err
	}
	if d.readers = d.writer; !d.alone {
		if d.readers, err = d.open(5); err != nil { // one for the checkpoint
			return err
		}
	}
	var known int
	if err = d.writer.QueryRow("PRAGMA user_version").Scan(&known); err == nil && known == 0 {
		// Whole, or, if it is killed meanwhile, not at all.
		_, err = d.writer.Exec(fmt.Sprintf("BEGIN; PRAGMA application_id = %d; PRAGMA user_version = %d; %s COMMIT; PRAGMA journal_mode = WAL",
			applicationID, version, schema))
	}
	return err
}

// open makes a pool of so many connections at most.
func (s *sqlite) open(most int) (*sql.DB, error) {
	name, pragmas := ":memory:", "PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -4000"
	if s.path != "" {
		name = "file:" + (&url.URL{Path: s.path}).EscapedPath() + "?" + url.Values{"vfs": {s.files.name()}, "modeof": {s.path}}.Encode()
	}
	if s.alone {
		pragmas = "PRAGMA locking_mode = EXCLUSIVE; " + pragmas
	}
	pool, err := driver.Open(name, func(c *sqlite3.Conn) error {
		_, err := c.Config(sqlite3.DBCONFIG_NO_CKPT_ON_CLOSE, s.hot) // until all is known to be well: see tidy
		return errors.Join(err, c.BusyTimeout(100*time.Millisecond), c.Exec(pragmas))
	})
	if err == nil {
		pool.SetMaxOpenConns(most)
		pool.SetMaxIdleConns(most)
	}
	return pool, err
}

// checkpoint takes what was committed before to the disk. Commits go on meanwhile,
// unless the log has grown large, or it is to be emptied.
func (d *database) checkpoint(empty bool) error {
	var busy, log, done int
	err := d.readers.QueryRow("PRAGMA wal_checkpoint(PASSIVE)").Scan(&busy, &log, &done)
	if err == nil && (empty || log > maxLog) {
		d.writing.Lock() // little is left
		defer d.writing.Unlock()
		err = d.readers.QueryRow("PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &log, &done)
	}
	if errors.Is(err, sqlite3.BUSY) {
		return nil // somebody looks into the file: later
	}
	return d.explain(err)
}

// tidy makes the writer, which is closed last, leave the file alone then.
func (d *database) tidy() error {
	conn, err := d.writer.Conn(context.Background())
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Raw(func(c any) error {
		_, err := c.(driver.Conn).Raw().Config(sqlite3.DBCONFIG_NO_CKPT_ON_CLOSE, false)
		return err
	})
}

// disconnect closes all connections.
func (d *database) disconnect() (err error) {
	for _, pool := range []*sql.DB{d.readers, d.writer} {
		if pool != nil {
			err = cmp.Or(err, d.explain(pool.Close()))
		}
	}
	return err
}

// close closes all connections, and frees the lock.
func (d *database) close() error {
	err := d.disconnect()
	vfs.Unregister(d.files.name())
	if d.lock != nil {
		err = cmp.Or(err, d.lock.Close())
	}
	return err
}

// files are the system's files, of which it is known why something could not be
// written. COMPAT go-sqlite3 0.37: its errors have that only if nothing went well
// afterwards.
type files struct {
	vfs.VFSFilename
	failed atomic.Value // the last error, see failure
}

type failure struct{ error }

func (f *files) name() string { return fmt.Sprintf("rosterd-%p", f) }

// why is the cause of the last error.
func (f *files) why() (cause syscall.Errno, known bool) {
	last, _ := f.failed.Load().(failure)
	return cause, errors.As(last.error, &cause)
}

func (f *files) note(err error) error {
	if err != nil {
		f.failed.Store(failure{err})
	}
	return err
}

func (f *files) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	opened, flags, err := f.VFSFilename.OpenFilename(name, flags)
	if err != nil {
		return nil, flags, f.note(err)
	}
	return &file{opened.(vfs.FileSharedMemory), f}, flags, nil
}

type file struct {
	vfs.FileSharedMemory
	files *files
}

func (f *file) WriteAt(b []byte, at int64) (int, error) {
	n, err := f.FileSharedMemory.WriteAt(b, at)
	return n, f.files.note(err)
}

func (f *file) Sync(flags vfs.SyncFlag) error { return f.files.note(f.FileSharedMemory.Sync(flags)) }

func (f *file) Truncate(size int64) error { return f.files.note(f.FileSharedMemory.Truncate(size)) }
