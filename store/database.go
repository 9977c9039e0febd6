package store

import (
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// version is that of the schema.
const version = 2

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
CREATE TABLE meta (key text PRIMARY KEY, value text NOT NULL);` + since2

// since2 is what version 2 has and version 1 had not.
const since2 = `
CREATE TABLE server_rosters ( -- the server's own rosters, as they were read and written
	jid      text    PRIMARY KEY,
	version  text    NOT NULL, -- of the roster with which it is in step
	items    integer NOT NULL, -- that it has
	checked  text    NOT NULL, -- when the server was asked for it
	writing  boolean NOT NULL, -- something was on its way to the server
	residue  text    NOT NULL, -- names the difference that the server makes by itself
	roster   bytea   NOT NULL,
	checksum bigint  NOT NULL
);`

// table is a table with its columns, and the statements that put and delete a row.
type table struct{ name, columns, put, delete string }

var (
	users     = newTable("users", 1, "jid", "items", "version", "fetched", "validator", "not_found", "outdated", "epoch", "answered", "told", "missed", "former", "unsure", "seen")
	rosters   = newTable("rosters", 1, "jid", "roster", "checksum")
	resources = newTable("resources", 2, "bare", "resource", "connected", "interested", "available", "stamped", "left_at")
	marks     = newTable("marks", 1, "jid", "why", "since")
	meta      = newTable("meta", 1, "key", "value")

	serverRosters = newTable("server_rosters", 1, "jid", "version", "items", "checked", "writing", "residue", "roster", "checksum")
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
	keyAlive    = "alive"     // in meta: when the process was, last
	keyRejected = "rejected/" // in meta, before a user: the version of the roster that was rejected

	// Parameters appear in the order of their numbers: SQLite takes them for names.
	doubt      = "UPDATE users SET unsure = true WHERE answered > $1"
	see        = "UPDATE users SET seen = $1 WHERE jid = $2"
	putMark    = "INSERT INTO marks (jid, why, since) VALUES ($1, $2, $3) ON CONFLICT (jid) DO UPDATE SET why = excluded.why"
	selectUser = `SELECT users.jid, items, version, fetched, validator, not_found, outdated, epoch, answered, told, missed, former,
		unsure, roster, rosters.checksum FROM users LEFT JOIN rosters ON rosters.jid = users.jid WHERE users.jid = $1`
	selectGone = `SELECT users.jid, seen, 500 + coalesce(length(rosters.roster), 0) + coalesce(length(s.roster), 0)
		FROM users LEFT JOIN rosters ON rosters.jid = users.jid LEFT JOIN server_rosters AS s ON s.jid = users.jid
		WHERE NOT EXISTS (SELECT 1 FROM resources WHERE resources.bare = users.jid) ORDER BY seen DESC`
	selectMark   = "SELECT why, since FROM marks WHERE jid = $1"
	selectServer = `SELECT jid, version, items, checked, writing, residue, roster, checksum FROM server_rosters WHERE jid = $1`
	// selectBehind looks at some users only, so that it does not take long.
	selectBehind = `SELECT users.jid, users.version <> '' AND
		(s.jid IS NULL OR s.version <> users.version OR s.writing OR s.checked < $1)
		FROM (SELECT jid, version FROM users WHERE jid > $2 ORDER BY jid LIMIT $3) AS users
		LEFT JOIN server_rosters AS s ON s.jid = users.jid ORDER BY users.jid`
)

// executor executes SQL: sqlite does. It is safe for concurrent use.
type executor interface {
	// query calls f with each row, until it fails.
	query(f func(row) error, statement string, args ...any) error
	// transact calls f, whose statements are executed in one transaction.
	transact(f func(exec execute) error) error
	// checkpoint takes what was committed before to the disk, and empties the log if it
	// is large, or if empty.
	checkpoint(empty bool) error
	// close frees all. If not well, what is in the log is left there.
	close(well bool) error
}

type execute func(statement string, args ...any) error

// row reads the columns of a row: to pointers to values, or to a [sql.Scanner], which gets
// a text.
type row func(dest ...any) error

// database is what is kept, in SQL. Its methods are safe for concurrent use.
type database struct{ executor }

// lastAlive is when the process before was last alive: zero, if there was none.
func (d *database) lastAlive() (at time.Time, err error) {
	err = d.query(func(r row) error { return r((*moment)(&at)) }, "SELECT value FROM meta WHERE key = $1", keyAlive)
	return at, err
}

// commit writes changes in one transaction.
func (d *database) commit(batch []*change) error {
	return d.transact(func(exec execute) error {
		for _, c := range batch {
			if err := c.write(exec); err != nil {
				return err
			}
		}
		return nil
	})
}

// write writes a change.
func (c *change) write(exec execute) error {
	key := []any{c.key}
	if c.table == resources {
		user, resource, _ := strings.Cut(c.key, "/")
		key = []any{user, resource}
	}
	switch v := c.value.(type) {
	case nil:
		err := exec(c.table.delete, key...)
		switch c.table {
		case users:
			err = errors.Join(err, exec(rosters.delete, key...))
		case resources:
			err = errors.Join(err, exec(see, text(c.at), key[0]))
		}
		return err
	case User:
		err := exec(users.put, v.JID, v.Items, v.Version, text(v.Fetched), v.Validator, v.NotFound, v.Outdated, int64(v.Epoch),
			text(v.Answered), asJSON(v.Told), asJSON(v.Missed), asJSON(v.Former), v.Unsure, text(c.at))
		switch {
		case err != nil || !c.roster:
			return err
		case v.Roster == nil:
			return exec(rosters.delete, key...)
		}
		return exec(rosters.put, v.JID, v.Roster, checksum(v.JID, v.Roster))
	case Resource:
		return exec(resources.put, append(key, v.Connected, v.Interested, v.Available, v.Stamped, text(v.Left))...)
	case ServerRoster:
		if v.Roster == nil {
			v.Roster = []byte{} // nil would be NULL
		}
		return exec(serverRosters.put, v.JID, v.Version, v.Items, text(v.Checked), v.Writing, v.Residue, v.Roster, checksum(v.JID, v.Roster))
	case doubtful:
		return exec(doubt, text(v.since))
	case mark:
		if v.anew {
			return exec(marks.put, c.key, v.why, text(v.since))
		}
		return exec(putMark, c.key, v.why, text(v.since))
	default:
		return exec(meta.put, c.key, v)
	}
}

// user reads a user.
func (d *database) user(jid string) (u User, err error) {
	err = d.query(func(r row) error {
		var epoch, sum int64
		err := r(&u.JID, &u.Items, &u.Version, (*moment)(&u.Fetched), &u.Validator, &u.NotFound, &u.Outdated, &epoch, (*moment)(&u.Answered),
			(*list[Told])(&u.Told), (*list[string])(&u.Missed), (*list[Former])(&u.Former), &u.Unsure, &u.Roster, &sum)
		if u.Epoch = uint64(epoch); err == nil && (u.JID != jid || u.Roster != nil && sum != checksum(jid, u.Roster)) {
			err = damaged("a checksum is wrong")
		}
		return err
	}, selectUser, jid)
	if err != nil {
		return User{}, err
	}
	return u, nil
}

// serverRoster reads what is kept of the server's own roster of a user.
func (d *database) serverRoster(jid string) (r ServerRoster, err error) {
	err = d.query(func(row row) error {
		var sum int64
		err := row(&r.JID, &r.Version, &r.Items, (*moment)(&r.Checked), &r.Writing, &r.Residue, &r.Roster, &sum)
		if err == nil && (r.JID != jid || sum != checksum(jid, r.Roster)) {
			err = damaged("a checksum is wrong")
		}
		return err
	}, selectServer, jid)
	if err != nil {
		return ServerRoster{}, err
	}
	return r, nil
}

// behind are those of the first limit users after one whose server roster may not be in
// step, or was checked before a time, and the last one it looked at, or "" at the end.
func (d *database) behind(checkedBefore time.Time, after string, limit int) (users []string, last string, err error) {
	n := 0
	err = d.query(func(r row) error {
		var is bool
		if err := r(&last, &is); err != nil {
			return err
		}
		if n++; is {
			users = append(users, last)
		}
		return nil
	}, selectBehind, text(checkedBefore), after, limit)
	if n < limit {
		last = ""
	}
	return users, last, err
}

// mark is why a user is marked, and since when: "", if they are not.
func (d *database) mark(user string) (why string, since time.Time, err error) {
	err = d.query(func(r row) error { return r(&why, (*moment)(&since)) }, selectMark, user)
	return why, since, err
}

// checksum is CRC-32C of a roster and whose it is. The file has one of each page (see
// sqlite), but by that, zeros are a page, too.
func checksum(jid string, roster []byte) int64 {
	return int64(crc32.Update(crc32.Checksum([]byte(jid), castagnoli), castagnoli, roster))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// each calls f with each key of the resources, marks or meta, and its value.
func (d *database) each(t *table, f func(key string, value any) error) error {
	return d.query(func(row row) error {
		if t == marks {
			var key string
			var m mark
			if err := row(&key, &m.why, (*moment)(&m.since)); err != nil {
				return err
			}
			return f(key, m)
		}
		if t == meta {
			var key, value string
			if err := row(&key, &value); err != nil {
				return err
			}
			return f(key, value)
		}
		var r Resource
		var user, resource string
		if err := row(&user, &resource, &r.Connected, &r.Interested, &r.Available, &r.Stamped, (*moment)(&r.Left)); err != nil {
			return err
		}
		r.JID = user + "/" + resource
		return f(r.JID, r)
	}, "SELECT "+t.columns+" FROM "+t.name)
}

// gone are the users without a resource who were seen last before a time, and of the
// others those seen longest ago, beyond limit bytes of rosters.
func (d *database) gone(before time.Time, limit int) (users []string, err error) {
	size := 0
	err = d.query(func(r row) error {
		var user string
		var seen time.Time
		var bytes int
		if err := r(&user, (*moment)(&seen), &bytes); err != nil {
			return err
		}
		if size += bytes; seen.Before(before) || size > limit {
			users = append(users, user)
		}
		return nil
	}, selectGone)
	return users, err
}

// text is a time as it is kept: with all nine digits of its nanoseconds, so that the
// earlier one is the lesser text.
func text(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	b := t.UTC().AppendFormat(make([]byte, 0, 32), time.RFC3339Nano) // has a fast path, and no zeros at the end
	if b = b[:len(b)-1]; len(b) == len("2006-01-02T15:04:05") {
		b = append(b, '.')
	}
	for len(b) < len("2006-01-02T15:04:05.000000000") {
		b = append(b, '0')
	}
	return string(append(b, 'Z'))
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
	b, err := json.Marshal(all, jsontext.AllowInvalidUTF8(true))
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
