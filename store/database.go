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

// schema is in SQL that SQLite takes, and PostgreSQL after [forPostgres]. Times are texts
// in UTC, so that a person can read them and the database can compare them; ” is none.
const schema = `
CREATE TABLE users (
	jid       text    NOT NULL,
	items     integer NOT NULL, -- in the roster
	version   text    NOT NULL, -- of the roster
	fetched   text    NOT NULL,
	validator bytea   NOT NULL, -- bytes that a backend chose
	not_found boolean NOT NULL,
	outdated  boolean NOT NULL,
	epoch     bigint  NOT NULL,
	answered  text    NOT NULL,
	told      text    NOT NULL, -- JSON, as missed and former
	missed    text    NOT NULL,
	former    text    NOT NULL,
	unsure    boolean NOT NULL,
	seen      text    NOT NULL, -- when the row was written, or a resource left
	PRIMARY KEY (jid)
);
CREATE TABLE rosters ( -- apart from users: they are large, and change seldom
	jid      text   NOT NULL,
	roster   bytea  NOT NULL,
	checksum bigint NOT NULL,
	PRIMARY KEY (jid)
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
CREATE TABLE marks (
	jid   text NOT NULL,
	why   text NOT NULL,
	since text NOT NULL,
	PRIMARY KEY (jid)
);
CREATE TABLE meta (
	key   text NOT NULL,
	value text NOT NULL,
	PRIMARY KEY (key)
);` + since2

// since2 is what version 2 has and version 1 had not.
const since2 = `
CREATE TABLE server_rosters ( -- the server's own rosters, as they were read and written
	jid      text    NOT NULL,
	version  text    NOT NULL, -- of the roster with which it is in step
	items    integer NOT NULL, -- that it has
	checked  text    NOT NULL, -- when the server was asked for it
	writing  boolean NOT NULL, -- something was on its way to the server
	residue  text    NOT NULL, -- names the difference that the server makes by itself
	roster   bytea   NOT NULL,
	checksum bigint  NOT NULL,
	PRIMARY KEY (jid)
);`

// table is a table with its columns. So many of them as keys says are its primary key.
type table struct {
	name    string
	keys    int
	columns []string
}

var (
	users     = &table{"users", 1, []string{"jid", "items", "version", "fetched", "validator", "not_found", "outdated", "epoch", "answered", "told", "missed", "former", "unsure", "seen"}}
	rosters   = &table{"rosters", 1, []string{"jid", "roster", "checksum"}}
	resources = &table{"resources", 2, []string{"bare", "resource", "connected", "interested", "available", "stamped", "left_at"}}
	marks     = &table{"marks", 1, []string{"jid", "why", "since"}}
	meta      = &table{"meta", 1, []string{"key", "value"}}

	serverRosters = &table{"server_rosters", 1, []string{"jid", "version", "items", "checked", "writing", "residue", "roster", "checksum"}}

	tables = []*table{users, rosters, resources, marks, meta, serverRosters}
)

const (
	keyAlive    = "alive"     // in meta: when the process was, last
	keyRejected = "rejected/" // in meta, before a user: the version of the roster that was rejected
	keySweep    = "sweep/"    // in meta, before a domain: a list of one Sweep
)

// statements are those of a database.
type statements struct {
	put, delete, all map[*table]string

	alive, doubt, doubtAll, doubtServers, see, putMark, mark string
	user, gone, serverRoster, behind, withRoster             string
}

// newStatements makes the statements for the rows of a pair: the tables of PostgreSQL have
// those of many. 0 is SQLite's database, which has one's. Parameters appear in the order of
// their numbers: SQLite takes them for names.
func newStatements(pair int) *statements {
	schema, column, value, and, only := "", "", "", "", ""
	if pair != 0 {
		schema, column, value = postgresSchema+".", "pair, ", fmt.Sprint(pair, ", ")
		and, only = fmt.Sprint(" AND pair = ", pair), fmt.Sprint(" WHERE pair = ", pair)
	}
	from := func(t *table) string { // with the name of the table
		if pair == 0 {
			return t.name
		}
		return "(SELECT * FROM " + schema + t.name + only + ") AS " + t.name
	}
	s := &statements{put: make(map[*table]string), delete: make(map[*table]string), all: make(map[*table]string)}
	insert := func(t *table, update string) string {
		values := make([]string, len(t.columns))
		for i := range values {
			values[i] = fmt.Sprint("$", i+1)
		}
		return fmt.Sprintf("INSERT INTO %s%s (%s%s) VALUES (%s%s) ON CONFLICT (%s%s) DO UPDATE SET %s", schema, t.name, column, strings.Join(t.columns, ", "),
			value, strings.Join(values, ", "), column, strings.Join(t.columns[:t.keys], ", "), update)
	}
	for _, t := range tables {
		var set, where []string
		for i, name := range t.columns {
			if i < t.keys {
				where = append(where, fmt.Sprintf("%s = $%d", name, i+1))
			} else {
				set = append(set, name+" = excluded."+name)
			}
		}
		s.put[t] = insert(t, strings.Join(set, ", "))
		s.delete[t] = "DELETE FROM " + schema + t.name + " WHERE " + strings.Join(where, " AND ") + and
		s.all[t] = "SELECT " + strings.Join(t.columns, ", ") + " FROM " + from(t)
	}
	s.alive = "SELECT value FROM " + from(meta) + " WHERE key = $1"
	s.doubt = "UPDATE " + schema + "users SET unsure = true WHERE answered > $1" + and
	s.doubtAll = "UPDATE " + schema + "users SET unsure = true, answered = '', epoch = epoch + " + fmt.Sprint(epochsUnknown) + " WHERE told <> ''" + and
	s.doubtServers = "UPDATE " + schema + "server_rosters SET writing = true" + only
	s.see = "UPDATE " + schema + "users SET seen = $1 WHERE jid = $2" + and
	s.mark = "SELECT why, since FROM " + from(marks) + " WHERE jid = $1"
	s.putMark = insert(marks, "why = excluded.why")
	s.user = `SELECT users.jid, items, version, fetched, validator, not_found, outdated, epoch, answered, told, missed, former,
		unsure, roster, coalesce(rosters.checksum, 0) FROM ` + from(users) + ` LEFT JOIN ` + from(rosters) + ` ON rosters.jid = users.jid WHERE users.jid = $1`
	s.gone = `SELECT users.jid, seen, 500 + coalesce(length(rosters.roster), 0) + coalesce(length(server_rosters.roster), 0)
		FROM ` + from(users) + ` LEFT JOIN ` + from(rosters) + ` ON rosters.jid = users.jid LEFT JOIN ` + from(serverRosters) + ` ON server_rosters.jid = users.jid
		WHERE NOT EXISTS (SELECT 1 FROM ` + from(resources) + ` WHERE resources.bare = users.jid) ORDER BY seen DESC`
	s.serverRoster = s.all[serverRosters] + " WHERE jid = $1"
	// It looks at some users only, so that it does not take long.
	s.behind = `SELECT users.jid, users.version <> '' AND
		(server_rosters.jid IS NULL OR server_rosters.version <> users.version OR server_rosters.writing OR server_rosters.checked < $1)
		FROM (SELECT jid, version FROM ` + from(users) + ` WHERE jid > $2 ORDER BY jid LIMIT $3) AS users
		LEFT JOIN ` + from(serverRosters) + ` ON server_rosters.jid = users.jid ORDER BY users.jid`
	s.withRoster = "SELECT jid, version <> '' FROM " + from(users) + " WHERE jid > $1 ORDER BY jid LIMIT $2"
	return s
}

// executor executes SQL: sqlite and postgres do. It is safe for concurrent use.
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
// a text, or bytes.
type row func(dest ...any) error

// database is what is kept, in SQL. Its methods are safe for concurrent use.
type database struct {
	executor
	sql *statements
}

// lastAlive is when the process before was last alive: zero, if there was none.
func (d *database) lastAlive() (at time.Time, err error) {
	err = d.query(func(r row) error { return r((*moment)(&at)) }, d.sql.alive, keyAlive)
	return at, err
}

// commit writes changes in one transaction.
func (d *database) commit(batch []*change) error {
	return d.transact(func(exec execute) error {
		for _, c := range batch {
			if err := d.write(exec, c); err != nil {
				return err
			}
		}
		return nil
	})
}

// write writes a change.
func (d *database) write(exec execute, c *change) error {
	key := []any{c.key}
	if c.table == resources {
		user, resource, _ := strings.Cut(c.key, "/")
		key = []any{user, resource}
	}
	switch v := c.value.(type) {
	case nil:
		err := exec(d.sql.delete[c.table], key...)
		switch c.table {
		case users:
			err = errors.Join(err, exec(d.sql.delete[rosters], key...))
		case resources:
			err = errors.Join(err, exec(d.sql.see, text(c.at), key[0]))
		}
		return err
	case User:
		err := exec(d.sql.put[users], v.JID, v.Items, v.Version, text(v.Fetched), []byte(v.Validator), v.NotFound, v.Outdated, int64(v.Epoch),
			text(v.Answered), asJSON(v.Told), asJSON(v.Missed), asJSON(v.Former), v.Unsure, text(c.at))
		switch {
		case err != nil || !c.roster:
			return err
		case v.Roster == nil:
			return exec(d.sql.delete[rosters], key...)
		}
		return exec(d.sql.put[rosters], v.JID, v.Roster, checksum(v.JID, v.Roster))
	case Resource:
		return exec(d.sql.put[resources], append(key, v.Connected, v.Interested, v.Available, v.Stamped, text(v.Left))...)
	case ServerRoster:
		if v.Roster == nil {
			v.Roster = []byte{} // nil would be NULL
		}
		return exec(d.sql.put[serverRosters], v.JID, v.Version, v.Items, text(v.Checked), v.Writing, v.Residue, v.Roster, checksum(v.JID, v.Roster))
	case doubts:
		if v.all {
			if err := exec(d.sql.doubtAll); err != nil {
				return err
			}
			return exec(d.sql.doubtServers)
		}
		return exec(d.sql.doubt, text(v.since))
	case mark:
		if v.anew {
			return exec(d.sql.put[marks], c.key, v.why, text(v.since))
		}
		return exec(d.sql.putMark, c.key, v.why, text(v.since))
	default:
		return exec(d.sql.put[meta], c.key, v)
	}
}

// user reads a user.
func (d *database) user(jid string) (u User, err error) {
	err = d.query(func(r row) error {
		var epoch, sum int64
		err := r(&u.JID, &u.Items, &u.Version, (*moment)(&u.Fetched), (*chars)(&u.Validator), &u.NotFound, &u.Outdated, &epoch, (*moment)(&u.Answered),
			(*list[Told])(&u.Told), (*list[string])(&u.Missed), (*list[Former])(&u.Former), &u.Unsure, &u.Roster, &sum)
		if u.Epoch = uint64(epoch); err == nil && (u.JID != jid || u.Roster != nil && sum != checksum(jid, u.Roster)) {
			err = damaged("a checksum is wrong")
		}
		return err
	}, d.sql.user, jid)
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
	}, d.sql.serverRoster, jid)
	if err != nil {
		return ServerRoster{}, err
	}
	return r, nil
}

// behind are those of the first limit users after one whose server roster may not be in
// step, or was checked before a time, and the last one it looked at, or "" at the end.
func (d *database) behind(checkedBefore time.Time, after string, limit int) (users []string, last string, err error) {
	return d.some(limit, d.sql.behind, text(checkedBefore), after, limit)
}

// some are those users of whom a statement says so that looks at limit users, and the last one
// it looked at, or "" at the end.
func (d *database) some(limit int, statement string, args ...any) (users []string, last string, err error) {
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
	}, statement, args...)
	if n < limit {
		last = ""
	}
	return users, last, err
}

// mark is why a user is marked, and since when: "", if they are not.
func (d *database) mark(user string) (why string, since time.Time, err error) {
	err = d.query(func(r row) error { return r(&why, (*moment)(&since)) }, d.sql.mark, user)
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
	}, d.sql.all[t])
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
	}, d.sql.gone)
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

// chars reads bytes into a string.
type chars string

func (c *chars) Scan(value any) error {
	switch v := value.(type) {
	case string:
		*c = chars(v)
	case []byte:
		*c = chars(v)
	default:
		*c = ""
	}
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
