package store

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"sync"
	"time"
)

// version is that of the schema.
const version = 1

// schema is in SQL that SQLite and PostgreSQL both take. Times are texts in UTC, so
// that a person can read them and the database can compare them; ” is none.
const schema = `
CREATE TABLE users (
	jid       text PRIMARY KEY,
	items     integer NOT NULL, -- in the roster
	version   text    NOT NULL, -- of the roster
	fetched   text    NOT NULL,
	validator text    NOT NULL,
	not_found boolean NOT NULL,
	outdated  boolean NOT NULL,
	epoch     bigint  NOT NULL,
	answered  text    NOT NULL,
	told      text    NOT NULL, -- JSON, as missed and former
	missed    text    NOT NULL,
	former    text    NOT NULL,
	checksum  bigint  NOT NULL, -- of all before
	unsure    boolean NOT NULL,
	seen      text    NOT NULL  -- when the row was written, or a resource left
);
CREATE TABLE rosters ( -- apart from users: they are large, and change seldom
	jid      text   PRIMARY KEY,
	roster   bytea  NOT NULL,
	checksum bigint NOT NULL
);
CREATE TABLE resources (
	bare       text    NOT NULL,
	resource   text    NOT NULL,
	connected  boolean NOT NULL,
	interested boolean NOT NULL,
	available  boolean NOT NULL,
	stamped    text    NOT NULL,
	left_at    text    NOT NULL,
	PRIMARY KEY (bare, resource)
);
CREATE TABLE marks (jid text PRIMARY KEY, why text NOT NULL, since text NOT NULL);
CREATE TABLE meta (key text PRIMARY KEY, value text NOT NULL);`

// table is a table with its columns, and the statements that put and delete a row.
type table struct{ name, columns, put, delete string }

var (
	users     = newTable("users", 1, "jid", "items", "version", "fetched", "validator", "not_found", "outdated", "epoch", "answered", "told", "missed", "former", "checksum", "unsure", "seen")
	rosters   = newTable("rosters", 1, "jid", "roster", "checksum")
	resources = newTable("resources", 2, "bare", "resource", "connected", "interested", "available", "stamped", "left_at")
	marks     = newTable("marks", 1, "jid", "why", "since")
	meta      = newTable("meta", 1, "key", "value")
)

// newTable makes a table. So many columns as keys says are its primary key.
func newTable(name string, keys int, columns ...string) *table {
	var values, set, where []string
	for i, column := range columns {
		value := fmt.Sprint("$", i+1)
		values = append(values, value)
		if i < keys {
			where = append(where, column+" = "+value)
		} else {
			set = append(set, column+" = excluded."+column)
		}
	}
	all := strings.Join(columns, ", ")
	return &table{
		name: name, columns: all,
		put: fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s) ON CONFLICT (%s) DO UPDATE SET %s", name, all,
			strings.Join(values, ", "), strings.Join(columns[:keys], ", "), strings.Join(set, ", ")),
		delete: fmt.Sprintf("DELETE FROM %s WHERE %s", name, strings.Join(where, " AND ")),
	}
}

const (
	keyAlive = "alive" // in meta: when the process was, last

	// Parameters appear in the order of their numbers: SQLite takes them for names.
	doubt      = "UPDATE users SET unsure = true WHERE answered > $1"
	see        = "UPDATE users SET seen = $1 WHERE jid = $2"
	putMark    = "INSERT INTO marks (jid, why, since) VALUES ($1, $2, $3) ON CONFLICT (jid) DO UPDATE SET why = excluded.why"
	selectUser = `SELECT users.jid, items, version, fetched, validator, not_found, outdated, epoch, answered, told, missed, former,
		users.checksum, unsure, roster, rosters.checksum FROM users LEFT JOIN rosters ON rosters.jid = users.jid WHERE users.jid = $1`
	selectGone = `SELECT users.jid, seen, 500 + coalesce(length(roster), 0) FROM users LEFT JOIN rosters ON rosters.jid = users.jid
		WHERE NOT EXISTS (SELECT 1 FROM resources WHERE resources.bare = users.jid) ORDER BY seen DESC`
)

// database is what is kept, in SQL. Its methods are safe for concurrent use.
type database struct {
	sqlite
	writer   *sql.DB              // one connection
	readers  *sql.DB              // some; in memory, they are the writer
	prepared map[string]*sql.Stmt // of writer
	readUser *sql.Stmt
	writing  sync.Mutex // held by commit, and while a checkpoint has to come to its end
}

// begin connects, sees whether all can be read, and prepares what is done often.
func (d *database) begin() (ended time.Time, err error) {
	if err := d.connect(); err != nil {
		return ended, err
	}
	d.prepared = make(map[string]*sql.Stmt)
	statements := []string{see, doubt, putMark}
	for _, t := range []*table{users, rosters, resources, marks, meta} {
		if err := d.writer.QueryRow("SELECT count(*) FROM (SELECT * FROM " + t.name + " LIMIT 1) AS one").Scan(new(int)); err != nil {
			return ended, err
		}
		statements = append(statements, t.put, t.delete)
	}
	for _, s := range statements {
		if d.prepared[s], err = d.writer.Prepare(s); err != nil {
			return ended, err
		}
	}
	if d.readUser, err = d.readers.Prepare(selectUser); err != nil {
		return ended, err
	}
	err = d.readers.QueryRow("SELECT value FROM meta WHERE key = $1", keyAlive).Scan((*moment)(&ended))
	if err != nil && !errors.Is(err, sql.ErrNoRows) { // no row: it is new
		return ended, err
	}
	return ended, d.tidy()
}

// commit writes changes in one transaction.
func (d *database) commit(batch []*change) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	tx, err := d.writer.Begin()
	if err != nil {
		return d.explain(err)
	}
	exec := func(statement string, args ...any) error {
		_, err := tx.Stmt(d.prepared[statement]).Exec(args...)
		return err
	}
	for _, c := range batch {
		if err := c.write(exec); err != nil {
			_ = tx.Rollback() // fails if the database has done so itself
			return d.explain(err)
		}
	}
	return d.explain(tx.Commit())
}

// write writes a change.
func (c *change) write(exec func(statement string, args ...any) error) error {
	key := []any{c.key}
	if c.table == resources {
		user, resource, _ := strings.Cut(c.key, "/")
		key = []any{user, resource}
	}
	if c.value == nil || c.anew {
		err := exec(c.table.delete, key...)
		switch c.table {
		case users:
			err = errors.Join(err, exec(rosters.delete, key...))
		case resources:
			err = errors.Join(err, exec(see, text(c.at), key[0]))
		}
		if c.value == nil || err != nil {
			return err
		}
	}
	switch v := c.value.(type) {
	case User:
		row := v.row()
		if err := exec(users.put, append(row, checksum(row...), v.Unsure, text(c.at))...); err != nil || !c.roster {
			return err
		}
		if v.Roster == nil {
			return exec(rosters.delete, key...)
		}
		return exec(rosters.put, v.JID, v.Roster, checksum(v.JID, v.Roster))
	case Resource:
		return exec(resources.put, append(key, v.Connected, v.Interested, v.Available, v.Stamped, text(v.Left))...)
	case doubtful:
		return exec(doubt, text(v.since))
	case mark:
		return exec(putMark, c.key, v.why, text(v.since))
	default:
		return exec(meta.put, c.key, v)
	}
}

// row is what the checksum of a user is of.
func (u *User) row() []any {
	return []any{u.JID, u.Items, u.Version, text(u.Fetched), u.Validator, u.NotFound, u.Outdated, int64(u.Epoch), text(u.Answered),
		asJSON(u.Told), asJSON(u.Missed), asJSON(u.Former)}
}

// user reads a user.
func (d *database) user(jid string) (u User, err error) {
	var epoch int64
	var sum, rosterSum sql.NullInt64
	err = d.readUser.QueryRow(jid).Scan(&u.JID, &u.Items, &u.Version, (*moment)(&u.Fetched), &u.Validator, &u.NotFound, &u.Outdated, &epoch,
		(*moment)(&u.Answered), (*list[Told])(&u.Told), (*list[string])(&u.Missed), (*list[Former])(&u.Former), &sum, &u.Unsure, &u.Roster, &rosterSum)
	if errors.Is(err, sql.ErrNoRows) {
		return User{}, nil
	}
	u.Epoch = uint64(epoch)
	if err == nil && (u.JID != jid || sum.Int64 != checksum(u.row()...) || u.Roster != nil && rosterSum.Int64 != checksum(jid, u.Roster)) {
		err = damaged("a checksum is wrong")
	}
	if err != nil {
		return User{}, d.explain(err)
	}
	return u, nil
}

// checksum is CRC-32C of some values. SQLite has none, and finds only damage that
// makes nonsense of its own structures.
func checksum(values ...any) int64 {
	var b []byte
	for _, v := range values {
		switch v := v.(type) {
		case string:
			b = append(b, v...)
		case []byte:
			b = append(b, v...)
		default:
			b = fmt.Append(b, v)
		}
		b = append(b, 0)
	}
	return int64(crc32.Checksum(b, castagnoli))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// each calls f with each key of the resources or marks, and its value.
func (d *database) each(t *table, f func(key string, value any) error) error {
	return d.query(func(rows *sql.Rows) error {
		var r Resource
		var m mark
		var key, resource string
		var value any
		var err error
		if t == resources {
			err = rows.Scan(&key, &resource, &r.Connected, &r.Interested, &r.Available, &r.Stamped, (*moment)(&r.Left))
			r.JID = key + "/" + resource
			key, value = r.JID, r
		} else {
			err = rows.Scan(&key, &m.why, (*moment)(&m.since))
			value = m
		}
		if err != nil {
			return err
		}
		return f(key, value)
	}, "SELECT "+t.columns+" FROM "+t.name)
}

// gone are the users without a resource who were seen last before a time, and of the
// others those seen longest ago, beyond limit bytes of rosters.
func (d *database) gone(before time.Time, limit int) (users []string, err error) {
	size := 0
	err = d.query(func(rows *sql.Rows) error {
		var user string
		var seen time.Time
		var bytes int
		if err := rows.Scan(&user, (*moment)(&seen), &bytes); err != nil {
			return err
		}
		if size += bytes; seen.Before(before) || size > limit {
			users = append(users, user)
		}
		return nil
	}, selectGone)
	return users, err
}

// query calls f with each row, until it fails.
func (d *database) query(f func(*sql.Rows) error, query string) error {
	rows, err := d.readers.Query(query)
	if err != nil {
		return d.explain(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return d.explain(rows.Err())
}

// text is a time as it is kept.
func text(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000000000Z")
}

// moment reads a time.
type moment time.Time

func (m *moment) Scan(value any) error {
	s, _ := value.(string)
	if *m = (moment{}); s == "" {
		return nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return damaged("a time is none")
	}
	*m = moment(t)
	return nil
}

// asJSON is a list as it is kept: ” is an empty one.
func asJSON[T any](all []T) string {
	if len(all) == 0 {
		return ""
	}
	b, err := json.Marshal(all)
	if err != nil {
		panic("store: " + err.Error()) // they are strings and times
	}
	return string(b)
}

// list reads a list.
type list[T any] []T

func (l *list[T]) Scan(value any) error {
	s, _ := value.(string)
	if *l = nil; s != "" && json.Unmarshal([]byte(s), (*[]T)(l)) != nil {
		return damaged("a list is none")
	}
	return nil
}
