package store

import (
	"cmp"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"
)

// sqlite is a SQLite database: files, locks, connections, errors, and when what was
// committed is on the disk.
//
// A commit is in the write-ahead log, in the memory of the system, and so survives a
// kill; a checkpoint takes it to the disk (synchronous = NORMAL). Each page of the file has
// a checksum, which the driver verifies (https://sqlite.org/cksumvfs.html).
type sqlite struct {
	path    string
	lock    *os.File // is the file, see claim
	files   *files
	writer  pool   // one connection
	readers pool   // some, or the writer
	access  string // "": what is there may be changed; ro: it is read; immutable: and nobody else changes it
	// alone says that there is one connection, which needs no index beside the file: for
	// that there is no room, or it is in memory. Nobody can look in, and who reads waits.
	alone bool
}

// pool are the connections that nobody uses. It is closed when there are none any more.
type pool chan *conn

// use calls f with a connection, when one is free.
func (p pool) use(f func(*conn) error) error {
	c, ok := <-p
	if !ok {
		return ErrClosed
	}
	defer func() { p <- c }()
	return f(c)
}

// conn is a connection with the statements that were executed on it. It is for one
// goroutine at a time.
type conn struct {
	*sqlite3.Conn
	prepared map[string]*sqlite3.Stmt
}

func (c *conn) exec(statement string, args ...any) error {
	s, err := c.bind(statement, args)
	if err != nil {
		return err
	}
	return s.Exec()
}

func (c *conn) query(f func(row) error, statement string, args ...any) error {
	s, err := c.bind(statement, args)
	if err != nil {
		return err
	}
	for s.Step() {
		if err := f(func(dest ...any) error { return scan(s, dest) }); err != nil {
			s.Reset()
			return err
		}
	}
	return s.Reset() // the error of Step
}

// bind prepares a statement, unless it was before, and gives it its arguments.
func (c *conn) bind(statement string, args []any) (s *sqlite3.Stmt, err error) {
	if s = c.prepared[statement]; s == nil {
		if s, _, err = c.Prepare(statement); err != nil {
			return nil, err
		}
		c.prepared[statement] = s
	}
	for i, arg := range args {
		switch arg := arg.(type) {
		case string:
			err = s.BindText(i+1, arg)
		case []byte:
			err = s.BindBlob(i+1, arg)
		case bool:
			err = s.BindBool(i+1, arg)
		case int:
			err = s.BindInt(i+1, arg)
		case int64:
			err = s.BindInt64(i+1, arg)
		default:
			panic(fmt.Sprintf("store: a %T", arg))
		}
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

func scan(s *sqlite3.Stmt, dest []any) error {
	for i, d := range dest {
		switch d := d.(type) {
		case *string:
			*d = s.ColumnText(i)
		case *[]byte:
			*d = s.ColumnBlob(i, nil)
		case *bool:
			*d = s.ColumnInt64(i) != 0
		case *int:
			*d = s.ColumnInt(i)
		case *int64:
			*d = s.ColumnInt64(i)
		case sql.Scanner:
			if err := d.Scan(s.ColumnText(i)); err != nil {
				return err
			}
		default:
			panic(fmt.Sprintf("store: a %T", d))
		}
	}
	return s.Err()
}

const (
	applicationID = 0x726f7374 // "rost", in the header
	boltMagic     = 0xED0CDAED // in the first page of the files that rosterd wrote once
	lockWithin    = time.Second
	readers       = 3 // one for the checkpoint
	// Each commit empties a reader's cache: what is larger than what a read needs is of
	// little use.
	writerCache, readerCache = 4000, 1000 // in KiB
	// maxLog is how large the write-ahead log may grow, in pages of 4 KiB, before a
	// checkpoint keeps commits waiting until it can begin anew.
	maxLog = 32 << 20 / 4096
)

// unusable is why a file is not opened. What it says follows the file's name.
type unusable string

func (u unusable) Error() string { return string(u) }

const (
	errNotOurs unusable = "is not a file of rosterd's"
	// ErrDamaged is wrapped by the errors of a store that read what nobody wrote. With any
	// other, what is kept may be well, and could not be read at present.
	ErrDamaged unusable = "is damaged"
	ErrNewer   unusable = "was written by a newer rosterd"
	errLocked  unusable = "is in use by another process, maybe another rosterd"
	errEarlier unusable = "was written by an earlier rosterd before its first release, in a format that is not read any more. " +
		"Move it away, with the files beside it whose names begin with its own: rosterd begins with an empty state then"
)

func damaged(how string) error { return fmt.Errorf("%w (%s)", ErrDamaged, how) }

// explain is an error as an administrator sees it. An error that is not of the database
// is left as it is.
func (s *sqlite) explain(err error) error {
	var ofSystem syscall.Errno
	var known unusable
	var code sqlite3.ErrorCode
	isSQLite := errors.As(err, &code)
	switch {
	case errors.As(err, &known):
		return fmt.Errorf("state file %s %w", s.path, err)
	case errors.Is(err, sqlite3.ERROR): // there is no such table
		return s.explain(damaged(err.Error()))
	case errors.Is(err, sqlite3.NOTADB):
		var header [20]byte
		if s.lock.ReadAt(header[:], 0); binary.NativeEndian.Uint32(header[16:]) == boltMagic {
			return s.explain(errEarlier)
		}
		return s.explain(errNotOurs)
	case errors.Is(err, sqlite3.CORRUPT), errors.Is(err, sqlite3.IOERR_SHORT_READ), errors.Is(err, sqlite3.IOERR_DATA):
		return s.explain(damaged(code.Error()))
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("state file %s: there is no directory %s", s.path, filepath.Dir(s.path))
	case errors.Is(err, syscall.EISDIR):
		return s.explain(errNotOurs)
	case errors.As(err, &ofSystem):
		err = ofSystem // the path once is enough
	case errors.Is(err, sqlite3.READONLY_DIRECTORY): // of which the driver hides the cause
		err = syscall.EACCES
	case isSQLite:
		if why := syscall.Errno(s.files.failed.Load()); why != 0 && errors.Is(err, sqlite3.IOERR) {
			err = why
		}
	default:
		return err
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
	s := &sqlite{path: path, alone: path == "", files: &files{VFSFilename: vfs.Find("").(vfs.VFSFilename)}}
	d = &database{s, newStatements(0)}
	vfs.Register(s.files.name(), s.files)
	isNew := false
	if path != "" {
		isNew, err = s.claim()
	}
	if err == nil {
		err = s.connect()
	}
	if noRoom(err) && !s.alone { // nothing was written
		s.disconnect(false)
		s.alone = true
		err = s.connect()
	}
	if err = s.explain(err); err == nil {
		ended, err = d.lastAlive()
	}
	if err != nil {
		s.close(false)
		if isNew {
			for _, suffix := range []string{"", "-shm", "-wal", "-journal"} {
				os.Remove(path + suffix)
			}
		}
	}
	return d, ended, err
}

// noRoom reports whether err says that a file cannot be made larger.
func noRoom(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) ||
		errors.Is(err, sqlite3.IOERR_SHMSIZE)
}

// claim makes the file if it is missing, and takes its lock, which is not one of
// SQLite's: others may look in.
func (s *sqlite) claim() (isNew bool, err error) {
	s.lock, err = os.OpenFile(s.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if isNew = err == nil; errors.Is(err, fs.ErrExist) {
		s.lock, err = os.OpenFile(s.path, os.O_RDWR, 0)
	}
	if err != nil {
		return false, err
	}
	for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		err := syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return isNew, err
		case time.Since(begun) > lockWithin:
			return false, errLocked
		}
	}
}

// recognise looks whether the file is one of rosterd's that this one knows and can read,
// and says its version: 0, if it is empty.
func (s *sqlite) recognise(c *conn) (known int, err error) {
	var id, pages int
	for pragma, n := range map[string]*int{"application_id": &id, "user_version": &known, "page_count": &pages} {
		err = cmp.Or(err, c.query(func(r row) error { return r(n) }, "PRAGMA "+pragma))
	}
	switch {
	case err != nil || pages == 0:
		return 0, err
	case id != applicationID:
		return 0, errNotOurs
	case known > version:
		return 0, fmt.Errorf("%w (format %d, this one knows %d)", ErrNewer, known, version)
	case known < 1:
		return 0, damaged("it has no format")
	}
	for t, all := range newStatements(0).all {
		if known > 1 || t != serverRosters {
			err = cmp.Or(err, c.query(func(row) error { return nil }, all+" LIMIT 1"))
		}
	}
	return known, err
}

// connect makes the connections, and the database if it is empty; one of an earlier version
// is brought to this one.
func (s *sqlite) connect() error {
	s.writer = make(pool, 1)
	c, err := s.open(s.writer, writerCache)
	if err != nil {
		return err
	}
	known, err := s.recognise(c)
	missing := schema
	switch {
	case err != nil:
	case known == 0:
		_, err = c.FileControl("main", sqlite3.FCNTL_RESERVE_BYTES, 8) // for the checksums
	case known == 1:
		missing = since2
	}
	if err == nil && known < version {
		// Whole, or, if it is killed meanwhile, not at all.
		err = c.Exec(fmt.Sprintf("BEGIN; PRAGMA application_id = %d; PRAGMA user_version = %d; %s COMMIT", applicationID, version, missing))
	}
	if err == nil {
		err = c.Exec("PRAGMA journal_mode = WAL")
	}
	if s.readers = s.writer; s.alone || err != nil {
		return err
	}
	s.readers = make(pool, readers)
	for range readers {
		if _, err := s.open(s.readers, readerCache); err != nil {
			return err
		}
	}
	return os.Chmod(s.path+"-shm", 0o600) // the driver lets others read it
}

// open adds a connection to a pool.
func (s *sqlite) open(p pool, cache int) (*conn, error) {
	name, pragmas := ":memory:", fmt.Sprintf("PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -%d", cache)
	if s.path != "" {
		name = "file:" + (&url.URL{Path: s.path}).EscapedPath() + "?" + s.parameters().Encode()
	}
	if s.access != "" {
		pragmas = "PRAGMA query_only = ON"
	}
	if s.alone {
		pragmas = "PRAGMA locking_mode = EXCLUSIVE; " + pragmas
	}
	opened, err := sqlite3.Open(name)
	if err != nil {
		return nil, err
	}
	c := &conn{opened, make(map[string]*sqlite3.Stmt)}
	p <- c
	return c, errors.Join(c.BusyTimeout(100*time.Millisecond), c.Exec(pragmas))
}

// parameters are those of the URL of the file.
func (s *sqlite) parameters() url.Values {
	p := url.Values{"vfs": {s.files.name()}, "modeof": {s.path}}
	switch s.access {
	case "ro":
		p.Set("mode", "ro")
	case "immutable":
		p.Set("immutable", "1")
	}
	return p
}

func (s *sqlite) query(f func(row) error, statement string, args ...any) error {
	return s.explain(s.readers.use(func(c *conn) error { return c.query(f, statement, args...) }))
}

func (s *sqlite) transact(f func(execute) error) error {
	return s.explain(s.writer.use(func(c *conn) error {
		err := c.exec("BEGIN")
		if err == nil {
			err = f(c.exec)
		}
		if err == nil {
			err = c.exec("COMMIT")
		}
		if err != nil && !c.GetAutocommit() { // SQLite has not done so itself
			_ = c.exec("ROLLBACK")
		}
		return err
	}))
}

// checkpoint lets commits go on, but while it empties the log.
func (s *sqlite) checkpoint(empty bool) error {
	log := 0
	take := func(mode sqlite3.CheckpointMode) func(*conn) error {
		return func(c *conn) (err error) {
			log, _, err = c.WALCheckpoint("main", mode)
			return err
		}
	}
	err := s.readers.use(take(sqlite3.CHECKPOINT_PASSIVE))
	if err == nil && (empty || log > maxLog) {
		err = s.writer.use(take(sqlite3.CHECKPOINT_TRUNCATE)) // little is left
	}
	if errors.Is(err, sqlite3.BUSY) {
		return nil // somebody looks into the file: later
	}
	return s.explain(err)
}

// disconnect closes all connections, when they are free. If all is well, the last one
// removes the log; otherwise it is left, unless there is nothing in it.
func (s *sqlite) disconnect(well bool) (err error) {
	for _, p := range []pool{s.readers, s.writer} {
		open := len(p)
		if well {
			open = cap(p)
		}
		for range open {
			c, ok := <-p
			if !ok {
				return err // the readers are the writer
			}
			info, failed := os.Stat(s.path + "-wal")
			_, left := c.Config(sqlite3.DBCONFIG_NO_CKPT_ON_CLOSE, !well && failed == nil && info.Size() > 0)
			for _, statement := range c.prepared {
				_ = statement.Close() // has the error of when it was executed
			}
			err = cmp.Or(err, s.explain(left), s.explain(c.Close()))
		}
		if well {
			close(p) // who waits for one
		}
	}
	return err
}

func (s *sqlite) close(well bool) error {
	err := s.disconnect(well)
	vfs.Unregister(s.files.name())
	if s.lock != nil {
		err = cmp.Or(err, s.lock.Close())
	}
	return err
}

// files are the system's files, of which it is known why something could not be
// written. COMPAT go-sqlite3 0.37: its errors have that only if nothing went well
// afterwards.
type files struct {
	vfs.VFSFilename
	failed atomic.Uintptr // the last error, a syscall.Errno
}

func (f *files) name() string { return fmt.Sprintf("rosterd-%p", f) }

func (f *files) note(err error) error {
	var cause syscall.Errno
	if errors.As(err, &cause) {
		f.failed.Store(uintptr(cause))
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
