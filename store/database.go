package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"sync"
	"time"
)

// version is that of the schema below.
const version = 1

// The schema, in SQL that SQLite and PostgreSQL both take. Times are texts in UTC,
// so that a person can read them and the database can compare them; ” is none.
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
	unsure    boolean NOT NULL,
	told      text    NOT NULL, -- JSON, as missed and former
	missed    text    NOT NULL,
	former    text    NOT NULL,
	seen      text    NOT NULL, -- when the row was written, or a resource left
	checksum  bigint  NOT NULL  -- of all but unsure and seen
);
-- Apart from users, for they are large and change seldom.
CREATE TABLE rosters (
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
CREATE TABLE marks (
	jid   text PRIMARY KEY,
	why   text NOT NULL,
	since text NOT NULL
);
CREATE TABLE meta (
	key   text PRIMARY KEY,
	value text NOT NULL
);`

const (
	tableUsers     = "users"
	tableRosters   = "rosters"
	tableResources = "resources"
	tableMarks     = "marks"
	tableMeta      = "meta"

	keyAlive = "alive" // in meta: when the process was, last
)

// unsent is how long an answer may wait to be written to the server. A stream that
// takes nothing for so long is given up.
const unsent = 30 * time.Second

// The statements that write, and those that read one row.
const (
	putUser = `INSERT INTO users (jid, items, version, fetched, validator, not_found, outdated, epoch, answered, unsure,
		told, missed, former, seen, checksum) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
		ON CONFLICT (jid) DO UPDATE SET items = excluded.items, version = excluded.version, fetched = excluded.fetched,
		validator = excluded.validator, not_found = excluded.not_found, outdated = excluded.outdated, epoch = excluded.epoch,
		answered = excluded.answered, unsure = excluded.unsure, told = excluded.told, missed = excluded.missed,
		former = excluded.former, seen = excluded.seen, checksum = excluded.checksum`
	putRoster = `INSERT INTO rosters (jid, roster, checksum) VALUES ($1, $2, $3)
		ON CONFLICT (jid) DO UPDATE SET roster = excluded.roster, checksum = excluded.checksum`
	putMark = `INSERT INTO marks (jid, why, since) VALUES ($1, $2, $3) ON CONFLICT (jid) DO UPDATE SET why = excluded.why`
	putMeta = `INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value`

	putResource = `INSERT INTO resources (bare, resource, connected, interested, available, stamped, left_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (bare, resource) DO UPDATE SET connected = excluded.connected,
		interested = excluded.interested, available = excluded.available, stamped = excluded.stamped, left_at = excluded.left_at`

	deleteUser     = `DELETE FROM users WHERE jid = $1`
	deleteRoster   = `DELETE FROM rosters WHERE jid = $1`
	deleteResource = `DELETE FROM resources WHERE bare = $1 AND resource = $2`
	deleteMark     = `DELETE FROM marks WHERE jid = $1`

	seeUser = `UPDATE users SET seen = $2 WHERE jid = $1`

	selectUser = `SELECT users.jid, items, version, fetched, validator, not_found, outdated, epoch, answered, unsure,
		told, missed, former, users.checksum, roster, rosters.checksum FROM users LEFT JOIN rosters ON rosters.jid = users.jid WHERE users.jid = $1`
)

// database is what is kept, in SQL. Its methods are safe for concurrent use, but
// that commit is for one goroutine at a time.
type database struct {
	*sqlite
	pool       *sql.DB
	writer     *sql.Conn // of commit
	statements map[string]*sql.Stmt
	readUser   *sql.Stmt
	ended      time.Time

	writing sync.Mutex // held by commit, and where it has to wait for a checkpoint
}

// openDatabase opens the database at path, and makes it if there is none.
func openDatabase(path string) (*database, error) {
	lite, pool, err := openSQLite(path)
	if err != nil {
		return nil, inFile(path, err)
	}
	d := &database{sqlite: lite, pool: pool, statements: make(map[string]*sql.Stmt)}
	if err := d.begin(); err != nil {
		err = d.explain(err)
		d.abandon()
		return nil, err
	}
	return d, nil
}

// begin sees whether all can be read, and notes what the end of the process before
// makes doubtful.
func (d *database) begin() (err error) {
	ctx := context.Background()
	if d.writer, err = d.pool.Conn(ctx); err != nil {
		return err
	}
	for _, table := range []string{tableUsers, tableRosters, tableResources, tableMarks, tableMeta} {
		var n int
		if err := d.writer.QueryRowContext(ctx, "SELECT count(*) FROM (SELECT * FROM "+table+" LIMIT 1) AS one").Scan(&n); err != nil {
			return err
		}
	}
	var alive string
	err = d.writer.QueryRowContext(ctx, "SELECT value FROM meta WHERE key = $1", keyAlive).Scan(&alive)
	switch {
	case errors.Is(err, sql.ErrNoRows): // it is new
	case err != nil:
		return err
	default:
		if d.ended, err = parseTime(alive); err != nil {
			return err
		}
		if _, err := d.writer.ExecContext(ctx, "UPDATE users SET unsure = true WHERE answered > $1", text(d.ended.Add(-unsent))); err != nil {
			return err
		}
	}
	if _, err := d.writer.ExecContext(ctx, putMeta, keyAlive, text(time.Now())); err != nil {
		return err
	}
	for _, statement := range []string{beginWriting, commitWritten, putUser, putRoster, putResource, putMark, putMeta,
		deleteUser, deleteRoster, deleteResource, deleteMark, seeUser} {
		if d.statements[statement], err = d.writer.PrepareContext(ctx, statement); err != nil {
			return err
		}
	}
	d.readUser, err = d.pool.PrepareContext(ctx, selectUser)
	return err
}

// commit writes changes in one transaction.
func (d *database) commit(batch []*change) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	err := d.exec(beginWriting)
	for i := 0; i < len(batch) && err == nil; i++ {
		err = d.write(batch[i])
	}
	if err == nil {
		err = d.exec(commitWritten)
	}
	if err != nil {
		_, _ = d.writer.ExecContext(context.Background(), "ROLLBACK") // fails if SQLite has done so itself
	}
	return d.explain(err)
}

func (d *database) exec(statement string, args ...any) error {
	_, err := d.statements[statement].ExecContext(context.Background(), args...)
	return err
}

// write writes a change.
func (d *database) write(c *change) error {
	if c.value == nil || c.anew {
		if err := d.delete(c); err != nil {
			return err
		}
	}
	switch v := c.value.(type) {
	case User:
		r := rowOf(v)
		if err := d.exec(putUser, r.jid, r.items, r.version, r.fetched, r.validator, r.notFound, r.outdated, r.epoch, r.answered,
			r.unsure, r.told, r.missed, r.former, text(c.at), r.checksum()); err != nil {
			return err
		}
		switch {
		case !c.roster:
			return nil
		case v.Roster == nil:
			return d.exec(deleteRoster, v.JID)
		}
		return d.exec(putRoster, v.JID, v.Roster, checksum(v.JID, string(v.Roster)))
	case Resource:
		bare, resource, _ := strings.Cut(v.JID, "/")
		return d.exec(putResource, bare, resource, v.Connected, v.Interested, v.Available, v.Stamped, text(v.Left))
	case mark:
		return d.exec(putMark, c.key, v.why, text(v.since))
	case string:
		return d.exec(putMeta, c.key, v)
	}
	return nil
}

// delete deletes what is kept of the key of a change.
func (d *database) delete(c *change) error {
	switch c.table {
	case tableUsers:
		return errors.Join(d.exec(deleteUser, c.key), d.exec(deleteRoster, c.key))
	case tableResources:
		bare, resource, _ := strings.Cut(c.key, "/")
		return errors.Join(d.exec(deleteResource, bare, resource), d.exec(seeUser, bare, text(c.at)))
	}
	return d.exec(deleteMark, c.key)
}

// userRow is a row of users.
type userRow struct {
	jid                         string
	items                       int
	version, fetched, validator string
	notFound, outdated          bool
	epoch                       int64
	answered                    string
	unsure                      bool
	told, missed, former        string
}

func rowOf(u User) userRow {
	return userRow{
		u.JID, u.Items, u.Version, text(u.Fetched), u.Validator, u.NotFound, u.Outdated, int64(u.Epoch), text(u.Answered), u.Unsure,
		list(u.Told), list(u.Missed), list(u.Former),
	}
}

// user is the User of a row, without their roster.
func (r *userRow) user() (u User, err error) {
	u = User{
		JID: r.jid, Items: r.items, Version: r.version, Validator: r.validator, NotFound: r.notFound, Outdated: r.outdated,
		Epoch: uint64(r.epoch), Unsure: r.unsure,
	}
	var failed [5]error
	u.Fetched, failed[0] = parseTime(r.fetched)
	u.Answered, failed[1] = parseTime(r.answered)
	u.Told, failed[2] = parseList[Told](r.told)
	u.Missed, failed[3] = parseList[string](r.missed)
	u.Former, failed[4] = parseList[Former](r.former)
	return u, errors.Join(failed[:]...)
}

func (r *userRow) checksum() int64 {
	return checksum(r.jid, r.version, r.fetched, r.validator, r.answered, r.told, r.missed, r.former,
		fmt.Sprint(r.items, r.epoch, r.notFound, r.outdated))
}

// checksum is CRC-32C of some texts. SQLite has no checksums, and finds only damage
// that makes nonsense of its own structures.
func checksum(texts ...string) int64 {
	var b []byte
	for _, s := range texts {
		b = append(append(b, s...), 0)
	}
	return int64(crc32.Checksum(b, castagnoli))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// user reads a user.
func (d *database) user(jid string) (User, error) {
	var r userRow
	var roster []byte
	var sum, rosterSum sql.NullInt64
	err := d.readUser.QueryRowContext(context.Background(), jid).Scan(&r.jid, &r.items, &r.version, &r.fetched, &r.validator,
		&r.notFound, &r.outdated, &r.epoch, &r.answered, &r.unsure, &r.told, &r.missed, &r.former, &sum, &roster, &rosterSum)
	if errors.Is(err, sql.ErrNoRows) {
		return User{}, nil
	}
	if err == nil && (r.jid != jid || sum.Int64 != r.checksum() || roster != nil && rosterSum.Int64 != checksum(jid, string(roster))) {
		err = damaged("the checksum of a user is wrong")
	}
	if err != nil {
		return User{}, d.explain(err)
	}
	u, err := r.user()
	u.Roster = roster
	return u, d.explain(err)
}

// each calls f with each key of the resources or marks, and its value.
func (d *database) each(table string, f func(key string, value any) error) error {
	query, scan := "SELECT bare, resource, connected, interested, available, stamped, left_at FROM resources", scanResource
	if table == tableMarks {
		query, scan = "SELECT jid, why, since FROM marks", scanMark
	}
	rows, err := d.pool.Query(query)
	if err != nil {
		return d.explain(err)
	}
	defer rows.Close()
	for rows.Next() {
		key, value, err := scan(rows)
		if err != nil {
			return d.explain(err)
		}
		if err := f(key, value); err != nil {
			return err
		}
	}
	return d.explain(rows.Err())
}

func scanResource(rows *sql.Rows) (key string, value any, err error) {
	var r Resource
	var bare, resource, left string
	if err := rows.Scan(&bare, &resource, &r.Connected, &r.Interested, &r.Available, &r.Stamped, &left); err != nil {
		return "", nil, err
	}
	r.JID = bare + "/" + resource
	r.Left, err = parseTime(left)
	return r.JID, r, err
}

func scanMark(rows *sql.Rows) (key string, value any, err error) {
	var m mark
	var since string
	if err := rows.Scan(&key, &m.why, &since); err != nil {
		return "", nil, err
	}
	m.since, err = parseTime(since)
	return key, m, err
}

// unseen are the users without a resource who were seen last before a time.
func (d *database) unseen(before time.Time) ([]string, error) {
	rows, err := d.pool.Query(`SELECT jid FROM users WHERE seen < $1
		AND NOT EXISTS (SELECT 1 FROM resources WHERE resources.bare = users.jid)`, text(before))
	if err != nil {
		return nil, d.explain(err)
	}
	defer rows.Close()
	var users []string
	for rows.Next() {
		var user string
		if err := rows.Scan(&user); err != nil {
			return nil, d.explain(err)
		}
		users = append(users, user)
	}
	return users, d.explain(rows.Err())
}

// text is a time as it is kept.
func text(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

func parseTime(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, damaged("a time in it is none")
	}
	return t, nil
}

// list is a list as it is kept: JSON, or nothing, if it is empty.
func list[T any](all []T) string {
	if len(all) == 0 {
		return ""
	}
	b, err := json.Marshal(all)
	if err != nil {
		panic("store: " + err.Error()) // strings and times that exist
	}
	return string(b)
}

func parseList[T any](s string) (all []T, err error) {
	if s == "" {
		return nil, nil
	}
	if err := json.Unmarshal([]byte(s), &all); err != nil {
		return nil, damaged("a list in it is none")
	}
	return all, nil
}
