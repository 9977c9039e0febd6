package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/ncruces/go-sqlite3/vfs"
)

// Reader reads what is in a file, beside the rosterd that writes it or when none runs. It
// writes nothing, and takes no lock for longer than a read. It is safe for concurrent use.
type Reader struct {
	db    *database
	known int // the version of the schema
}

// Look opens the file at path for reading.
func Look(path string) (*Reader, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no state file %s", path)
	}
	s := &sqlite{path: path, files: &files{VFSFilename: vfs.Find("").(vfs.VFSFilename)}, access: "ro"}
	vfs.Register(s.files.name(), s.files)
	if _, err := os.Stat(path + "-wal"); errors.Is(err, fs.ErrNotExist) {
		s.access = "immutable" // nobody writes it, and no index is made beside it, which would be the caller's
	}
	s.readers = make(pool, 1)
	s.writer = s.readers
	r := &Reader{db: &database{s, newStatements(0)}}
	c, err := s.open(s.readers, readerCache)
	if err == nil {
		r.known, err = s.recognise(c)
	}
	if err != nil {
		_ = s.close(false) // err is the cause
		return nil, s.explain(err)
	}
	return r, nil
}

// User is what [Store.User] is. What the process before may have lost is not known before
// the next one begins: Unsure is as that one left it.
func (r *Reader) User(jid string) (User, error) {
	if r.known == 0 { // empty
		return User{}, nil
	}
	return r.db.user(jid)
}

// ServerRoster is what [Store.ServerRoster] is.
func (r *Reader) ServerRoster(jid string) (ServerRoster, error) {
	if r.known < 2 {
		return ServerRoster{}, nil
	}
	return r.db.serverRoster(jid)
}

// MarkOf is what [Store.MarkOf] is.
func (r *Reader) MarkOf(user string) (why string, since time.Time, err error) {
	if r.known == 0 {
		return "", since, nil
	}
	return r.db.mark(user)
}

// Resources is what [Store.Resources] is.
func (r *Reader) Resources(each func(Resource) error) error {
	if r.known == 0 {
		return nil
	}
	return r.db.each(resources, func(_ string, value any) error { return each(value.(Resource)) })
}

// Close frees the file.
func (r *Reader) Close() error { return r.db.close(false) }
