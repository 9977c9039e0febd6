package store

import (
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
	"syscall"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/driver"
)

// sqlite is what SQLite does in its own way: files, locks, and when what was
// committed is on the disk.
//
// In the write-ahead log with synchronous = NORMAL a commit is in the log, in the
// system's memory, and so survives a kill; a checkpoint takes it to the disk.
type sqlite struct {
	path string
	lock *os.File
}

const (
	beginWriting  = "BEGIN IMMEDIATE"
	commitWritten = "COMMIT"

	applicationID = 0x726f7374 // "rost", in the header
	lockWithin    = time.Second
	// maxLog is how large the write-ahead log may be, in pages, before its beginning is
	// used again, for which commits have to wait.
	maxLog = 32 << 20 / 4096
)

// openSQLite opens the database at path, and makes it if there is none.
func openSQLite(path string) (*sqlite, *sql.DB, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := create(path); err != nil {
			return nil, nil, err
		}
	case err != nil:
		return nil, nil, err
	case !info.Mode().IsRegular():
		return nil, nil, errNotOurs
	}
	lock, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	s := &sqlite{path, lock}
	pool, err := s.open()
	if err != nil {
		lock.Close()
		return nil, nil, err
	}
	return s, pool, nil
}

// open takes the lock, recognises the file and connects to it.
func (s *sqlite) open() (*sql.DB, error) {
	// This lock is not one of SQLite's: others may look in meanwhile.
	for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		err := syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, err
		}
		if time.Since(begun) > lockWithin {
			return nil, errLocked
		}
	}
	empty, err := recognise(s.lock)
	if err == nil && empty {
		err = initialise(s.path)
	}
	if err != nil {
		return nil, err
	}
	for _, suffix := range []string{"-wal", "-shm"} { // SQLite would let others read them
		file, err := os.OpenFile(s.path+suffix, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		file.Close()
	}
	return connect(s.path, "PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -4000")
}

// connect opens the database at path with some connections.
func connect(path, pragmas string) (*sql.DB, error) {
	name := "file:" + (&url.URL{Path: path}).EscapedPath()
	pool, err := driver.Open(name, func(c *sqlite3.Conn) error {
		return errors.Join(c.BusyTimeout(100*time.Millisecond), c.Exec(pragmas))
	})
	if err != nil {
		return nil, err
	}
	pool.SetMaxOpenConns(6) // the writer, the checkpoint, and four who read
	pool.SetMaxIdleConns(6)
	return pool, nil
}

// recognise looks whether a file is a database of rosterd's that this one knows, or
// empty.
func recognise(file *os.File) (empty bool, err error) {
	var header [100]byte // of SQLite, https://sqlite.org/fileformat2.html section 1.3
	n, err := file.ReadAt(header[:], 0)
	switch {
	case n == 0 && err == io.EOF:
		return true, nil
	case err != nil && err != io.EOF:
		return false, err
	case binary.NativeEndian.Uint32(header[16:]) == boltMagic:
		return false, errEarlier
	case n < len(header), string(header[:16]) != "SQLite format 3\x00", binary.BigEndian.Uint32(header[68:]) != applicationID:
		return false, errNotOurs
	}
	if v := binary.BigEndian.Uint32(header[60:]); v > version {
		return false, fmt.Errorf("%w (format %d, this one knows %d)", errNewer, v, version)
	}
	return false, nil
}

// boltMagic is in the first page of the files that rosterd wrote once.
const boltMagic = 0xED0CDAED

// create makes a new database at path. It appears there when it is complete, so that
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
	if err := initialise(draft.Name()); err != nil {
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
func initialise(path string) error {
	pool, err := connect(path, "PRAGMA journal_mode = OFF; PRAGMA synchronous = FULL")
	if err != nil {
		return err
	}
	defer pool.Close()
	pool.SetMaxOpenConns(1)
	_, err = pool.Exec(fmt.Sprintf("BEGIN; PRAGMA application_id = %d; PRAGMA user_version = %d; %s COMMIT; PRAGMA journal_mode = WAL",
		applicationID, version, schema))
	return err
}

// checkpoint takes what was committed before to the disk. Commits go on meanwhile,
// unless the log has grown large.
func (d *database) checkpoint() error {
	ctx := context.Background()
	var busy, log, done int
	err := d.pool.QueryRowContext(ctx, "PRAGMA wal_checkpoint(PASSIVE)").Scan(&busy, &log, &done)
	if err == nil && log > maxLog {
		// Under constant load it does not come to its end by itself. Little is left.
		d.writing.Lock()
		defer d.writing.Unlock()
		err = d.pool.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &log, &done)
	}
	return d.explain(err)
}

// close takes all to the disk, and leaves the file alone.
func (d *database) close() error {
	err := d.pool.QueryRow("PRAGMA wal_checkpoint(TRUNCATE)").Scan(new(int), new(int), new(int))
	return errors.Join(d.explain(err), d.abandon())
}

// abandon closes all connections, and frees the lock.
func (d *database) abandon() error {
	var all error
	for _, statement := range d.statements {
		all = errors.Join(all, statement.Close())
	}
	if d.writer != nil {
		all = errors.Join(all, d.writer.Close())
	}
	return errors.Join(d.explain(errors.Join(all, d.pool.Close())), d.lock.Close())
}

// explain is an error as an administrator sees it.
func (s *sqlite) explain(err error) error {
	var ofSystem syscall.Errno
	var code sqlite3.ErrorCode
	switch {
	case err == nil:
		return nil
	case errors.As(err, &ofSystem):
		err = ofSystem
	case errors.Is(err, sqlite3.CORRUPT), errors.Is(err, sqlite3.NOTADB), errors.Is(err, sqlite3.IOERR_DATA),
		errors.Is(err, sqlite3.IOERR_SHORT_READ):
		errors.As(err, &code)
		err = damaged(code.Error())
	case errors.Is(err, sql.ErrConnDone), err.Error() == "sql: database is closed":
		return ErrClosed
	}
	return inFile(s.path, err)
}
