package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// postgresSchema has all tables of rosterd, those of many pairs.
const postgresSchema = "rosterd"

const (
	// answerWithin is how long the database may take for one answer, or between two rows of
	// it; scanWithin, if it has to look at all rows first.
	answerWithin = 5 * time.Second
	scanWithin   = time.Minute
	endWithin    = 2 * time.Second // instead of either, once this instance ends
	connections  = 4               // beside the one with the lock
)

// forPostgres makes schema one of PostgreSQL's: each row is some pair's, and texts are
// compared by their bytes, whatever the language of the database.
var forPostgres = strings.NewReplacer(
	"CREATE TABLE ", "CREATE TABLE "+postgresSchema+".",
	"\tPRIMARY KEY (", "\tpair integer NOT NULL,\n\tPRIMARY KEY (pair, ",
	" text ", ` text COLLATE "C" `)

// pairSchema is what SQLite's database has no need of.
//
// Each transaction begins with a call of write_as, which lets only the present term write.
// It also takes the row's lock: who begins a term waits for a transaction of the one before,
// or the other way round.
const pairSchema = `
CREATE TABLE rosterd.version (version integer NOT NULL);
CREATE TABLE rosterd.pairs (
	pair    integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	domain  text    NOT NULL UNIQUE, -- of the component
	term    bigint  NOT NULL DEFAULT 0, -- grows with each instance that becomes active
	active  text    NOT NULL DEFAULT '', -- how the other reaches the one that is
	since   timestamptz, -- when the term began
	written timestamptz, -- when it wrote last
	ended   boolean NOT NULL DEFAULT true -- in order: nothing is left to be written
);
CREATE TABLE rosterd.entered ( -- who is to be refreshed, as the one says that stands by
	pair integer NOT NULL,
	jid  text COLLATE "C" NOT NULL,
	id   bigint GENERATED ALWAYS AS IDENTITY, -- another one, when they are entered again
	PRIMARY KEY (pair, jid)
);
CREATE FUNCTION rosterd.write_as(its_pair integer, its_term bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	UPDATE rosterd.pairs SET written = clock_timestamp() WHERE pair = its_pair AND term = its_term;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'the term % of pair % is over', its_term, its_pair USING ERRCODE = 'RO001';
	END IF;
END $$;
ALTER TABLE rosterd.rosters ALTER roster SET STORAGE EXTERNAL; -- they are compressed
ALTER TABLE rosterd.server_rosters ALTER roster SET STORAGE EXTERNAL;`

// codeSuperseded is what write_as raises.
const codeSuperseded = "RO001"

// codeReadOnly is what a server raises that cannot be written at present.
const codeReadOnly = "25006"

// ErrSuperseded is why an instance that was active writes nothing any more.
var ErrSuperseded = errors.New("another instance has become the active one")

// ensure makes the schema, if there is none, and returns the number of a pair.
func ensure(ctx context.Context, c *pgx.Conn, domain string) (pair int, err error) {
	err = pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		// Two instances that start at a time.
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1, 0)", lockClass); err != nil {
			return err
		}
		var there bool
		if err := tx.QueryRow(ctx, "SELECT to_regclass('rosterd.version') IS NOT NULL").Scan(&there); err != nil {
			return err
		}
		if !there {
			// IF NOT EXISTS would want the right to make one, even if somebody else has made it.
			all := fmt.Sprintf("DO $$ BEGIN IF to_regnamespace('%[1]s') IS NULL THEN CREATE SCHEMA %[1]s; END IF; END $$;%[2]s;%[3]s;INSERT INTO rosterd.version VALUES (%[4]d)", postgresSchema, forPostgres.Replace(schema), pairSchema, version)
			if _, err := tx.Exec(ctx, all); err != nil {
				return err
			}
		}
		var known int
		if err := tx.QueryRow(ctx, "SELECT version FROM rosterd.version").Scan(&known); err != nil {
			return err
		}
		if known > version {
			return fmt.Errorf("%w (format %d, this one knows %d)", ErrNewer, known, version)
		}
		err := tx.QueryRow(ctx, "SELECT pair FROM rosterd.pairs WHERE domain = $1", domain).Scan(&pair)
		if errors.Is(err, pgx.ErrNoRows) {
			err = tx.QueryRow(ctx, "INSERT INTO rosterd.pairs (domain) VALUES ($1) RETURNING pair", domain).Scan(&pair)
		}
		return err
	})
	return pair, err
}

// configure is how the database is connected to. A machine that vanishes is noticed within some 10 s, by either side,
// and so is a process that does not go on with a transaction. Of several servers that the URL
// names, each is tried, whatever it says of them: only one that can be written is good.
func (p *Pair) configure(c *pgx.ConnConfig) {
	if c.ConnectTimeout == 0 { // of each server
		c.ConnectTimeout = answerWithin / time.Duration(len(hosts(c)))
	}
	for parameter, value := range map[string]string{
		"tcp_keepalives_idle": "4", "tcp_keepalives_interval": "2", "tcp_keepalives_count": "3", "tcp_user_timeout": "10000",
	} {
		c.RuntimeParams[parameter] = value
	}
	maps.Copy(c.RuntimeParams, wanted)
	c.ValidateConnect = p.validate
	closes := c.OnPgError
	c.OnPgError = func(on *pgconn.PgConn, err *pgconn.PgError) (goesOn bool) {
		return err.Code != codeReadOnly && closes(on, err) // the next connection may be to a server that can be written
	}
	c.DialFunc = (&net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 4 * time.Second, Interval: 2 * time.Second, Count: 3}, Control: setUserTimeout,
	}).DialContext
}

// wanted are the parameters that a server has to have taken, as pg_settings has them. The lock
// depends on the first.
var wanted = map[string]string{
	"idle_in_transaction_session_timeout": strconv.FormatInt(leaseFor.Milliseconds(), 10),
	"lock_timeout":                        "4000",
	"default_transaction_isolation":       "read committed", // each statement sees what was committed before it
}

// hosts are the servers that a URL names.
func hosts(c *pgx.ConnConfig) (all []string) {
	add := func(host string, port uint16) {
		if one := net.JoinHostPort(host, strconv.Itoa(int(port))); !slices.Contains(all, one) { // once with TLS, and once without
			all = append(all, one)
		}
	}
	add(c.Host, c.Port)
	for _, f := range c.Fallbacks {
		add(f.Host, f.Port)
	}
	return all
}

// validate fails if a server cannot be used. A replica would give out the lock, too: it is not
// the same one as the primary's.
func (p *Pair) validate(ctx context.Context, c *pgconn.PgConn) error {
	results, err := c.Exec(ctx, "SELECT name, setting FROM pg_settings").ReadAll()
	if err != nil {
		return err
	}
	settings := make(map[string]string)
	for _, row := range results[0].Rows {
		settings[string(row[0])] = string(row[1])
	}
	if server, _ := strconv.Atoi(settings["server_version_num"]); server < p.oldest {
		return fmt.Errorf("PostgreSQL %d %w: %d or later is needed", server/10000, ErrTooOld, p.oldest/10000)
	}
	if settings["transaction_read_only"] != "off" {
		return ErrReadOnly
	}
	for _, parameter := range slices.Sorted(maps.Keys(wanted)) {
		if has := settings[parameter]; has != wanted[parameter] {
			return fmt.Errorf("%s is %s there, and not %s: %w", parameter, has, wanted[parameter], ErrPooled)
		}
	}
	return nil
}

// explain is an error as an administrator sees it. It has nothing of the URL but the
// database's name and where it is.
func explain(where string, err error) error {
	if err == nil {
		return nil
	}
	if ofServer, ok := errors.AsType[*pgconn.PgError](err); ok {
		if ofServer.Code == codeSuperseded {
			return ErrSuperseded
		}
		if ofServer.Code == "42501" && strings.Contains(ofServer.Message, "for database") {
			return fmt.Errorf("database %s: %s: the role has to be allowed to make the schema %[3]s (GRANT CREATE ON DATABASE), or to have it made (CREATE SCHEMA %[3]s AUTHORIZATION)", where, ofServer.Message, postgresSchema)
		}
	}
	away := isAway(err)
	if failed, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		err = oneLine{errors.Unwrap(failed)} // without the user's name, and all addresses once more
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("database %s does not answer", where)
	} else {
		err = fmt.Errorf("database %s: %w", where, err)
	}
	switch {
	case away:
		return kindError{err, ErrAway}
	case code(err) == "42501":
		return kindError{err, ErrForbidden}
	}
	return err
}

// ErrAway is what errors are that may be none the next time: the database cannot be reached,
// does not answer, or lacks something at present.
var ErrAway = errors.New("the database is away")

// ErrReadOnly is what a server is that cannot be written, and that no instance uses.
var ErrReadOnly = errors.New("the server is read-only: it is a replica, or default_transaction_read_only is on")

// ErrPooled is what a connection is whose parameters do not reach the server.
var ErrPooled = errors.New("a pooler (PgBouncer) stands between and keeps it from PostgreSQL, and who is paused would keep the lock")

// minVersion is the oldest PostgreSQL that is good, as server_version_num.
const minVersion = 130000

// ErrTooOld is what a PostgreSQL is that has not all that is needed.
var ErrTooOld = errors.New("is too old")

// ErrForbidden is what errors are of a role that lacks rights.
var ErrForbidden = errors.New("the role lacks rights")

// oneLine is an error of several tries, with and without TLS for instance, as one line.
type oneLine struct{ error }

func (o oneLine) Unwrap() error { return o.error }
func (o oneLine) Error() string {
	said := strings.ReplaceAll(o.error.Error(), "ValidateConnect failed: ", "")
	return strings.Join(slices.Compact(strings.Split(said, "\n")), ", ")
}

// kindError is an error that is ErrAway or ErrForbidden, too, and does not say so.
type kindError struct {
	error
	kind error
}

func (e kindError) Unwrap() error        { return e.error }
func (e kindError) Is(target error) bool { return target == e.kind }

// isAway reports whether an error is ErrAway: what the server says by its class (PostgreSQL,
// appendix A), or the connection.
func isAway(err error) bool {
	ofServer, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return true
	}
	switch ofServer.Code[:min(2, len(ofServer.Code))] {
	case "08", "40", "53", "55", "57": // connection, rolled back, lacks resources, locked, an operator
		return true
	}
	return ofServer.Code == "25P03" || ofServer.Code == codeReadOnly // 25P03: idle in a transaction for too long
}

// postgres is a database of a pair, as the active instance of a term writes it.
type postgres struct {
	pool  *pgxpool.Pool
	where string
	grace *grace
	pair  int
	term  int64
	since time.Time // when it began

	closed atomic.Bool
}

func (p *postgres) query(f func(row) error, statement string, args ...any) error {
	ctx, cancel := context.WithCancelCause(p.grace.over)
	defer cancel(nil)
	defer p.grace.limit(ctx, func() { cancel(context.DeadlineExceeded) })()
	first := answerWithin
	if len(args) == 0 { // of all rows
		first = scanWithin
	}
	patience := time.AfterFunc(first, func() { cancel(context.DeadlineExceeded) })
	defer patience.Stop()
	rows, err := p.pool.Query(ctx, statement, storable(args)...)
	if err == nil {
		defer rows.Close()
		for rows.Next() {
			patience.Reset(answerWithin)
			if err := f(rows.Scan); err != nil {
				return p.ofRow(err)
			}
		}
		err = rows.Err()
	}
	return p.explain(ctx, err)
}

// ofRow is an error of who reads a row, with the database's name if it is one of reading.
func (p *postgres) ofRow(err error) error {
	if known, ok := errors.AsType[unusable](err); ok {
		return fmt.Errorf("database %s: a row %w", p.where, known)
	}
	if unread, ok := errors.AsType[pgx.ScanArgError](err); ok {
		return p.ofRow(damaged(unread.Error()))
	}
	return err
}

func (p *postgres) explain(ctx context.Context, err error) error {
	if err != nil && context.Cause(ctx) == context.DeadlineExceeded {
		err = context.DeadlineExceeded
	}
	if err != nil && p.closed.Load() {
		return ErrClosed
	}
	return explain(p.where, err)
}

// transact sends all statements at once: they are one transaction.
func (p *postgres) transact(f func(execute) error) error {
	ctx, cancel := context.WithTimeout(p.grace.over, answerWithin)
	defer cancel()
	defer p.grace.limit(ctx, p.grace.giveUp)()
	var batch pgx.Batch
	// write_as takes no term that is null: of another one with the same number, see [Lease.is].
	batch.Queue("SELECT rosterd.write_as($1, (SELECT term FROM rosterd.pairs WHERE pair = $1 AND term = $2 AND since = $3))", p.pair, p.term, p.since)
	err := f(func(statement string, args ...any) error {
		batch.Queue(statement, storable(args)...)
		return nil
	})
	if err != nil {
		return err
	}
	results := p.pool.SendBatch(ctx, &batch)
	for range batch.Len() {
		if _, err = results.Exec(); err != nil {
			break
		}
	}
	if closed := results.Close(); err == nil {
		err = closed
	}
	return p.explain(ctx, err)
}

// storable replaces what PostgreSQL takes in no text: one such row would keep all others
// from being written. Names of users and resources never have it.
func storable(args []any) []any {
	for i, arg := range args {
		if s, is := arg.(string); is {
			args[i] = strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", "\uFFFD"), "\uFFFD")
		}
	}
	return args
}

// checkpoint is the server's own.
func (p *postgres) checkpoint(bool) error { return nil }

func (p *postgres) close(bool) error {
	p.closed.Store(true)
	p.grace.closePool(p.pool)
	return nil
}

// grace is how long the database is waited for when this instance ends: endWithin for each
// answer. When a write was not answered for so long, nothing is asked any more. Its methods are
// safe for concurrent use.
type grace struct {
	ending context.Context // ends when this instance does
	end    context.CancelFunc
	over   context.Context // ends when nothing is asked any more
	cancel context.CancelCauseFunc
}

func newGrace() *grace {
	g := new(grace)
	g.ending, g.end = context.WithCancel(context.Background())
	g.over, g.cancel = context.WithCancelCause(context.Background())
	return g
}

func (g *grace) giveUp() { g.cancel(context.DeadlineExceeded) }

// limit has f called if ctx, that of a question, has not ended endWithin after this instance
// began to end. The caller calls stop, and ends ctx, when it is answered.
func (g *grace) limit(ctx context.Context, f func()) (stop func() bool) {
	return context.AfterFunc(g.ending, func() {
		select {
		case <-ctx.Done():
		case <-time.After(endWithin):
			f()
		}
	})
}

// closePool closes a pool when all of its connections are free. A database that says nothing
// would have it wait for 15 s: it waits for 1 s at most, and the rest ends by itself.
func (g *grace) closePool(p *pgxpool.Pool) {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		p.Close()
	}()
	select {
	case <-closed:
	case <-g.over.Done():
	case <-time.After(time.Second):
	}
}
