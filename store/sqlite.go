package store

import (
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
	lock  *os.File // is the file, see openSQLite
	hot   bool     // the process before did not close it: its log may have what the file has not
	files *files
}

const (
	beginWriting  = "BEGIN IMMEDIATE"
	commitWritten = "COMMIT"

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
	case errors.As(err, &ofSystem):
		err = ofSystem // the path once is enough
	case errors.Is(err, sqlite3.IOERR):
		if why, known := s.files.why(); known {
			err = why
		}
	}
	return fmt.Errorf("state file %s: %w", s.path, err)
}

// openSQLite opens the database at path, and makes it if there is none. The caller
// explains its errors.
func openSQLite(path string) (s *sqlite, pool *sql.DB, err error) {
	s = &sqlite{path: path, files: &files{VFSFilename: vfs.Find("").(vfs.VFSFilename)}}
	vfs.Register(s.files.name(), s.files)
	defer func() {
		if err != nil {
			s.free()
		}
	}()
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = s.create(path)
	} else if err == nil && !info.Mode().IsRegular() {
		err = errNotOurs
	}
	if err == nil {
		s.lock, err = os.OpenFile(path, os.O_RDWR, 0)
	}
	if err != nil {
		return s, nil, err
	}
	// This lock is not one of SQLite's: others may look in meanwhile.
	for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if err = syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			break
		} else if errors.Is(err, syscall.EWOULDBLOCK) && time.Since(begun) > lockWithin {
			return s, nil, errLocked
		} else if !errors.Is(err, syscall.EWOULDBLOCK) {
			return s, nil, err
		}
	}
	empty, err := recognise(s.lock)
	if err == nil && empty {
		err = s.initialise(path)
	}
	for _, suffix := range []string{"-wal", "-shm"} { // SQLite would let others read them
		if err == nil {
			var file *os.File
			if file, err = os.OpenFile(path+suffix, os.O_RDWR|os.O_CREATE, 0o600); err == nil {
				info, _ := file.Stat()
				s.hot = s.hot || suffix == "-wal" && info.Size() > 0
				file.Close()
			}
		}
	}
	if err == nil {
		pool, err = s.connect(path, "PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -4000")
	}
	return s, pool, err
}

// recognise looks whether a file is a database of rosterd's that this one knows, or
// empty.
func recognise(file *os.File) (empty bool, err error) {
	var header [100]byte // https://sqlite.org/fileformat2.html, section 1.3
	n, err := file.ReadAt(header[:], 0)
	v := binary.BigEndian.Uint32(header[60:])
	switch {
	case n == 0 && err == io.EOF:
		return true, nil
	case err != nil && err != io.EOF:
		return false, err
	case binary.NativeEndian.Uint32(header[16:]) == boltMagic:
		return false, errEarlier
	case n < len(header), string(header[:16]) != "SQLite format 3\x00", binary.BigEndian.Uint32(header[68:]) != applicationID:
		return false, errNotOurs
	case v > version:
		return false, fmt.Errorf("%w (format %d, this one knows %d)", errNewer, v, version)
	}
	return false, nil
}

// create makes a new database at path. It appears there when it is complete, so that
// neither a full disk nor a kill leaves half a file.
func (s *sqlite) create(path string) error {
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
	if err := s.initialise(draft.Name()); err != nil {
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

// initialise makes an empty file a database.
func (s *sqlite) initialise(path string) error {
	pool, err := s.connect(path, "PRAGMA journal_mode = OFF; PRAGMA synchronous = FULL")
	if err != nil {
		return err
	}
	_, err = pool.Exec(fmt.Sprintf("BEGIN; PRAGMA application_id = %d; PRAGMA user_version = %d; %s COMMIT; PRAGMA journal_mode = WAL",
		applicationID, version, schema))
	return errors.Join(err, pool.Close())
}

// connect opens the database at path, with some connections.
func (s *sqlite) connect(path, pragmas string) (*sql.DB, error) {
	pool, err := driver.Open("file:"+(&url.URL{Path: path}).EscapedPath()+"?vfs="+s.files.name(), func(c *sqlite3.Conn) error {
		_, err := c.Config(sqlite3.DBCONFIG_NO_CKPT_ON_CLOSE, s.hot) // until it is known that all is well: see database.begin
		return errors.Join(err, c.BusyTimeout(100*time.Millisecond), c.Exec(pragmas))
	})
	if err == nil {
		pool.SetMaxOpenConns(6) // the writer, the checkpoint, and four who read
		pool.SetMaxIdleConns(6)
	}
	return pool, err
}

// checkpoint takes what was committed before to the disk. Commits go on meanwhile,
// unless the log has grown large.
func (d *database) checkpoint(toItsEnd bool) error {
	var busy, log, done int
	err := d.pool.QueryRow("PRAGMA wal_checkpoint(PASSIVE)").Scan(&busy, &log, &done)
	if err == nil && (toItsEnd || log > maxLog) {
		d.writing.Lock() // little is left
		defer d.writing.Unlock()
		err = d.pool.QueryRow("PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &log, &done)
	}
	return d.explain(err)
}

// tidy makes the writer, which is closed last, leave the file alone then.
func (d *database) tidy() error {
	return d.writer.Raw(func(c any) error {
		_, err := c.(driver.Conn).Raw().Config(sqlite3.DBCONFIG_NO_CKPT_ON_CLOSE, false)
		return err
	})
}

// close closes all connections, and frees the lock.
func (d *database) close() error {
	var all error
	for _, statement := range d.prepared {
		all = errors.Join(all, statement.Close())
	}
	d.pool.SetMaxIdleConns(-1) // closes the others: the writer is the last
	if d.writer != nil {
		all = errors.Join(all, d.writer.Close())
	}
	return errors.Join(d.explain(errors.Join(all, d.pool.Close())), d.free())
}

// free frees the lock. No connection may be left.
func (s *sqlite) free() error {
	vfs.Unregister(s.files.name())
	if s.lock == nil {
		return nil
	}
	return s.lock.Close()
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
